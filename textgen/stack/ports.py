"""Which ports are free: checked before anything starts, so that the error can name the setting."""

from __future__ import annotations

import ipaddress
import os
import random
import socket

from textgen.errors import ConfigurationError

#: Where port 0 is chosen from: below the range that kernels give to outgoing connections, which
#: could otherwise take the port between the choice and its use.
FREE_PORTS = range(20_000, 32_000)
#: Chosen by this process for what does not listen yet.
_chosen: set[int] = set()


def free_port(host: str, preferred: int = 0) -> int:
    """Choose a port that can be bound on `host`; `preferred` where that is one.

    Raises:
        ConfigurationError: `host` is no address of this machine, or no port is free.
    """
    candidates = [port for port in random.sample(FREE_PORTS, 100) if port not in _chosen]
    problem: OSError | None = None
    for port in [preferred, *candidates] if preferred else candidates:
        problem = _why_not(host, port)
        if problem is None:
            _chosen.add(port)
            return port
    raise ConfigurationError(f"cannot bind any port on {host}: {_reason(problem)}")


def settle_port(host: str, port: int, option: str, variable: str) -> int:
    """The port to listen on: `port` itself, or any free one for 0.

    Raises:
        ConfigurationError: It cannot be bound; the message names port, option and variable.
    """
    if port == 0:
        return free_port(host)
    problem = _why_not(host, port)
    if problem is not None:
        raise ConfigurationError(
            f"port {port} on {host} cannot be used: {_reason(problem)}. "
            f"Choose another with {option} or {variable} (0: any free one)."
        )
    return port


def url_of(host: str, port: int) -> str:
    """The base URL under which this machine reaches what listens on `host` and `port`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        return f"http://127.0.0.1:{port}" if address.version == 4 else f"http://[::1]:{port}"
    return f"http://{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """`host` as it stands before a colon and a port."""
    return f"[{host}]" if ":" in host else host


def _why_not(host: str, port: int) -> OSError | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as exc:
        return exc
    return None


def _reason(problem: OSError | None) -> str:
    if problem is None:
        return "none is free"
    return (os.strerror(problem.errno) if problem.errno and problem.errno > 0 else str(problem)).lower()
