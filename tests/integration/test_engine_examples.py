"""The engines that the documentation shows, installed as the packages they say they are, and generating."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.environment import Environment, new_folder, of_process
from tests.integration.terminals import documents, textgen
from textgen.engines import EngineRequest
from textgen.errors import EngineUnusable
from textgen.settings import Settings

ROOT = Path(__file__).parents[2]
#: A block of code whose first line names its file.
FILE = re.compile(r"```(?:python|toml)\n# (\S+)[^\n]*\n(.*?)```", re.DOTALL)


class _Mine(BaseHTTPRequestHandler):
    """A server that streams text, as the example expects one."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("X-Prompt-Tokens", "3")
        self.end_headers()
        for word in (b"The ", b"sea."):
            self.wfile.write(word)
            self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def mine() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Mine)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def installed(document: Path) -> Path:
    """A folder in which the package that `document` shows is installed by pip."""
    package, target = new_folder("example"), new_folder("installed")
    files = dict(FILE.findall(document.read_text()))
    names = ("echo_engine.py" if document.name == "README.md" else "my_engine.py", "pyproject.toml")
    for name in names:
        (package / name).write_text(files[name])
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--target", str(target), str(package)]
    subprocess.run(command, check=True, env=of_process({}), timeout=180)
    return target


def test_the_engine_in_the_documentation_has_fewer_than_forty_lines() -> None:
    code = dict(FILE.findall((ROOT / "docs" / "engines.md").read_text()))["my_engine.py"]
    assert len(code.splitlines()) < 40


def test_the_engine_in_the_documentation_refuses_what_it_cannot_follow(
    mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE_URL", mine)
    namespace: dict[str, Any] = {}
    exec(dict(FILE.findall((ROOT / "docs" / "engines.md").read_text()))["my_engine.py"], namespace)
    engine = namespace["MineEngine"](Settings())
    engine.setup()
    plain = EngineRequest("t", 1, ({"role": "user", "content": "Hi"},), max_tokens=8)
    *_, finish = engine.generate(plain)
    assert finish.usage.prompt_tokens == 3
    for asked in ({"temperature": 0.0}, {"seed": 0}, {"stop": ("x",)}, {"model": "m"}):
        with pytest.raises(EngineUnusable):
            next(engine.generate(replace(plain, **asked)))


def test_the_engine_in_the_readme_says_that_max_tokens_ended_its_text() -> None:
    namespace: dict[str, Any] = {}
    exec(dict(FILE.findall((ROOT / "README.md").read_text()))["echo_engine.py"], namespace)
    request = EngineRequest("t", 1, ({"role": "user", "content": "Say after me"},), max_tokens=2)
    for max_tokens, reason in ((2, "length"), (3, "stop")):
        *_, finish = namespace["EchoEngine"](Settings()).generate(replace(request, max_tokens=max_tokens))
        assert (finish.reason, finish.usage.prompt_tokens) == (reason, 3)


@pytest.mark.parametrize(
    ("document", "engine", "text"),
    [("docs/engines.md", "mine", "The sea."), ("README.md", "echo", "Say after me")],
)
def test_an_engine_of_the_documentation_generates_through_a_worker(
    document: str,
    engine: str,
    text: str,
    mine: str,
    stack_env: Callable[..., Environment],
    start_worker: Callable[..., Any],
) -> None:
    path = os.pathsep.join(filter(None, [str(installed(ROOT / document)), os.environ.get("PYTHONPATH")]))
    env = stack_env("valkey", PYTHONPATH=path, MINE_URL=mine, TEXTGEN_ENGINE="mock")
    start_worker(env, "threads", 2).wait_ready()
    run = textgen(env, "single", "Say after me", "--engine", engine, "--json")
    assert run.returncode == 0, run.stderr
    [record] = documents(run)
    assert (record["status"], record["engine"], record["result"].strip()) == ("COMPLETED", engine, text)
    [rows] = documents(textgen(env, "engines", "--json"))
    assert next(row["ready"] for row in rows if row["name"] == engine)


def test_without_its_server_the_engine_says_which_setting_it_needs(
    stack_env: Callable[..., Environment],
) -> None:
    env = stack_env("valkey", PYTHONPATH=str(installed(ROOT / "docs" / "engines.md")))
    [rows] = documents(textgen(env, "engines", "--json"))
    assert "set MINE_URL" in next(row["why"] for row in rows if row["name"] == "mine")
