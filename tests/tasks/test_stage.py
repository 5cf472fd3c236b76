"""The mechanism's table of cases, one test a row.

How it looks: two stages, the second reading what the first made.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import textwrap
import time
from importlib import invalidate_caches
from pathlib import Path
from typing import Annotated

import pytest

from rmpipe.artifact import Preferences, Rollouts
from rmpipe.code import code_key
from rmpipe.config import Config, Neutral, Runtime, StudyError
from rmpipe.store import Store, StoreError
from tasks.execution import Errand, Log, perform
from tasks.stage import labelled, planning, stage


class Writing(Config):
    rows: int = 3
    batch_size: Annotated[int, Runtime] = 8
    later: Annotated[int, Neutral(0)] = 0


class Reading(Config):
    temperature: float = 1.0


@stage(version=1)
def write(config: Writing, seed: int, *, out: Path, log: Log) -> Preferences:
    """A stage that writes a file."""
    (out / "rows.json").write_text(json.dumps(list(range(config.rows))))
    log.metrics({"loss": 1.0}, step=1)
    return Preferences.at(out, f"{config.rows} rows", rows=float(config.rows))


@stage(version=1)
def read(config: Reading, preferences: Preferences, *, out: Path, log: Log) -> Rollouts:
    """A stage that reads the other's."""
    rows = preferences.json("rows.json")
    (out / "sum.json").write_text(json.dumps(sum(rows) * config.temperature))
    return Rollouts.at(out, f"sum {sum(rows)}")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "home"))
    return Store()


def both(writing: Writing | None = None, reading: Reading | None = None) -> Rollouts:
    writing, reading = writing or Writing(), reading or Reading()
    with labelled(seed=1):
        return read(reading, write(writing, seed=1))


def plan(store, *args, **options):
    with planning(store, **options) as made:
        both(*args)
    return {step.call.stage.name: step for step in made.steps.values()}


def statuses(store, *args, **options):
    return {name: step.status for name, step in plan(store, *args, **options).items()}


def runs(store):
    from rmpipe.lineage import Ledger

    return Ledger(store.home).count_runs()


def test_an_artifact_says_what_it_is_and_where_it_came_from(store):
    made = both()
    assert made.json("sum.json") == 3
    assert made.inputs["preferences"].json("rows.json") == [0, 1, 2]
    assert repr(made) == f"<Rollouts {made.address} sum 3>"
    assert repr(both(Writing(rows=9)).inputs["preferences"]).endswith("9 rows>")


def test_a_rerun_is_all_hits_and_makes_no_mlflow_run(store):
    both()
    before = runs(store)
    both()
    assert statuses(store) == {"write": "hit", "read": "hit"}
    assert runs(store) == before == 2


def test_a_runtime_field_does_not_move_an_address(store):
    both()
    assert statuses(store, Writing(batch_size=1)) == {"write": "hit", "read": "hit"}


def test_a_later_option_at_its_neutral_value_does_not_move_an_address(store):
    both()
    assert statuses(store, Writing(later=0)) == {"write": "hit", "read": "hit"}
    assert statuses(store, Writing(later=1)) == {"write": "run", "read": "run"}


def test_an_identity_field_moves_its_stage_and_those_below_and_plan_says_which(store):
    both()
    steps = plan(store, Writing(rows=4))
    assert {name: step.status for name, step in steps.items()} == {"write": "run", "read": "run"}
    assert steps["write"].why == ["rows: 3 -> 4"]
    assert steps["read"].why[0].startswith("preferences: write/")
    assert statuses(store, Writing(), Reading(temperature=0.5)) == {"write": "hit", "read": "run"}
    assert plan(store, Writing(), Reading(temperature=0.5))["read"].why == ["temperature: 1.0 -> 0.5"]


def test_a_changed_default_moves_the_address():
    one = type("C", (Config,), {"__annotations__": {"rate": float}, "rate": 0.1})
    two = type("C", (Config,), {"__annotations__": {"rate": float}, "rate": 0.2})
    from rmpipe.config import identity

    assert identity(one()) != identity(two())


