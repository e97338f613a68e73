"""What `celery -A textgen flower` may do: it shows no text, and serves strangers only after a login.

Flower itself listens on every interface and asks nobody who they are, and its API gives the results
of tasks. It has no hook of its own; but when its options are read and before it listens, it has the
app import its modules, and Celery announces that by a signal whose receivers may end the process.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import states
from celery.signals import import_modules

from textgen.backend import RecordBackend
from textgen.exposure import is_loopback
from textgen.received import HIDDEN

#: Where Flower listens if nobody says otherwise.
LOOPBACK = "127.0.0.1"


class DiscreetBackend(RecordBackend):
    """The record as Celery's result, but for the text."""

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return _without_text(super()._get_task_meta_for(task_id))

    def wait_for(self, task_id: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _without_text(super().wait_for(task_id, *args, **kwargs))


def _without_text(meta: dict[str, Any]) -> dict[str, Any]:
    return {**meta, "result": HIDDEN} if meta["status"] == states.SUCCESS else meta


@import_modules.connect
def restrict(sender: Any, **_: Any) -> None:
    """Restrict this process, if it is Flower: end it where it would serve anybody who comes by."""
    import click  # only command lines come here, and they have it loaded

    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "flower":
        return
    from flower.options import options

    if not options.unix_socket:
        options.address = options.address or LOOPBACK
        refusal = refuse(options.address, options.basic_auth, options.auth)
        if refusal:
            sys.exit(refusal)
    sender.backend_cls = DiscreetBackend
    options.format_task = options.format_task or _say_hidden


def refuse(address: str, basic_auth: list[str] | None, auth: str) -> str | None:
    """Say why Flower must not listen with these options, or None if it may.

    Args:
        address: Name or number of the interface.
        basic_auth: Logins, `user:password` each. One that is empty lets everybody in.
        auth: Who may come by OAuth.
    """
    if is_loopback(address) or auth or (basic_auth and all(map(_is_login, basic_auth))):
        return None
    return (
        f"Flower shows what everybody submits: to listen on {address} it needs a login. Give "
        "--basic-auth=USER:PASSWORD (or FLOWER_BASIC_AUTH) or --auth, or leave out --address to "
        f"listen on {LOOPBACK} only."
    )


def _say_hidden(task: Any) -> Any:
    """Name as hidden the result of an event, of which nothing but dots is left."""
    if task.result is not None:
        task.result = HIDDEN
    return task


def _is_login(credentials: str) -> bool:
    user, _, password = credentials.partition(":")
    return bool(user and password)
