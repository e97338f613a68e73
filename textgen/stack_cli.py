"""`textgen up`, `down` and `ps`: the whole stack on this machine, for people and for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from textgen.stack import detached
from textgen.stack.errors import StackError
from textgen.stack.locks import make_folder, running_stack
from textgen.stack.options import Options, folder
from textgen.stack.supervisor import serve

_state_dir = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the stack's data, logs and password. [default: this user's]",
)
_port = click.IntRange(0, 65535)


@click.command()
@_state_dir
@click.option("--host", help="Address of the web app. [default: TEXTGEN_HOST or 127.0.0.1]")
@click.option("--port", type=_port, help="Port of the web app; 0: any free one. [default: 8000]")
@click.option("--flower-port", type=_port, help="Port of Flower; 0: any free one. [default: 5555]")
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes. [default: 1]")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Tasks a worker runs at once. [default: 8]")
@click.option("--engine", help="Engine of requests that name none.")
@click.option("--detach", is_flag=True, help="Return once all is healthy; stop with `textgen down`.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once all is healthy.")
def up(state_dir: Path | None, detach: bool, as_json: bool, **given: Any) -> None:
    """Start broker, store, worker, web app and Flower on this machine, and keep them running.

    Broker and store are an embedded Valkey server, unless CELERY_BROKER_URL, RABBITMQ_*, REDIS_URL or
    REDIS_* say where they are.
    """
    options = Options.over_settings(state_dir, **given)
    make_folder(options.state_dir)

    def announce(address: Mapping[str, Any]) -> None:
        click.echo(json.dumps(address) if as_json else _block(address, detach))

    try:
        if detach:
            announce(detached.start(options))
        else:
            serve(options, announce)
    except StackError as exc:
        if exc.details:
            click.echo(exc.details, err=True)
        raise


@click.command()
@_state_dir
def down(state_dir: Path | None) -> None:
    """Stop what `textgen up` started, and wait until it has stopped."""
    where = folder(state_dir)
    stopped = detached.stop(where)
    click.echo(f"The stack on {where} has stopped." if stopped else f"No stack runs on {where}.", err=True)


@click.command()
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def ps(state_dir: Path | None, as_json: bool) -> None:
    """Show what `textgen up` runs. Ends with code 1 where no stack runs."""
    where = folder(state_dir)
    processes = [_with_uptime(row) for row in running_stack(where).get("processes", [])]
    if as_json:
        click.echo(json.dumps({"state_dir": str(where), "processes": processes}))
    elif processes:
        _show(processes)
    else:
        click.echo(f"No stack runs on {where}.", err=True)
    if not processes:
        raise click.exceptions.Exit(1)


def _with_uptime(row: Mapping[str, Any]) -> dict[str, Any]:
    started_at = row["started_at"]
    uptime = datetime.now(UTC) - datetime.fromisoformat(started_at) if started_at else None
    return {**row, "uptime_s": round(uptime.total_seconds(), 1) if uptime else None}


def _show(processes: list[dict[str, Any]]) -> None:
    table = Table("process", "pid", "state", "uptime", "restarts", box=None)
    for row in processes:
        uptime = "" if row["uptime_s"] is None else f"{row['uptime_s']:.0f} s"
        table.add_row(row["name"], str(row["pid"] or ""), row["state"], uptime, str(row["restarts"]))
    Console().print(table)


def _block(address: Mapping[str, Any], detached: bool) -> str:
    web, where = address["web"], address["state_dir"]
    stop = f"textgen down --state-dir {where}" if detached else "Ctrl-C here"
    return f"""
textgen is running.

  Web and API  {web}
  Flower       {address["flower"]}
  Engine       {address["engine"]}
  Store        redis-cli -u {address["redis_url"]}
  Logs         {where}/log
  Stop         {stop}

Try it:
  curl -s {web}/v1/tasks -H 'Content-Type: application/json' -d '{{"prompt": "Tell me about the sea."}}'
  curl -s '{web}/v1/tasks/TASK_ID?wait_s=30'
"""
