"""`rmpipe tidy`: it says what can go and why the rest stays, asks, and deletes that and no more."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from argparse import ArgumentTypeError
from contextlib import ExitStack, closing
from datetime import timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.commands import duration as age
from rmpipe.garbage import weight
from rmpipe.journal import Journal
from rmpipe.lineage import Ledger, model_path
from rmpipe.store import Store

SMALL = 'extends = "tiny"\nname = "tiny"\n[reward_models]\noffset = false\n'
OLD, YOUNG = "sft/aaaaaaaaaaaa", "sft/bbbbbbbbbbbb"


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command on a store, with no terminal or with what a person answers: its exit code, output and words."""

    def run(home: Path, *arguments: str, stdin: StringIO | None = None) -> tuple[int, Any, str]:
        monkeypatch.setenv("RMPIPE_HOME", str(home))
        monkeypatch.setattr("sys.stdin", stdin or StringIO())
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if "--json" in arguments else printed.out, printed.err

    return run


class Person(StringIO):
    """Somebody at a terminal, who may do something before answering."""

    def __init__(self, answer: str, meanwhile: Any = lambda: None):
        super().__init__(f"{answer}\n")
        self.meanwhile = meanwhile

    def isatty(self) -> bool:
        return True

    def readline(self, size: int = -1, /) -> str:
        self.meanwhile()
        return super().readline(size)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An artifact of ten days ago and one of now; neither MLflow nor Prefect."""
    for address, days in ((OLD, 10), (YOUNG, 0)):
        folder = tmp_path / "store" / address
        folder.mkdir(parents=True)
        (folder / "record.json").write_text('{"inputs": {}}')
        os.utime(folder, (time.time() - days * 86400,) * 2)
    return tmp_path


def addresses(home: Path) -> set[str]:
    return set(Store(home).all())


def goes(told: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    return {(line["kind"], line["of"]): set(line["names"]) for line in told["goes"]}


# -- what is said and asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hours"), [("7d", 168), ("36h", 36), ("1d2h30m", 26.5), ("2w", 336), ("0m", 0), ("1w1d", 192)]
)
def test_an_age_is_a_few_numbers_with_units(text: str, hours: float):
    assert age(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "7", "d", "2h1d", "1.5d", "-1d", "7 d", "7days"])
def test_what_is_no_age_is_refused(text: str):
    with pytest.raises(ArgumentTypeError, match="such as 7d"):
        age(text)


def test_without_a_scope_nothing_is_looked_at_and_it_is_said_what_to_write(home: Path, say):
    code, _, said = say(home, "tidy", "-y")
    assert code == 2
    assert "--older-than 7d" in said
    assert addresses(home) == {OLD, YOUNG}


def test_where_there_is_no_store_none_is_made(tmp_path: Path, say):
    code, _, said = say(tmp_path / "none", "tidy", "--older-than", "7d")
    assert (code, "no store there" in said) == (2, True)
    assert not (tmp_path / "none").exists()


def test_a_dry_run_says_what_would_go_and_deletes_nothing(home: Path, say):
    code, told, _ = say(home, "tidy", "--older-than", "7d", "--dry-run", "--json")
    size = weight(home / "store" / OLD)
    line = {"kind": "artifacts", "of": "sft", "count": 1, "bytes": size, "names": [OLD]}
    kept = {"studies": 0, "registered": 0, "young": 1}
    assert code == 0
    assert told == {"deleted": False, "goes": [line], "bytes": size, "left": [], "kept": kept, "notes": []}
    assert addresses(home) == {OLD, YOUNG}


def test_nobody_to_ask_deletes_nothing_and_names_the_option(home: Path, say):
    code, told, said = say(home, "tidy", "--older-than", "7d")
    assert code == 2
    assert "nothing was deleted" in told
    assert "-y" in said
    assert addresses(home) == {OLD, YOUNG}


def test_who_says_yes_has_it_deleted_and_learns_how_much_was_freed(home: Path, say):
    size = weight(home / "store" / OLD)
    code, told, asked = say(home, "tidy", "--older-than", "7d", stdin=Person("y"))
    assert code == 0
    assert asked.endswith("delete? [y/N] ")
    assert told.splitlines()[-1] == f"{size} bytes freed"
    assert addresses(home) == {YOUNG}
    assert say(home, "tidy", "--older-than", "7d")[:2] == (0, "artifacts that stay: 1 for their age\nnothing can go\n")


@pytest.mark.parametrize("answer", ["n", "", "yes please"])
def test_any_other_answer_deletes_nothing(answer: str, home: Path, say):
    code, told, _ = say(home, "tidy", "--older-than", "7d", stdin=Person(answer))
    assert (code, told) == (0, "nothing was deleted\n")
    assert addresses(home) == {OLD, YOUNG}


def test_a_store_that_has_changed_while_a_person_thought_is_left(home: Path, say):
    def made_again() -> None:
        os.utime(home / "store" / OLD)

    code, _, said = say(home, "tidy", "--older-than", "7d", stdin=Person("y", made_again))
    assert (code, "has changed" in said) == (1, True)
    assert addresses(home) == {OLD, YOUNG}


def test_a_store_that_somebody_works_on_is_left_and_it_is_said_who_does(home: Path, say):
    with Store(home).lock(YOUNG):
        code, _, said = say(home, "tidy", "--older-than", "7d", "-y")
    assert code == 1
    assert f"process {os.getpid()}) is under way" in said
    assert addresses(home) == {OLD, YOUNG}


def test_of_two_that_tidy_the_second_is_sent_away(home: Path, say):
    with Store(home).lock("tidy"):
        code, _, said = say(home, "tidy", "--older-than", "7d", "-y")
    assert (code, f"process {os.getpid()} has been tidying" in said) == (1, True)


def test_a_half_made_database_of_prefect_is_told_of_and_hinders_nothing(home: Path, say):
    (home / "prefect").mkdir()
    (home / "prefect" / "prefect.db").touch()
    code, told, _ = say(home, "tidy", "--older-than", "7d", "-y", "--json")
    assert (code, addresses(home)) == (0, {YOUNG})
    (note,) = told["notes"]
    assert "prefect.db cannot be read (no such table: flow_run)" in note


def test_an_artifact_stays_to_which_a_version_that_a_person_registered_without_an_alias_points(home: Path, say):
    client = Ledger(home).client
    client.create_registered_model("somebodys")
    client.create_model_version("somebodys", (home / "store" / OLD / "model").as_uri(), await_creation_for=0)
    code, told, _ = say(home, "tidy", "--older-than", "7d", "--unregister", "-y", "--json")
    assert (code, goes(told), told["kept"]["registered"]) == (0, {}, 1)
    assert addresses(home) == {OLD, YOUNG}


def test_who_began_while_a_person_thought_is_seen_before_anything_goes(home: Path, say):
    with ExitStack() as begun:
        begin = partial(begun.enter_context, Journal(home).under_way("runs", "1", {"command": "rmpipe run pocket"}))
        code, _, said = say(home, "tidy", "--older-than", "7d", stdin=Person("y", begin))
    assert (code, "rmpipe run pocket (at 1) is under way" in said) == (1, True)
    assert addresses(home) == {OLD, YOUNG}


# -- a finished study -------------------------------------------------------------------------------------------------


def let_go(client: Any, word: str) -> None:
    """Take all aliases from the registered models that have a word in their names."""
    for model in client.search_registered_models():
        for alias in model.aliases if word in model.name else ():
            client.delete_registered_model_alias(model.name, alias)


def aliases(client: Any) -> list[str]:
    return [f"models:/{model.name}@{alias}" for model in client.search_registered_models() for alias in model.aliases]


def about(client: Any) -> set[str]:
    """The addresses that runs, logged models and registered versions are about."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    tags = [run.data.tags for run in client.search_runs(experiments, run_view_type=3)]
    tags += [model.tags for model in client.search_logged_models(experiments)]
    tags += [version.tags for version in client.search_model_versions()]
    return {each["rmpipe.address"] for each in tags if "rmpipe.address" in each}


