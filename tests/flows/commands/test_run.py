"""How a run ends that was to stop before the answer: what the named stages found, in few lines."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from flows.commands import run


def ended(count: int, json: bool = False) -> int:
    """The end of a run with `--only diagnose` of so many diagnoses, behind a data set."""
    names = ["prepare/0", *(f"diagnose/{number}" for number in range(count))]
    steps = {name: SimpleNamespace(call=SimpleNamespace(stage=SimpleNamespace(name=name.partition("/")[0])))
             for name in names}  # fmt: skip
    store = SimpleNamespace(record=lambda address: {"summary": f"{address[-1]} pairs"})
    inquiry = SimpleNamespace(
        report=SimpleNamespace(address="report/0"), plan=SimpleNamespace(steps=steps, store=store)
    )
    options = SimpleNamespace(only=["diagnose"], json=json)
    return run._answer(options, [{"address": name} for name in names], inquiry, "ran")


@pytest.mark.parametrize("count", [1, 2, 10])
def test_each_artifact_of_the_named_stages_has_its_address_and_what_was_found(capsys, count):
    assert ended(count) == 0
    assert capsys.readouterr().out.splitlines() == [*(f"diagnose/{n}  {n} pairs" for n in range(count)), "ran"]


def test_of_many_the_first_are_shown_and_the_rest_counted(capsys):
    ended(count=10 + 2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == run.SHOWN + 1
    assert lines[8:] == ["diagnose/8  8 pairs", "and 3 more; see `rmpipe show ADDRESS`", "ran"]


def test_a_program_is_told_of_the_stages_as_before(capsys):
    ended(count=1, json=True)
    assert json.loads(capsys.readouterr().out) == {
        "said": "ran", "stages": [{"address": "prepare/0"}, {"address": "diagnose/0"}]
    }  # fmt: skip
