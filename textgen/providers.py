"""The settings of providers: where each is, its key, and what it is asked where the request does not say."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr


def _address(value: str) -> str:
    value = value.strip()
    with suppress(ValueError):
        parts = urlsplit(value)
        if not value or (re.fullmatch(r"https?://\S+", value) and parts.hostname and parts.port != 0):
            return value
    raise ValueError("must be an address such as http://127.0.0.1:9000/v1")


def _carried(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("has characters that no header carries: it must be printable ASCII")
    return SecretStr(text)


#: Where a provider is; empty: where it always is.
Address = Annotated[str, AfterValidator(_address)]
#: What is sent in a header.
HeaderValue = Annotated[SecretStr, AfterValidator(_carried)]


class ProviderSettings(BaseModel):
    """The part of the settings that is about providers."""

    openai_api_key: HeaderValue = Field(
        SecretStr(""), validation_alias="OPENAI_API_KEY", description="Key of the engine `openai`."
    )
    openai_model: str = Field("", validation_alias="OPENAI_MODEL", description="Its model.")
    openai_max_tokens: int = Field(
        0, ge=0, validation_alias="OPENAI_MAX_TOKENS", description="Its tokens; 0: `TEXTGEN_MAX_TOKENS`."
    )
    openai_temperature: float | None = Field(
        None, ge=0, le=2, validation_alias="OPENAI_TEMPERATURE", description="Its temperature."
    )
    openai_base_url: Address = Field(
        "",
        validation_alias="OPENAI_BASE_URL",
        description="Where it is: OpenAI, or any server that speaks as it does.",
    )
    openai_api: Literal["chat", "responses"] = Field(
        "chat", validation_alias="OPENAI_API", description="Chat Completions, or Responses."
    )
    anthropic_api_key: HeaderValue = Field(
        SecretStr(""), validation_alias="ANTHROPIC_API_KEY", description="Key of the engine `anthropic`."
    )
    anthropic_model: str = Field("", validation_alias="ANTHROPIC_MODEL", description="Its model.")
    anthropic_max_tokens: int = Field(
        0, ge=0, validation_alias="ANTHROPIC_MAX_TOKENS", description="Its tokens; 0: `TEXTGEN_MAX_TOKENS`."
    )
    anthropic_temperature: float | None = Field(
        None, ge=0, le=1, validation_alias="ANTHROPIC_TEMPERATURE", description="Its temperature."
    )
    anthropic_base_url: Address = Field(
        "", validation_alias="ANTHROPIC_BASE_URL", description="Where it is: Anthropic, or another server."
    )
    servers: SecretStr = Field(
        SecretStr(""),
        description="Servers that speak as OpenAI does, each an engine by its name, as JSON or the path of a "
        'file: `{"ollama": {"model": "llama3.2"}, "lab": {"base_url": …, "api_key": …, "model": …}}`.',
    )
    provider_timeout_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds a provider may say nothing, or only comments, before an attempt fails.",
    )
