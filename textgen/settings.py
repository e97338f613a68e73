"""The one reader of the environment, of `.env` and of the running stack's address file.

Order of precedence: environment variables, `.env` in the working directory, files in `/run/secrets`
(where containers find their secrets) named like the variables, the address file of this user's running
`textgen up` (only where no connection is set at all), the defaults below.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from textgen.address import running_address
from textgen.errors import ConfigurationError
from textgen.fallbacks import FallbackSettings
from textgen.providers import HeaderValue, ProviderSettings
from textgen.quotas import QuotaSettings
from textgen.reuse import CacheSettings

#: The fields that say where broker and store are: with any of them set, the address file is not
#: looked at, so that half of one stack is never mixed with half of another.
CONNECTION_FIELDS = frozenset(
    {
        "broker_url",
        "redis_url",
        "rabbitmq_host",
        "rabbitmq_port",
        "rabbitmq_user",
        "rabbitmq_password",
        "redis_host",
        "redis_port",
        "redis_user",
        "redis_password",
    }
)


#: Where containers find their secrets, one file for each.
SECRETS = Path("/run/secrets")
#: What the admin key must be: as long as those that are made.
ADMIN_KEY = r"tg_[A-Za-z0-9_-]{32,200}"
#: What an owner may be named.
OWNER = r"^[A-Za-z0-9_.@-]{1,64}$"
#: What stands behind `<queue>.` in the names of queues that are no engine's.
RESERVED = frozenset({"bulk", "dead", "dlx", "wait", "webhooks"})
#: Each is one more set to write to at every submit.
MAX_INDEXED_KEYS = 16


class AddressFileSource(PydanticBaseSettingsSource):
    """Gives the addresses of the running stack, unless a connection was set by other means."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        if CONNECTION_FIELDS & self.current_state.keys():
            return {}
        address = running_address()
        return {name: address[name] for name in ("broker_url", "redis_url") if name in address}


