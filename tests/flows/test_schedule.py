"""A study that is run on a schedule: what happens at each run, and what two schedules make of one store."""

from __future__ import annotations

import json
import signal
import sqlite3
from typing import Any

import pytest

from rmpipe.store import Store

pytestmark = pytest.mark.slow

DATA = """
[dataset]
source = "local"
path = "pairs.jsonl"
policy_fraction = 0.5
"""
BAD = '{"prompt": "one", "chosen": 3, "rejected": "two"}\n'


def rows(tiny) -> list[str]:
    """The pairs of the finished study as somebody's file of preferences."""
    (address,) = tiny.records("prepare")
    import pandas as pd

    table = pd.read_parquet(tiny.home / "store" / address / "preferences.parquet")
    return [json.dumps(row) + "\n" for row in table[["prompt", "chosen", "rejected"]].to_dict("records")]


def replace(file, lines: list[str]) -> None:
    """In one step: a run may read it at any moment."""
    part = file.with_suffix(".part")
    part.write_text("".join(lines))
    part.replace(file)


def flow_runs(home) -> list[dict[str, Any]]:
    """Prefect's flow runs that were scheduled and have begun, in their order, each with what it says."""
    query = """SELECT run.id, run.state_name AS state, state.message AS said, deployment.name AS schedule, run.end_time
               FROM flow_run AS run JOIN flow_run_state AS state ON state.id = run.state_id
               JOIN deployment ON deployment.id = run.deployment_id
               WHERE run.start_time IS NOT NULL ORDER BY run.start_time"""
    return asked(home, query)


def asked(home, query: str) -> list[dict[str, Any]]:
    """Rows of Prefect's database; none while it is being made."""
    file = home / "prefect" / "prefect.db"
    if not file.exists():
        return []
    connection = sqlite3.connect(file, timeout=30)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query)]
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def said(home, words: str, schedule: str = "") -> dict[str, Any] | None:
    """The latest run that ended in these words."""
    found = [run for run in flow_runs(home) if words in (run["said"] or "") and schedule in run["schedule"]]
    return found[-1] if found else None


@pytest.fixture(scope="module")
def served(tiny, places, until):
    """A study on a file of pairs, served every few seconds, while its file grows, breaks, is mended; then a second."""
    place = places()
    pairs = place.folder / "pairs.jsonl"
    every = rows(tiny)
    pairs.write_text("".join(every[:60]))
    text = place.file.read_text()
    begin, end = text.index("[dataset]"), text.index("[bases.world]")
    place.file.write_text(text[:begin] + DATA + text[end:])
    what = ("tiny.toml", "--only", "finetune", "--every", "8s", "--jobs", "2")
    first = place.start("schedule", *what)

    def came(words: str, schedule: str = "") -> Any:
        assert first.process.poll() is None, first.said()
        return said(place.home, words, schedule)

    seen = {"made": until(lambda: came("4 of 4 stages ran"), "a run", 240, 0.2)}
    seen["records"] = set(place.records())
    seen["nothing"] = until(lambda: came("nothing had to run"), "a second run", 120, 0.2)
    replace(pairs, every)
    seen["grown"] = until(
        lambda: came("of 4 stages ran") not in (None, seen["made"]) and came("of 4"), "new rows", 120, 0.2
    )
    seen["after"] = place.records()
    replace(pairs, [*every, BAD])
    seen["failed"] = until(lambda: came("pairs.jsonl"), "a failure", 120, 0.2)
    seen["verified"] = place.rmpipe("verify").output.read_text()
    replace(pairs, every)
    with Store(place.home).lock("schedule"):
        second = place.start("schedule", *what, "--name", "other")
        query = "SELECT message FROM log WHERE message LIKE 'waiting for %'"
        seen["waiting"] = until(lambda: asked(place.home, query), "one that waits", 120, 0.2)
        seen["taken"] = place.rmpipe("schedule", *what, code=2).said()
    seen["second"] = until(lambda: came("nothing had to run", "other"), "the second schedule", 120, 0.2)
    place.serving = [first, second]
    place.listed = json.loads(place.rmpipe("schedule", "--list", "--json").output.read_text())["schedules"]
    for process in place.serving:
        process.signal(signal.SIGINT)
    place.codes = [process.ended(60) for process in place.serving]
    place.left = place.processes()
    return place, seen


