"""What is to run for a set of options: processes, their environment, and where they are reached."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from textgen import exposure, routes
from textgen.engines import engine_class
from textgen.errors import ConfigurationError
from textgen.settings import get_settings, variable
from textgen.stack import embedded
from textgen.stack.child import Role
from textgen.stack.embedded import BROKER_DB, STORE_DB, EmbeddedServer
from textgen.stack.options import Options, given_connection
from textgen.stack.ports import bracketed, settle_port, url_of

#: Flower shows what everybody submits, so it never listens beyond this machine.
FLOWER_HOST = "127.0.0.1"
#: Seconds that the web app's open requests get at a stop.
WEB_GRACE_S = 5
#: Seconds beyond its own grace after which a process is killed.
MARGIN_S = 10.0
#: What `web:app` is, by a name that no `web.py` in the working directory can take.
WEB_APP = "textgen.http:create_app()"
#: Order of stopping: nothing new comes in, then running tasks end, then their server does.
STAGES = {"web": 0, "flower": 1, "worker": 2, "valkey": 3}


@dataclass(frozen=True)
class Plan:
    """A stack that could be started."""

    state_dir: Path
    roles: tuple[Role, ...]
    #: Environment variables of every process, over this one's own.
    env: Mapping[str, str]
    web: str
    flower: str
    broker_url: str
    redis_url: str
    engine: str
    #: Node names of the workers, by the names of their roles.
    nodes: Mapping[str, str]

    @property
    def address(self) -> dict[str, str]:
        """How the stack is reached, as the address file and `--json` say it."""
        return {
            "web": self.web,
            "flower": self.flower,
            "broker_url": self.broker_url,
            "redis_url": self.redis_url,
            "engine": self.engine,
            "state_dir": str(self.state_dir),
        }


def make(options: Options) -> Plan:
    """Work out the stack of `options`. Nothing is started.

    Raises:
        ConfigurationError: An engine is missing or a port taken, or the host is reached by others and no
            keys are asked for; the message says what to do.
    """
    exposure.refuse([options.host], get_settings())
    engine = _engine(options)
    server, broker_url, redis_url = _servers(options.state_dir)
    web_port = settle_port(options.host, options.port, "--port", variable("port"))
    flower_port = settle_port(FLOWER_HOST, options.flower_port, "--flower-port", variable("flower_port"))
    nodes = {
        f"worker-{n}": f"worker-{n}-{os.getpid()}@{os.uname().nodename}"
        for n in range(1, options.workers + 1)
    }
    return Plan(
        state_dir=options.state_dir,
        roles=(
            *([_server(server)] if server else []),
            *(_worker(name, node, options.concurrency) for name, node in nodes.items()),
            _web(options.host, web_port),
            _flower(flower_port),
        ),
        env=_env(options) | (_addresses(broker_url, redis_url) if server else {}),
        web=url_of(options.host, web_port),
        flower=url_of(FLOWER_HOST, flower_port),
        broker_url=broker_url,
        redis_url=redis_url,
        engine=engine,
        nodes=nodes,
    )


def _engine(options: Options) -> str:
    way_out = "To run without a model: --engine mock."
    settings = get_settings()
    if options.engine:
        settings = settings.model_copy(update={"engine": options.engine})
    try:
        entries = routes.default(settings).entries
    except ConfigurationError as exc:
        raise ConfigurationError(f"{exc} {way_out}") from exc
    why = {entry.engine: engine_class(entry.engine).missing(settings) for entry in entries}
    if all(why.values()):  # a route needs but one that works
        name, missing = next(iter(why.items()))
        raise ConfigurationError(f"engine {name} cannot run here: {missing} {way_out}")
    return settings.engine or entries[0].engine


def _servers(state_dir: Path) -> tuple[EmbeddedServer | None, str, str]:
    given = given_connection()
    if given:
        return None, given.broker, given.store
    server = embedded.prepare(state_dir)
    return server, server.url(BROKER_DB), server.url(STORE_DB)


def _addresses(broker_url: str, redis_url: str) -> dict[str, str]:
    return {variable("broker_url"): broker_url, variable("redis_url"): redis_url}


def _env(options: Options) -> dict[str, str]:
    env = {
        variable("concurrency"): str(options.concurrency),
        variable("workers"): str(options.workers),
        "PYTHONUNBUFFERED": "1",
    }
    return env | ({variable("engine"): options.engine} if options.engine else {})


def _module(*command: str) -> tuple[str, ...]:
    # -P: what lies about in the working directory is not imported in place of what is installed
    return (sys.executable, "-P", "-m", *command)


def _server(server: EmbeddedServer) -> Role:
    return Role("valkey", tuple(server.command()), STAGES["valkey"], MARGIN_S)


def _worker(name: str, node: str, concurrency: int) -> Role:
    command = _module("celery", "-A", "textgen", "worker", "--pool", "threads", "-l", "INFO", "-n", node)
    command += ("--concurrency", str(concurrency), "--without-mingle", "--without-gossip")
    return Role(name, command, STAGES["worker"], get_settings().shutdown_grace_s + MARGIN_S)


def _web(host: str, port: int) -> Role:
    command = _module("gunicorn", "--config", "python:textgen.webserver")
    command += ("--bind", f"{bracketed(host)}:{port}", "--workers", str(min(2, os.cpu_count() or 1)))
    command += ("--graceful-timeout", str(WEB_GRACE_S), WEB_APP)
    return Role("web", command, STAGES["web"], WEB_GRACE_S + MARGIN_S)


def _flower(port: int) -> Role:
    command = _module("celery", "-A", "textgen", "flower", f"--address={FLOWER_HOST}", f"--port={port}")
    return Role("flower", command, STAGES["flower"], MARGIN_S)
