"""What lies outside the store: text that moves when a file, a folder or a hub id does, and at no other time."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmpipe.config import Config, StudyError
from rmpipe.source import check_there, fingerprint_files, fingerprint_path


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
