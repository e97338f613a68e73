"""The lock file names all that setup.cfg asks for, in versions that it allows, with hashes."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
#: The extras that images have.
EXTRAS = ("local", "openai", "anthropic")


def asked() -> list[Requirement]:
    config = ConfigParser(comment_prefixes="#", interpolation=None)
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"]]
    lists += [config["options.extras_require"][extra] for extra in EXTRAS]
    return [Requirement(line) for text in lists for line in text.splitlines() if line.strip()]


def locked() -> dict[str, list[str]]:
    """Package → its versions in the lock file; platforms may differ."""
    found: dict[str, list[str]] = {}
    lock = (ROOT / "requirements.lock").read_text()
    for name, version in re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", lock, re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


@pytest.mark.parametrize("requirement", asked(), ids=lambda one: one.name)
def test_what_is_asked_for_is_locked(requirement: Requirement) -> None:
    versions = locked().get(requirement.name.lower().replace("_", "-"), [])
    assert versions, "run: make lock"
    assert all(requirement.specifier.contains(version) for version in versions), "run: make lock"


def test_everything_locked_has_hashes() -> None:
    entries = re.split(
        r"^(?=[a-z0-9-]+(?:\[[a-z,]+\])?==)", (ROOT / "requirements.lock").read_text(), flags=re.M
    )[1:]
    assert len(entries) == sum(len(versions) for versions in locked().values())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
