"""The store: whole artifacts or none, served while unaltered, made by one process at a time, explained when absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import rmpipe.store
from rmpipe.artifact import Rollouts
from rmpipe.config import StudyError
from rmpipe.store import Store, StoreError, find

IDENTITY = {
    "stage": "sample",
    "version": 1,
    "config": {"temperature": 1.0},
    "inputs": {"policy": "finetune/0123456789ab"},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def identity(**changes) -> dict:
    return IDENTITY | changes


def make(store: Store, told: dict = IDENTITY, **files: str) -> str:
    """An artifact with the given files, `a` for `a.txt`, one of them in a folder of its own."""
    address = store.address(told)
    with store.making(address) as part:
        (part / "model").mkdir()
        for name, text in ({"a": "1"} | files).items():
            (part / f"{name}.txt").write_text(text)
        (part / "model" / "weights").write_text("2")
        store.publish(part, address, {**told, "kind": "Rollouts", **store.seal(part)})
    return address


# -- places -----------------------------------------------------------------------------------------------------------


def test_the_home_is_that_given_or_named_by_the_environment_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "named"))
    assert Store(tmp_path / "given").home == tmp_path / "given"
    assert Store().home == tmp_path / "named"
    monkeypatch.delenv("RMPIPE_HOME")
    assert Store().home == tmp_path / ".rmpipe"


def test_an_address_is_the_stage_and_the_beginning_of_a_hash_of_what_it_was_told():
    text = '{"config":{"temperature":1.0},"inputs":{"policy":"finetune/0123456789ab"},"stage":"sample","version":1}'
    assert Store.address(IDENTITY) == f"sample/{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    assert Store.address(dict(reversed(IDENTITY.items()))) == Store.address(IDENTITY)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"config": {"temperature": 0.5}}, {"inputs": {"policy": "finetune/ba9876543210"}}]
)
def test_an_address_moves_with_all_that_a_stage_was_told(change: dict):
    assert Store.address(identity(**change)) != Store.address(IDENTITY)


# -- making -----------------------------------------------------------------------------------------------------------


def test_an_artifact_has_a_record_of_every_file(store: Store):
    address = make(store)
    folder, record = store.folder(address), store.record(address)
    assert {path.name for path in folder.iterdir()} == {"a.txt", "model", "record.json"}
    assert record["config"] == {"temperature": 1.0}
    assert set(record["files"]) == {"a.txt", "model/weights"}
    assert record["files"]["a.txt"]["sha256"] == hashlib.sha256(b"1").hexdigest()
    assert record["files"]["a.txt"]["size"] == 1
    digests = [(name, hashlib.sha256(text).hexdigest()) for name, text in (("a.txt", b"1"), ("model/weights", b"2"))]
    whole = "{" + ",".join(f'"{name}":"{digest}"' for name, digest in digests) + "}"
    assert record["content"] == hashlib.sha256(whole.encode()).hexdigest()


def test_nothing_is_at_the_address_before_it_is_whole(store: Store):
    address = store.address(IDENTITY)
    with store.making(address) as part:
        (part / "a.txt").write_text("1")
        assert store.record(address) is None
        assert not store.folder(address).exists()
        assert store.all() == []
        store.publish(part, address, IDENTITY | store.seal(part))
    assert store.all() == [address]


def test_what_fails_leaves_nothing(store: Store):
    def fail():
        with store.making("sample/0") as part:
            (part / "half").write_text("half")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert list(store.root.rglob("*")) == [store.root / "sample"]


def test_what_a_kill_left_is_cleared_by_the_next_making(store: Store):
    left = store.root / "sample" / ".0.99999.part"
    other = store.root / "sample" / ".1.99999.part"
    for folder in (left, other):
        folder.mkdir(parents=True)
    with store.making("sample/0"):
        assert not left.exists()
        assert other.exists()


def test_an_artifact_made_again_replaces_the_old_one_whole(store: Store):
    make(store, b="old")
    address = make(store, c="new")
    assert {path.name for path in store.folder(address).iterdir()} == {"a.txt", "c.txt", "model", "record.json"}
    assert [path.name for path in store.folder(address).parent.iterdir()] == [address.split("/")[1]]
    assert store.status(address).name == "hit"


def test_checkpoints_are_gone_once_the_artifact_is_whole(store: Store):
    scratch = store.scratch(store.address(IDENTITY))
    scratch.mkdir(parents=True)
    make(store)
    assert not scratch.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_takes_no_more_is_told_with_the_remedy(store: Store, code: int):
    def fill():
        with store.making("sample/0") as part:
            (part / "half").write_text("half")
            raise OSError(code, "no more")

    with pytest.raises(StoreError, match=r"home: cannot write \(no more\); free space or set RMPIPE_HOME to a folder"):
        fill()
    assert list(store.root.rglob("half")) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_an_error_on_a_file_of_the_users_is_not_blamed_on_the_store(store: Store, tmp_path: Path, code: int):
    def read():
        with store.making("sample/0"):
            raise OSError(code, "not yours", str(tmp_path / "pairs.jsonl"))

    with pytest.raises(OSError, match=r"not yours: .*pairs\.jsonl") as caught:
        read()
    assert not isinstance(caught.value, StoreError)
    assert caught.value.__cause__ is None

    def write():
        with store.making("sample/0") as part:
            raise OSError(code, "not yours", str(part / "model.safetensors"))

    with pytest.raises(StoreError, match=r"cannot write \(not yours\)") as caught:
        write()
    assert isinstance(caught.value.__cause__, OSError)


def test_a_store_that_can_be_written_is_begun_and_left_as_it_was(store: Store):
    store.check_writable()
    assert [path.name for path in store.home.rglob("*")] == ["store"]


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_computed(store: Store, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        StoreError, match=r"home: cannot write \(Read-only file system\); free space or set RMPIPE_HOME"
    ):
        store.check_writable()
    assert list(store.home.rglob("*")) == []


def test_a_disk_that_is_nearly_full_is_refused_before_anything_is_computed(store: Store, monkeypatch):
    usage = shutil.disk_usage(store.home.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=(100 << 20) - 1))
    with pytest.raises(StoreError, match=r"home: only 99 MiB are free, 100 are needed; free space or set RMPIPE_HOME"):
        store.check_writable()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    store.check_writable()


def test_another_error_of_the_system_is_left_as_it_is(store: Store):
    def lose():
        with store.making("sample/0"):
            raise FileNotFoundError(errno.ENOENT, "no such file")

    with pytest.raises(FileNotFoundError, match="no such file"):
        lose()


def test_a_home_that_is_a_file_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=rf"^{tmp_path / 'file'}: a file; set RMPIPE_HOME to a folder"):
            Store(home)


# -- serving ----------------------------------------------------------------------------------------------------------


def test_what_was_never_made_is_absent(store: Store):
    status = store.status("sample/0123456789ab")
    assert (bool(status), status.name, status.files) == (False, "absent", ())
    assert store.all() == []


def test_what_is_unaltered_is_a_hit_even_when_its_times_moved(store: Store):
    address = make(store)
    os.utime(store.folder(address) / "a.txt", (1, 1))
    assert bool(store.status(address)) is True
    assert store.verify(address) == ()


def test_altered_and_missing_files_are_named(store: Store):
    address = make(store)
    (store.folder(address) / "a.txt").write_text("12")
    (store.folder(address) / "model" / "weights").unlink()
    status = store.status(address)
    assert (bool(status), status.name, status.files) == (False, "altered", ("a.txt", "model/weights"))


def test_what_verify_finds_is_served_no_more_until_it_is_mended(store: Store):
    address = make(store)
    file, record = store.folder(address) / "a.txt", store.record(address)
    time = record["files"]["a.txt"]["mtime_ns"]
    file.write_text("3")
    os.utime(file, ns=(time, time))
    assert store.status(address).name == "hit"  # size and time are those of the record
    assert store.verify(address) == ("a.txt",)
    assert store.status(address).files == ("a.txt",)
    file.write_text("1")
    assert store.verify(address) == ()
    assert store.status(address).name == "hit"


def test_a_record_that_cannot_be_read_is_an_altered_artifact(store: Store):
    address = make(store)
    (store.folder(address) / "record.json").write_text('{"half')
    assert store.status(address).files == ("record.json",)
    assert store.verify(address) == ("record.json",)


def test_addresses_are_listed_by_stage_and_found_by_their_beginning(store: Store):
    one, other = make(store), make(store, identity(version=2))
    third = make(store, identity(stage="score"))
    assert store.all() == sorted([one, other, third])
    assert store.all("score") == [third]
    assert store.resolve(third) == store.resolve("score/") == store.resolve(third.split("/")[1]) == third
    assert store.resolve(one[:14]) == one
    with pytest.raises(StudyError, match=r"^sample: .*2 begin so: sample/"):
        store.resolve("sample")
    with pytest.raises(StudyError, match=r"^measure/1: no such address; look into .*store$"):
        store.resolve("measure/1")


def test_artifacts_are_found_by_the_names_that_people_gave(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RMPIPE_HOME", str(store.home))
    one = make(store, identity(version=2, labels={"policy": "weak", "seed": "1"}))
    other = make(store, identity(version=3, labels={"policy": "weak", "seed": "2"}))
    make(store, identity(stage="score", labels={"policy": "weak", "seed": "1"}))
    assert [handle.address for handle in find("sample", policy="weak", seed=1)] == [one]
    assert [handle.address for handle in find("sample", policy="weak")] == sorted([one, other])
    assert find("sample", policy="strong") == find("sample", reward_model="off") == []
    assert find("sample", seed=2) == [Rollouts(other, store.home)]


def test_an_artifact_is_opened_by_the_beginning_of_its_address(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RMPIPE_HOME", str(store.home))
    address = make(store)
    handle = rmpipe.store.open(address[:10])
    assert (type(handle), handle.address) == (Rollouts, address)
    with pytest.raises(StudyError, match=r"^measure/1: no such address"):
        rmpipe.store.open("measure/1")


# -- one at a time ----------------------------------------------------------------------------------------------------

HOLD = """
import sys, rmpipe.store
with rmpipe.store.Store(sys.argv[1]).lock("sample/0"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_and_is_told_for_whom(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RMPIPE_TASK", "rmpipe run pocket")
    told, held = [], []
    command = [sys.executable, "-c", HOLD, str(store.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        asked = threading.Event()

        def wait() -> None:
            with store.lock("sample/0", waiting=lambda who: (told.append(who), asked.set())):
                held.append(holder.poll() is None and not holder.stdin.closed)

        waiter = threading.Thread(target=wait)
        waiter.start()
        assert asked.wait(10)
        with store.lock("sample/1"):  # another address is free
            assert held == []
        holder.stdin.close()
        waiter.join(10)
        holder.wait(10)
    assert held == [False]
    assert [(who["pid"], who["command"]) for who in told] == [(holder.pid, "rmpipe run pocket")]


def test_a_lock_that_is_free_tells_nobody_and_leaves_no_file(store: Store):
    told = []
    for _ in range(2):
        with store.lock("sample/0", waiting=told.append):
            assert json.loads((store.home / "locks" / "sample-0.lock").read_text())["pid"] == os.getpid()
    assert told == []
    assert list((store.home / "locks").iterdir()) == []


def test_who_does_not_want_to_wait_need_not(store: Store):
    class BusyError(Exception):
        pass

    def leave(holder: dict) -> None:
        raise BusyError(holder["pid"])

    with store.lock("sample/0"), pytest.raises(BusyError, match=str(os.getpid())), store.lock("sample/0", leave):
        pass
    with store.lock("sample/0", leave):
        pass


def test_a_name_that_is_removed_while_it_is_looked_at_is_made_anew(store: Store, monkeypatch: pytest.MonkeyPatch):
    """The holder lets go, and a third takes and lets go, between our locking the file and our looking at its name."""
    path, stat, looked = store.home / "locks" / "sample-0.lock", Path.stat, []

    def late(self: Path, **options):
        if self == path and not looked:
            looked.append(path.unlink())
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", late)
    with store.lock("sample/0"):
        assert looked
        assert path.exists()


CONTEND = """
import sys, rmpipe.store
store = rmpipe.store.Store(sys.argv[1])
for _ in range(200):
    with store.lock("sample/0"):
        pass
"""


def test_many_contend_for_one_address_without_an_error(store: Store):
    command = [sys.executable, "-c", CONTEND, str(store.home)]
    contenders = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [contender.communicate()[1] for contender in contenders] == [""] * 4


# -- why --------------------------------------------------------------------------------------------------------------


def test_what_was_never_made_says_so_or_how_it_differs_from_the_nearest(store: Store):
    assert store.why(IDENTITY) == ["never made before"]
    make(store)
    make(store, identity(config={"temperature": 0.5}, version=2))
    make(store, identity(stage="score", config={"temperature": 0.9}))  # of another stage
    assert store.why(identity(config={"temperature": 0.9})) == ["temperature: 1.0 -> 0.9"]
    assert store.why(identity(config={"temperature": 0.5, "top_k": 3}, version=2)) == ["top_k: (none) -> 3"]


def test_the_nearest_record_is_found_for_one_that_is_there_too(store: Store):
    assert store.nearest(IDENTITY) is None
    one, other = make(store), make(store, identity(config={"temperature": 0.5}))
    make(store, identity(config={"temperature": 0.5, "top_k": 3}, version=2))
    assert store.nearest(store.record(one), but=one) == (other, ["temperature: 0.5 -> 1.0"])
    assert store.nearest(store.record(other), but=other) == (one, ["temperature: 1.0 -> 0.5"])


def test_each_record_is_read_once_until_it_is_written_anew(store: Store, monkeypatch: pytest.MonkeyPatch):
    address = make(store)
    record, read, text = store.folder(address) / "record.json", [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **o: (self == record and read.append(1), text(self, **o))[1])
    for temperature in (0.1, 0.2, 0.3):
        assert store.why(identity(config={"temperature": temperature})) == [f"temperature: 1.0 -> {temperature}"]
    assert len(read) == 1
    record.write_text(json.dumps(store.record(address) | {"config": {"temperature": 5}}))
    assert store.why(identity(config={"temperature": 0.1})) == ["temperature: 5 -> 0.1"]


def test_what_was_made_once_says_what_became_of_it(store: Store):
    address = make(store)
    (store.folder(address) / "a.txt").write_text("12")
    assert store.why(IDENTITY) == ["altered: a.txt"]
    store.folder(address).rename(store.root / "elsewhere")
    assert store.why(IDENTITY) == ["its folder is gone"]


def test_differences_are_leaves_by_their_dotted_names(store: Store):
    before = identity(config={"a": {"b": 1, "c": [1, 2]}, "gone": True}, inputs={"x": "s/1"})
    address = make(store, before)
    now = identity(config={"a": {"b": 2, "c": [1, 2]}}, inputs={"x": "s/2"})
    assert store.nearest(now) == (address, ["a.b: 1 -> 2", "gone: true -> (none)", "x: s/1 -> s/2"])


def test_a_lock_that_nobody_holds_was_left_by_who_was_killed(store: Store):
    address = store.address(IDENTITY)
    assert not store.left_behind(address)
    with store.lock(address):
        assert not store.left_behind(address)
    assert not store.left_behind(address)
    store.lock_file(address).write_text("{}")
    assert store.left_behind(address)


# -- a store that lives for years -------------------------------------------------------------------------------------


def test_a_store_tells_its_format_from_its_first_artifact_on(store: Store):
    store.check_writable()
    Store(store.home).all()
    assert not (store.home / "store.json").exists()
    make(store)
    file = store.home / "store.json"
    assert json.loads(file.read_text()) == {"format": rmpipe.store.FORMAT}
    written = file.stat().st_mtime_ns
    make(Store(store.home), identity(version=2))
    assert file.stat().st_mtime_ns == written


def test_a_store_that_tells_no_format_is_of_the_first(store: Store):
    address = make(store)
    (store.home / "store.json").unlink()
    assert Store(store.home).status(address).name == "hit"
    assert not (store.home / "store.json").exists()


def test_a_store_of_a_later_format_is_refused_with_the_remedy_and_left_as_it_is(store: Store, tmp_path: Path):
    make(store)
    (store.home / "store.json").write_text('{"format": 2, "shelves": []}')
    before = sorted(tmp_path.rglob("*"))
    told = "home: a store of format 2, and this rmpipe reads format 1; install a newer rmpipe, or set RMPIPE_HOME to"
    with pytest.raises(StoreError, match=told):
        Store(store.home)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"form": 1}', '{"format": "new"}', '{"format": null}'])
def test_a_store_whose_format_cannot_be_read_is_told_with_the_remedy(store: Store, text: str):
    make(store)
    (store.home / "store.json").write_text(text)
    with pytest.raises(StoreError, match=r'store\.json: tells no format; write \{"format": 1\} into it'):
        Store(store.home)
