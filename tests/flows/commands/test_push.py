"""`rmpipe push` as a person and a program read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from rmpipe import publication
from rmpipe.source import UnreachableError


@pytest.fixture
def push(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Push an artifact of the finished study into a folder; the exit code and what was said."""
    monkeypatch.setenv("RMPIPE_HOME", str(tiny.home))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

    def run(address: str, *more: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["push", address, "--hub", "me/mine", "--out", str(tmp_path / "out"), *more])
        return code, *capsys.readouterr()

    return run


def test_without_upload_the_folder_is_told_and_nothing_leaves_this_machine(
    push: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publication, "upload", lambda *_, **__: pytest.fail("it was uploaded"))
    code, said, _ = push(tiny.address("train", reward_model="off"))
    assert code == 0
    assert f"folder   {tmp_path / 'out'}" in said
    assert said.splitlines()[-1] == "nothing was uploaded; with --upload these files go to me/mine"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| weak, rloo |" in text  # whom it taught
    assert str(tiny.home) not in text


def test_with_upload_the_address_is_told_as_json(push: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(
        publication, "upload", lambda *told, **more: calls.append((told, more)) or "https://hub/me/mine"
    )
    address = tiny.address("align", policy="weak", reward_model="off", algorithm="rloo")
    code, said, _ = push(address, "--upload", "--private", "--json")
    told = json.loads(said)
    assert (code, told["uploaded"], told["address"]) == (0, "https://hub/me/mine", address)
    assert {"README.md", "model.safetensors", "config.json"} <= set(told["files"])
    (((folder, hub), more),) = calls
    assert (str(folder), hub, more) == (told["folder"], "me/mine", {"private": True})


def test_a_hub_that_cannot_be_reached_ends_in_1_with_one_line(push: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch):
    def silent(*_: Any, **__: Any) -> str:
        raise UnreachableError("me/mine: the hub cannot be reached")

    monkeypatch.setattr(publication, "upload", silent)
    code, said, complained = push(tiny.address("train", reward_model="off"), "--upload")
    assert (code, said) == (1, "")
    assert complained == "rmpipe push: me/mine: the hub cannot be reached\n"


def test_a_function_is_refused_as_bad_input(push: Any, tiny: Any):
    code, _, complained = push(tiny.address("derive", reward_model="truth"))
    assert code == 2
    assert "made of no weights that were trained here" in complained
