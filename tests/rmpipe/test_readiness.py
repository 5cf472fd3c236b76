"""Whether a machine can do what a study asks for, on sections and rooms made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rmpipe import readiness
from rmpipe.config import Config, StudyError
from rmpipe.estimate import Work, cost
from rmpipe.health import Finding
from rmpipe.readiness import Room

GIB = float(1 << 30)


class Part(Config):
    """A section that a study may have."""

    path: str = ""
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: dict[str, int] | None = None
    engine: str = "transformers"


class Whole(Config):
    """A study of one section."""

    bases: dict[str, Part]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's, empty; the hub itself does not answer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(readiness, "HUB", "raise OSError('no route')")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


def found(**told: Any) -> list[Finding]:
    return list(readiness.named(Whole(bases={"mine": Part(**told)})))


def room(memory: float = 8 * GIB, disk: float = 8 * GIB) -> Room:
    return Room("memory", memory, 16 * GIB, GIB / 2, disk)


# -- what a study names -----------------------------------------------------------------------------------------------


def test_a_folder_of_this_machine_asks_for_nothing(tmp_path: Path):
    assert found(path=str(tmp_path)) == []


def test_code_of_others_is_noted(tmp_path: Path):
    (note,) = found(path=str(tmp_path), trust_remote_code=True)
    assert (note.check, note.level) == ("remote code", "note")
    assert "bases.mine.trust_remote_code" in note.found


def test_a_hub_id_that_is_neither_pinned_nor_here_is_a_fault_while_the_hub_is_silent():
    note, fault = found(path="nobody/no-such-model")
    assert (note.level, fault.level) == ("note", "fault")
    assert "nobody/no-such-model may be another tomorrow: bases.mine" in note.found
    assert "set revision there" in note.remedy
    assert "no route" in fault.found
    assert "nobody/no-such-model (bases.mine)" in fault.found


def test_a_hub_id_that_the_hub_has_is_unknown_in_size_and_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readiness, "HUB", "print('the hub')")
    (note,) = found(path="nobody/no-such-model", revision="0" * 40)
    assert note.level == "note"
    assert "how large is unknown" in note.found


def test_a_hub_id_in_the_cache_needs_no_hub(cache: Path):
    folder = cache / "models--some--body"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    levels = {each.level for each in found(path="some/body")}
    assert levels == {"note", "ok"}


def test_each_line_of_a_study_that_is_refused_is_a_fault_with_its_remedy():
    told = readiness.sources(StudyError("bases.a.path: nothing there; give a folder\ndataset.path: empty; fill it"))
    faults = list(told)
    assert [(each.found, each.remedy) for each in faults] == [
        ("bases.a.path: nothing there", "give a folder"), ("dataset.path: empty", "fill it"),
    ]  # fmt: skip


# -- what fits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "jobs", "level", "remedy"),
    [(8, 2, "ok", ""), (4, 2, "fault", "--jobs 1"), (1, 1, "fault", "micro_batch")],
)
def test_memory_is_enough_or_for_fewer_at_a_time_or_not_at_all(memory: float, jobs: int, level: str, remedy: str):
    works = {"align/a": Work("align", memory=2 * GIB), "align/b": Work("align", memory=2 * GIB)}
    told = cost(works, {}, {}, jobs)
    (finding,) = readiness.memory(works, told, dict.fromkeys(works, "align weak"), room(memory * GIB))
    assert finding.level == level
    assert remedy in finding.remedy
    assert "align weak takes about 2.5 GiB" in finding.found
    assert "bfloat16" not in finding.remedy  # weights in which small steps are lost


def test_what_is_unknown_is_not_said_to_fit():
    works = {"sample/a": Work("sample", unknown="not here"), "rank/b": Work("rank")}
    (note,) = readiness.memory(works, cost(works, {}, {}, 1), dict.fromkeys(works, "it"), room())
    assert note.level == "note"
    assert "what 1 of 2 stages take is unknown" in note.found


def test_a_disk_must_hold_what_is_written_and_the_checkpoints_meanwhile(tmp_path: Path):
    works = {"train/a": Work("train", written=2 * GIB, scratch=12 * GIB)}
    told = cost(works, {}, {}, 1)
    (full,) = readiness.disk(works, told, room(disk=8 * GIB), tmp_path)
    (enough,) = readiness.disk(works, told, room(disk=20 * GIB), tmp_path)
    assert (full.level, enough.level) == ("fault", "ok")
    assert "12.0 GiB of checkpoints" in full.found


def test_what_cannot_be_told_is_noted_once_a_reason():
    works = {f"sample/{name}": Work("sample", unknown="not here") for name in "ab"} | {"rank/c": Work("rank")}
    (note,) = readiness.unknown(cost(works, {}, {}, 1), works)
    assert "2 x sample: not here" in note.found
