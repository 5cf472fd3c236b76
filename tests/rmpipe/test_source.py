"""What lies outside the store: text that moves when a file, a folder or a hub id does, and at no other time."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rmpipe.config import Config, StudyError
from rmpipe.source import (
    UnreachableError,
    check_there,
    fingerprint_files,
    fingerprint_path,
    fingerprint_place,
    keep_hub_below,
    reaching,
    unreachable,
)


class Place(Config):
    path: str | None = None
    revision: str | None = None


def filled(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_text("1")
    return folder


def test_a_file_is_its_content_whatever_its_name(tmp_path: Path):
    for name in ("pairs.jsonl", "renamed.jsonl"):
        (tmp_path / name).write_text("abc")
        # printf abc | sha256sum
        expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert fingerprint_path(Place(path=str(tmp_path / name))) == expected


def test_a_file_that_is_written_again_moves(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("abc")
    before = fingerprint_files(file)
    file.write_text("abcd")
    assert fingerprint_files(file) != before


def test_the_same_file_elsewhere_is_the_same(tmp_path: Path):
    one, other = filled(tmp_path / "one"), filled(tmp_path / "other")
    assert fingerprint_files(one) == fingerprint_files(other)
    assert fingerprint_files(one / "config.json") == fingerprint_files(other / "config.json")


@pytest.mark.parametrize("name", ["config.json", "sub/weights", "sub/new"])
def test_a_folder_moves_with_every_file_in_it(tmp_path: Path, name: str):
    before = fingerprint_files(filled(tmp_path))
    (tmp_path / name).write_text("other")
    assert fingerprint_files(tmp_path) != before


def test_a_folder_moves_with_the_names_of_its_files(tmp_path: Path):
    before = fingerprint_files(filled(tmp_path))
    (tmp_path / "sub" / "weights").rename(tmp_path / "weights")
    assert fingerprint_files(tmp_path) != before


@pytest.mark.parametrize("name", [".lock", "sub/.part", ".cache/download/weights.metadata"])
def test_hidden_files_and_folders_are_left_out(tmp_path: Path, name: str):
    before = fingerprint_files(filled(tmp_path))
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("now")
    assert fingerprint_files(tmp_path) == before


def test_a_folder_that_lies_in_a_hidden_one_is_read(tmp_path: Path):
    folder = filled(tmp_path / ".cache" / "model")
    before = fingerprint_files(folder)
    (folder / "config.json").write_text("[1]")
    assert fingerprint_files(folder) != before == fingerprint_files(filled(tmp_path / "plain"))


def test_a_hub_id_is_itself_with_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert fingerprint_path(Place(path="somebody/model", revision="abc")) == "somebody/model@abc"
    assert fingerprint_path(Place(path="somebody/model")) == "somebody/model@main"


def test_what_has_no_path_has_no_fingerprint():
    assert fingerprint_path(Place()) == fingerprint_path(Config()) == ""


@pytest.mark.parametrize("path", ["./none", "/none/such", "~/none", "pairs.jsonl", "somebody/pairs.parquet"])
def test_a_path_of_this_machine_where_nothing_lies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=f"^{path}: nothing there; give a file, a folder or a hub id$"):
        fingerprint_path(Place(path=path))
    with pytest.raises(StudyError, match=f"^bases.a.path: {path}: nothing there; give a file, a folder or a hub id$"):
        check_there(Place(path=path), "bases.a")


def test_what_is_there_or_on_the_hub_is_let_pass(tmp_path: Path):
    for path in (None, "somebody/model", str(tmp_path)):
        check_there(Place(path=path), "bases.a")


def test_a_place_that_is_no_hub_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"^data/sets/none: nothing there"):
        check_there(Place(path="data/sets/none"))


def test_a_tokenizer_does_not_move_with_the_weights_beside_it(tmp_path: Path):
    before = fingerprint_place(str(filled(tmp_path)), leave_out=(".safetensors",))
    (tmp_path / "model.safetensors").write_text("1")
    assert fingerprint_place(str(tmp_path), leave_out=(".safetensors",)) == before
    assert fingerprint_place(str(tmp_path)) != before


# -- the hub ----------------------------------------------------------------------------------------------------------


class TransportError(Exception):
    """As httpx has it."""


class ConnectError(TransportError): ...


class ReadTimeout(TransportError): ...  # noqa: N818 - httpx calls it so


class LocalEntryNotFoundError(FileNotFoundError):
    """As huggingface_hub raises it for what is neither on the hub nor in its cache."""


class HfHubHTTPError(OSError):
    """As huggingface_hub raises it for what the hub answered."""

    def __init__(self, code: int):
        super().__init__(f"{code} error for url\nand more")
        self.response = type("Response", (), {"status_code": code})()


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    """An error with a chain of causes."""
    above = error
    for cause in causes:
        above.__cause__ = cause
        above = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("refused"),
        ReadTimeout("late"),
        TimeoutError("late"),
        ConnectionResetError("gone"),
        socket.gaierror(-2, "name or service not known"),
        LocalEntryNotFoundError("not here"),
        HfHubHTTPError(503),
        HfHubHTTPError(429),
        caused(OSError("could not load"), LocalEntryNotFoundError("not here"), ConnectError("refused")),
        caused(LocalEntryNotFoundError("not here"), HfHubHTTPError(502)),
    ],
    ids=repr,
)
def test_a_network_that_fails_is_told_from_bad_input(error: Exception):
    assert unreachable(error)
    with pytest.raises(UnreachableError) as caught, reaching("some/model", "bases.path", "give another"):
        raise error
    assert isinstance(caught.value, ConnectionError)  # what stages retry after
    assert str(caught.value).startswith("some/model: the hub cannot be reached (")
    assert str(caught.value).endswith("); check the network, or give a folder as bases.path")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such split"),
        FileNotFoundError("no such file"),
        HfHubHTTPError(404),
        HfHubHTTPError(401),
        caused(LocalEntryNotFoundError("not here"), HfHubHTTPError(403)),
    ],
    ids=repr,
)
def test_what_another_try_would_not_change_is_bad_input(error: Exception):
    assert not unreachable(error)
    told = r"^bases\.path: some/model cannot be loaded \(.*\); give another$"
    with pytest.raises(StudyError, match=told), reaching("some/model", "bases.path", "give another"):
        raise error


def test_an_error_in_the_middle_of_another_counts_and_a_ring_ends():
    inner, outer = ConnectError("refused"), ValueError("outer")
    outer.__context__, inner.__context__ = inner, outer
    assert unreachable(outer)


def test_a_full_disk_is_nobodys_bad_input():
    full = caused(ValueError("cannot write"), OSError(errno.ENOSPC, "no space left"))
    with (
        pytest.raises(ValueError, match="cannot write") as caught,
        reaching("some/model", "bases.path", "give another"),
    ):
        raise full
    assert caught.value is full


def test_a_folder_that_cannot_be_loaded_is_bad_input_whatever_the_library_tried(tmp_path: Path):
    with pytest.raises(StudyError, match="cannot be loaded"), reaching(str(tmp_path), "dataset.tokenizer", "give it"):
        raise caused(OSError("no tokenizer"), ConnectError("refused"))


def test_downloads_are_kept_below_the_folder_of_all_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    keep_hub_below(Path("state"))
    program = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE, c.HF_TOKEN_PATH)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == str(tmp_path / "state" / "huggingface" / "hub")
    assert said[1] == str(tmp_path / "user" / ".cache" / "huggingface" / "token")  # whoever is logged in stays so


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_place_that_the_user_named_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    for other in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "/somewhere")
    before = dict(os.environ)
    keep_hub_below(tmp_path)
    assert dict(os.environ) == before
