"""Groups of commands that go straight to broker and store, also where the others go over HTTP."""

from __future__ import annotations

import click


class _StraightCommand(click.Command):
    def invoke(self, ctx: click.Context) -> object:
        from textgen.errors import ConfigurationError
        from textgen.settings import get_settings

        if get_settings().url:
            way = "goes straight to broker and store, and not over HTTP: unset TEXTGEN_URL"
            raise ConfigurationError(f"`{ctx.command_path}` {way}, or run it beside the server")
        return super().invoke(ctx)


class StraightGroup(click.Group):
    """With `TEXTGEN_URL` set its commands refuse, lest they act on other tasks than those of that server."""

    command_class = _StraightCommand
    group_class = type
