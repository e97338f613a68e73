"""`python -m tests.faults`: the fault matrix on both kinds of stack, side by side.

The seed decides the order of the faults and what the clients do. The exit status is 1 if a row failed
or did not reach its phase, or if the checker finds a violation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import environment
from tests.faults import sabotage
from tests.faults.history import History
from tests.faults.run import Run, chosen, make_world
from tests.faults.world import ROOT

KINDS = ("rabbitmq", "embedded")


def main() -> int:
    options = _options()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="textgen-faults-"))
    print(f"seed {options.seed}, histories and logs in {folder}", flush=True)
    kinds = [options.stack] if options.stack else list(KINDS)
    if len(kinds) > 1:
        return _side_by_side(options, folder, kinds)
    return _one(options, folder / kinds[0], kinds[0])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--quick", action="store_true", help="only the rows of the short run")
    parser.add_argument("--stack", choices=KINDS, help="only this kind of stack")
    parser.add_argument("--rows", default="", help="only these rows: 4,10,20")
    parser.add_argument("--sabotage", choices=sorted(sabotage.PATCHES), help="break textgen on purpose")
    parser.add_argument("--folder", type=Path, help="where histories and logs go")
    return parser.parse_args()


def _side_by_side(options: argparse.Namespace, folder: Path, kinds: list[str]) -> int:
    given = ["--seed", str(options.seed), "--rows", options.rows, "--folder", str(folder)]
    given += ["--quick"] if options.quick else []
    given += ["--sabotage", options.sabotage] if options.sabotage else []
    runs = [
        subprocess.Popen([sys.executable, "-m", "tests.faults", *given, "--stack", kind]) for kind in kinds
    ]
    codes = [run.wait() for run in runs]
    tables = [json.loads((folder / kind / "table.json").read_text()) for kind in kinds if _has(folder, kind)]
    _show([line for table in tables for line in table])
    return max(codes)


def _has(folder: Path, kind: str) -> bool:
    return (folder / kind / "table.json").exists()


def _one(options: argparse.Namespace, folder: Path, kind: str) -> int:
    folder.mkdir(parents=True)
    numbers = {int(number) for number in options.rows.split(",") if number}
    rows = chosen(kind, options.quick, numbers)
    for name in [name for name in os.environ if name.startswith(environment.SCRUBBED)]:
        del os.environ[name]
    source = sabotage.apply(options.sabotage, folder / "source") if options.sabotage else ROOT
    history = History(folder / "history.jsonl")
    run = Run(
        make_world(kind, folder, history, random.Random(f"{options.seed}-{kind}"), source), rows, options.seed
    )
    violations = run.do()
    table = [
        {
            "row": outcome.row.number,
            "fault": outcome.row.fault,
            "phase": outcome.row.phase,
            "stack": kind,
            "recovered_s": outcome.recovered_s,
            "failure": outcome.failure,
        }
        for outcome in run.outcomes
    ]
    (folder / "table.json").write_text(json.dumps(table))
    if options.stack:
        _show(table)
    for violation in violations:
        print(f"[{kind}] VIOLATION {violation.invariant}: {violation.what}")
    for outcome in run.outcomes:
        if outcome.failure:
            print(f"[{kind}] VIOLATION row {outcome.row.number}: {outcome.failure}")
    missing = {row.number for row in rows} - {outcome.row.number for outcome in run.outcomes}
    failed = [outcome for outcome in run.outcomes if outcome.failure]
    counts = f"{len(failed)} failed, {len(missing)} not run, {len(violations)} violations"
    print(f"[{kind}] {len(run.outcomes)} rows, {counts}")
    return 1 if failed or missing or violations else 0


def _show(table: list[dict[str, object]]) -> None:
    """Print the table as Markdown."""
    print("| # | fault | phase | stack | recovered after | outcome |\n|--:|---|---|---|--:|---|")
    for line in sorted(table, key=lambda line: (line["row"], line["stack"])):
        after = f"{line['recovered_s']:.1f} s" if line["recovered_s"] is not None else "-"
        cells = (line["row"], line["fault"], line["phase"], line["stack"], after, line["failure"] or "ok")
        print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    sys.exit(main())