def test_what_a_smaller_study_does_not_ask_for_goes_once_no_alias_holds_it(another, say):
    whole, small, home = another.file, another.folder / "small.toml", another.home
    small.write_text(SMALL)
    plan = say(home, "plan", str(small), "--json")[1]
    asked = {step["address"] for step in plan["stages"]}
    before, client = addresses(home), Ledger(home).client
    dropped = before - asked
    models = {address for address in dropped if address.split("/")[0] in ("derive", "align")}
    assert len(models) == 3

    told = say(home, "tidy", str(small), "-n", "--json")[1]
    held = goes(told)
    assert not models & set().union(*held.values())
    assert told["kept"]["registered"] > 0
    assert ("MLflow", "versions") not in held

    let_go(client, "-offset")
    code, told, _ = say(home, "tidy", str(small), "-y", "--json")
    assert (code, told["deleted"], told["left"]) == (0, True, [])
    assert set().union(*(names for (kind, _), names in goes(told).items() if kind == "artifacts")) == dropped
    assert {line["of"]: line["count"] for line in told["goes"] if line["kind"] == "MLflow"} == {
        "runs": len(dropped), "models": 3, "versions": 3, "registered models": 3,
    }  # fmt: skip
    assert addresses(home) == before - dropped == about(client)
    assert another.leftovers() == []

    assert len(aliases(client)) > 5
    assert all(model_path(uri, home).exists() for uri in aliases(client))
    assert say(home, "verify")[0] == 0
    again = say(home, "plan", str(whole), "--json")[1]["stages"]
    to_run = {step["address"]: step["why"] for step in again if step["status"] == "run"}
    assert to_run == {address: ["its folder is gone"] for address in dropped}
    assert goes(say(home, "tidy", str(small), "-n", "--json")[1]) == {}


def test_flow_runs_of_prefect_go_with_their_tasks_and_artifacts_unless_one_is_the_newest_of_a_study_named(another, say):
    kept = goes(say(another.home, "tidy", str(another.file), "-n", "--json")[1])
    assert ("Prefect", "flow runs") not in kept
    client = Ledger(another.home).client
    crowned = {uri for uri in aliases(client) if "best-teacher" in uri}
    assert crowned
    told = say(another.home, "tidy", "--older-than", "0m", "--unregister", "-n", "--json")[1]
    assert 0 < told["kept"]["registered"] < len(addresses(another.home))
    for uri in crowned:
        client.delete_registered_model_alias(*uri.removeprefix("models:/").split("@"))
    code, told, _ = say(another.home, "tidy", "--older-than", "0m", "--unregister", "-y", "--json")
    assert code == 0
    assert len(goes(told)["Prefect", "flow runs"]) == len(goes(told)["MLflow", "invocations of studies"]) == 1
    assert addresses(another.home) == about(Ledger(another.home).client) == set()
    with closing(sqlite3.connect(another.home / "prefect" / "prefect.db")) as database:
        tables = ("flow_run", "flow_run_state", "task_run", "task_run_state", "artifact", "artifact_collection", "log")
        counts = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    assert counts == dict.fromkeys(tables, 0)
    assert another.processes() == []
