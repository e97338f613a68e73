import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_settings_in_the_readme_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("settings_table", ROOT / "docs" / "settings_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text()
    assert module.with_table(readme) == readme, "run: python docs/settings_table.py"
