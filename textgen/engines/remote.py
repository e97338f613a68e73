"""What engines of providers have in common: a server, its key, and the SDK that speaks to it.

Retrying is the queue's work: the SDKs' own is off. They are imported when an engine is set up.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.engines.secrets import Secrets
from textgen.errors import EngineUnusable
from textgen.servers import Server
from textgen.settings import Settings, variable

if TYPE_CHECKING:
    from textgen.engines.provider import Exchange

#: Hosts that serve nobody without a key; servers of your own mostly do.
_KEYED = ("api.openai.com", "api.anthropic.com", "openrouter.ai", ".azure.com")


class RemoteEngine(Engine):
    """The models of a provider, or of another server that speaks as it does."""

    is_remote = True
    #: The module of its SDK, which is the name of the extra, too.
    sdk_name: ClassVar[str]
    #: Where it is, if the settings do not say.
    default_url: ClassVar[str]

    @classmethod
    @abstractmethod
    def server(cls, settings: Settings) -> Server:
        """What the settings say of the server."""

    @classmethod
    def setting(cls, field: str) -> str:
        """The name of the setting that holds `field` of the server."""
        return variable(f"{cls.name}_{field}")

    @classmethod
    def host(cls, settings: Settings) -> str:
        """The host that it is on."""
        return urlsplit(cls.server(settings).base_url or cls.default_url).hostname or ""

    @classmethod
    def missing(cls, settings: Settings) -> str | None:
        if importlib.util.find_spec(cls.sdk_name) is None:
            return f"The engine {cls.name} needs its SDK: pip install 'textgen[{cls.sdk_name}]'."
        needs_key = cls.host(settings).endswith(_KEYED)
        if needs_key and not cls.server(settings).api_key.get_secret_value():
            return f"The engine {cls.name} needs a key: set {cls.setting('api_key')}."
        return None

    @classmethod
    def default_model(cls, settings: Settings) -> str | None:
        return cls.server(settings).model or None

    @classmethod
    def account(cls, settings: Settings) -> str:
        server = cls.server(settings)
        counted = f"{server.base_url or cls.default_url}\0{server.api_key.get_secret_value()}"
        return hashlib.sha256(counted.encode()).hexdigest()[:32]

    @classmethod
    def default_max_tokens(cls, settings: Settings) -> int:
        return cls.server(settings).max_tokens or super().default_max_tokens(settings)

    def setup(self) -> None:
        missing = self.missing(self.settings)
        if missing:
            raise EngineUnusable(missing)
        try:
            self._sdk = importlib.import_module(self.sdk_name)
            self._provider = importlib.import_module("textgen.engines.provider")
            bodies = importlib.import_module("textgen.engines.bodies")
        except ImportError as exc:
            raise EngineUnusable(f"the SDK of the engine {self.name} does not load: {exc}") from exc
        server = self.server(self.settings)
        self._secrets = Secrets.of(server)
        options: dict[str, Any] = {
            # servers of your own mostly want none, the SDKs insist
            "api_key": server.api_key.get_secret_value() or "none",
            "max_retries": 0,
            "timeout": self._provider.timeout(self.settings),
            "http_client": self._sdk.DefaultHttpxClient(
                limits=self._provider.limits(),
                cookies=self._provider.cookies(),
                event_hooks={"response": [partial(bodies.bound, read_s=self.settings.provider_timeout_s)]},
                follow_redirects=False,  # with the prompt, and the headers of this server
            ),
            "default_headers": {"Accept-Encoding": "identity"}
            | {name: value.get_secret_value() for name, value in server.headers.items()},
        }
        try:
            self._client: Any = self._connect(server, options)
        except (self._sdk.APIError, ValueError) as exc:
            raise EngineUnusable(f"the engine {self.name} cannot be set up ({type(exc).__name__})") from None

    @abstractmethod
    def _connect(self, server: Server, options: dict[str, Any]) -> Any:
        """Make the SDK's client from the options that all have, and load the parts of it that are used."""

    def check(self) -> None:
        self.models()

    def models(self) -> list[str]:
        with self._exchange() as exchange, exchange.reading():
            return sorted(str(model.id) for model in self._client.models.list().data)

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        with self._exchange() as exchange:
            yield from self._speak(request, exchange)

    def _exchange(self) -> AbstractContextManager[Exchange]:
        silence_s = self.settings.provider_timeout_s
        exchange = self._provider.Exchange(self.name, self.setting, silence_s, self._secrets)
        errors: AbstractContextManager[Exchange] = self._provider.sorted_errors(self._sdk, exchange)
        return errors

    @abstractmethod
    def _speak(self, request: EngineRequest, exchange: Exchange) -> Iterator[Chunk | Finish]:
        """As `generate`, with the SDK's own errors; `exchange` is told when the answer begins."""

    def _model(self, request: EngineRequest) -> str:
        model = request.model or self.server(self.settings).model
        if not model:
            raise EngineUnusable(f"the request names no model, and {self.setting('model')} is not set")
        return model

    def _temperature(self, request: EngineRequest) -> float | None:
        if request.temperature is not None:
            return request.temperature
        return self.server(self.settings).temperature
