"""Breaks a copy of textgen on purpose, to show that a run notices.

`python -m tests.faults.sabotage` switches each safeguard off, one at a time, and ends with 1 if a run
passes without it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.world import ROOT


@dataclass(frozen=True)
class Patch:
    """One change of the source."""

    file: str
    old: str
    new: str


#: Name → the changes that switch a safeguard off.
PATCHES: dict[str, tuple[Patch, ...]] = {
    "confirms": (
        Patch("textgen/broker.py", '"confirm_publish": True', '"confirm_publish": False'),
        Patch("textgen/hooks.py", "                confirm_timeout=settings.publish_timeout_s,\n", ""),
    ),
    "fencing": (
        Patch("textgen/store/lua/append.lua", "if fields[2] ~= ARGV[1] then return answer('fenced') end", ""),
        Patch(
            "textgen/store/lua/transition.lua",
            "if fields[2] ~= ARGV[2] then return answer('fenced') end",
            "",
        ),
        Patch("textgen/store/lua/transition.lua", "if TERMINAL[status] then return answer('ended') end", ""),
    ),
    "outbox": (Patch("textgen/janitor.py", "        self._each(self.outbox, self._publish)\n", ""),),
    "acks_late": (Patch("celeryconfig.py", "task_acks_late = True", "task_acks_late = False"),),
}


#: Name → the rows that cannot go well without the safeguard.
ROWS = {"confirms": "24", "fencing": "10", "outbox": "39", "acks_late": "30"}


def apply(name: str, folder: Path) -> Path:
    """Copy what runs to `folder` and break it there; returns the folder."""
    folder.mkdir()
    shutil.copytree(ROOT / "textgen", folder / "textgen", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("celeryconfig.py", "web.py"):
        shutil.copy(ROOT / file, folder / file)
    for patch in PATCHES[name]:
        path = folder / patch.file
        text = path.read_text()
        if text.count(patch.old) != 1:
            raise ValueError(
                f"{patch.file} has changed: {patch.old!r} stands there {text.count(patch.old)} times"
            )
        path.write_text(text.replace(patch.old, patch.new))
    return folder


def main() -> int:
    """Run each sabotage; returns the exit status."""
    passed = []
    for name, rows in ROWS.items():
        command = [sys.executable, "-m", "tests.faults", "--stack", "rabbitmq", "--rows", rows]
        print(f"without {name}:", flush=True)
        if subprocess.run([*command, "--seed", "1", "--sabotage", name]).returncode == 0:
            passed.append(name)
    print(f"not noticed: {', '.join(passed)}" if passed else "each was noticed")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
