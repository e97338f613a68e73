"""What goes wrong with a stack as a whole."""

from __future__ import annotations

from textgen.errors import TextgenError


class StackError(TextgenError):
    """The stack could not be started or stopped; whoever ran the command reads why and where to look.

    Attributes:
        details: Last lines of the log of what failed; may be empty.
    """

    details: str = ""

    @classmethod
    def of(cls, message: str, details: str) -> StackError:
        """Make the error with the log lines that belong to it."""
        made = cls(message)
        made.details = details
        return made
