"""The compose file and the image, without an engine: checked by the tools that read them, and each
service's own command, environment and health check run as local processes.

What a container would have and this machine has not (host names, fixed ports, folders, users) is
translated in the text of commands and variables; nothing else is changed.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.environment import CACHE_HOME, Environment, new_folder
from tests.processes import Process, free_port, wait_until
from tests.services import RABBITMQ_BIN, PrivateRabbitMQ

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
OURS = ("web", "worker", "flower")
#: Those that only start where their profile is asked for.
ON_REQUEST = ("remote",)
#: Who may log in to RabbitMQ and to Redis, each with its variable's password.
USERS = {
    "RABBITMQ": {"admin": "_ADMIN", "web": "_WEB", "worker": "", "flower": "_FLOWER"},
    "REDIS": {"admin": "_ADMIN", "web": "_WEB", "worker": "", "flower": "_FLOWER", "monitor": "_MONITOR"},
}
QUEUE = "text_generation_tasks"
#: The first API key, as another one than that of .env.example.
ADMIN_KEY = "tg_" + "s" * 40
PASSWORDS = [
    *(f"{server}{role}_PASSWORD" for server, roles in USERS.items() for role in roles.values()),
    "FLOWER_PASSWORD",
]


def compose(folder: Path) -> subprocess.CompletedProcess[str]:
    """Have Docker Compose read the project in `folder`, as `docker compose up` would."""
    # the package's Python wrapper loses the exit code; this is what it wraps
    package = importlib.util.find_spec("compose")
    program = Path(package.submodule_search_locations[0], "docker-compose")
    return subprocess.run(
        [program, "--profile", "*", "config", "--format", "json"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def project(env_file: str | None) -> Path:
    """A folder with what compose reads, and a `.env` of this text."""
    folder = new_folder("compose")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    (folder / "deploy").mkdir()
    for name in ("rabbitmq.conf", "rabbitmq_users.sh", "redis_users.sh"):
        shutil.copy(ROOT / "deploy" / name, folder / "deploy")
    if env_file is not None:
        (folder / ".env").write_text(env_file)
    return folder


def secret(name: str) -> str:
    """Another password than that of .env.example, and another one for each variable."""
    return f"secret-of-{name}"


def example() -> str:
    text = (ROOT / ".env.example").read_text().replace("FLOWER_USER=admin", "FLOWER_USER=boss")
    text = re.sub(r"^(TEXTGEN_ADMIN_KEY)=.*$", rf"\1={ADMIN_KEY}", text, flags=re.M)
    return re.sub(r"^(\w+_PASSWORD)=.*$", lambda found: f"{found[1]}={secret(found[1])}", text, flags=re.M)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    read = compose(project(example()))
    assert read.returncode == 0, read.stderr
    # the output is a compose file again, in which a dollar stands for itself by being doubled
    return json.loads(read.stdout.replace("$$", "$"))["services"]


def test_the_file_follows_the_compose_specification() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dockerfile_is_clean() -> None:
    checked = subprocess.run([BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_image_is_built_from_files_that_are_there_and_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    needed = {name.removeprefix("./") for line in copied for name in line.split()}
    assert needed == sent
    assert all((ROOT / name).exists() for name in needed)


def test_compose_takes_the_example_as_it_stands() -> None:
    read = compose(project((ROOT / ".env.example").read_text()))
    assert read.returncode == 0, read.stderr


def test_compose_refuses_to_start_without_passwords() -> None:
    assert compose(project(None)).returncode != 0
    for name in ("FLOWER_USER", *PASSWORDS):
        refused = compose(project(re.sub(rf"^{name}=.*$", f"{name}=", example(), flags=re.MULTILINE)))
        assert refused.returncode != 0, name
        assert name in refused.stderr


def test_ports_are_published_on_loopback_only(services: Mapping[str, Any]) -> None:
    published = {
        (name, int(port["published"]), port["host_ip"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }
    assert published == {
        ("rabbitmq", 5672, "127.0.0.1"),
        ("rabbitmq", 15672, "127.0.0.1"),
        ("redis", 6379, "127.0.0.1"),
        ("web", 8000, "127.0.0.1"),
        ("flower", 5555, "127.0.0.1"),
    }


def test_every_service_is_watched_and_restricted(services: Mapping[str, Any]) -> None:
    assert set(services) == {"rabbitmq", "redis", *OURS, *ON_REQUEST}
    assert {name for name in services if services[name].get("profiles")} == set(ON_REQUEST)
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
    for name in (*OURS, *ON_REQUEST):
        waits_for = services[name]["depends_on"]
        assert {server: how["condition"] for server, how in waits_for.items()} == {
            "rabbitmq": "service_healthy",
            "redis": "service_healthy",
        }


def test_no_container_knows_a_password_that_is_not_its_own(services: Mapping[str, Any]) -> None:
    own = {
        "web": {"RABBITMQ_WEB_PASSWORD", "REDIS_WEB_PASSWORD"},
        "worker": {"RABBITMQ_PASSWORD", "REDIS_PASSWORD"},
        "remote": {"RABBITMQ_PASSWORD", "REDIS_PASSWORD"},
        "flower": {"RABBITMQ_FLOWER_PASSWORD", "REDIS_FLOWER_PASSWORD", "FLOWER_PASSWORD"},
    }
    for service, known in own.items():
        environment = "\n".join(map(str, services[service]["environment"].values()))
        found = {name for name in PASSWORDS if re.search(rf"\b{secret(name)}\b", environment)}
        assert found == known, service


def test_the_first_key_is_a_secret_of_the_web_app_and_in_no_environment(services: Mapping[str, Any]) -> None:
    assert [name for name in services if services[name].get("secrets")] == ["web"]
    assert ADMIN_KEY not in str({name: service["environment"] for name, service in services.items()})


def test_the_worker_scales_and_gets_the_time_to_hand_back(services: Mapping[str, Any]) -> None:
    worker = services["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", worker["stop_grace_period"]).groups()
    grace_s = float(worker["environment"]["TEXTGEN_SHUTDOWN_GRACE_S"])
    assert 60 * int(minutes or 0) + int(seconds) >= grace_s + 15


class LocalService:
    """A service of the compose file as a process of this machine."""

    def __init__(self, name: str, service: Mapping[str, Any], ports: Mapping[int, int], folder: Path) -> None:
        self.name, self._ports, self.folder = name, ports, folder
        self.env: Environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(folder),
            **{key: self.translated(value) for key, value in service["environment"].items()},
            # what is a file in the container
            **{one["source"].upper(): ADMIN_KEY for one in service.get("secrets", [])},
            # of the image
            "XDG_CACHE_HOME": CACHE_HOME,
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.check = [self.translated(part) for part in service["healthcheck"]["test"]]
        self.command = [self.translated(part) for part in service["command"]]
        self.process = Process(self.command, env=self.env, cwd=folder, log_file=folder / "log")

    def translated(self, text: str) -> str:
        """`text` with the addresses and folders of this machine."""
        for inside, here in self._ports.items():
            text = re.sub(rf"\b{inside}\b", str(here), text)
        text = re.sub(r"(^|@)(rabbitmq|redis)(?=$|:)", r"\g<1>127.0.0.1", text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        text = re.sub(r"^/(tmp|data)\b", str(self.folder), text)
        return text.replace("/etc/textgen/", f"{ROOT}/deploy/")

    def health(self, env: Environment | None = None) -> subprocess.CompletedProcess[str]:
        """Run the health check once."""
        kind, *command = self.check
        full = ["sh", "-c", *command] if kind == "CMD-SHELL" else command
        return subprocess.run(
            full, env=env or self.env, cwd=self.folder, capture_output=True, text=True, timeout=60
        )

    def is_healthy(self) -> bool:
        assert self.process.is_alive, f"{self.name} ended:\n{self.process.log()[-4000:]}"
        return self.health().returncode == 0

    def start(self, stack: ExitStack) -> None:
        """Start it, and wait until its health check passes as compose would."""
        stack.enter_context(self.process)
        wait_until(self.is_healthy, 90, f"{self.name} is healthy; its log is {self.process.log_file}")


@pytest.fixture(scope="module")
def ports() -> dict[int, int]:
    return {inside: free_port() for inside in (5672, 15672, 6379, 8000, 5555)}


@pytest.fixture(scope="module")
def local(services: Mapping[str, Any], ports: Mapping[int, int]) -> dict[str, LocalService]:
    return {
        name: LocalService(name, service, ports, new_folder(f"compose-{name}"))
        for name, service in services.items()
    }


@pytest.fixture(scope="module")
def broker(local: Mapping[str, LocalService], ports: dict[int, int]) -> Iterator[PrivateRabbitMQ]:
    """RabbitMQ with the variables, the command and the configuration file of its service."""
    lines = (ROOT / "deploy" / "rabbitmq.conf").read_text().splitlines()
    settings = dict(line.split(" = ") for line in lines if line and not line.startswith("#"))
    service = local["rabbitmq"]
    config = {name: service.translated(value) for name, value in settings.items()}
    # its programs see no folder but its own
    server = PrivateRabbitMQ(service.folder, port=ports[5672], config=config)
    server.env.update(
        {key: service.env[key] for key in service.env if key.startswith(("RABBITMQ_", "TEXT_"))}
    )
    server.env["PATH"] = f"{RABBITMQ_BIN}:{os.environ['PATH']}"
    server.process.env.update(server.env)
    server.process.command = service.command
    with server:
        server.enable_management()
        ports[15672] = server.management_port
        yield server


@pytest.fixture(scope="module")
def running(
    broker: PrivateRabbitMQ,
    services: Mapping[str, Any],
    ports: Mapping[int, int],
    local: dict[str, LocalService],
) -> Iterator[dict[str, LocalService]]:
    """All services, started in the order that compose would start them in."""
    # read again, now that the management page has its port
    local["flower"] = LocalService("flower", services["flower"], ports, new_folder("compose-flower"))
    with ExitStack() as stack:
        for name in ("redis", *OURS):
            local[name].start(stack)
        yield local


def test_the_broker_has_its_users_and_no_guest(
    broker: PrivateRabbitMQ, local: Mapping[str, LocalService]
) -> None:
    healthy = local["rabbitmq"].health(broker.env)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    for user, role in USERS["RABBITMQ"].items():
        assert user in broker.ctl("authenticate_user", user, secret(f"RABBITMQ{role}_PASSWORD"))
    rows = broker.ctl("list_users", "-q", "--no-table-headers").splitlines()
    tags = dict(row.split("\t") for row in rows if row)
    assert tags == {"admin": "[administrator]", "web": "[]", "worker": "[]", "flower": "[management]"}


def test_the_services_generate_together(
    running: Mapping[str, LocalService], ports: Mapping[int, int]
) -> None:
    web = f"http://127.0.0.1:{ports[8000]}"
    ready = httpx.get(f"{web}/readyz", timeout=20)
    assert ready.status_code == 200, ready.text
    asked = {"prompt": "Name a colour.", "max_tokens": 16}
    assert httpx.post(f"{web}/v1/tasks", json=asked, timeout=20).status_code == 401
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    accepted = httpx.post(f"{web}/v1/tasks", json=asked, headers=headers, timeout=20)
    assert accepted.status_code == 202, accepted.text
    url = f"{web}/v1/tasks/{accepted.json()['task_id']}"
    record = httpx.get(url, params={"wait_s": 60}, headers=headers, timeout=70).json()
    assert record["status"] == "COMPLETED", record["error"]
    assert record["engine"] == "local"


def test_a_worker_for_providers_consumes_the_shared_lanes(running: Mapping[str, LocalService]) -> None:
    remote = running["remote"]
    remote.process.env["TEXTGEN_ENGINE_LANES"] = "local"
    running["worker"].process.stop(40)  # on one machine both have one name
    with ExitStack() as stack:
        remote.start(stack)
    log = remote.process.log()
    assert "concurrency: 200 (gevent)" in log
    assert "engines are left to other workers" in log
    assert "local model loaded" not in log
    assert f".> {QUEUE}.bulk" in log
    assert f".> {QUEUE}.local" not in log


def test_flower_asks_for_its_login(running: Mapping[str, LocalService], ports: Mapping[int, int]) -> None:
    flower = f"http://127.0.0.1:{ports[5555]}"
    assert httpx.get(f"{flower}/workers").status_code == 401
    login = ("boss", secret("FLOWER_PASSWORD"))
    assert httpx.get(f"{flower}/workers", auth=login).status_code == 200
    lengths = httpx.get(f"{flower}/api/queues/length", auth=login).json()["active_queues"]
    assert {queue["name"] for queue in lengths} >= {"text_generation_tasks", "text_generation_tasks.bulk"}


def test_redis_asks_for_its_password_and_shows_it_nowhere(
    running: Mapping[str, LocalService], ports: Mapping[int, int]
) -> None:
    refused = subprocess.run(
        ["redis-cli", "-p", str(ports[6379]), "ping"], capture_output=True, text=True, check=True
    )
    assert "NOAUTH" in refused.stdout + refused.stderr
    command = Path(f"/proc/{running['redis'].process.pid}/cmdline").read_text()
    assert "secret" not in command
    written = "".join(file.read_text() for file in running["redis"].folder.glob("*.*"))
    assert "user monitor" in written
    assert "secret-of-" not in written


def test_the_health_checks_notice_what_is_down(
    running: Mapping[str, LocalService], ports: Mapping[int, int]
) -> None:
    for name in reversed(OURS):
        running[name].process.kill()
        assert running[name].health().returncode != 0, name
    running["redis"].process.kill()
    assert running["redis"].health().returncode != 0
