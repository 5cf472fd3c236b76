"""The README: its commands are ones that `rmpipe` takes, its code runs, its tree and its pictures are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import _parser
from flows.inquiry import STUDIES
from rmpipe.study import Study

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ rmpipe (.*?)(?:\s+#.*)?$", TEXT, re.MULTILINE)


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_the_two_commands_stand_at_the_top_and_make_knows_them():
    top = TEXT[: TEXT.index("## ")]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in ("run", "test"):
        assert f"$ make {name}" in top
        assert name in targets


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_rmpipe_takes(command):
    told = _parser().parse_args(shlex.split(command))
    if getattr(told, "study", None) and str(told.study) != "mine.toml":  # which `new` writes
        assert told.study in {file.stem for file in STUDIES.glob("*.toml")}


def test_the_python_runs_on_a_store(tiny):
    (program,) = [text for text in blocks("python") if "import rmpipe" in text]
    run = subprocess.run([sys.executable, "-c", program], env=tiny.environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_study_it_shows_is_read(tmp_path):
    (study,) = [text for text in blocks("toml") if text.startswith("# teacher.toml")]
    (tmp_path / "teacher.toml").write_text(study)
    (tmp_path / "pairs.jsonl").write_text("")
    for name in ("my-model", "my-reward-model"):
        (tmp_path / name).mkdir()
    read = Study.read(tmp_path / "teacher.toml")
    assert read.reward_models["public"].path == str(tmp_path / "my-reward-model")


def test_the_tree_names_every_file_of_the_package_and_no_other():
    (tree,) = [text for text in blocks("") if text.startswith("rmpipe/")]
    nouns = tree[: tree.index("\ntasks/")]
    named = set(re.findall(r"\w+\.py", nouns))
    assert named == {file.name for file in (ROOT / "rmpipe").glob("[!_]*.py")}
    for folder in re.findall(r"^(\w+)/", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_every_link_into_the_project_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_address_is_one_that_a_newcomer_has(tmp_path, monkeypatch):
    from flows.inquiry import inquire

    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path))
    made = set(inquire("pocket").plan.steps)
    text = TEXT[: TEXT.index("## How it works")] + (ROOT / "docs" / "team.md").read_text()
    said = set(re.findall(r"\b(?:measure|report|align|train)/[0-9a-f]{12}\b", text))
    assert said
    assert said <= made


def test_no_placeholder_is_left():
    assert "@@" not in TEXT
