"""The journal: what is not in MLflow yet is on disk, and is entered once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmpipe.journal import Entry, Execution, Journal
from rmpipe.lineage import Ledger

TOLD = {"study": "pocket", "question": "Which?", "report": "report/0", "addresses": []}


def execution(address: str) -> Execution:
    return Execution(
        stage=address.split("/")[0], address=address, title="sample", kind="Rollouts", params={"t": 1.0}, runtime={},
        study="pocket", labels={"seed": "1"}, inputs=[("policy", "finetune/1", "Weights", None)], parent_run=None,
        surroundings={"commit": None},
    )  # fmt: skip


def test_an_entry_is_kept_until_its_run_is_closed(tmp_path: Path):
    journal, entry = Journal(tmp_path), Entry(execution("sample/12ab"), "r1", "e1")
    assert journal.addresses() == []
    journal.keep(entry)
    entry.metrics, entry.curve, entry.ended = {"a": 1.0}, [("loss", 0.5, 3, 17)], 18
    journal.keep(entry)
    again = Journal(tmp_path).entry("sample/12ab")
    assert (again.run_id, again.metrics, again.ended) == ("r1", {"a": 1.0}, 18)
    assert [tuple(point) for point in again.curve] == entry.curve
    assert again.execution.labels == {"seed": "1"}
    assert journal.addresses() == ["sample/12ab"]
    journal.drop("sample/12ab")
    assert (journal.addresses(), journal.entry("sample/12ab")) == ([], None)
    journal.drop("sample/12ab")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"execution": {"stage": "sample"}, "run_id": "r"}'])
def test_an_entry_of_another_version_is_none_of_ours(tmp_path: Path, text: str):
    file = Journal(tmp_path).file("sample/12ab")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert Journal(tmp_path).entry("sample/12ab") is None


def test_notes_are_taken_once_and_in_their_order(tmp_path: Path):
    for name in "abc":
        Journal(tmp_path).note({"study": name})
    assert [told["study"] for told in Journal(tmp_path).notes()] == ["a", "b", "c"]
    assert list(Journal(tmp_path).notes()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_note_that_another_process_has_taken_is_left_to_it(tmp_path: Path):
    for name in "abc":
        Journal(tmp_path).note({"study": name})
    one, other = Journal(tmp_path).notes(), Journal(tmp_path).notes()
    assert next(one)["study"] == "a"
    assert [told["study"] for told in other] == ["b", "c"]
    assert list(one) == []


TAKE = """
import sys
from pathlib import Path
from rmpipe.journal import Journal
for told in Journal(Path(sys.argv[1])).notes():
    print(told["study"])
"""


def test_each_of_many_notes_is_given_to_one_of_many_processes(tmp_path: Path):
    for number in range(300):
        Journal(tmp_path).note({"study": number})
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    takers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [taker.communicate() for taker in takers]
    assert [errors for _, errors in ends] == [""] * 3
    assert sorted(int(line) for output, _ in ends for line in output.split()) == list(range(300))


def test_a_run_that_is_entered_later_has_the_time_it_had(begun: Path):
    before = int(time.time() * 1000)
    Journal(begun).note(TOLD)
    after = int(time.time() * 1000)
    time.sleep(0.05)
    ledger = Ledger(begun)
    ledger.prepare()
    experiment = ledger.client.get_experiment_by_name("study")
    (run,) = ledger.client.search_runs([experiment.experiment_id])
    assert before <= run.info.start_time == run.info.end_time <= after
    assert (run.info.status, run.data.metrics["stages.hit"]) == ("FINISHED", 0)


def test_a_note_that_cannot_be_entered_hinders_nothing(begun: Path, caplog: pytest.LogCaptureFixture):
    Journal(begun).note({"study": "odd"})
    Journal(begun).note(TOLD)
    ledger = Ledger(begun)
    ledger.prepare()
    assert "an earlier invocation of odd was not entered" in caplog.text
    experiment = ledger.client.get_experiment_by_name("study")
    runs = ledger.client.search_runs([experiment.experiment_id])
    assert [run.info.run_name for run in runs] == ["pocket · nothing had to run"]


# -- what must be closed when its process dies ----------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from rmpipe.journal import Journal
with Journal(Path(sys.argv[1])).under_way("flow-runs", sys.argv[2], {"study": "pocket"}):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(home: Path, name: str) -> subprocess.Popen[str]:
    """A process that has something under way, until it is killed or told to end."""
    command = [sys.executable, "-c", HOLD, str(home), name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_what_lives_is_not_abandoned_and_what_ended_leaves_nothing(tmp_path: Path):
    journal = Journal(tmp_path)
    with holder(tmp_path, "theirs") as process, journal.under_way("flow-runs", "ours", {}):
        assert list(journal.abandoned("flow-runs")) == []
        process.communicate("")
    with pytest.raises(KeyError), journal.under_way("flow-runs", "ours", {}):
        raise KeyError
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_killed_process_had_under_way_is_taken_once_and_by_its_kind(tmp_path: Path):
    journal = Journal(tmp_path)
    with holder(tmp_path, "a") as one, holder(tmp_path, "b") as other:
        one.kill()
        other.kill()
    assert list(journal.abandoned("studies")) == []
    taken = journal.abandoned("flow-runs")
    assert next(taken) == ("a", {"study": "pocket"})
    assert [name for name, _ in Journal(tmp_path).abandoned("flow-runs")] == ["b"]
    assert list(taken) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_was_forgotten_without_having_ended_is_abandoned_too(tmp_path: Path):
    held = Journal(tmp_path).under_way("flow-runs", "a", {"study": "pocket"})
    held.__enter__()
    del held
    assert [name for name, _ in Journal(tmp_path).abandoned("flow-runs")] == ["a"]


def test_what_could_not_be_closed_is_left_to_a_later_process(tmp_path: Path):
    with holder(tmp_path, "a") as process:
        process.kill()
    with pytest.raises(KeyError):
        dict({"a": told}["b"] for _, told in Journal(tmp_path).abandoned("flow-runs"))
    assert [name for name, _ in Journal(tmp_path).abandoned("flow-runs")] == ["a"]


def test_what_was_torn_when_the_machine_went_down_is_cleared_away(tmp_path: Path):
    file = tmp_path / "journal" / "flow-runs" / "a.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"study": ')
    assert list(Journal(tmp_path).abandoned("flow-runs")) == []
    assert not file.exists()
