"""MLflow's rows: those of what stays, is young, has an alias or is somebody else's stay; the rest ends for good."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rmpipe.garbage import Piece
from rmpipe.lineage import Ledger
from rmpipe.retention import drop, exists, registered, rows

KEPT, GONE, CROWNED = "train/aaaaaaaaaaaa", "train/bbbbbbbbbbbb", "train/cccccccccccc"
ALL = 3


@dataclass
class Past:
    """A ledger with rows about addresses; each run has one file of 5 bytes."""

    home: Path
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.home)
        self.client = self.ledger.client
        self.experiment = self.client.create_experiment("train", (self.home / "mlflow-artifacts" / "train").as_uri())

    def run(self, address: str, parent: str = "", experiment: str = "") -> str:
        tags = {"rmpipe.address": address} | ({"mlflow.parentRunId": parent} if parent else {})
        run_id = self.client.create_run(experiment or self.experiment, tags=tags).info.run_id
        self.client.log_text(run_id, "texts", "texts.txt")
        self.client.set_terminated(run_id)
        return run_id

    def model(self, address: str, run_id: str) -> str:
        tags = {"rmpipe.address": address}
        return self.client.create_logged_model(self.experiment, "model", run_id, tags).model_id

    def version(self, name: str, address: str, alias: str = "", **tags: str) -> str:
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        source = (self.home / "store" / address / "model").as_uri()
        number = self.client.create_model_version(name, source, tags=tags, await_creation_for=0).version
        if alias:
            self.client.set_registered_model_alias(name, alias, number)
        return f"{name}/{number}"

    def going(self, *studies: str, kept: tuple[str, ...] = (KEPT, CROWNED), days: float = -1) -> dict[str, set[str]]:
        """Names of the rows that can go by what they are; by default everything is old enough."""
        found: dict[str, set[str]] = {}
        for piece in rows(self.ledger, kept, studies, time.time() - days * 86400)[0]:
            found.setdefault(piece.of, set()).add(piece.name)
        return found

    def runs(self) -> set[str]:
        experiments = [each.experiment_id for each in self.client.search_experiments(view_type=ALL)]
        return {run.info.run_id for run in self.client.search_runs(experiments, run_view_type=ALL)}


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """A past with rows of each kind; tests may add to it what concerns their own address, and end that."""
    return Past(tmp_path_factory.mktemp("home"))


def tagged(address: str) -> dict[str, str]:
    return {"rmpipe.address": address}


def test_looking_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not exists(Ledger(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    assert exists(Ledger(tmp_path))
    assert list(tmp_path.iterdir()) == []


def held(past: Past, days: float = -1, **asked: bool) -> set[str]:
    return registered(past.ledger, time.time() - days * 86400, **asked)


def test_aliases_are_followed_by_the_tag_or_by_the_place(past: Past):
    past.version("s.policy.tagged", "train/elsewhere", "seed-1", **tagged(KEPT))
    past.version("somebodys", CROWNED, "champion")
    past.version("s.policy.tagged", GONE, **tagged(GONE))
    past.client.create_registered_model("another's")
    far = past.client.create_model_version("another's", "file:///far/away", await_creation_for=0)
    past.client.set_registered_model_alias("another's", "champion", far.version)
    assert held(past) == {KEPT, CROWNED}
    assert held(past, automatic=False) == {CROWNED}
    assert held(past, days=1) == {KEPT, CROWNED, GONE}


def test_what_a_person_registered_is_held_without_an_alias_by_whatever_it_names(begun: Path):
    past, names = Past(begun), iter("bcdef")
    by_place, by_run, by_model, copied = (f"train/{next(names) * 12}" for _ in range(4))
    past.version("somebodys", by_place)
    client = past.client
    client.create_model_version("somebodys", "file:///x", run_id="0" * 32, await_creation_for=0)  # removed since
    run_id = past.run(by_run)
    client.create_model_version("somebodys", f"runs:/{run_id}/x", run_id=run_id, await_creation_for=0)
    model = past.model(by_model, past.run(KEPT))
    client.create_model_version("somebodys", "file:///x", model_id=model, run_id=run_id, await_creation_for=0)
    assert held(past) == {by_place, by_run}
    (away := begun / "away").symlink_to(begun / "store")
    client.create_model_version("somebodys", (away / by_model / "model").as_uri(), await_creation_for=0)
    assert held(past) == {by_place, by_run, by_model}

    past.version("s.policy.ours", copied, **tagged(copied))
    assert held(past) == {by_place, by_run, by_model}
    client.copy_model_version("models:/s.policy.ours/1", "production")
    assert held(past) == {by_place, by_run, by_model, copied}
    assert past.going(kept=())["versions"] == {"s.policy.ours/1"}


def test_in_a_database_that_is_not_the_stores_own_every_version_holds(past: Past, monkeypatch: pytest.MonkeyPatch):
    past.version("s.policy.tagged", GONE, **tagged(GONE))
    assert GONE not in held(past, automatic=False)
    monkeypatch.setattr("rmpipe.retention._owns", lambda ledger: False)
    assert {KEPT, GONE} <= held(past, automatic=False)


def test_what_mlflow_refuses_is_a_sentence_with_the_remedy(past: Past):
    with pytest.raises(RuntimeError, match=r"MLflow refused: .*not found.*; `rmpipe doctor`"):
        drop(past.ledger, [Piece("MLflow", "runs", "0" * 32)])


def test_what_a_person_put_into_the_trash_of_mlflow_stays_there(begun: Path):
    past = Past(begun)
    experiment = past.client.create_experiment("a person's", (past.home / "mlflow-artifacts" / "theirs").as_uri())
    theirs = past.client.create_run(experiment).info.run_id
    past.client.log_text(theirs, "texts", "texts.txt")
    trashed = past.client.create_run(past.experiment).info.run_id
    model = past.client.create_logged_model(past.experiment, "theirs").model_id
    past.client.delete_logged_model(model)
    past.client.delete_run(trashed)
    past.client.delete_experiment(experiment)
    ours = past.run(GONE)
    drop(past.ledger, rows(past.ledger, [], [], time.time() + 1)[0])
    assert past.runs() == {theirs, trashed}
    assert ours not in past.runs()
    past.client.restore_experiment(experiment)
    assert [file.path for file in past.client.list_artifacts(theirs)] == ["texts.txt"]
    store = past.client._tracking_client.store
    assert store.get_logged_model(model, allow_deleted=True).name == "theirs"


def test_rows_go_with_their_address_and_nobody_elses_do(past: Past):
    stays, goes = past.run(KEPT), past.run(GONE)
    past.model(KEPT, stays)
    model = past.model(GONE, goes)
    past.client.create_run(past.experiment, tags={"mlflow.runName": "a person's own"})
    past.client.create_logged_model(past.experiment, "a-persons-own")
    version = past.version("s.aligned.weak", GONE, **tagged(GONE))
    with_alias = past.version("s.aligned.strong", GONE, "champion", **tagged(GONE))
    beside = past.version("s.aligned.strong", GONE, **tagged(GONE))
    past.client.create_registered_model("s.policy.emptied")
    past.client.create_registered_model("a person's, empty as yet")
    found = past.going()
    assert found["runs"] == {goes}
    assert found["models"] == {model}
    assert found["versions"] >= {version, beside}
    assert with_alias not in found["versions"]
    assert found["registered models"] == {"s.aligned.weak", "s.policy.emptied"}
    assert past.going(kept=(KEPT, CROWNED, GONE)) == {"registered models": {"s.policy.emptied"}}
    assert past.going(days=1) == {}


def test_an_invocation_stays_while_a_run_of_its_stays_and_the_newest_of_a_study_named(past: Past):
    first, second, third = (past.ledger.open_study("pocket", "teach", at) for at in (1000, 2000, 3000))
    other = past.ledger.open_study("contrast", "teach", 4000)
    kept = "sft/111111111111"
    past.run(kept, parent=first)
    assert past.going(kept=(kept,))["invocations of studies"] == {second, third, other}
    assert past.going("pocket", kept=(kept,))["invocations of studies"] == {second, other}
    assert past.going("pocket", "contrast")["invocations of studies"] == {first, second}


def test_a_run_whose_files_lie_outside_of_the_store_stays_and_is_told_of(past: Past, tmp_path: Path):
    elsewhere = past.client.create_experiment("elsewhere", tmp_path.as_uri())
    run_id = past.run("sft/222222222222", experiment=elsewhere)
    found, note = rows(past.ledger, [KEPT, CROWNED], [], time.time() + 1)
    assert run_id not in {piece.name for piece in found}
    assert note.startswith("1 runs of MLflow stay: their files lie outside")


def test_a_database_that_others_may_share_is_left(past: Past, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", past.ledger.uri)
    found, note = rows(Ledger(past.home.parent), [], [], time.time() + 1)
    assert found == []
    assert "is not this store's alone" in note


def test_what_ends_is_gone_for_good_with_its_files_and_what_was_given_an_alias_meanwhile_is_not(past: Past):
    address = "sft/333333333333"
    kept, ends, hidden = past.run(KEPT), past.run(address), past.run(address)
    past.client.delete_run(hidden)  # as a person may
    model = past.model(address, ends)
    past.client.finalize_logged_model(model, "READY")
    first, second = (past.version("s.policy.ended", address, **tagged(address)) for _ in range(2))
    found = rows(past.ledger, [KEPT, CROWNED], [], time.time() + 1)[0]
    asked = [piece for piece in found if piece.address == address or piece.name == "s.policy.ended"]
    assert {piece.name for piece in asked} == {ends, hidden, model, first, second, "s.policy.ended"}
    assert {piece.size for piece in asked if piece.of == "runs"} == {5}
    past.client.set_registered_model_alias("s.policy.ended", "champion", "2")
    assert names(drop(past.ledger, asked)) == {ends, hidden, model, first}
    assert past.runs() & {kept, ends, hidden} == {kept}
    assert [each.version for each in past.client.search_model_versions("name = 's.policy.ended'")] == [2]
    folders = past.home / "mlflow-artifacts" / "train"
    assert (folders / kept).exists()
    assert not (folders / ends).exists()
    assert not (folders / hidden).exists()
    with pytest.raises(Exception, match="not found"):
        past.client.get_logged_model(model)


def names(pieces: list[Piece]) -> set[str]:
    return {piece.name for piece in pieces}