def test_a_deleted_folder_is_the_only_one_made_again(store):
    import shutil

    both()
    step = plan(store)["write"]
    shutil.rmtree(store.folder(step.address))
    assert statuses(store) == {"write": "run", "read": "hit"}
    assert plan(store)["write"].why == ["its folder is gone"]
    both()
    assert statuses(store) == {"write": "hit", "read": "hit"}


def test_an_altered_file_is_named_and_its_stage_runs_again(store):
    both()
    address = plan(store)["write"].address
    file = store.folder(address) / "rows.json"
    file.write_text("[9, 9, 9]")
    assert store.verify(address) == ("rows.json",)
    assert plan(store)["write"].why == ["altered: rows.json"]
    write(Writing(), seed=1)
    assert file.read_text() == "[0, 1, 2]"
    assert store.verify(address) == ()


def test_an_alteration_that_keeps_size_and_time_is_found_by_verify_and_served_no_more(store):
    both()
    address = plan(store)["write"].address
    file = store.folder(address) / "rows.json"
    then = file.stat()
    file.write_text("[9, 9, 9]")
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert statuses(store)["write"] == "hit"
    assert store.verify(address) == ("rows.json",)
    assert statuses(store)["write"] == "run"


def test_an_input_made_again_with_other_bytes_is_said(store):
    both()
    steps = plan(store)
    record = store.folder(steps["read"].address) / "record.json"
    told = json.loads(record.read_text())
    told["read"] = {steps["write"].address: "other"}
    record.write_text(json.dumps(told))
    assert plan(store)["read"].notes == [f"input {steps['write'].address} was made again with other bytes"]
    assert statuses(store, strict=True) == {"write": "hit", "read": "run"}


MODULE = """
    '''A module.'''
    from rmpipe import {helper}

    def work(x):
        '''Says what it does.'''
        return {helper}.double(x)  # a comment
"""


@pytest.fixture
def ours(monkeypatch):
    """Two throw-away modules of ours, and a way to write them anew."""
    folder, made = Path(__file__).parents[2] / "rmpipe", []

    def write_module(name, text):
        made.append(folder / f"{name}.py")
        made[-1].write_text(textwrap.dedent(text))
        invalidate_caches()
        import rmpipe.code as code

        for memo in (code._tree, code._definitions, code._digest, code._reached):
            memo.cache_clear()

    yield write_module
    for file in made:
        file.unlink(missing_ok=True)


def test_a_changed_helper_changes_the_code_key_and_a_comment_docstring_or_layout_does_not(ours):
    ours("zz_helper", "def double(x):\n    return 2 * x\n\ndef other(x):\n    return x\n")
    ours("zz_work", MODULE.format(helper="zz_helper"))
    first = code_key("rmpipe.zz_work.work")
    assert set(first) == {"rmpipe.zz_work.work", "rmpipe.zz_helper.double"}
    ours(
        "zz_helper",
        "def double(x):\n    'Now with words.'\n    # and a comment\n    return (2 *\n        x)\n\n"
        "def other(x):\n    return x + 1\n",
    )
    assert code_key("rmpipe.zz_work.work") == first
    ours("zz_helper", "def double(x):\n    return x + x\n")
    assert code_key("rmpipe.zz_work.work") != first


def test_changed_code_is_a_hit_that_says_so_once_and_is_refused_under_strict(store):
    from flows.progress import say_once

    both()
    address = plan(store)["write"].address
    record = store.folder(address) / "record.json"
    told = json.loads(record.read_text())
    told["code"]["rmpipe.variance.whiten"] = "0"
    record.write_text(json.dumps(told))
    step = plan(store)["write"]
    assert step.status == "hit"
    assert step.notes == ["code changed since: rmpipe.variance.whiten"]
    assert say_once(store, address, step.notes) == step.notes
    assert say_once(store, address, step.notes) == []
    assert statuses(store, strict=True) == {"write": "run", "read": "hit"}


