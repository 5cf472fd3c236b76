"""The arrow never turns back: flows -> tasks -> rmpipe; each of the two services has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import rmpipe

ROOT = Path(__file__).parent.parent


def imports(file: Path) -> set[str]:
    """Every module that a file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def importers(*, of: str, within: str) -> list[str]:
    files = sorted((ROOT / within).rglob("*.py"))
    assert files
    return [str(file.relative_to(ROOT)) for file in files if any(name.split(".")[0] == of for name in imports(file))]


def test_a_command_knows_neither_service():
    assert importers(of="prefect", within="flows/commands") == importers(of="mlflow", within="flows/commands") == []


def test_nouns_know_no_verb_and_verbs_no_question():
    assert importers(of="tasks", within="rmpipe") == []
    assert importers(of="flows", within="rmpipe") == []
    assert importers(of="flows", within="tasks") == []


def test_mlflow_is_imported_in_the_lineage_alone():
    assert importers(of="mlflow", within="rmpipe") == ["rmpipe/lineage.py"]
    assert importers(of="mlflow", within="tasks") == importers(of="mlflow", within="flows") == []


def test_prefect_is_imported_in_flows_alone():
    assert importers(of="prefect", within="rmpipe") == importers(of="prefect", within="tasks") == []
    assert importers(of="prefect", within="flows")


def test_the_folder_mlflow_is_no_package():
    assert (ROOT / "mlflow").is_dir()
    assert list((ROOT / "mlflow").rglob("*.py")) == []


def test_what_the_package_names_is_there_and_costs_nothing_until_used():
    assert all(getattr(rmpipe, name) is not None for name in rmpipe.__all__)
    program = "import sys, rmpipe; sys.exit(any(name in sys.modules for name in ('numpy', 'torch', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
