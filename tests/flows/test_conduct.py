"""Running a study, and what becomes of it when it is run again, killed, interrupted, or run twice at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rmpipe.lineage import Ledger

pytestmark = pytest.mark.slow

OFTEN = [
    word
    for part in ("bases.world.training", "policies.weak.finetuning", "algorithms.rloo")
    for word in ("--set", f"{part}.checkpoint_seconds=0")
]
"""A checkpoint after every step. Addresses stay: it is how a study is run, not what is made."""


def flow_runs(home: Path) -> list[dict[str, Any]]:
    """Prefect's flow runs in the order of their start, each with its task runs, as its database has them."""
    connection = sqlite3.connect(home / "prefect" / "prefect.db")
    connection.row_factory = sqlite3.Row
    query = """SELECT flow_run.id, flow.name AS flow, flow_run.name, flow_run.state_name AS state
               FROM flow_run JOIN flow ON flow.id = flow_run.flow_id ORDER BY flow_run.created"""
    runs = [dict(row) for row in connection.execute(query)]
    for run in runs:
        query = "SELECT name, state_name AS state, tags FROM task_run WHERE flow_run_id = ?"
        run["tasks"] = [dict(row) for row in connection.execute(query, (run["id"],))]
    connection.close()
    return runs


def mlflow_runs(home: Path) -> list[Any]:
    """Every run in MLflow, the oldest first."""
    client = Ledger(home).client
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return sorted(client.search_runs(ids, max_results=1000), key=lambda run: run.info.start_time)


def of_address(runs: list[Any], address: str) -> list[Any]:
    return [run for run in runs if run.data.tags.get("rmpipe.address") == address]


def checkpoints(scratch: Path) -> list[int]:
    """The steps of the whole checkpoints of a stage."""
    found = []
    for file in scratch.glob("trainer/checkpoint-*/trainer_state.json"):
        try:
            found.append(json.loads(file.read_text())["global_step"])
        except (OSError, json.JSONDecodeError):
            continue
    return sorted(found)


def scratches(place, stage: str) -> dict[str, Path]:
    return {path.name.replace("-", "/", 1): path for path in place.home.glob(f"scratch/{stage}-*")}


def training(place, stage: str, steps: int, but: Collection[str] = ()):
    """The address at which a stage has a whole checkpoint of so many steps or more."""
    for address, scratch in scratches(place, stage).items():
        if address not in but and any(step >= steps for step in checkpoints(scratch)):
            return address
    return None


def holder(place, address: str) -> dict[str, Any]:
    return json.loads((place.home / "locks" / f"{address.replace('/', '-')}.lock").read_text())


def most_at_once(runs: list[Any]) -> int:
    """How many of these runs were under way at one moment."""
    edges = [(run.info.start_time, 1) for run in runs] + [(run.info.end_time, -1) for run in runs]
    under_way = most = 0
    for _, change in sorted(edges):
        under_way += change
        most = max(most, under_way)
    return most


# -- a run to its end -----------------------------------------------------------------------------------------------


def test_prefect_shows_each_stage_as_a_task_with_its_name_and_its_tags(tiny):
    (run,) = flow_runs(tiny.home)
    assert (run["flow"], run["name"], run["state"]) == ("teach", "tiny", "Completed")
    shown = {task["name"]: (task["state"], set(json.loads(task["tags"]))) for task in run["tasks"]}
    expected = {
        f"{record['title']} ({address.split('/')[1]})": (
            "Completed",
            {f"{name}={value}" for name, value in record["labels"].items()},
        )
        for address, record in tiny.records().items()
    }
    assert shown == expected


