"""The form of a database, read without altering it and without importing what made it."""

from __future__ import annotations

import ast
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHANGES = {"mlflow": "store/db_migrations/versions", "prefect": "server/database/_migrations/versions/sqlite"}
"""Where in a package the changes of its database's form lie, as Alembic keeps them: a file each."""


def form(file: Path) -> str:
    """The form of a whole database of SQLite's.

    Raises:
        sqlite3.OperationalError: it cannot be read just now.
        sqlite3.DatabaseError: it is damaged, or another thing.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return found[0] if found else ""


def forms(package: str) -> dict[str, bool]:
    """Each form that an installed package knows, and whether a later one follows it; none when it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return {}
    files = (Path(spec.origin).parent / CHANGES[package]).glob("*.py")
    told = [_told(ast.parse(file.read_text())) for file in files]  # importing a change would import all of MLflow
    early = {name for each in told for name in _names(each.get("down_revision"))}
    return {each["revision"]: each["revision"] in early for each in told if "revision" in each}


def _told(module: ast.Module) -> dict[str, Any]:
    """What a change says of itself: {"revision", "down_revision"}, each annotated or not."""
    found = {}
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                found[target.id] = ast.literal_eval(getattr(node, "value", None) or "None")
    return found


def _names(before: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return before if isinstance(before, tuple) else (before,) if before else ()
