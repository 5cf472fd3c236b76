"""Parcels: written whole or not at all, checked whole before anything is taken in, lineage kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

import rmpipe.arrival
from rmpipe.arrival import Arrival, take_in
from rmpipe.artifact import Artifact, Preferences, Weights, open_artifact
from rmpipe.config import StudyError
from rmpipe.parcel import Parcel, pack
from rmpipe.store import Store, StoreError, write_whole


def make(store: Store, stage: str, kind: str, files: dict[str, str], seed: int = 1, **inputs) -> str:
    """An artifact with a record as a stage's execution writes it."""
    told = {"stage": stage, "version": 1, "config": {"seed": seed}, "inputs": inputs}
    address = Store.address(told)
    rest = {
        "kind": kind, "title": f"{stage} · seed {seed}", "labels": {"seed": str(seed)}, "summary": f"a {stage}",
        "metrics": {"size": 2}, "run_id": "their-run", "model_id": "their-model", "seconds": 0.5,
        "created": "2026-11-24T23:49:22+0000", "commit": None, "code": {}, "read": {}, "runtime": {},
    }  # fmt: skip
    with store.making(address) as part:
        for name, text in files.items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_text(text)
        store.publish(part, address, {**told, **rest, **store.seal(part)})
    return address


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def line(store: Store) -> list[str]:
    """Pairs, a policy, and a reward model that was made from both."""
    pairs = make(store, "prepare", "Preferences", {"preferences.txt": "p"})
    policy = make(store, "finetune", "Weights", {"model/weights": "w"}, preferences=pairs)
    return [pairs, policy, make(store, "train", "RewardModel", {"model/weights": "r"}, base=policy, pairs=[pairs])]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store somewhere else, which MLflow does not know of."""
    monkeypatch.setattr(rmpipe.arrival, "_ledger", lambda store: (None, ()))
    return Store(tmp_path / "other")


def taken(folder: Path, store: Store) -> dict[str, str]:
    return {arrival.address: arrival.how for arrival in take_in(Parcel.read(folder), store)}


# -- sending ----------------------------------------------------------------------------------------------------------


def test_a_parcel_is_a_manifest_an_artifact_and_the_records_of_all_it_came_from(store: Store, line, tmp_path: Path):
    pairs, policy, model = line
    manifest, notes = pack(store, [model], tmp_path / "parcel")
    told = json.loads((tmp_path / "parcel" / "parcel.json").read_text())
    assert told == manifest.model_dump(mode="json")
    assert (told["format"], told["asked"], list(told["store"]), notes) == (1, [model], [model], [])
    assert sorted(told["ancestry"]) == sorted([pairs, policy])
    files = {str(path.relative_to(tmp_path / "parcel")) for path in (tmp_path / "parcel").rglob("*") if path.is_file()}
    carried = {f"store/{model}/record.json", f"store/{model}/model/weights"}
    assert files == {"parcel.json", "store.json", *carried, *(f"ancestry/{each}.json" for each in (pairs, policy))}
    record = tmp_path / "parcel" / "store" / model / "record.json"
    assert told["store"][model] == hashlib.sha256(record.read_bytes()).hexdigest()
    assert repr(open_artifact(model, tmp_path / "parcel").inputs["base"]).endswith("a finetune, its record only>")


def test_a_whole_parcel_has_the_files_of_every_ancestor(store: Store, line, tmp_path: Path):
    manifest, _ = pack(store, [line[2]], tmp_path / "parcel", whole=True)
    assert sorted(manifest.store) == sorted(line)
    assert manifest.ancestry == {}
    assert Parcel.read(tmp_path / "parcel").manifest == manifest


def test_nothing_is_written_over_and_nothing_half_written_is_left(store: Store, line, tmp_path: Path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(StudyError, match=r"full: something is there; give a folder that is new or empty"):
        pack(store, [line[2]], tmp_path / "full")
    before = sorted(tmp_path.iterdir())

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(StoreError, match=r"parcel: cannot be written \(somewhere: No space left on device\); give"):
        pack(store, [line[2]], tmp_path / "parcel")
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    (tmp_path / "parcel").mkdir()
    pack(store, [line[2]], tmp_path / "parcel")


def test_what_was_altered_is_not_sent(store: Store, line, tmp_path: Path):
    file = store.folder(line[2]) / "model" / "weights"
    time = file.stat().st_mtime_ns
    file.write_text("x")
    os.utime(file, ns=(time, time))  # only its bytes tell
    with pytest.raises(StoreError, match=rf"^{line[2]}: altered: model/weights; the next run of its study makes it"):
        pack(store, [line[2]], tmp_path / "parcel")
    assert not (tmp_path / "parcel").exists()


def test_an_ancestor_that_is_gone_ends_the_lineage_and_cannot_be_carried(store: Store, line, tmp_path: Path):
    shutil.rmtree(store.folder(line[0]))
    with pytest.raises(StudyError, match=rf"^{line[0]}: not in .*store, so it cannot be carried; run its study first$"):
        pack(store, [line[2]], tmp_path / "parcel", whole=True)
    _, notes = pack(store, [line[2]], tmp_path / "parcel")
    assert notes == [f"{line[0]}: its record is gone, and the lineage ends there"]
    assert list(Parcel.read(tmp_path / "parcel").records) == [line[1], line[2]]


# -- arriving ---------------------------------------------------------------------------------------------------------


def test_an_artifact_arrives_with_its_lineage_and_no_ancestor_is_a_hit(store: Store, other: Store, line, tmp_path):
    pairs, policy, model = line
    pack(store, [model], tmp_path / "parcel")
    shutil.rmtree(store.home)
    assert taken(tmp_path / "parcel", other) == {pairs: "told", policy: "told", model: "arrived"}
    assert other.status(model).name == "hit"
    assert other.verify(model) == ()
    handle = open_artifact(model, other.home)
    assert handle.inputs == {"base": Weights(policy, other.home), "pairs": [Preferences(pairs, other.home)]}
    (first,) = handle.inputs["base"].inputs.values()
    assert repr(first) == f"<Preferences {pairs} a prepare, its record only>"
    for address in (pairs, policy):
        assert (other.status(address).name, Artifact(address, other.home).built) == ("absent", False)
    assert other.all() == [model]
    assert other.resolve("finetune") == policy
    assert other.told() == sorted([pairs, policy])
    for ask in (lambda: other.verify(pairs), first.table):
        with pytest.raises(StudyError, match=rf"^{pairs}: its record only is here"):
            ask()


def test_runs_and_models_of_another_mlflow_are_not_taken_for_ones_of_ours(store: Store, other: Store, line, tmp_path):
    pack(store, [line[2]], tmp_path / "parcel")
    taken(tmp_path / "parcel", other)
    for address in line:
        record = Artifact(address, other.home).record
        assert record["run_id"] is None
        assert "model_id" not in record
        assert record["imported"] == {"run_id": "their-run"}


def test_an_ancestor_that_is_made_here_later_has_the_true_record(store: Store, other: Store, line, tmp_path):
    pack(store, [line[2]], tmp_path / "parcel")
    taken(tmp_path / "parcel", other)
    assert make(other, "prepare", "Preferences", {"preferences.txt": "other"}) == line[0]
    handle = Artifact(line[0], other.home)
    assert (handle.built, handle.only_told, handle.run) == (True, False, "their-run")
    assert other.told() == [line[1]]
    assert other.resolve("prepare") == line[0]


def test_what_was_told_only_can_be_told_on_and_not_be_sent(store: Store, other: Store, line, tmp_path):
    pack(store, [line[2]], tmp_path / "parcel")
    taken(tmp_path / "parcel", other)
    manifest, _ = pack(other, [line[2]], tmp_path / "again")
    assert sorted(manifest.ancestry) == sorted(line[:2])
    with pytest.raises(StudyError, match=f"^{line[1]}: not in .* cannot be carried"):
        pack(other, [line[1]], tmp_path / "third")


def test_a_parcel_that_arrives_again_changes_nothing_and_ours_stands(store: Store, other: Store, line, tmp_path):
    pack(store, line, tmp_path / "parcel")
    own = make(other, "prepare", "Preferences", {"preferences.txt": "mine"})
    assert taken(tmp_path / "parcel", other) == {line[0]: "kept", line[1]: "arrived", line[2]: "arrived"}
    assert own == line[0]
    assert (other.folder(own) / "preferences.txt").read_text() == "mine"
    before = {path: path.stat().st_mtime_ns for path in other.home.rglob("*")}
    assert taken(tmp_path / "parcel", other) == {line[0]: "kept", line[1]: "there", line[2]: "there"}
    changed = {path for path in other.home.rglob("*") if before.get(path) != path.stat().st_mtime_ns}
    assert not [path for path in changed if path.is_file()]


def test_what_was_altered_here_is_mended(store: Store, other: Store, line, tmp_path):
    pack(store, line, tmp_path / "parcel")
    taken(tmp_path / "parcel", other)
    (other.folder(line[1]) / "model" / "weights").write_text("broken")
    assert taken(tmp_path / "parcel", other)[line[1]] == "arrived"
    assert other.status(line[1]).name == "hit"


def test_an_arrival_waits_for_who_makes_the_same(store: Store, other: Store, line, tmp_path):
    pack(store, [line[0]], tmp_path / "parcel")
    asked, came = threading.Event(), []

    def arrive():
        came.extend(take_in(Parcel.read(tmp_path / "parcel"), other, waiting=lambda holder: asked.set()))

    waiter = threading.Thread(target=arrive)
    with other.lock(line[0]):
        waiter.start()
        assert asked.wait(10)
        make(other, "prepare", "Preferences", {"preferences.txt": "p"})
    waiter.join(10)
    assert came == [Arrival(line[0], "there")]


def test_a_store_that_cannot_be_written_takes_nothing_in(store: Store, other: Store, line, tmp_path, monkeypatch):
    pack(store, line, tmp_path / "parcel")

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"other: cannot write \(Read-only file system\)"):
        taken(tmp_path / "parcel", other)
    assert list(other.root.rglob("*")) == []


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def parcel(store: Store, line, tmp_path: Path) -> Path:
    pack(store, [line[2]], tmp_path / "parcel")
    return tmp_path / "parcel"


def forge(parcel: Path, **changes) -> None:
    """Alter the record of what a parcel carries, and its digest with it."""
    told = json.loads((parcel / "parcel.json").read_text())
    (address,) = told["store"]
    file = parcel / "store" / address / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    told["store"][address] = hashlib.sha256(file.read_bytes()).hexdigest()
    (parcel / "parcel.json").write_text(json.dumps(told))


def sealed(name: str) -> dict:
    """A record's files, one of which has this name, and their content."""
    entry = {"size": 1, "mtime_ns": 1, "sha256": hashlib.sha256(b"r").hexdigest()}
    text = json.dumps({name: entry["sha256"]}, separators=(",", ":"))
    return {"files": {name: entry}, "content": hashlib.sha256(text.encode()).hexdigest()}


