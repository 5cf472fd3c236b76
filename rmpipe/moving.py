"""A home that was moved or copied, seen from MLflow's database: its rows name folders by their whole paths.

All else is found from the home, wherever it lies. The database is read and written here as SQLite's file, since MLflow
has no call that changes where a run's files are.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote

from rmpipe.store import REMEDY, StoreError


def _uri(folder: Path) -> str:
    return f"{folder.as_uri()}/"


def _source(folder: Path) -> str:
    return json.dumps({"uri": f"{folder}/"})[:-2]  # a data set's source, as far as the folder


def _card(folder: Path) -> str:
    return f"Files: `{folder}/"  # the end of a model's card


PLACES: tuple[tuple[str, str, Callable[[Path], str], str], ...] = (
    ("experiments", "artifact_location", _uri, "mlflow-artifacts"),
    ("runs", "artifact_uri", _uri, "mlflow-artifacts"),
    ("logged_models", "artifact_location", _uri, "mlflow-artifacts"),
    ("datasets", "dataset_source", _source, "store"),
    ("model_versions", "description", _card, "store"),
    ("model_versions", "source", _uri, "store"),
    ("model_versions", "storage_location", _uri, "store"),
    ("model_versions", "source", _uri, "huggingface"),
    ("model_versions", "storage_location", _uri, "huggingface"),
)
"""(table, column, how a folder is written there, the folder below the home that is meant)."""
OURS = """
    SELECT DISTINCT artifact_location FROM experiments AS e WHERE EXISTS (
        SELECT 1 FROM runs AS r JOIN tags AS t ON t.run_uuid = r.run_uuid
        WHERE r.experiment_id = e.experiment_id AND t.key = 'rmpipe.study')
"""


def settle_in(home: Path) -> None:
    """Let MLflow's database name the folders of the home that it lies in now; nothing is done where it does.

    The home of before is told by the experiments that hold runs of ours. One that is this very folder by another path,
    through a link, is left as it is. Call it before the database is opened, and only for the one inside of the home.

    Raises:
        StoreError: the home was moved, and its database cannot be written.
    """
    database = home / "mlflow.db"
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        former = _former(connection, home)
        try:
            with connection:  # all of it or nothing
                for old in former:
                    _rewrite(connection, old, home)
        except sqlite3.Error as error:
            raise StoreError(f"{database}: names {former[0]}, and cannot be written ({error}); {REMEDY}") from error


def _former(connection: sqlite3.Connection, home: Path) -> list[Path]:
    """The homes that are named and are not this one; none where MLflow will say better what is wrong."""
    found: list[Path] = []
    with suppress(sqlite3.DatabaseError):
        for (location,) in connection.execute(OURS):
            before, inside, _ = str(location).rpartition("/mlflow-artifacts/")
            if inside and before.startswith("file://"):
                found.append(Path(unquote(before.removeprefix("file://"))))
    return [old for old in dict.fromkeys(found) if old != home and not _same(old, home)]


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _rewrite(connection: sqlite3.Connection, old: Path, new: Path) -> None:
    for table, column, written, below in PLACES:
        change = f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)"
        before, after = (written(home / below) for home in (old, new))
        connection.execute(change, (before, after, before))
