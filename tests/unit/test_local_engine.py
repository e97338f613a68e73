"""What only the local engine promises, on the real model."""

from __future__ import annotations

import _thread
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.unit.generation import answer, answers, begun, model_file, pieces_of, request
from textgen.engines import Chunk, Finish, local
from textgen.engines.base import PULSE
from textgen.engines.local import LocalEngine
from textgen.errors import PermanentEngineError
from textgen.settings import Settings

#: Beginning of the programs that run the engine in a process of their own.
PROGRAM = """
import os, sys
import structlog
from tests.unit.generation import answer, begun, request
from textgen.engines.local import LocalEngine
from textgen.settings import Settings
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
assert "xllamacpp" not in sys.modules
engine = LocalEngine(Settings(local_model=sys.argv[1], local_context=512, concurrency=3))
"""


def small(**settings: object) -> LocalEngine:
    fields = {"local_model": str(model_file()), "local_context": 256, "concurrency": 1} | settings
    return LocalEngine(Settings.model_validate(fields))


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    made = small()
    made.setup()
    return made


def run(program: str, first: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", first + PROGRAM + program, str(model_file())]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_finish_names_the_model(engine: LocalEngine) -> None:
    found = answer(engine, request(model="smollm2-135m-instruct"))
    assert found.finish.model == "smollm2-135m-instruct"


def test_another_model_is_refused_with_the_name_of_the_one_there_is(engine: LocalEngine) -> None:
    with pytest.raises(PermanentEngineError, match="'smollm2-135m-instruct' and no other"):
        answer(engine, request(model="gpt-9"))


def test_too_long_a_prompt_is_refused_with_its_size_and_the_limit(engine: LocalEngine) -> None:
    with pytest.raises(PermanentEngineError, match=r"prompt has \d{3} tokens, over the model's limit of 256"):
        answer(engine, request("word " * 300))
    assert answer(engine, request()).text


def test_a_text_that_fills_the_context_ends_with_reason_length(engine: LocalEngine) -> None:
    found = answer(engine, request("Tell a very long story.", max_tokens=1000, stop=()))
    usage = found.finish.usage
    assert found.finish.reason == "length"
    assert usage.prompt_tokens + usage.completion_tokens <= 257


def test_a_character_of_several_tokens_comes_whole_with_their_number(engine: LocalEngine) -> None:
    found = answer(engine, request("Translate into Chinese: good morning", max_tokens=40, temperature=0.0))
    assert found.finish.usage.completion_tokens == 40
    assert max(chunk.tokens for chunk in found.chunks) > 1
    assert 40 - 2 <= sum(chunk.tokens for chunk in found.chunks) <= 40
    assert "\ufffd" not in found.text


def test_what_is_over_the_slots_waits_outside_the_runtime(engine: LocalEngine) -> None:
    with closing(begun(engine, request("Tell a long story.", max_tokens=200))):
        running = _thread._count()
        waiting = pieces_of(engine, request())
        assert next(waiting) == PULSE
        assert _thread._count() <= running
        waiting.close()
    assert answer(engine, request()).text


def test_more_requests_than_slots_are_all_served(engine: LocalEngine) -> None:
    found = answers(engine, [request(f"Name the number {n}.") for n in range(4)])
    assert all(one.text for one in found)


def test_the_same_seed_gives_the_same_text_beside_others() -> None:
    busy = small(concurrency=4)
    busy.setup()
    alone = answer(busy, request(temperature=0.8)).text
    crowd = [request(temperature=0.8), *(request(f"Name the number {n}.") for n in range(3))]
    assert answers(busy, crowd)[0].text == alone


def test_a_long_prompt_does_not_hold_up_the_texts_of_others() -> None:
    busy = small(concurrency=2, local_context=1024)
    busy.setup()
    meanwhile = 0
    with (
        closing(begun(busy, request("Tell a long story.", max_tokens=900))) as told,
        ThreadPoolExecutor(1) as pool,
    ):
        read = pool.submit(lambda: begun(busy, request("word " * 800)).close())
        while not read.done():
            meanwhile += bool(getattr(next(told), "text", ""))
    assert meanwhile >= 4


def cached_tokens(engine: LocalEngine, prompt: str) -> int:
    """How many tokens of a prompt the runtime did not read again."""
    usages = []

    def take(piece: dict[str, Any]) -> bool:
        usages.append(piece.get("usage"))
        return False

    body = local._body(request(prompt, seed=None, temperature=0.8, max_tokens=2))
    engine._server.handle_chat_completions(body, take)
    return int(usages[-1]["prompt_tokens_details"]["cached_tokens"])


def test_what_a_prompt_has_in_common_with_the_one_before_is_not_read_again(engine: LocalEngine) -> None:
    document = "A long document about rivers. " * 20
    cached_tokens(engine, f"{document} Name one.")
    assert cached_tokens(engine, f"{document} How many are there?") > 100
    assert cached_tokens(engine, f"Now for something else: {document}") < 50


def test_at_its_load_it_tells_how_memory_and_context_are_split() -> None:
    with structlog.testing.capture_logs() as lines:
        small(concurrency=3, local_context=512, workers=64).setup()
    [line] = [line for line in lines if line["event"] == "local model loaded"]
    split = {name: line[name] for name in ("model", "slots", "context_of_each", "context", "threads")}
    assert split == {
        "model": "smollm2-135m-instruct",
        "slots": 3,
        "context_of_each": 512,
        "context": 3 * 512,
        "threads": 1,
    }
    before, after = map(int, re.findall(r"\d+", line["memory_mib"]))
    assert after > before


def test_any_gguf_file_can_be_the_model(tmp_path: Path) -> None:
    other = tmp_path / "Other-Model.Q4.gguf"
    other.symlink_to(model_file())
    engine = small(local_model=str(other))
    engine.setup()
    assert answer(engine, request(model="other-model.q4")).finish.model == "other-model.q4"


def test_the_runtimes_own_port_lets_nobody_in(engine: LocalEngine) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{engine._server.listening_address}/v1/models", timeout=10)
    refused.value.close()
    assert refused.value.code == 401


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_a_truncated_model_is_a_permanent_error_that_names_the_file(tmp_path: Path, size: int) -> None:
    broken = tmp_path / "broken.gguf"
    with model_file().open("rb") as whole:
        broken.write_bytes(whole.read(size))
    with pytest.raises(PermanentEngineError, match=r"broken\.gguf cannot be loaded"):
        small(local_model=str(broken)).setup()


def test_a_file_that_is_no_model_is_a_permanent_error(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(os.urandom(100_000))
    with pytest.raises(PermanentEngineError, match=r"other\.gguf cannot be loaded"):
        small(local_model=str(other)).setup()


def test_without_a_model_it_says_how_to_get_one(tmp_path: Path) -> None:
    absent = small(local_model=str(tmp_path / "absent.gguf"))
    assert "textgen fetch-model" in (absent.missing(absent.settings) or "")
    with pytest.raises(PermanentEngineError, match=r"absent\.gguf"):
        absent.setup()


def test_without_its_runtime_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "textgen[local]"' in (LocalEngine.missing(Settings()) or "")


def test_a_process_that_ends_midway_ends_in_peace() -> None:
    done = run(
        "engine.setup(); left = [begun(engine, request(max_tokens=400)) for _ in range(3)]; print('ends')"
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_it_works_in_a_forked_child() -> None:
    done = run(
        """
pid = os.fork()
if not pid:
    engine.setup()
    print(answer(engine, request()).finish.reason, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert (done.returncode, done.stdout) == (0, "length\n"), done.stderr


def test_each_forked_child_sets_up_an_engine_of_its_own() -> None:
    done = run(
        """
from textgen.engines import get_engine
os.environ |= {"TEXTGEN_LOCAL_MODEL": sys.argv[1], "TEXTGEN_LOCAL_CONTEXT": "512"}
mock = get_engine("mock")
pids = []
for _ in range(2):
    pids.append(os.fork())
    if not pids[-1]:
        assert get_engine("mock") is not mock
        assert get_engine("local") is get_engine("local")
        print(answer(get_engine("local"), request()).finish.reason, flush=True)
        os._exit(0)
print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""
    )
    assert (done.returncode, done.stdout) == (0, "length\nlength\n0 0\n"), done.stderr


def test_under_gevent_other_greenlets_run_while_it_generates() -> None:
    done = run(
        """
import gevent
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.005)
engine.setup()
ticking = gevent.spawn(tick)
found = [gevent.spawn(answer, engine, request(f"Story {n}", max_tokens=40)) for n in range(5)]
gevent.joinall(found, raise_error=True)
print(sum(bool(one.value.finish) for one in found), len(ticks) > 20)
""",
        first="from gevent import monkey; monkey.patch_all()",
    )
    assert (done.returncode, done.stdout) == (0, "5 True\n"), done.stderr


def test_pieces_are_chunks_then_a_finish_for_a_prompt_of_many_scripts(engine: LocalEngine) -> None:
    found = answer(engine, request("שלום, こんにちは, 🙂‍↔️ and \u202eabc", max_tokens=20))
    assert all(isinstance(piece, Chunk) for piece in found.pieces[:-1])
    assert isinstance(found.pieces[-1], Finish)
