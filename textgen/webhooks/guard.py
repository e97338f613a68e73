"""Which addresses webhooks may be sent to: none that would reach into the network of the sender.

An address is looked at when a task is submitted and again before every try, since what a name leads
to may change. Whoever sends must connect to an address that `resolve` gave, and not look the name up
once more.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from textgen.errors import AddressRefused, InvalidRequest
from textgen.settings import Settings
from textgen.webhooks.lookup import Address, Unresolved, resolve

#: Characters of a URL.
MAX_URL_CHARS = 2048
PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}")
#: Printable ASCII without what parsers of URLs disagree about.
_URL = re.compile(r"[!-~]+")

#: Prefix of IPv4 addresses behind a translator (RFC 6052); what counts is the address inside.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: What is or may be handed out to the public (RFC 4291); nothing else of IPv6 is a receiver.
UNICAST = ipaddress.IPv6Network("2000::/3")
#: Not public, though `is_global` of some versions of Python says so: relays and tunnels to other
#: addresses, documentation, protocol assignments, and the wire server of a cloud's hosts
#: (IANA's special-purpose address registries; learn.microsoft.com, "What is IP address 168.63.129.16").
SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16", "3fff::/20"),
    )
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL, taken apart once, so that check and connection cannot read it differently."""

    scheme: str
    #: Lower case; an IPv6 address without brackets.
    host: str
    port: int
    #: Path and query, as they are sent.
    target: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Endpoint:
    """Take a URL apart. Nothing is looked up.

    Raises:
        AddressRefused: It is none that any webhook could have.
    """
    if len(url) > MAX_URL_CHARS or not _URL.fullmatch(url) or "\\" in url:
        raise AddressRefused("must be a URL in ASCII: names in Punycode, the rest percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressRefused("is not a URL") from None
    if parts.scheme not in PORTS:
        raise AddressRefused("must begin with https://")
    if "@" in parts.netloc:
        raise AddressRefused("must not hold a user name or password")
    if "#" in url:
        raise AddressRefused("must not have a fragment")
    host = (parts.hostname or "").lower()
    is_host = _is_ipv6(host) if "[" in parts.netloc else _HOST.fullmatch(host)
    if not is_host or port == 0:
        raise AddressRefused("has no valid host or port")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, host, port or PORTS[parts.scheme], target)


def public_url(settings: Settings) -> str:
    """The pattern of addresses that may be public: a name with a dot in it, and a port that is allowed."""
    ports = "|".join(str(int(port)) for port in settings.webhook_ports.split(","))
    name = r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.){1,8}[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])"
    optional = "?" if f"{PORTS['https']}" in ports.split("|") else ""
    return rf"^https://{name}(:({ports})){optional}([/?][!-\"$-\[\]-~]*)?$"


def check(url: str, settings: Settings) -> Endpoint:
    """Take the URL of a webhook apart, if it may be one. Nothing is looked up.

    Raises:
        AddressRefused: It may not: without hosts and networks of your own that are allowed, a receiver
            has a name and is reached by https.
    """
    endpoint = parse(url)
    if not settings.webhook_allow and not re.fullmatch(public_url(settings), url):
        if endpoint.scheme != "https":
            raise AddressRefused("must begin with https://")
        ports = {int(port) for port in settings.webhook_ports.split(",")}
        if endpoint.port not in ports:
            shown = ", ".join(map(str, sorted(ports)))
            raise AddressRefused(f"has a port that is not allowed; allowed: {shown}")
        raise AddressRefused("must have a host name that can be public, such as hooks.example.com")
    return endpoint


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet, and leads to no other one that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in UNICAST:
            return False
    is_special = any(address.version == net.version and address in net for net in SPECIAL)
    return address.is_global and not address.is_multicast and not is_special


class Guard:
    """The rules, as the settings have them.

    Args:
        settings: Hosts and networks allowed besides, and ports.
        look_up: How names are looked up.
    """

    def __init__(
        self, settings: Settings, look_up: Callable[[str, int], list[Address]] | None = None
    ) -> None:
        allowed = [part.strip().lower() for part in settings.webhook_allow.split(",") if part.strip()]
        self._hosts = {entry for entry in allowed if "/" not in entry}
        self._networks = [ipaddress.ip_network(entry, strict=False) for entry in allowed if "/" in entry]
        self._ports = {int(port) for port in settings.webhook_ports.split(",")}
        self._look_up = look_up or resolve

    def addresses(self, endpoint: Endpoint) -> list[Address]:
        """The addresses that may be connected to for `endpoint`, all of them looked at.

        Raises:
            AddressRefused: It is not to be called.
            Unresolved: Its name leads nowhere.
        """
        is_allowed = endpoint.host in self._hosts
        is_plain = endpoint.scheme == "https" and endpoint.port in self._ports
        if not (is_plain or is_allowed or self._networks):
            self._refuse_scheme_or_port(endpoint)
        found = self._look_up(endpoint.host, endpoint.port)
        if not found:
            raise Unresolved(is_temporary=False)
        if is_allowed or all(self._is_inside(address) for address in found):
            return found
        if not is_plain:
            self._refuse_scheme_or_port(endpoint)
        if not all(is_public(address) or self._is_inside(address) for address in found):
            raise AddressRefused("leads to an address that is not public")
        return found

    def _is_inside(self, address: Address) -> bool:
        return any(address.version == net.version and address in net for net in self._networks)

    def _refuse_scheme_or_port(self, endpoint: Endpoint) -> None:
        if endpoint.scheme != "https":
            raise AddressRefused("must begin with https://")
        ports = ", ".join(map(str, sorted(self._ports)))
        raise AddressRefused(f"has a port that is not allowed; allowed: {ports}")


def admit(url: str, settings: Settings, field: str = "webhook.url") -> None:
    """Look at the address of a webhook that somebody asks for.

    A name that leads nowhere keeps nobody from submitting: the next look is before sending.

    Raises:
        InvalidRequest: It is not to be called; names `field`.
    """
    try:
        with suppress(Unresolved):
            Guard(settings).addresses(check(url, settings))
    except AddressRefused as exc:
        raise InvalidRequest.of({"field": field, "reason": str(exc)}) from None
