"""Models of others: a hub that does not answer is worth another try, one that has no such model is not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rmpipe.config import StudyError, identity
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


def test_what_a_model_is_to_compute_in_is_kept_with_the_reference_and_nothing_of_the_usual(tmp_path: Path):
    (tmp_path / "model").mkdir()
    for dtype, more in (("float32", {}), ("bfloat16", {"dtype": "bfloat16"})):
        config = PretrainedBase(path=str(tmp_path / "model"), dtype=dtype)
        made = fetch.function(config, "its content", out=tmp_path, log=LOG)
        told = {"path": str(tmp_path / "model"), "content": "its content", **more}
        assert (tmp_path / "reference.json").read_text() == json.dumps(told)
        assert made.dtype == dtype
        assert identity(config) == {"kind": "pretrained", **more}


def test_a_model_with_added_tokens_is_kept_in_what_it_computes_in(base: Any, tmp_path: Path):
    config = PretrainedBase(path=str(base.model), added_tokens=("<new>",), dtype="bfloat16")
    made = fetch.function(config, "its content", out=tmp_path, log=LOG)
    assert made.dtype == "bfloat16"
    assert {weight.dtype for weight in load_file(made.model / "model.safetensors").values()} == {torch.bfloat16}
