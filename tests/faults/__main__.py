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
from tests.faults import sabotage, table
from tests.faults.history import History
from tests.faults.run import Run, chosen, make_world
from tests.faults.world import ROOT

KINDS = ("rabbitmq", "embedded")


def main() -> int:
    options = _options()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="textgen-faults-"))
    print(f"seed {options.seed}, histories and logs in {folder}", flush=True)
    if len(options.chosen) > 1:
        return _side_by_side(options, folder)
    [kind] = options.chosen
    return _one(options, folder / kind, kind)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--quick", action="store_true", help="only the rows of the short run")
    parser.add_argument("--stack", choices=KINDS, help="only this kind of stack")
    parser.add_argument("--rows", default="", help="only these rows: 4,10,20")
    parser.add_argument("--sabotage", choices=sorted(sabotage.PATCHES), help="break textgen on purpose")
    parser.add_argument("--folder", type=Path, help="where histories and logs go")
    options = parser.parse_args()
    numbers = {int(number) for number in options.rows.split(",") if number}
    kinds = [options.stack] if options.stack else list(KINDS)
    rows = {kind: chosen(kind, options.quick, numbers) for kind in kinds}
    unknown = numbers - {row.number for found in rows.values() for row in found}
    if unknown:
        parser.error(f"no such rows in this run: {', '.join(map(str, sorted(unknown)))}")
    #: Kind of stack → the rows that are done to it, where there are any.
    options.chosen = {kind: found for kind, found in rows.items() if found}
    return options


def _side_by_side(options: argparse.Namespace, folder: Path) -> int:
    given = ["--seed", str(options.seed), "--folder", str(folder)]
    given += ["--quick"] if options.quick else []
    given += ["--sabotage", options.sabotage] if options.sabotage else []
    runs = []
    for kind, rows in options.chosen.items():
        of_kind = ["--stack", kind, "--rows", ",".join(str(row.number) for row in rows)]
        runs.append(subprocess.Popen([sys.executable, "-m", "tests.faults", *given, *of_kind]))
    codes = [run.wait() for run in runs]
    print(table.render(table.read(folder)))
    return max(codes)


def _one(options: argparse.Namespace, folder: Path, kind: str) -> int:
    folder.mkdir(parents=True)
    rows = options.chosen[kind]
    for name in [name for name in os.environ if name.startswith(environment.SCRUBBED)]:
        del os.environ[name]
    source = sabotage.apply(options.sabotage, folder / "source") if options.sabotage else ROOT
    history = History(folder / "history.jsonl")
    run = Run(
        make_world(kind, folder, history, random.Random(f"{options.seed}-{kind}"), source), rows, options.seed
    )
    violations = run.do()
    lines = table.lines_of(kind, run.outcomes, violations, list(history.read()))
    (folder / table.FILE).write_text(json.dumps(lines))
    if options.stack:
        print(table.render(lines))
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


if __name__ == "__main__":
    sys.exit(main())
