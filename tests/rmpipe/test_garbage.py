"""What can go: nothing that is asked for, pointed at, young or held, nor what that was made from; all else, whole."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmpipe.garbage import Piece, keep, pieces, reached, remove, shrink, under_way
from rmpipe.store import Store

DAY = 86400
NOW = time.time()
POLICY, TEACHER, SCORES, RANK, OTHER = (
    f"{stage}/{digit * 12}"
    for stage, digit in (("sft", "a"), ("train", "b"), ("score", "c"), ("rank", "d"), ("sft", "e"))
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A ranking of scores of a teacher of a policy, and another policy; all ten days old."""
    store = Store(tmp_path / "home")
    make(store, POLICY)
    make(store, TEACHER, policy=POLICY)
    make(store, SCORES, teacher=TEACHER, truth=None)
    make(store, RANK, scores=[{"weak": SCORES}])
    make(store, OTHER)
    return store


def make(store: Store, address: str, days: float = 10, **inputs) -> Path:
    folder = store.folder(address)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"inputs": inputs}))
    (folder / "weights").write_text("x" * 1000)
    return aged(folder, days)


def aged(path: Path, days: float = 10) -> Path:
    """Let a file, or a folder and all in it, be so old."""
    for each in (*path.rglob("*"), path):
        os.utime(each, (NOW - days * DAY,) * 2, follow_symlinks=False)
    return path


def going(store: Store, *studies: str, registered: tuple[str, ...] = (), days: float = 0) -> dict[str, Piece]:
    """What can go by name."""
    before = NOW - days * DAY + 1
    return {piece.name: piece for piece in pieces(store, keep(store, studies, registered, before), before)}


# -- what stays -------------------------------------------------------------------------------------------------------


def test_what_a_study_asks_for_stays_with_all_that_it_was_made_from(store: Store):
    assert reached(store, [RANK]) == {RANK, SCORES, TEACHER, POLICY}
    assert set(going(store, RANK)) == {OTHER}
    assert set(going(store, TEACHER)) == {RANK, SCORES, OTHER}


def test_what_a_registered_version_points_at_stays_with_all_that_it_was_made_from(store: Store):
    assert set(going(store, OTHER, registered=(TEACHER,))) == {RANK, SCORES}


def test_what_is_young_stays_with_its_old_ancestors(store: Store):
    aged(store.folder(SCORES), 2)
    assert set(going(store, days=7)) == {RANK, OTHER}
    assert set(going(store, days=1)) == {RANK, SCORES, TEACHER, POLICY, OTHER}
    assert going(store, days=11) == {}


def test_an_artifact_is_as_old_as_its_folder_whatever_its_record_and_its_files_say(store: Store):
    folder = make(store, "sft/ffffffffffff", days=1)
    (folder / "record.json").write_text(json.dumps({"inputs": {}, "created": "2001-01-01T00:00:00+0000"}))
    aged(folder / "weights", 100)
    aged(store.folder(OTHER), 30)
    (store.folder(OTHER) / "weights").write_text("verified, say")
    assert set(going(store, RANK, days=7)) == {OTHER}


def test_each_artifact_that_stays_is_counted_once_for_the_first_reason(store: Store):
    kept = keep(store, [TEACHER, "rank/000000000000"], [POLICY, OTHER], NOW - 5 * DAY)
    aged(store.folder(RANK), 1)
    assert kept.counts(store) == {"studies": 2, "registered": 1, "young": 0}
    kept = keep(store, [TEACHER], [OTHER], NOW - 5 * DAY)
    assert kept.counts(store) == {"studies": 2, "registered": 1, "young": 2}


def test_an_ancestor_of_which_only_the_record_is_here_is_followed_and_its_record_goes_with_the_last_that_needs_it(
    store: Store,
):
    shutil.rmtree(store.folder(TEACHER))
    told = store.home / "ancestry" / f"{TEACHER}.json"
    told.parent.mkdir(parents=True)
    told.write_text(json.dumps({"inputs": {"policy": POLICY}}))
    aged(told)
    assert set(going(store, RANK)) == {OTHER}
    assert set(going(store, POLICY)) == {RANK, SCORES, OTHER, f"ancestry/{TEACHER}.json"}


def test_an_artifact_whose_record_was_altered_or_is_gone_can_go(store: Store):
    (store.folder(RANK) / "record.json").write_text("{")
    (store.folder(SCORES) / "record.json").unlink()
    aged(store.folder(RANK))
    aged(store.folder(SCORES))
    assert set(going(store, TEACHER, RANK)) == {SCORES, OTHER}


# -- how much and how -------------------------------------------------------------------------------------------------