def refused(parcel: Path, other: Store, message: str, error: type[Exception] = StudyError) -> None:
    with pytest.raises(error, match=message):
        taken(parcel, other)
    assert not other.home.exists()


def test_a_byte_that_was_altered_on_the_way_is_found_before_anything_is_taken_in(parcel: Path, other: Store, line):
    file = parcel / "store" / line[2] / "model" / "weights"
    file.write_text("x")
    refused(parcel, other, rf"store/{line[2]}: altered: model/weights; have it exported and sent again$")
    file.unlink()
    refused(parcel, other, "altered: model/weights")


def test_an_altered_or_missing_record_is_named(parcel: Path, other: Store, line):
    file = parcel / "ancestry" / f"{line[0]}.json"
    file.write_text(file.read_text().replace("a prepare", "another"))
    refused(parcel, other, rf"ancestry/{line[0]}\.json: altered; have it exported")
    file.write_text("{half")
    refused(parcel, other, r"\.json: altered \(Expecting property name")
    file.unlink()
    refused(parcel, other, rf"ancestry/{line[0]}\.json: missing; have it exported")


def test_a_record_must_hash_to_the_address_it_claims(parcel: Path, other: Store):
    forge(parcel, config={"seed": 2})
    refused(parcel, other, r"record\.json: tells of train/[0-9a-f]{12} with the content \w+, not of train/")
    forge(parcel, config={"seed": float("nan")})
    refused(parcel, other, r"record\.json: altered \(Out of range float")


