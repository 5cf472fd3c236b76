"""Sources of preference pairs: what their addresses move with, and what a network that fails becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmpipe.config import StudyError, digest, identity
from rmpipe.dataset import HubSource, LocalSource, WorldSource
from rmpipe.preference import check
from rmpipe.source import UnreachableError


class TransportError(Exception):
    """As httpx has it."""


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let `datasets` fail to load anything by an error that this one caused."""

    def load(*arguments, **more):
        raise OSError("cannot load it") from error

    monkeypatch.setattr("datasets.load_dataset", load)


def test_a_hub_that_does_not_answer_is_worth_another_try(monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, TransportError("connection refused"))
    told = r"^some/set: the hub cannot be reached \(cannot load it\); .* give a folder as dataset\.path$"
    with pytest.raises(UnreachableError, match=told):
        HubSource(path="some/set").rows(0)


def test_a_hub_that_has_no_such_set_is_bad_input(monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, ValueError("no such split"))
    with pytest.raises(
        StudyError, match=r"^dataset\.path: some/set cannot be loaded \(cannot load it\); .*'test_prefs'$"
    ):
        HubSource(path="some/set", split="test_prefs").rows(0)


def test_what_must_be_fetched_is_left_to_the_stage(monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, TransportError("connection refused"))
    check(HubSource(path="some/set"))
    check(WorldSource(pairs=60, tokenizer="some/tokenizer", max_prompt_tokens=4))
    with pytest.raises(StudyError, match=r"^dataset\.tokenizer: missing"):
        check(HubSource(path="some/set", max_prompt_tokens=4))


def test_a_tokenizer_counts_by_its_content_and_not_by_its_place(tmp_path: Path):
    for name in ("one", "same", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(name.replace("same", "one"))
    (tmp_path / "pairs.jsonl").write_text("{}")
    plain = LocalSource(path=str(tmp_path / "pairs.jsonl"))
    one, same, other = (
        plain.model_copy(update={"tokenizer": str(tmp_path / name)}) for name in ("one", "same", "other")
    )
    assert digest(identity(plain)) == digest(identity(one)) == digest(identity(other))
    assert len({source.content() for source in (plain, one, same, other)}) == 3
    assert one.content() == same.content()
    (tmp_path / "one" / "model.safetensors").write_text("weights say nothing of it")
    assert one.content() == same.content()


def test_a_hub_tokenizer_counts_by_its_id():
    assert WorldSource(tokenizer="some/tokenizer").content() == "tokenizer some/tokenizer@main"
    assert WorldSource().content() == ""
