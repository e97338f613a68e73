"""OpenAI, and every server that speaks as it does, through the official SDK.

By Chat Completions or by Responses: compatible servers often have only the former.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textgen.engines import chat, responses
from textgen.engines.base import Chunk, EngineRequest, Finish
from textgen.engines.remote import RemoteEngine
from textgen.errors import EngineUnusable
from textgen.servers import Server
from textgen.settings import Settings

if TYPE_CHECKING:
    from textgen.engines.provider import Exchange, Reader

#: Hosts whose models want the new name of the limit; other servers know the old one.
_NEW_NAME = ("api.openai.com", ".azure.com")


class OpenAIEngine(RemoteEngine):
    """The models of OpenAI, or of the server at `OPENAI_BASE_URL`."""

    name = "openai"
    sdk_name = "openai"
    default_url = "https://api.openai.com/v1"

    @classmethod
    def server(cls, settings: Settings) -> Server:
        return Server(
            base_url=settings.openai_base_url,
            api_key=settings.openai_api_key,
            model=settings.openai_model,
            api=settings.openai_api,
            max_tokens=settings.openai_max_tokens,
            temperature=settings.openai_temperature,
        )

    def _connect(self, server: Server, options: dict[str, Any]) -> Any:
        if server.api_version:
            client = self._sdk.AzureOpenAI(
                azure_endpoint=server.base_url, api_version=server.api_version, **options
            )
        else:
            client = self._sdk.OpenAI(base_url=server.base_url or self.default_url, **options)
        if server.api == "responses":
            _ = client.responses  # imported on first use: not by all of the first requests at once
        return client

    def _speak(self, request: EngineRequest, exchange: Exchange) -> Iterator[Chunk | Finish]:
        is_new = self.host(self.settings).endswith(_NEW_NAME)
        common = {
            "model": self._model(request),
            "temperature": self._temperature(request),
            "top_p": request.top_p,
        }
        if self.server(self.settings).api == "chat":
            limit = "max_completion_tokens" if is_new else "max_tokens"
            asked = common | {limit: request.max_tokens} | chat.asked(request)
            stream = self._stream("/chat/completions", self._provider.given(asked))
            read: Reader = chat.read
        else:
            if request.stop or request.seed is not None:
                raise EngineUnusable(
                    f"Responses know neither stop nor seed: set {self.setting('api')} to chat"
                )
            asked = common | {"max_output_tokens": request.max_tokens} | responses.asked(request)
            stream = self._client.responses.create(**self._provider.given(asked), stream=True)
            read = partial(responses.read, max_tokens=request.max_tokens)
        with stream:
            yield from exchange.carry(stream.response, read, request.max_tokens)

    def _stream(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to `body`, which the SDK's own way of asking would go through first."""
        kind = self._sdk.Stream[object]
        return self._client.post(
            path, cast_to=object, body={**body, "stream": True}, stream=True, stream_cls=kind
        )


class ServerEngine(OpenAIEngine):
    """A server that `TEXTGEN_SERVERS` names; `named` makes the class of each."""

    described: ClassVar[Server]

    @classmethod
    def named(cls, name: str, server: Server) -> type[ServerEngine]:
        """The engine of the server `name`."""
        return type(cls.__name__, (cls,), {"name": name, "described": server, "__module__": cls.__module__})

    @classmethod
    def server(cls, settings: Settings) -> Server:
        return cls.described

    @classmethod
    def setting(cls, field: str) -> str:
        return f"{field} of {cls.name} in TEXTGEN_SERVERS"

    def _connect(self, server: Server, options: dict[str, Any]) -> Any:
        # what the environment says of an organization at OpenAI is none of its business
        private = {name: self._sdk.Omit() for name in ("OpenAI-Organization", "OpenAI-Project")}
        return super()._connect(server, options | {"default_headers": private | options["default_headers"]})
