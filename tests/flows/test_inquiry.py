"""A study that was read: what is left of it when nothing has to run."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rmpipe.journal
from flows.inquiry import Inquiry
from rmpipe.journal import Journal


@pytest.fixture
def inquiry(tmp_path: Path) -> Inquiry:
    """One whose only stage is in the store."""
    steps = [{"stage": "prepare", "title": "prepare", "address": "prepare/0123456789ab", "status": "hit"}]
    plan: Any = SimpleNamespace(
        summary=lambda: steps, steps={"prepare/0123456789ab": None}, store=SimpleNamespace(home=tmp_path)
    )
    return Inquiry(SimpleNamespace(name="s", flow="teach"), plan, SimpleNamespace(address="report/0123456789ab"))  # type: ignore[arg-type]


def test_an_invocation_that_had_nothing_to_do_leaves_a_note_of_what_it_found(inquiry, tmp_path):
    steps = inquiry.recall()
    (told,) = Journal(tmp_path).notes()
    assert (told["study"], told["question"], told["report"]) == ("s", "teach", "report/0123456789ab")
    assert told["addresses"] == steps
    assert inquiry.nothing_to_run == "nothing had to run: all 1 stages are in the store"


def test_a_store_that_cannot_be_written_takes_no_note_and_says_so(inquiry, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(rmpipe.journal, "write_whole", refuse)
    assert len(inquiry.recall()) == 1
    said = f"MLflow will not list this invocation: {tmp_path}: Read-only file system\n"
    assert capsys.readouterr() == ("", said)