def test_prefect_keeps_the_ranking_and_a_link_to_the_report(tiny):
    connection = sqlite3.connect(tiny.home / "prefect" / "prefect.db")
    left = dict(connection.execute("SELECT key, data FROM artifact"))
    connection.close()
    assert set(left) == {"tiny-ranking", "tiny-answer", "tiny-report"}
    assert {row["reward model"] for row in json.loads(json.loads(left["tiny-ranking"]))} == {"truth", "offset", "off"}
    (page,) = tiny.home.glob("store/report/*/report.html")
    assert f"(/report/{page.parent.name})" in left["tiny-report"]


def test_independent_stages_run_side_by_side(tiny):
    runs = [run for run in mlflow_runs(tiny.home) if "rmpipe.address" in run.data.tags]
    assert most_at_once(runs) == 2
    aligned = [run for run in runs if run.data.tags["rmpipe.address"].startswith("align/")]
    assert any(most_at_once([run, other]) == 2 for run in aligned for other in runs if other is not run)


# -- blows ----------------------------------------------------------------------------------------------------------


@dataclass
class Blow:
    """What was there right after a blow."""

    code: int
    said: str
    address: str
    steps: list[int]
    """Of the whole checkpoints of the stage that was hit."""
    stored: set[str]
    processes: list[str] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)


def blow(place, started, address: str) -> Blow:
    code = started.ended()
    steps = checkpoints(place.home / "scratch" / address.replace("/", "-"))
    return Blow(code, started.said(), address, steps, set(place.records()), place.processes(), place.leftovers())


@pytest.fixture(scope="module")
def battered(tiny, places, until):
    """A study run with nothing in its store: killed, one of two workers killed, interrupted, finished."""
    place, blows = places(tiny), {}
    shutil.rmtree(place.home / "store")

    run = place.start("run", "tiny.toml", "--jobs", "1", *OFTEN)
    address = until(lambda: training(place, "pretrain", 3), "a checkpoint of the base")
    run.signal(signal.SIGKILL)
    blows["killed"] = blow(place, run, address)
    place.clear()  # Prefect's server does not know that nobody needs it any more

    run = place.start("run", "tiny.toml", "--jobs", "2", *OFTEN)
    address = until(lambda: training(place, "align", 1), "a checkpoint of an aligned policy")
    os.kill(holder(place, address)["pid"], signal.SIGKILL)
    blows["worker killed"] = blow(place, run, address)

    begun = scratches(place, "align")  # by the killed worker and by the other one: their checkpoints stay
    run = place.start("run", "tiny.toml", "--jobs", "1", *OFTEN)
    after = until(lambda: training(place, "align", 1, but=begun), "a checkpoint of another aligned policy")
    run.signal(signal.SIGINT)
    blows["interrupted"] = blow(place, run, after)

    blows["finished"] = blow(place, place.rmpipe("run", "tiny.toml", "--jobs", "1", "--json"), "")
    return place, blows


def test_a_run_that_was_killed_leaves_nothing_at_the_address_but_its_checkpoints(battered):
    killed = battered[1]["killed"]
    assert killed.code == -signal.SIGKILL
    assert killed.address not in killed.stored
    assert max(killed.steps) >= 3


def test_a_worker_that_was_killed_fails_the_run_and_its_stage_is_named(battered):
    killed = battered[1]["worker killed"]
    assert killed.code == 1
    assert f"({killed.address}): its worker process died" in killed.said.splitlines()[-1]
    assert killed.address not in killed.stored
    assert max(killed.steps) >= 1
    assert killed.processes == []
    assert [path for path in killed.leftovers if path.suffix != ".lock"] == []


def test_ctrl_c_leaves_no_process_no_lock_and_no_half_artifact(battered):
    interrupted = battered[1]["interrupted"]
    assert interrupted.code == 130
    assert "interrupted" in interrupted.said.splitlines()[-1]
    assert "Traceback" not in interrupted.said
    assert interrupted.processes == []
    assert interrupted.leftovers == []
    assert interrupted.address not in interrupted.stored


