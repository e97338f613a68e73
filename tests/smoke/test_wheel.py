"""The wheel as a user gets it: installed into an empty environment, used from another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment import Environment, new_folder, of_process
from tests.programs import WebProcess, WorkerProcess

REPOSITORY = Path(__file__).parents[2]

#: Everything a user does, in the words of the README.
SCRIPT = """
from textgen.tasks import generate
print(generate.delay("Hello from elsewhere").get(timeout=30))
"""

ORIGIN = "import textgen, web, celeryconfig; print(textgen.__file__, web.__file__, celeryconfig.__file__)"


@pytest.fixture(autouse=True)
def _no_other_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the checkout may be found through this process's environment."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel, built from a copy of the tree, so that nothing is left in it."""
    copy, built = new_folder("tree") / "textgen", new_folder("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy / name)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(built), str(copy))
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """The Python of an empty environment into which nothing but the wheel was installed."""
    folder = new_folder("venv")
    venv.create(folder, with_pip=True)
    program = folder / "bin" / "python"
    run(str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel))
    return program


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return str(done.stdout)


def test_the_wheel_carries_the_scripts_and_no_tests(wheel: Path) -> None:
    names = run(sys.executable, "-m", "zipfile", "-l", str(wheel))

    assert "textgen/store/lua/claim.lua" in names
    assert "celeryconfig.py" in names
    assert "web.py" in names
    assert "tests/" not in names


def test_everything_comes_from_the_wheel(python: Path) -> None:
    found = run(str(python), "-c", ORIGIN, cwd=new_folder("elsewhere")).split()

    assert [Path(file).is_relative_to(python.parents[1]) for file in found] == [True] * 3


def test_the_installed_requirements_fit_together(python: Path) -> None:
    run(str(python), "-m", "pip", "check")


def test_delay_works_from_another_folder(
    python: Path, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env, folder = stack_env("valkey"), new_folder("elsewhere")
    start_worker(env, cwd=folder, python=str(python)).wait_ready()

    printed = run(str(python), "-c", SCRIPT, cwd=folder, env=of_process(env), timeout=60)

    assert len(printed.split()) > 5, "it is the text"


def test_the_web_app_serves_from_another_folder(
    python: Path, stack_env: Callable[..., Environment], start_web: Callable[..., WebProcess]
) -> None:
    env, folder = stack_env("valkey"), new_folder("elsewhere")

    run(str(python), "-m", "gunicorn", "--check-config", "web:app", cwd=folder, env=of_process(env))
    assert start_web(env, cwd=folder, python=str(python)).answers()


def test_the_command_is_installed(python: Path) -> None:
    assert "single" in run(str(python.with_name("textgen")), "--help", cwd=new_folder("elsewhere"))
