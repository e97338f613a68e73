"""The servers that `TEXTGEN_SERVERS` names: each is an engine of its own, made of settings alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, TypeAdapter

from textgen import tables
from textgen.errors import ConfigurationError
from textgen.providers import Address, HeaderValue
from textgen.settings import Settings

#: Where servers of these names listen, as their own documentation has it: docs.vllm.ai "OpenAI-Compatible
#: Server", docs.ollama.com "OpenAI compatibility", llama.cpp's tools/server/README.md, and
#: openrouter.ai/docs/quickstart.
PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "vllm": "http://localhost:8000/v1",
        "ollama": "http://localhost:11434/v1",
        "llama-server": "http://localhost:8080/v1",
        "openrouter": "https://openrouter.ai/api/v1",
    }
)
#: What a server may be called: commas and slashes have a meaning where engines are named.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: What a header may be called (RFC 9110, token).
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Server(BaseModel):
    """Where a provider is, its key, and what it is asked where the request does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: Empty: the provider's own.
    base_url: Address = ""
    api_key: HeaderValue = SecretStr("")
    model: str = ""
    #: How OpenAI's engine speaks to it.
    api: Literal["chat", "responses"] = "chat"
    #: Sent along with every request; they may hold secrets.
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    #: Of Azure's API with deployments; `model` is then the name of one.
    api_version: str = ""
    #: 0: `TEXTGEN_MAX_TOKENS`.
    max_tokens: int = Field(0, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)


_SERVERS: TypeAdapter[dict[str, Server]] = TypeAdapter(dict[str, Server])


def from_settings(settings: Settings) -> Mapping[str, Server]:
    """Read `TEXTGEN_SERVERS`: a JSON object, or the path of a file that holds one.

    Raises:
        ConfigurationError: It is neither, or describes no servers; the message holds no value of it.
    """
    return _read(settings.servers.get_secret_value().strip())


@lru_cache(maxsize=4)
def _read(text: str) -> Mapping[str, Server]:
    found = tables.read(text, _SERVERS, "TEXTGEN_SERVERS")
    return MappingProxyType({name: _placed(name, server) for name, server in found.items()})


def _placed(name: str, server: Server) -> Server:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "TEXTGEN_SERVERS: a name has letters, digits, `_`, `.` and `-`, 64 of them at the most"
        )
    if not server.base_url and name not in PRESETS:
        raise ConfigurationError(
            f"TEXTGEN_SERVERS: {name}: needs a base_url; without one are only: {', '.join(PRESETS)}"
        )
    return server if server.base_url else server.model_copy(update={"base_url": PRESETS[name]})
