"""Writes the table of settings in README.md from `textgen.settings`, which alone defines them.

Run it after a change of settings: python docs/settings_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from textgen.fallbacks import FallbackSettings
from textgen.providers import ProviderSettings
from textgen.quotas import QuotaSettings
from textgen.reuse import CacheSettings
from textgen.settings import Settings, variable

README = Path(__file__).parent.parent / "README.md"
#: What stands around the table in README.md.
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def table() -> str:
    """The table as Markdown: variable, default, bounds, meaning."""
    rows = ["| variable | default | bounds | what it sets |", "|---|---|---|---|"]
    mixed_in = (ProviderSettings, FallbackSettings, QuotaSettings, CacheSettings)
    inherited = {name: field for kind in mixed_in for name, field in kind.model_fields.items()}
    for name in [*(name for name in Settings.model_fields if name not in inherited), *inherited]:
        field = Settings.model_fields[name]
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{variable(name)}` | {_default(field)} | {_bounds(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value}`" if value != "" else "empty"


def _bounds(field: FieldInfo) -> str:
    signs = {Ge: "≥ ", Gt: "> ", Le: "≤ ", Lt: "< "}
    found = [
        f"{sign}{next(iter(vars(rule).values())) if hasattr(rule, '__dict__') else rule}"
        for rule in field.metadata
        for kind, sign in signs.items()
        if isinstance(rule, kind)
    ]
    return ", ".join(re.sub(r"\w+\(\w+=(.*)\)", r"\1", text) for text in found)


def with_table(readme: str) -> str:
    """README's text with the table as it should stand."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