def test_a_scheduled_run_makes_what_its_study_asks_for(served):
    _, seen = served
    assert seen["made"]["state"] == "Completed"
    assert {address.split("/")[0] for address in seen["records"]} == {"prepare", "pretrain", "finetune"}


def test_the_next_makes_nothing_and_says_so(served):
    _, seen = served
    assert (seen["nothing"]["state"], seen["nothing"]["said"]) == (
        "Completed", "nothing had to run: all 4 stages are in the store"
    )  # fmt: skip


def test_new_rows_in_its_data_make_the_stages_below_and_no_other(served):
    _, seen = served
    assert seen["grown"]["said"] == "3 of 4 stages ran"
    new = sorted(address.split("/")[0] for address in set(seen["after"]) - seen["records"])
    assert new == ["finetune", "finetune", "prepare"]


def test_a_run_that_fails_says_why_and_leaves_the_store_whole(served):
    _, seen = served
    assert seen["failed"]["state"] == "Failed"
    assert "pairs.jsonl" in seen["failed"]["said"]
    assert "chosen" in seen["failed"]["said"]
    assert "0 altered" in seen["verified"]


def test_runs_of_one_store_wait_for_each_other_and_say_for_whom(served):
    _, seen = served
    assert seen["waiting"][0]["message"].startswith("waiting for another run (process ")
    assert seen["second"]["state"] == "Completed"


def test_the_list_tells_what_is_scheduled_and_what_became_of_it(served):
    place, _ = served
    assert [(item["name"], item["when"], item["state"]) for item in place.listed] == [
        ("other", "every 8s", "served"), ("tiny", "every 8s", "served"),
    ]  # fmt: skip
    assert all(item["study"] == str(place.file) and item["next"] for item in place.listed)


def test_a_schedule_that_is_served_is_not_served_twice(served):
    _, seen = served
    assert "tiny: process " in seen["taken"]
    assert "serves it; end that first, or take another --name" in seen["taken"]


def test_ctrl_c_ends_them_pauses_the_schedules_and_leaves_nothing(served):
    place, _ = served
    assert place.codes == [0, 0]
    assert place.left == []
    assert place.leftovers() == []
    listed = json.loads(place.rmpipe("schedule", "--list", "--json").output.read_text())["schedules"]
    assert [item["state"] for item in listed] == ["not served", "not served"]


def test_a_schedule_is_removed_by_its_name_and_no_other(served):
    place, _ = served
    refused = place.rmpipe("schedule", "--remove", "tinny", code=2)
    assert "did you mean tiny?" in refused.said()
    place.rmpipe("schedule", "--remove", "other")
    listed = json.loads(place.rmpipe("schedule", "--list", "--json").output.read_text())["schedules"]
    assert [item["name"] for item in listed] == ["tiny"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["tiny.toml"], "--cron"),
        (["--every", "6h"], "a study goes with"),
        (["tiny.toml", "--every", "six"], "1d12h"),
        (["tiny.toml", "--every", "0s"], "above 0"),
        (["tiny.toml", "--cron", "61 * * * *"], "minute, hour, day"),
        (["tiny.toml", "--cron", "0 3 * * *", "--timezone", "Mars/Base"], "Europe/Berlin"),
        (["tinny", "--every", "6h"], "no such study"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_a_server_is_started(places, told, words):
    place = places()
    run = place.rmpipe("schedule", *told, code=2)
    assert words in run.said()
    assert not (place.home / "prefect" / "server.json").exists()