def test_a_record_must_tell_all_that_a_record_tells(parcel: Path, other: Store):
    forge(parcel, labels=["off"])
    refused(parcel, other, r"record\.json: labels: Input should be a valid dictionary, got \['off'\]; have it")
    forge(parcel, labels={}, kind="Telescope")
    refused(parcel, other, r"record\.json: Telescope: no such kind of artifact here; install the package")


@pytest.mark.parametrize("name", ["../../../../out", "/tmp/out", "a/../../b", "a//b", "./a", "", "record.json", "a\0b"])
def test_no_name_leads_out_of_a_parcel(parcel: Path, other: Store, name: str):
    forge(parcel, **sealed(name))
    refused(parcel, other, r"record\.json: .* is no name of a file of train/")


@pytest.mark.parametrize("address", ["../train/0123456789ab", "train/../0123456789ab", "/etc/0123456789ab", "train/x"])
def test_no_address_leads_out_of_a_parcel(parcel: Path, other: Store, address: str):
    told = json.loads((parcel / "parcel.json").read_text())
    told["ancestry"][address] = "0" * 64
    (parcel / "parcel.json").write_text(json.dumps(told))
    refused(parcel, other, r"parcel\.json: '.*' is no address; have it exported")


def test_links_are_refused_even_to_the_same_bytes(parcel: Path, other: Store, line, store: Store):
    file = parcel / "store" / line[2] / "model" / "weights"
    file.unlink()
    file.symlink_to(store.folder(line[2]) / "model" / "weights")
    refused(parcel, other, r"model/weights: a link; a parcel holds plain files and folders")
    shutil.rmtree(parcel / "store" / "train")
    (parcel / "store" / "train").symlink_to(store.root / "train")
    refused(parcel, other, r"record\.json: a link")


