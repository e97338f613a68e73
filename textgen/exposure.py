"""Who can reach what listens: this machine alone, or others too."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from textgen.errors import ConfigurationError
from textgen.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether `host`, a number or `localhost`, is only reached from this machine."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_own_name(authority: str) -> bool:
    """Whether `authority`, a host with or without a port, is a name that only ever means this machine."""
    try:
        host = (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    return is_loopback(host) or host.endswith(".localhost")


def refuse(hosts: Iterable[str], settings: Settings) -> None:
    """Make sure that the web app asks for keys where others than this machine reach it.

    Args:
        hosts: What it listens on.
        settings: Which say whether it asks for them.

    Raises:
        ConfigurationError: It does not; the message says what to do.
    """
    exposed = [host for host in hosts if not is_loopback(host)]
    if exposed and not settings.requires_keys:
        raise ConfigurationError(
            f"whoever reaches {exposed[0]} could submit prompts and read results: to listen there, the web "
            "app needs API keys. Set TEXTGEN_REQUIRE_KEYS=true and make keys with `textgen keys create`, "
            "or TEXTGEN_ADMIN_KEY; or listen on 127.0.0.1"
        )
