import importlib.util
import re
from codeop import compile_command
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    """The blocks of code in the README."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_table_of_settings_in_the_readme_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("settings_table", ROOT / "docs" / "settings_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text()
    assert module.with_table(readme) == readme, "run: python docs/settings_table.py"


def test_what_the_readme_has_pasted_into_a_shell_is_ascii():
    assert [block for block in blocks("sh") if not block.isascii()] == []


@pytest.mark.parametrize("block", [one for one in blocks("python") if not one.startswith("# ")])
def test_python_in_the_readme_can_be_pasted_into_a_shell(block):
    pending: list[str] = []
    for line in [*block.splitlines(), ""]:
        pending.append(line)
        if compile_command("\n".join(pending)) is not None:
            pending = []
    assert not pending
