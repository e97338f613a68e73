"""How every process logs: structlog and the standard library through one handler on stderr.

Web app, worker and command line call `configure` once at their start. What is bound to structlog's
context variables (`request_id`, `task_id`) stands on every line, those of other packages included.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from traceback import extract_tb

import structlog
from structlog.typing import Processor

from textgen.settings import get_settings

#: Name of the one handler of ours, so that configuring twice replaces it.
HANDLER = "textgen"
#: Loggers with a line for each request that is sent: those are shown at DEBUG only.
CHATTY = ("httpx", "httpx2")

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: int | str = logging.INFO) -> None:
    """Send the log lines of this process to stderr; a second call replaces the first.

    Args:
        level: The lowest level shown, as `logging` takes it.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler()
    handler.set_name(HANDLER)
    handler.setFormatter(_formatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING if root.level > logging.DEBUG else logging.NOTSET)


def _formatter() -> logging.Formatter:
    last: tuple[Processor, ...]
    if get_settings().log_json:
        last = (structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=True))
    else:
        # The default traceback of the console shows local variables, prompts among them.
        plain = structlog.dev.plain_traceback
        last = (structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def outline(exc: BaseException) -> list[str]:
    """Say where an exception and its causes came from, without their messages.

    A message of an error that nobody foresaw may hold whatever was being worked on.

    Returns:
        Lines such as `ValueError` and `textgen/client.py:42 submit`, the outermost error first.
    """
    return list(_outline(exc))


def _outline(exc: BaseException | None) -> Iterator[str]:
    while exc is not None:
        yield type(exc).__name__
        for frame in extract_tb(exc.__traceback__):
            yield f"{frame.filename}:{frame.lineno} {frame.name}"
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