def test_what_was_made_before_a_blow_is_not_made_again(battered):
    place, blows = battered
    runs = mlflow_runs(place.home)
    for name, later in (("killed", "worker killed"), ("worker killed", "interrupted"), ("interrupted", "finished")):
        assert blows[name].stored <= blows[later].stored  # a blow may come before another stage has ended
    assert blows["killed"].stored < blows["finished"].stored
    for address in place.records():
        finished = [run for run in of_address(runs, address) if run.info.status == "FINISHED"]
        assert len(finished) == 2, address  # here, and in the store that this one is a copy of


def test_training_goes_on_from_the_last_whole_checkpoint(battered):
    place, blows = battered
    client, runs = Ledger(place.home).client, mlflow_runs(place.home)
    for name in ("killed", "worker killed", "interrupted"):
        last = of_address(runs, blows[name].address)[-1]
        told = [point.step for point in client.get_metric_history(last.info.run_id, "resumed_from")]
        assert told[-1] == max(blows[name].steps), name
        curve = {point.step for point in client.get_metric_history(last.info.run_id, "learning_rate")}
        assert min(curve) == 1, name  # what was told before the blow is kept


def test_a_run_killed_and_resumed_one_by_one_ends_in_the_bytes_of_one_side_by_side(battered, tiny):
    assert battered[0].contents() == tiny.contents()
    for path in tiny.home.glob("store/*/*/model/model.safetensors"):
        assert (battered[0].home / path.relative_to(tiny.home)).read_bytes() == path.read_bytes()


def test_a_finished_run_leaves_nothing_of_the_blows(battered):
    place, blows = battered
    assert blows["finished"].processes == []
    assert place.leftovers() == []
    assert list((place.home / "scratch").iterdir()) == []


def test_one_job_is_one_stage_at_a_time(battered):
    runs = mlflow_runs(battered[0].home)
    parent = [run for run in runs if "rmpipe.question" in run.data.tags][-1].info.run_id
    last = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(last) > 3
    assert most_at_once(last) == 1


def test_mlflow_says_which_executions_were_killed(battered):
    place, blows = battered
    runs = mlflow_runs(place.home)
    for name in ("killed", "worker killed", "interrupted"):
        first, *between, last = [run.info.status for run in of_address(runs, blows[name].address)]
        assert (first, set(between), last) == ("FINISHED", {"KILLED"}, "FINISHED"), name
    found = Counter(run.info.status for run in runs if "rmpipe.address" in run.data.tags)
    beside = found.pop("KILLED") - 3  # what the other of the two workers was at, if anything
    assert beside in (0, 1)
    assert found == {"FINISHED": 82}


def test_prefect_shows_hits_as_cached_and_the_rest_as_completed(battered):
    place, blows = battered
    first, killed, failed, interrupted, finished = flow_runs(place.home)
    assert (first["state"], finished["state"]) == ("Completed", "Completed")
    assert killed["state"] != "Completed"
    assert failed["state"] == "Failed"
    assert interrupted["state"] not in ("Completed", "Running")
    shown = {task["name"].rsplit("(", 1)[1].rstrip(")"): task["state"] for task in finished["tasks"]}
    before = {address.split("/")[1] for address in blows["interrupted"].stored}
    assert shown == {
        address.split("/")[1]: "Cached" if address.split("/")[1] in before else "Completed"
        for address in place.records()
    }


def test_the_studys_run_counts_hits_and_what_was_made(battered):
    place, blows = battered
    parents = [run for run in mlflow_runs(place.home) if "rmpipe.question" in run.data.tags]
    hits = len(blows["interrupted"].stored)
    expected = {"stages.made": 41 - hits, "stages.hit": hits, "stages.failed": 0}
    assert parents[-1].data.metrics == expected
    assert [run.info.status for run in parents][2:] == ["FAILED", "FAILED", "FINISHED"]


