"""The mechanism's table of cases, one test a row.

How it looks: two stages, the second reading what the first made.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import textwrap
import time
from importlib import invalidate_caches
from pathlib import Path
from typing import Annotated

import pytest

from rmpipe.artifact import Measurement, Preferences, RewardModel, Rollouts
from rmpipe.code import code_key
from rmpipe.config import Config, Neutral, Runtime, StudyError
from rmpipe.journal import Journal
from rmpipe.lineage import Ledger
from rmpipe.store import Store, StoreError
from tasks.execution import Errand, Log, _scratch, perform
from tasks.stage import Call, guarded, labelled, planning, stage


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


@stage(version=1)
def read_more(preferences: Preferences, more: list[Rollouts] | None = None, *, out: Path, log: Log) -> Rollouts:
    """A stage that reads something since it was first written."""
    return Rollouts.at(out, f"{len(more or [])} more")


@pytest.fixture
def store(tmp_path, empty, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty, home)
    monkeypatch.setenv("RMPIPE_HOME", str(home))
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


def found(store):
    """Every run in MLflow, the oldest first."""
    client = Ledger(store.home).client
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time"])


def runs(store):
    return len(found(store))


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


def test_an_input_that_was_added_later_moves_no_address_while_it_is_none(store):
    first = read_more(write(Writing(), seed=1))
    inputs = {"preferences": first.inputs["preferences"].address}
    told = {"stage": "read_more", "version": 1, "config": {}, "inputs": inputs}
    assert first.address == read_more(write(Writing(), seed=1), None).address == Store.address(told)
    assert list(first.record["inputs"]) == ["preferences"]
    second = read_more(write(Writing(), seed=1), [both()])
    assert second.address != first.address
    assert [one.address for one in second.inputs["more"]] == [both().address]


def test_an_input_that_must_be_given_counts_though_it_is_none():
    told = {"preferences": None, "more": None}
    assert Call(read_more, told).identity["inputs"] == {"preferences": None}


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
def ours(tmp_path, monkeypatch):
    """A way to write throw-away modules of ours, and to write them anew; no other process sees them."""
    import rmpipe

    monkeypatch.setattr(rmpipe, "__path__", [*rmpipe.__path__, str(tmp_path)])

    def write_module(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        invalidate_caches()
        import rmpipe.code as code

        for memo in (code._tree, code._definitions, code._digest, code._reached, code._imports):
            memo.cache_clear()
            code._known.clear()

    return write_module


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


@stage(version=1)
def wander(seed: int, *, out: Path, log: Log) -> Preferences:
    """Tells points of its curve, stumbles over what an ending kill leaves, and goes on from its checkpoint."""
    done = log.scratch / "checkpoint"
    if not done.exists():
        done.write_text("2")
        for step in (1, 2, 3):
            log.metrics({"loss": 10.0 * step, "kl": 0.0}, step)
        with (log.scratch / "curves.jsonl").open("a") as file:
            file.write('\n["loss", 4')
        raise RuntimeError("half-way")
    log.metrics({"loss": 31.0}, 3)
    log.metrics({"loss": 41.0}, 4)
    return Preferences.at(out, "there")


def test_curves_of_before_a_kill_are_kept_and_what_is_told_again_counts_once(store):
    with pytest.raises(RuntimeError, match="half-way"):
        wander(seed=1)
    wander(seed=1)
    client, run = Ledger(store.home).client, found(store)[-1].info.run_id
    points = [(point.step, point.value) for point in client.get_metric_history(run, "loss")]
    assert sorted(points) == [(1, 10.0), (2, 20.0), (3, 31.0), (4, 41.0)]
    assert len(client.get_metric_history(run, "kl")) == 3


def test_a_checkpoint_of_other_code_is_not_gone_on_from(store, monkeypatch):
    with pytest.raises(RuntimeError, match="half-way"):
        stumble(seed=1)
    monkeypatch.setattr("tasks.stage.code_key", lambda *names: {"tasks.stumble": "mended"})
    with pytest.raises(RuntimeError, match="half-way"):  # from the beginning
        stumble(seed=1)
    assert stumble(seed=1).record["code"] == {"tasks.stumble": "mended"}


def test_a_checkpoint_of_other_inputs_is_not_gone_on_from(store):
    with planning(store) as made:
        both()
    call = made.steps[next(address for address in made.steps if address.startswith("read/"))].call
    write(Writing(), seed=1)
    folder = _scratch(call, store, Errand())
    (folder / "checkpoint").write_text("7 steps")
    assert [path.name for path in _scratch(call, store, Errand()).glob("check*")] == ["checkpoint"]
    record = store.folder(call.needs[0].address) / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"content": "other"}))
    with planning(store) as made:
        both()
    call = made.steps[call.address].call
    assert list(_scratch(call, store, Errand()).glob("check*")) == []


def test_a_checkpoint_is_not_gone_on_from_when_all_is_asked_for_afresh(store):
    with planning(store) as made:
        stumble(seed=1)
    (step,) = made.steps.values()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half-way"):
            perform(step.call, store, Errand(refresh=True))


# -- what MLflow is told, whatever happens ----------------------------------------------------------------------------

BYTES = ["same"]


@stage(version=1)
def judge(seed: int, *, out: Path, log: Log) -> RewardModel:
    """A reward model of whatever bytes."""
    (out / "reward_model.json").write_text(json.dumps(BYTES))
    log.metrics({"loss": 0.5}, 1)
    return RewardModel.at(out, "a judge", pairs=2.0)


@stage(version=1)
def examine(teacher: RewardModel, seed: int, *, out: Path, log: Log) -> Measurement:
    """A number about a reward model."""
    return Measurement.at(out, "a number", variance=0.25)


def taught() -> RewardModel:
    with labelled(reward_model="off", seed=1):
        return judge(seed=1)


def killed_at(monkeypatch, name):
    """A ledger whose process dies at one of its methods."""

    def die(*_, **__):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, name, die)
        with pytest.raises(RuntimeError, match="killed"):
            taught()


@pytest.mark.parametrize("moment", ["finish", "_show"])
def test_what_was_in_place_when_its_process_was_killed_is_entered_by_the_next(store, monkeypatch, moment):
    killed_at(monkeypatch, moment)
    (run,) = found(store)
    assert run.info.status == "RUNNING"
    assert statuses_of(judge, store) == {"judge": "hit"}
    ledger = Ledger(store.home)
    ledger.prepare()
    ledger.prepare()
    (run,) = found(store)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"pairs": 2.0, "loss": 0.5})
    assert run.info.end_time - run.info.start_time < 60_000
    version = ledger.client.get_model_version_by_alias("rmpipe-reward-model-off", "seed-1")
    assert len(ledger.client.search_model_versions("")) == 1
    record = taught().record
    assert version.tags["rmpipe.content"] == record["content"]
    assert ledger.client.get_logged_model(record["model_id"]).status == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [record["model_id"]]
    assert Journal(store.home).addresses() == []


def statuses_of(what, store):
    with planning(store) as made:
        what(seed=1)
    return {step.call.stage.name: step.status for step in made.steps.values()}


def test_what_was_not_in_place_when_its_process_was_killed_is_closed_as_killed(store, monkeypatch):
    monkeypatch.setattr(Ledger, "fail", lambda *_, **__: None)

    def die(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "publish", die)
        with pytest.raises(RuntimeError, match="killed"):
            taught()
    ledger = Ledger(store.home)
    assert [run.info.status for run in found(store)] == ["RUNNING"]
    ledger.prepare()
    (run,) = found(store)
    assert run.info.status == "KILLED"
    (model,) = ledger.client.search_logged_models([run.info.experiment_id])
    assert model.status == "FAILED"
    assert ledger.client.search_model_versions("") == []
    assert Journal(store.home).addresses() == []


def test_what_a_kill_left_beside_an_artifact_in_place_is_cleared(store, monkeypatch):
    def die(*_):
        raise SystemExit(143)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "clear", die)
        with pytest.raises(SystemExit):
            taught()
    (scratch,) = (store.home / "scratch").iterdir()
    assert [run.info.status for run in found(store)] == ["RUNNING"]
    Ledger(store.home).prepare()
    assert not scratch.exists()
    assert [run.info.status for run in found(store)] == ["FINISHED"]


def test_the_same_address_made_again_closes_the_run_that_was_killed(store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "fail", lambda *_, **__: None)
        with pytest.raises(RuntimeError, match="half-way"):
            stumble(seed=1)
    stumble(seed=1)
    assert [run.info.status for run in found(store)] == ["KILLED", "FINISHED"]


def test_a_run_whose_process_lives_is_left_alone(store, monkeypatch):
    killed_at(monkeypatch, "finish")
    (address,) = Journal(store.home).addresses()
    with store.lock(address):
        Ledger(store.home).prepare()
    assert [run.info.status for run in found(store)] == ["RUNNING"]
    assert Journal(store.home).addresses() == [address]


@pytest.mark.parametrize("how", ["run", "database"])
def test_an_entry_whose_run_is_gone_is_said_and_forgotten(store, monkeypatch, caplog, how):
    killed_at(monkeypatch, "finish")
    (run,), (address,) = found(store), Journal(store.home).addresses()
    if how == "run":
        Ledger(store.home).client.delete_run(run.info.run_id)
    else:
        file = Journal(store.home).file(address)
        file.write_text(file.read_text().replace(run.info.run_id, "0" * 32))
    Ledger(store.home).prepare()
    assert "left open by a process that died, was not closed" in caplog.text
    assert Journal(store.home).addresses() == []


def test_a_model_made_again_with_the_same_bytes_is_the_same_model_and_keeps_its_numbers(store, monkeypatch):
    client, first = Ledger(store.home).client, taught()
    with labelled(policy="weak", reward_model="off", seed=1):
        examine(first, seed=1)
    shutil.rmtree(first.path)
    again = taught()
    assert again.record["run_id"] != first.record["run_id"]
    assert again.record["model_id"] == first.record["model_id"]
    assert [item.key for item in client.get_logged_model(again.record["model_id"]).metrics] == ["weak.variance"]
    assert [version.version for version in client.search_model_versions("")] == [1]
    outputs = client.get_run(again.record["run_id"]).outputs.model_outputs
    assert [output.model_id for output in outputs] == [first.record["model_id"]]

    shutil.rmtree(first.path)
    monkeypatch.setitem(globals(), "BYTES", ["other"])
    other = taught()
    assert other.record["model_id"] != first.record["model_id"]
    assert client.get_model_version_by_alias("rmpipe-reward-model-off", "seed-1").version == 2


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
    with pytest.raises(StoreError, match="RMPIPE_HOME"):
        both()


# -- guards -----------------------------------------------------------------------------------------------------------


class Opinion(Measurement):
    """Has an objection where its file says one."""

    def objection(self) -> str | None:
        return self.json("said.json")


@stage(version=1)
def think(said: str | None, *, out: Path, log: Log) -> Opinion:
    """A stage that makes a guard."""
    (out / "said.json").write_text(json.dumps(said))
    return Opinion.at(out, "an opinion")


def test_a_guard_moves_no_address_and_is_made_before_what_it_guards(store):
    plain = both()
    with planning(store) as made, guarded(think("no")):
        guarded_too = both()
    assert guarded_too == plain
    step = made.steps[guarded_too.address]
    assert [handle.address for handle in step.call.needs] == [step.call.told["preferences"].address]
    assert {address.split("/")[0] for address in step.call.awaits} == {"write", "think"}
    made.keep(("read",))
    assert {address.split("/")[0] for address in made.steps} == {"think", "write", "read"}


def test_nothing_is_made_that_a_guard_objects_to(store):
    with guarded(think(None)):
        fine = write(Writing(rows=4), seed=1)
    assert fine.built
    with guarded(think(None), think("not like this; do that")), pytest.raises(StudyError, match=r"^not like this; do"):
        write(Writing(rows=5), seed=1)
    assert not [record for record in store.root.glob("write/*/rows.json") if len(json.loads(record.read_text())) == 5]


def test_an_unknown_stage_name_is_refused_with_the_nearest(store):
    with planning(store) as made:
        both()
    with pytest.raises(StudyError, match="did you mean write"):
        made.keep(("wite",))


def test_what_has_no_stable_text_is_refused():
    from rmpipe.config import digest

    with pytest.raises(TypeError, match="no stable text"):
        digest({"f": print})