def test_another_folder_or_a_later_format_is_told(parcel: Path, other: Store, tmp_path: Path):
    refused(tmp_path / "nowhere", other, r"nowhere: no parcel, it has no parcel\.json; give what `rmpipe export` wrote")
    told = json.loads((parcel / "parcel.json").read_text())
    write_whole(parcel / "parcel.json", json.dumps({"format": 2, "things": []}))
    refused(parcel, other, r"parcel of format 2, and this rmpipe reads format 1; install a newer rmpipe", StoreError)
    write_whole(parcel / "parcel.json", json.dumps(told | {"stor": {}}))
    refused(parcel, other, r"parcel\.json: stor: unknown key; did you mean store")
    write_whole(parcel / "parcel.json", json.dumps(told)[:-9])
    refused(parcel, other, r"parcel\.json: altered \(")
    write_whole(parcel / "parcel.json", "[]")
    refused(parcel, other, r"parcel\.json: ")


# -- weights that lie elsewhere ---------------------------------------------------------------------------------------


def test_weights_by_reference_are_not_carried_and_that_is_said_on_both_sides(store, other, tmp_path: Path):
    folder = tmp_path / "their model"
    folder.mkdir()
    base = make(store, "fetch", "Weights", {"reference.json": json.dumps({"path": str(folder), "content": "c"})})
    told = {"kind": "pretrained", "path": str(folder)}
    judge = make(store, "derive", "RewardModel", {"reward_model.json": json.dumps(told)})
    _, notes = pack(store, [base, judge], tmp_path / "parcel")
    assert notes == [f"{each}: its weights lie in {folder}, and are not carried" for each in (base, judge)]
    folder.rename(tmp_path / "gone")
    for arrival in take_in(Parcel.read(tmp_path / "parcel"), other):
        (note,) = arrival.notes
        assert note.startswith(f"its weights are not in it, and not on this machine in {folder}; place the same files")
        assert note.endswith(f"--refresh {arrival.address.split('/')[0]}")
    assert other.status(base).name == "hit"
    (tmp_path / "gone").rename(folder)
    shutil.rmtree(other.home)
    assert [arrival.notes for arrival in take_in(Parcel.read(tmp_path / "parcel"), other)] == [(), ()]