# -- two at once ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(places, until):
    """Two runs of one study begun at one moment in an empty place; one is held up in the middle of a stage."""
    place = places()
    told = ("run", "tiny.toml", "--jobs", "1", "--only", "finetune", "--json", *OFTEN)
    runs = [place.start(*told) for _ in range(2)]
    address = until(lambda: training(place, "pretrain", 1), "a checkpoint of the base")
    held = holder(place, address)
    os.kill(held["pid"], signal.SIGSTOP)
    waits = until(lambda: [run for run in runs if f"waiting for {address}" in run.said()], "the one that waits")
    os.kill(held["pid"], signal.SIGCONT)
    return place, address, held, waits, [(run.ended(), run) for run in runs]


def test_two_runs_at_once_both_finish(pair):
    place, _, _, _, ended = pair
    assert [code for code, _ in ended] == [0, 0]
    assert all(json.loads(run.output.read_text()) for _, run in ended)
    assert place.leftovers() == []
    assert place.processes() == []


def test_of_two_runs_at_once_the_waiter_says_for_whom_and_since_when(pair):
    _, address, held, waits, _ = pair
    (waiter,) = waits
    (line,) = [line for line in waiter.said().splitlines() if f"waiting for {address}" in line]
    who = f"process {held['pid']} (rmpipe run tiny)"
    assert line == f"waiting for {address}: {who} has been making it since {held['since']}"
    datetime.strptime(held["since"], "%Y-%m-%d %H:%M:%S")
    assert any(address in line and "made by another process" in line for line in waiter.said().splitlines())


def test_of_two_runs_at_once_each_stage_is_built_once(pair, tiny):
    place = pair[0]
    made = [run.data.tags["rmpipe.address"] for run in mlflow_runs(place.home) if "rmpipe.address" in run.data.tags]
    assert Counter(made) == Counter(dict.fromkeys(place.records(), 1))
    assert sorted((place.home / "built.txt").read_text().split()) == sorted(made)
    assert {address.split("/")[0] for address in made} == {"prepare", "pretrain", "finetune"}
    whole = tiny.contents()
    assert place.contents() == {address: whole[address] for address in made}


# -- a stage that fails ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failed(tiny, places):
    """A run whose ground truth raises once it is asked."""
    place = places(tiny)
    (place.folder / "odd.py").write_text(
        'def broken(prompts, responses):\n    """Raises."""\n    raise RuntimeError("the judge is out")\n'
    )
    return place, place.rmpipe("run", "tiny.toml", "--set", "reward_models.truth.function=odd:broken", code=1)


def test_a_stage_that_fails_is_named_with_its_address_and_its_error(failed):
    place, run = failed
    said = run.said().splitlines()[-1]
    assert said.startswith("rmpipe run: ")
    assert said.endswith("): RuntimeError: the judge is out (odd.py:3 in broken)")
    assert run.output.read_text() == ""
    address = said.split("(")[1].split(")")[0]
    assert address not in place.records()
    assert place.leftovers() == []
    assert place.processes() == []


def test_what_was_finished_before_a_failure_is_kept(failed, tiny):
    place, _ = failed
    new = {address.split("/")[0] for address in set(place.records()) - set(tiny.records())}
    assert new == {"derive"}


def test_mlflow_and_prefect_show_what_failed_and_why(failed):
    place, run = failed
    address = run.said().splitlines()[-1].split("(")[1].split(")")[0]
    (execution,) = of_address(mlflow_runs(place.home), address)
    assert execution.info.status == "FAILED"
    assert execution.data.tags["rmpipe.error"] == "RuntimeError: the judge is out"
    last = flow_runs(place.home)[-1]
    assert last["state"] == "Failed"
    assert {task["name"].rsplit("(", 1)[1].rstrip(")"): task["state"] for task in last["tasks"]}[
        address.split("/")[1]
    ] == "Failed"
    parent = [run for run in mlflow_runs(place.home) if "rmpipe.question" in run.data.tags][-1]
    assert parent.info.status == "FAILED"
    assert parent.data.metrics["stages.failed"] >= 1