def test_a_size_is_that_of_the_files_and_not_of_what_a_link_names(store: Store, tmp_path: Path):
    (tmp_path / "model").write_text("y" * 100_000)
    (store.folder(OTHER) / "linked").symlink_to(tmp_path / "model")
    aged(store.folder(OTHER))
    piece = going(store, RANK)[OTHER]
    assert 1000 < piece.size < 2000
    assert remove(store, piece)
    assert not store.folder(OTHER).exists()
    assert (tmp_path / "model").exists()
    assert list(store.root.glob("*/.*")) == list((store.home / "locks").iterdir()) == []


def test_what_somebody_holds_is_left(store: Store):
    piece = going(store, RANK)[OTHER]
    with store.lock(OTHER):
        assert not remove(store, piece)
    assert store.record(OTHER)
    assert remove(store, piece)


def test_a_process_that_is_killed_while_it_deletes_leaves_no_half_of_an_artifact_and_the_next_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    def killed(path: Path) -> None:
        (path / "weights").unlink()
        raise KeyboardInterrupt

    piece = going(store, RANK)[OTHER]
    with monkeypatch.context() as patch:
        patch.setattr("rmpipe.garbage.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(store, piece)
    assert not store.folder(OTHER).exists()
    (left,) = going(store, RANK, days=7).values()  # it was just written to, and is young
    assert (left.of, left.address) == ("half-made artifacts", OTHER)
    assert remove(store, left)
    assert list(store.root.glob("*/.*")) == []


def test_a_half_made_artifact_goes_when_nobody_makes_it(store: Store):
    part = store.root / "sft" / f".{'a' * 12}.4242.part"
    part.mkdir()
    (part / "weights").write_text("half")
    aged(part)
    assert going(store, RANK, days=7)[f"store/sft/{part.name}"].size == 4
    with store.lock(POLICY):
        assert set(going(store, RANK, days=7)) == {OTHER}
    aged(part, 1)
    assert set(going(store, RANK, days=7)) == {OTHER}


def test_checkpoints_go_unless_their_address_is_asked_for_or_somebody_makes_it(store: Store):
    for address in ("rank/000000000000", "rank/111111111111", "rank/222222222222"):
        store.scratch(address).mkdir(parents=True)
        aged(store.scratch(address))
    with store.lock("rank/111111111111"):
        assert set(going(store, RANK, "rank/000000000000")) == {OTHER, "scratch/rank-222222222222"}


def test_the_log_of_a_process_that_lives_stays(store: Store):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (store.home / "logs").mkdir()
    for number in (os.getpid(), dead.pid):
        aged_log = store.home / "logs" / f"worker-{number}.log"
        aged_log.write_text("said")
        aged(aged_log)
    found = going(store, RANK, OTHER)
    assert {name: piece.size for name, piece in found.items()} == {f"logs/worker-{dead.pid}.log": 4}
    assert remove(store, found[f"logs/worker-{dead.pid}.log"])
    assert [path.name for path in (store.home / "logs").iterdir()] == [f"worker-{os.getpid()}.log"]


# -- who is at work ---------------------------------------------------------------------------------------------------


def test_who_makes_an_artifact_is_at_work_and_who_was_killed_is_not(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RMPIPE_TASK", "rmpipe run pocket")
    assert under_way(store.home) == []
    with store.lock(POLICY):
        (said,) = under_way(store.home)
    assert said == f"rmpipe run pocket (at sft-{'a' * 12}, process {os.getpid()})"
    store.lock_file(POLICY).write_text(json.dumps({"pid": 1, "command": "rmpipe run pocket"}))
    assert under_way(store.home) == []


def test_whose_journal_is_held_is_at_work(store: Store):
    from rmpipe.journal import Journal

    with Journal(store.home).under_way("flow-runs", "1-2-3", {"pid": os.getpid()}):
        assert under_way(store.home) == [f"a run (at 1-2-3, process {os.getpid()})"]
    assert under_way(store.home) == []


# -- databases --------------------------------------------------------------------------------------------------------


def test_a_database_gives_back_what_it_has_no_use_for_unless_somebody_uses_it(tmp_path: Path):
    file = tmp_path / "some.db"
    assert shrink(file) == 0
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE texts (text)")
        connection.executemany("INSERT INTO texts VALUES (?)", [("x" * 1000,)] * 1000)
    connection.execute("DELETE FROM texts")
    connection.commit()
    connection.execute("BEGIN EXCLUSIVE")
    size = file.stat().st_size
    assert shrink(file) == 0
    connection.rollback()
    assert shrink(file) == size - file.stat().st_size > 500_000
    connection.close()