class Settings(FallbackSettings, CacheSettings, QuotaSettings, ProviderSettings, BaseSettings):
    """All settings, with their defaults, units and bounds."""

    model_config = SettingsConfigDict(
        env_prefix="TEXTGEN_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    # Broker
    broker_url: str = Field(
        "", validation_alias="CELERY_BROKER_URL", description="Broker URL; overrides RABBITMQ_*."
    )
    rabbitmq_host: str = Field("localhost", validation_alias="RABBITMQ_HOST", description="Broker host.")
    rabbitmq_port: int = Field(
        5672, ge=1, le=65535, validation_alias="RABBITMQ_PORT", description="Broker port."
    )
    rabbitmq_user: str = Field("guest", validation_alias="RABBITMQ_USER", description="Broker user.")
    rabbitmq_password: SecretStr = Field(
        SecretStr("guest"), validation_alias="RABBITMQ_PASSWORD", description="Broker password."
    )
    rabbitmq_vhost: str = Field("/", description="Broker virtual host.")
    queue: str = Field(
        "text_generation_tasks",
        pattern=r"^[A-Za-z0-9_.-]{1,100}$",
        validation_alias="TEXT_GENERATION_QUEUE",
        description="Queue of the interactive lane; the bulk lane is `<queue>.bulk`.",
    )
    engine_lanes: str = Field(
        "",
        pattern=r"^$|^[A-Za-z0-9_-]{1,32}( *, *[A-Za-z0-9_-]{1,32}){0,15}$",
        description="Engines, separated by commas, whose tasks wait in lanes of their own: "
        "`<queue>.<engine>`, `<queue>.<engine>.bulk`. The same for web app and workers.",
    )
    queue_type: Literal["quorum", "classic"] = Field(
        "quorum",
        validation_alias="TEXT_GENERATION_QUEUE_TYPE",
        description="Type of RabbitMQ's queues. Classic has ten priorities, quorum survives a node.",
    )
    queue_max_length: int = Field(
        100_000, ge=1, description="Messages a queue holds at the most; past it, submits are refused."
    )
    consumer_timeout_s: int = Field(
        86_400,
        ge=1,
        le=2_592_000,
        description="Seconds a worker may hold a message before RabbitMQ (3.12 or later) takes it back.",
    )
    prefetch_count: int = Field(
        1,
        ge=1,
        le=1000,
        validation_alias="PREFETCH_COUNT",
        description="Messages per worker slot and lane that a worker reserves.",
    )
    publish_timeout_s: float = Field(
        2.5, gt=0, le=8, description="Seconds each step of a publish may take (connect, write, confirm)."
    )

    # Store
    redis_url: str = Field(
        "", validation_alias="REDIS_URL", description="Redis URL; overrides REDIS_HOST and _PORT."
    )
    redis_host: str = Field("localhost", validation_alias="REDIS_HOST", description="Redis host.")
    redis_port: int = Field(6379, ge=1, le=65535, validation_alias="REDIS_PORT", description="Redis port.")
    redis_user: str = Field("", validation_alias="REDIS_USER", description="Redis user; empty: the default.")
    redis_password: SecretStr = Field(
        SecretStr(""), validation_alias="REDIS_PASSWORD", description="Redis password."
    )
    redis_timeout_s: float = Field(2.0, gt=0, le=8, description="Seconds a Redis call may take.")
    redis_max_connections: int = Field(64, ge=4, description="Redis connections of one process at the most.")
    allow_eviction: bool = Field(
        False, description="Work with a Redis that evicts keys, and so may drop accepted tasks."
    )
    task_ttl_s: int = Field(
        3600,
        ge=1,
        le=31_536_000,
        validation_alias="TASK_TTL",
        description="Seconds that a finished task can be read; `ttl_s` of a request overrides it.",
    )
    deadline_s: int = Field(
        86_400,
        ge=1,
        le=2_592_000,
        description="Seconds from submit in which a task must end; then FAILED (`deadline`).",
    )
    max_tasks_listed: int = Field(100_000, ge=100, description="Newest tasks kept in the list's index.")

    # Attempts
    max_attempts: int = Field(5, ge=1, le=100, description="Failed attempts before a task is FAILED.")
    retry_base_s: float = Field(2.0, gt=0, description="Seconds before the second attempt; doubles.")
    retry_cap_s: float = Field(300.0, gt=0, description="Seconds between two attempts at the most.")
    attempt_timeout_s: float = Field(
        840.0,
        gt=0,
        description="Seconds one attempt may run; twice this lies under RabbitMQ 3's own consumer timeout.",
    )
    attempt_margin_s: float = Field(
        10.0, gt=0, description="Seconds past that after which an attempt is given up even in mid-call."
    )
    queue_timeout_s: int = Field(
        0, ge=0, description="Seconds a task may wait for its first attempt; 0: up to its deadline."
    )
    lease_s: float = Field(
        8.0, ge=1, le=300, description="Seconds after which a silent worker's task is taken over."
    )
    shutdown_grace_s: float = Field(
        30.0, ge=0, description="Seconds a stopping worker goes on generating; then it hands back."
    )

    # Requests
    owner: str = Field(
        "default",
        pattern=OWNER,
        description="Owner of what this process submits.",
    )
    max_prompt_chars: int = Field(100_000, ge=1, description="Characters of prompt or messages together.")
    max_tokens: int = Field(256, ge=1, description="Tokens generated where the request names none.")
    max_tokens_limit: int = Field(8192, ge=1, description="The most that `max_tokens` may ask for.")
    max_metadata_bytes: int = Field(16_384, ge=2, description="Size of `metadata` as JSON.")
    max_body_bytes: int = Field(1_572_864, ge=1024, description="Size of an HTTP request body.")

    indexed_metadata: str = Field(
        "",
        max_length=1000,
        description="Keys of `metadata` by whose values tasks can be listed, with commas between; up to 16.",
    )

    # Keys
    require_keys: bool = Field(
        False,
        description="Whether requests over HTTP need an API key. Without, the web app answers this machine "
        "only.",
    )
    admin_key: SecretStr = Field(
        SecretStr(""),
        description="A key with every scope that needs no store: `tg_` and 32 random characters or more. "
        "With it set, keys are required.",
    )
    api_key: HeaderValue = Field(
        SecretStr(""), description="The key that the command line and the client show to `TEXTGEN_URL`."
    )

    cors_origins: str = Field(
        "",
        pattern=r"^$|^\*$|^https?://[A-Za-z0-9.\[\]:-]+( *, *https?://[A-Za-z0-9.\[\]:-]+)*$",
        description="Origins, separated by commas, whose pages may call from browsers, such as "
        "`https://app.example.com`; `*`: all.",
    )

    # Webhooks
    webhook_allow: str = Field(
        "",
        description="Hosts and networks, separated by commas, that webhooks may reach though they are not "
        "public, by http and on any port too.",
    )
    webhook_ports: str = Field(
        "443",
        pattern=r"^\d{1,5}( *, *\d{1,5})*$",
        description="Ports of public receivers that webhooks may use, separated by commas.",
    )
    webhook_timeout_s: float = Field(
        15.0, gt=0, le=30, description="Seconds a receiver has to answer a webhook."
    )
    webhook_retries_s: str = Field(
        "5,300,1800,7200,18000,36000,50400,72000,86400",
        pattern=r"^\d{1,6}(\.\d+)?( *, *\d{1,6}(\.\d+)?)*$",
        description="Seconds between two tries of a webhook, separated by commas; then it is given up.",
    )
    webhook_senders: int = Field(
        8, ge=0, le=200, description="Webhooks a worker sends at once, beside its tasks; 0: none."
    )

    # Engines
    engine: str = Field(
        "",
        description="Default engine or route; empty: `local` where its extra and model are there, else none.",
    )
    local_model: str = Field("", description="Path of a GGUF file; empty: the model that was fetched.")
    local_context: int = Field(2048, ge=256, description="Tokens of context for each task that runs at once.")
    mock_delay_s: float = Field(0.0, ge=0, description="Seconds the mock engine waits before a token.")
    mock_failure: str = Field("", description="Failure the mock engine shows; empty: none.")

    # Processes
    url: str = Field("", description="Base URL: the CLI then goes over HTTP instead of to the broker.")
    host: str = Field("127.0.0.1", description="Address that `textgen up` binds.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the web app; 0: any free one.")
    flower_port: int = Field(5555, ge=0, le=65535, description="Port of Flower; 0: any free one.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes of `textgen up`.")
    concurrency: int = Field(8, ge=1, le=1000, description="Tasks a worker runs at once.")
    log_json: bool = Field(False, description="Log lines as JSON objects.")

    @field_validator("broker_url", "redis_url")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()

    @field_validator("engine_lanes")
    @classmethod
    def _no_other_queue(cls, value: str) -> str:
        taken = RESERVED & {name.strip() for name in value.split(",")}
        if taken:
            raise ValueError(f"names what other queues are called: {', '.join(sorted(taken))}")
        return value

    @property
    def lane_engines(self) -> tuple[str, ...]:
        """The engines in `engine_lanes`."""
        return tuple(dict.fromkeys(name.strip() for name in self.engine_lanes.split(",") if name.strip()))

    @field_validator("indexed_metadata")
    @classmethod
    def _few_keys(cls, value: str) -> str:
        if value.count(",") >= MAX_INDEXED_KEYS:
            raise ValueError(f"names more than {MAX_INDEXED_KEYS} keys")
        return value

    @property
    def metadata_keys(self) -> tuple[str, ...]:
        """The keys in `indexed_metadata`."""
        return tuple(key.strip() for key in self.indexed_metadata.split(",") if key.strip())

    @field_validator("admin_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not re.fullmatch(ADMIN_KEY, value.get_secret_value()):
            raise ValueError("must be `tg_` and at least 32 random letters, digits, `-` or `_`")
        return value

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins in `cors_origins`."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())

    @property
    def requires_keys(self) -> bool:
        """Whether requests over HTTP need an API key."""
        return self.require_keys or bool(self.admin_key.get_secret_value())

    @field_validator("webhook_allow")
    @classmethod
    def _hosts_and_networks(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            if "/" in entry:
                ipaddress.ip_network(entry, strict=False)
            elif not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", entry):
                raise ValueError("must be hosts and networks, such as hooks.internal, 10.1.0.0/16")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            dotenv_settings,
            file_secret_settings,
            AddressFileSource(settings_cls),
        )

    @property
    def broker(self) -> str:
        """The broker's URL, as Celery takes it."""
        if self.broker_url:
            return self.broker_url
        user = quote(self.rabbitmq_user, safe="")
        password = quote(self.rabbitmq_password.get_secret_value(), safe="")
        vhost = quote(self.rabbitmq_vhost, safe="")
        return f"amqp://{user}:{password}@{self.rabbitmq_host}:{self.rabbitmq_port}/{vhost}"

    @property
    def store(self) -> str:
        """The store's URL, as `redis.Redis.from_url` takes it."""
        if self.redis_url:
            return self.redis_url
        password = quote(self.redis_password.get_secret_value(), safe="")
        credentials = f"{quote(self.redis_user, safe='')}:{password}@" if password else ""
        return f"redis://{credentials}{self.redis_host}:{self.redis_port}/0"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the settings, once per process.

    Raises:
        ConfigurationError: A setting is out of bounds; the message names it and never its value.
    """
    try:
        return Settings(_secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except ValidationError as exc:
        problems = "; ".join(
            f"{variable(str(error['loc'][0]))}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(problems) from exc


def variable(name: str) -> str:
    """The environment variable that sets field `name`; a name that is a variable's is its own."""
    if name not in Settings.model_fields:
        return name
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias) if alias else f"TEXTGEN_{name.upper()}"