@stage(version=1)
def stumble(seed: int, *, out: Path, log: Log) -> Preferences:
    """Writes half and raises, unless its scratch says that it did before."""
    (out / "half").write_text("half")
    done = log.scratch / "checkpoint"
    if not done.exists():
        done.write_text("7 steps")
        raise RuntimeError("half-way")
    return Preferences.at(out, f"went on from {done.read_text()}")


def test_a_stage_that_raises_leaves_nothing_and_the_next_run_goes_on_from_its_checkpoint(store):
    with pytest.raises(RuntimeError, match="half-way"):
        stumble(seed=1)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    assert stumble(seed=1).record["summary"] == "went on from 7 steps"
    assert not (store.home / "scratch").exists() or not any((store.home / "scratch").iterdir())


@stage(version=1)
def slow(seconds: float, *, out: Path, log: Log) -> Preferences:
    """Takes its time, and says when it has begun."""
    (log.scratch / "checkpoint").write_text(str(os.getpid()))
    time.sleep(seconds)
    (out / "whole").write_text("whole")
    return Preferences.at(out, "whole")


def _slowly(home, seconds, file):
    os.environ["RMPIPE_HOME"] = home
    heard = []
    with planning(Store()) as made:
        slow(seconds)
    (step,) = made.steps.values()
    outcome = perform(step.call, Store(), Errand(), lambda kind, address, what: heard.append((kind, what)))
    Path(file).write_text(json.dumps([outcome.how, heard]))


def _begun(store, seconds):
    with planning(store) as made:
        slow(seconds)
    (address,) = made.steps
    checkpoint = store.scratch(address) / "checkpoint"
    for _ in range(600):
        if checkpoint.exists() and checkpoint.read_text():
            return address
        time.sleep(0.05)
    raise AssertionError("the stage never began")


def test_two_at_once_make_it_once_and_the_waiter_says_for_whom_and_since_when(store, tmp_path):
    context = multiprocessing.get_context("fork")
    files = [tmp_path / "a", tmp_path / "b"]
    first = context.Process(target=_slowly, args=(str(store.home), 1.5, files[0]))
    first.start()
    _begun(store, 1.5)
    second = context.Process(target=_slowly, args=(str(store.home), 1.5, files[1]))
    second.start()
    first.join()
    second.join()
    made, taken = (json.loads(file.read_text()) for file in files)
    assert made[0] == "made"
    assert taken[0] == "taken"
    ((kind, holder),) = taken[1]
    assert kind == "wait"
    assert holder["pid"] == first.pid
    assert holder["since"].count(":") == 2
    assert runs(store) == 1


def test_a_killed_holder_leaves_nothing_and_lets_the_waiter_go_on(store, tmp_path):
    context = multiprocessing.get_context("fork")
    first = context.Process(target=_slowly, args=(str(store.home), 60.0, tmp_path / "a"))
    first.start()
    address = _begun(store, 60.0)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert store.record(address) is None
    began = time.monotonic()
    with store.lock(address):
        assert time.monotonic() - began < 5
        with store.making(address) as part:
            assert list(part.parent.glob(".*.part")) == [part]


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(store):
    def fill() -> None:
        with store.making("write/0") as part:
            (part / "half").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match="No space left on device"):
        fill()
    assert list(store.root.rglob("half")) == []


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="RMPIPE_HOME"), Store().lock("write/0"):
        pass


def test_an_unknown_stage_name_is_refused_with_the_nearest(store):
    with planning(store) as made:
        both()
    with pytest.raises(StudyError, match="did you mean write"):
        made.keep(("wite",))


def test_what_has_no_stable_text_is_refused():
    from rmpipe.config import digest

    with pytest.raises(TypeError, match="no stable text"):
        digest({"f": print})
