"""What is said while stages run: how many, how long, and no guess while most of what is ahead is of unknown length."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flows.progress import Progress, hit_notes
from tasks.execution import Outcome


def plan(**counts: int):
    steps = {
        f"{name}/{index}": SimpleNamespace(call=SimpleNamespace(stage=SimpleNamespace(name=name), title=name))
        for name, count in counts.items()
        for index in range(count)
    }
    return SimpleNamespace(steps=steps, to_run=list(steps.values()))


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_the_time_left_is_told_by_the_mean_of_each_stage_once_most_kinds_are_known(capsys):
    progress = Progress(plan(score=4, align=4), jobs=2)  # type: ignore[arg-type]
    progress.finished(Outcome("score/0", "made", 1.0))
    progress.finished(Outcome("align/0", "made", 10.0))
    progress.finished(Outcome("align/1", "made", 20.0))
    first, second, third = said(capsys)
    assert first.startswith("1/8  score")
    assert "left" not in first  # four of the seven ahead are of another kind
    assert "about 16 s left)" in second  # (3 x 1 + 3 x 10) / 2
    assert "about 16 s left)" in third  # (3 x 1 + 2 x 15) / 2


def test_a_failure_is_said_with_its_error(capsys):
    Progress(plan(score=1), jobs=1).finished(Outcome("score/0", "failed", error="the judge is out"))  # type: ignore[arg-type]
    first, second = said(capsys)
    assert "FAILED" in first
    assert second.strip() == "the judge is out"


def test_one_note_of_many_hits_is_one_line_and_is_said_once(tmp_path):
    from rmpipe.store import Store

    told = plan(align=3, score=1)
    told.store = Store(tmp_path)
    for address, step in told.steps.items():
        step.address, step.notes = address, ["code changed since: a.b"]
    said = ["hit   3 x align: code changed since: a.b", "hit   score/0: code changed since: a.b"]
    assert hit_notes(told) == said
    (tmp_path / "said.txt").unlink(missing_ok=True)
    assert hit_notes(told) == said
    assert hit_notes(told) == []
