"""A home that was moved or copied: MLflow shows and loads what lies in it, from where it lies now."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rmpipe.artifact import Weights
from rmpipe.lineage import Ledger, model_path
from rmpipe.moving import PLACES, settle_in
from rmpipe.store import Store, StoreError


def told(database: Path) -> str:
    """All that a database holds, as text."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump())


def lay(home: Path, made_in: Path, *more: tuple[str, str]) -> Path:
    """A database with the columns that matter, filled as in another home; `more` are experiments of somebody's."""
    home.mkdir(parents=True)
    columns: dict[str, dict[str, str]] = {}
    for table, column, written, below in PLACES[:-2]:
        columns.setdefault(table, {})[column] = f"{written(made_in / below)}thing"
    columns["experiments"] |= {"experiment_id": "1", "name": "study"}
    columns["runs"] |= {"experiment_id": "1", "run_uuid": "r"}
    columns["tags"] = {"run_uuid": "r", "key": "rmpipe.study", "value": ""}
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        for table, row in columns.items():
            connection.execute(f"CREATE TABLE {table} ({', '.join(row)})")
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row.values()))
        for name, place in more:
            connection.execute("INSERT INTO experiments VALUES (?, ?, ?)", (place, name, name))
    return home / "mlflow.db"


def test_a_moved_store_keeps_every_hit_and_mlflow_shows_and_loads_what_is_in_it(tiny, tmp_path: Path):
    home = tmp_path / "other" / "place"
    shutil.copytree(tiny.home, home, copy_function=shutil.copyfile)  # as `cp -r`: with times of today
    store = Store(home)
    assert store.all() == sorted(tiny.records())
    assert all(store.status(address) for address in store.all())
    settle_in(home)
    assert str(tiny.home) not in told(home / "mlflow.db")
    client = Ledger(home).client
    address = tiny.address("sample", policy="weak")
    (folder,) = home.glob(f"mlflow-artifacts/sample/{tiny.records()[address]['run_id']}/artifacts")
    assert client.get_run(tiny.records()[address]["run_id"]).info.artifact_uri == folder.as_uri()
    assert [file.path for file in client.list_artifacts(tiny.records()[address]["run_id"])] == ["texts.json"]
    trained = tiny.address("train", reward_model="off")
    assert model_path("models:/tiny-reward-model-off@seed-1", home) == home / "store" / trained / "model"
    assert len(client.search_model_versions("")) == len(Ledger(tiny.home).client.search_model_versions(""))


@pytest.mark.parametrize("name", ["plain", 'bob\'s "own" földer', "100% _x"])
def test_every_column_names_the_place_of_now_whatever_the_places_are_called(tmp_path: Path, name: str):
    old, new = tmp_path / "old" / name, tmp_path / "new" / name
    database = lay(new, made_in=old)
    settle_in(new)
    text = told(database)
    for _, _, written, below in PLACES[:-2]:
        assert written(old / below).replace("'", "''") not in text
        assert f"{written(new / below)}thing".replace("'", "''") in text
    settle_in(new)
    assert told(database) == text


def test_two_moves_end_in_one_place_even_below_another(tmp_path: Path):
    old = tmp_path / "data"
    database = lay(
        old / "inner",
        made_in=tmp_path / "first",
    )
    with closing(sqlite3.connect(database)) as connection, connection:
        row = (f"{old.as_uri()}/mlflow-artifacts/train", "2", "train")
        connection.execute("INSERT INTO experiments VALUES (?, ?, ?)", row)
        connection.execute("INSERT INTO runs VALUES (?, '2', 's')", (f"{row[0]}/s/artifacts",))
        connection.execute("INSERT INTO tags VALUES ('s', 'rmpipe.study', 'x')")
    settle_in(old / "inner")
    text = told(database)
    assert str(tmp_path / "first") not in text
    assert f"{old.as_uri()}/mlflow-artifacts" not in text
    assert f"{old.as_uri()}/inner/mlflow-artifacts/train/s/artifacts" in text
    assert "inner/inner" not in text


def test_a_home_that_was_not_moved_and_a_link_to_it_are_left_alone(tmp_path: Path):
    database = lay(tmp_path / "home", made_in=tmp_path / "home")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    before = database.read_bytes()
    settle_in(tmp_path / "home")
    settle_in(tmp_path / "link")
    assert database.read_bytes() == before


def test_experiments_that_are_not_ours_stay_where_they_are(tmp_path: Path):
    shared = (tmp_path / "shared" / "mlflow-artifacts" / "mine").as_uri()
    database = lay(tmp_path / "new", tmp_path / "old", ("mine", shared), ("far", "s3://bucket/mlflow-artifacts/far"))
    settle_in(tmp_path / "new")
    assert shared in told(database)
    assert "s3://bucket/mlflow-artifacts/far" in told(database)


def test_where_there_is_no_database_of_mlflow_nothing_is_done(tmp_path: Path):
    settle_in(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    settle_in(tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == b"no database" * 100


def test_a_database_that_cannot_be_written_is_told_with_the_remedy(tmp_path: Path):
    database = lay(tmp_path / "new", made_in=tmp_path / "old")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TABLE model_versions")
    before = database.read_bytes()
    with pytest.raises(StoreError, match=rf"mlflow\.db: names {tmp_path / 'old'}, and cannot be written \(no such tab"):
        settle_in(tmp_path / "new")
    assert database.read_bytes() == before


def test_what_the_hub_gave_goes_where_the_home_goes(tmp_path: Path):
    old, new = tmp_path / "old" / "huggingface", tmp_path / "new"
    snapshot = Path("huggingface", "hub", "models--some--model", "snapshots", "0123")
    for home in (old, new):
        (home / "store" / "fetch" / "0").mkdir(parents=True)
        reference = {"path": str(old / snapshot), "content": "some/model@main"}
        (home / "store" / "fetch" / "0" / "reference.json").write_text(json.dumps(reference))
    (old / snapshot).mkdir(parents=True)
    assert Weights("fetch/0", old).model == old / snapshot
    (new / snapshot).parent.mkdir(parents=True)
    (old / snapshot).rename(new / snapshot)
    assert Weights("fetch/0", new).model == new / snapshot
    assert Weights("fetch/0", old).model == old / snapshot  # found nowhere: told as it was