# -- without MLflow ---------------------------------------------------------------------------------------------------


def test_what_arrives_is_whole_when_mlflow_cannot_be_opened(store: Store, line, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://nowhere")
    pack(store, line, tmp_path / "parcel")
    other = Store(tmp_path / "other")
    arrivals = list(take_in(Parcel.read(tmp_path / "parcel"), other))
    assert [arrival.how for arrival in arrivals] == ["arrived"] * 3
    ((note,),) = [arrival.notes for arrival in arrivals if arrival.notes]
    assert note.startswith("MLflow will not list what arrives: MLflow cannot use foo://nowhere")
    assert other.all() == sorted(line)


# -- what a reward model scores with ----------------------------------------------------------------------------------


def implicit(store: Store, seed: int = 1, *, reference: bool = True, **inputs) -> str:
    kind = {"kind": "implicit", "reference": reference}
    files = {"reward_model.json": json.dumps(kind), "model/weights": "r"}
    return make(store, "train", "RewardModel", files, seed, **inputs)


def test_an_implicit_reward_model_takes_the_base_along_that_it_is_compared_with(store: Store, line, other, tmp_path):
    pairs, base, _ = line
    model = implicit(store, base=base, preferences=pairs)
    manifest, notes = pack(store, [model], tmp_path / "parcel")
    assert (manifest.asked, sorted(manifest.store), list(manifest.ancestry)) == (
        (model,),
        sorted([base, model]),
        [pairs],
    )
    assert notes == [f"{base}: goes with {model}, which cannot score alone"]
    assert taken(tmp_path / "parcel", other) == {pairs: "told", base: "arrived", model: "arrived"}
    arrived = open_artifact(model, other.home)
    assert (arrived.base / "weights").read_text() == "w"


def test_a_reward_model_that_scores_alone_takes_nothing_along(store: Store, line, tmp_path: Path):
    model = implicit(store, reference=False, base=line[1])
    manifest, notes = pack(store, [model], tmp_path / "parcel")
    assert (list(manifest.store), notes) == ([model], [])


def test_what_is_made_of_reward_models_takes_them_along_and_what_they_need(store: Store, line, other, tmp_path: Path):
    part = implicit(store, base=line[1])
    offset = make(store, "derive", "RewardModel", {"reward_model.json": '{"kind": "offset"}'}, components=[part])
    manifest, _ = pack(store, [offset], tmp_path / "parcel")
    assert sorted(manifest.store) == sorted([offset, part, line[1]])
    taken(tmp_path / "parcel", other)
    (component,) = open_artifact(offset, other.home).components
    assert component.built
    assert (component.base / "weights").exists()


def test_what_cannot_go_along_is_said(store: Store, line, tmp_path: Path):
    model = implicit(store, base=line[1])
    shutil.rmtree(store.folder(line[1]))
    manifest, notes = pack(store, [model], tmp_path / "parcel")
    assert list(manifest.store) == [model]
    assert f"{line[1]}: is not here, so cannot go with {model}, which cannot score alone" in notes


def test_the_numbers_of_an_evaluation_that_arrives_are_about_its_reward_model(store: Store, line):
    asked = {"reward_model": line[2], "base": line[1]}
    evaluated, scored = (make(store, stage, kind, {"a.txt": "x"}, **asked)
                         for stage, kind in (("evaluate", "Measurement"), ("score", "Scores")))  # fmt: skip
    subjects = [rmpipe.arrival._subject(store.record(address), store.home) for address in (evaluated, scored)]
    assert subjects == ["their-model", None]
