"""The `textgen` command: a thin shell over `textgen.client`, or over HTTP where a URL is set."""

from textgen.cli.root import cli, main

__all__ = ["cli", "main"]
