"""Models of others: a hub that does not answer is worth another try, one that has no such model is not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from rmpipe.config import StudyError
from rmpipe.source import UnreachableError
from rmpipe.study import PretrainedBase
from tasks.pretrain import fetch

LOG = SimpleNamespace(progress=None)


class TransportError(Exception):
    """As httpx has it."""


class LocalEntryNotFoundError(FileNotFoundError):
    """As huggingface_hub has it."""


def fetched(folder: Path, path: str) -> Path:
    fetch.function(PretrainedBase(path=path), "its content", out=folder, log=LOG)
    return folder / "reference.json"


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None = None) -> None:
    def download(*arguments, **more):
        raise error from cause

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


def test_a_hub_that_does_not_answer_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, LocalEntryNotFoundError("cannot find it\nanywhere"), TransportError("connection refused"))
    with pytest.raises(UnreachableError, match=r"^some/model: the hub cannot be reached \(cannot find it\)") as caught:
        fetched(tmp_path, "some/model")
    assert isinstance(caught.value, fetch.retry)


def test_a_hub_without_such_a_model_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, ValueError("404: no such repository"))
    with pytest.raises(StudyError, match=r"^bases\.path: some/model cannot be loaded \(404: no such repository\)"):
        fetched(tmp_path, "some/model")


def test_a_folder_is_kept_by_reference(tmp_path: Path):
    (tmp_path / "model").mkdir()
    told = json.loads(fetched(tmp_path, str(tmp_path / "model")).read_text())
    assert told == {"path": str(tmp_path / "model"), "content": "its content"}
