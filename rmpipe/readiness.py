"""Whether this machine can do what a study asks for: found before any compute is spent, each as a `Finding`.

What is held and written is estimated by `rmpipe.workload`; what is free is asked of this machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rmpipe.config import Config, StudyError, inside
from rmpipe.estimate import PROCESS, Cost, Work
from rmpipe.folder import is_pinned
from rmpipe.health import Finding
from rmpipe.origin import InFile, OnHub
from rmpipe.probe import HUB, PATIENCE, asked
from rmpipe.stock import here

SHOWN = 3


@dataclass(frozen=True)
class Room:
    """What this machine has free.

    Attributes:
        place: whose memory it is: `memory`, or a GPU by its name.
        memory: bytes that are free there.
        total: bytes that it has.
        process: bytes of it that a worker takes before it loads a model.
        disk: bytes that are free where the store is.
    """

    place: str
    memory: float
    total: float
    process: float
    disk: float

    @classmethod
    def of(cls, home: Path) -> Room:
        """This machine's: the GPU's where torch can use one."""
        import psutil
        import torch

        there = next(path for path in (home, *home.parents) if path.is_dir())
        disk = shutil.disk_usage(there).free
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            return cls(torch.cuda.get_device_name(), free, total, 600 << 20, disk)
        found = psutil.virtual_memory()
        total = found.total
        if (limit := Path("/sys/fs/cgroup/memory.max")).exists() and (told := limit.read_text().strip()).isdigit():
            total = min(total, int(told))
        return cls("memory", min(total, found.available), total, PROCESS, disk)


# -- what a study names -----------------------------------------------------------------------------------------------


def named(study: Config) -> Iterator[Finding]:
    """Code of others that is run, and what must come from the hub.

    Args:
        study: as it was read.
    """
    sections = [(where, section) for where, section in inside(study) if where]
    yield from foreign(sections)
    yield from hub(sections)


def sources(error: StudyError) -> Iterator[Finding]:
    """What a study's own checks refuse, a fault a line."""
    for line in str(error).splitlines():
        told, _, remedy = line.rpartition("; ")
        yield Finding("study", "fault", told or line, remedy if told else "")


def foreign(sections: list[tuple[str, Config]]) -> Iterator[Finding]:
    """Models whose own code is run."""
    for where, one in sections:
        if getattr(one, "trust_remote_code", False):
            told = f"{where}.trust_remote_code: code that comes with {getattr(one, 'path', where)} is run as yours"
            pinned = is_pinned(getattr(one, "path", ""), getattr(one, "revision", None))
            more = "" if pinned else f", and set {where}.revision to a commit, so that it stays that code"
            yield Finding("remote code", "note", told, f"read it first{more}")


def hub(sections: list[tuple[str, Config]]) -> Iterator[Finding]:
    """Models and data sets from the hub: which are not pinned, which are not here, and whether it answers."""
    asking: dict[tuple[str, str | None, bool], list[str]] = {}
    for where, one in _from_hub(sections):
        asking.setdefault(one, []).append(where)
    absent = []
    for (place, revision, data), wheres in asking.items():
        if not is_pinned(place, revision):
            told = f"{place} may be another tomorrow: {_few(wheres)}"
            yield Finding("hub ids", "note", told, "set revision there to a commit, so that it stays what it is")
        if not (_data_here(place) if data else here(place, revision)):
            absent.append(f"{place} ({_few(wheres)})")
        else:
            yield Finding("hub ids", "ok", f"{place} is in the hub's cache")
    if absent:
        yield from _fetched(absent)


def _from_hub(sections: list[tuple[str, Config]]) -> Iterator[tuple[str, tuple[str, str | None, bool]]]:
    """A section that names something of the hub: its id, its revision, and whether it is a data set."""
    for where, one in sections:
        place = getattr(one, "path", None)
        if isinstance(place, str) and not isinstance(one, InFile) and not Path(place).exists():
            yield where, (place, getattr(one, "revision", None), isinstance(one, OnHub))


def _data_here(place: str) -> bool:
    """Whether something of a data set is in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"datasets--{place.replace('/', '--')}").is_dir()


def _fetched(absent: list[str]) -> Iterator[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    with asked(HUB) as program:
        fault = "HF_HUB_OFFLINE says not to ask it" if offline else program.answer(2 * PATIENCE)[1]
    if fault:
        remedy = "give folders of this machine, or let it reach the hub"
        yield Finding("hub ids", "fault", f"not here, and the hub cannot be reached ({fault}): {_few(absent)}", remedy)
    else:
        yield Finding("hub ids", "note", f"not here yet, the run fetches them; how large is unknown: {_few(absent)}")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


# -- what fits --------------------------------------------------------------------------------------------------------


def busy() -> Iterator[Finding]:
    """Whether others are at work here: the estimate is of a machine that is left to us."""
    cores = os.cpu_count() or 1
    if (load := os.getloadavg()[0]) > cores / 2:
        told = f"others are at work here: {load:.1f} on {cores} cores in the last minute"
        yield Finding("load", "note", f"{told}; what is estimated below is without them")


def memory(works: Mapping[str, Work], cost: Cost, titles: Mapping[str, str], room: Room) -> Iterator[Finding]:
    """Whether the largest stage fits what is free, and as many at a time as are asked for.

    Args:
        works: of the stages that would run, by address.
        cost: what they cost together.
        titles: what a person calls each.
    """
    if not works:
        return
    largest = max(works, key=lambda address: works[address].memory)
    alone = works[largest].memory + room.process
    told = f"{titles[largest]} takes about {_gib(alone)}, and {_gib(room.memory)} of {_gib(room.total)} are free"
    told += "" if room.place == "memory" else f" on {room.place}"
    untold = sum(bool(work.unknown) for work in works.values())
    together = cost.peak + min(cost.jobs, len(works)) * room.process
    if alone > room.memory:
        remedy = 'set adapter = {}, or precision = "mixed" with checkpointing = true; lower micro_batch or batch_size'
        yield Finding("memory", "fault", told, f"{remedy}; or take a smaller model, or another machine")
    elif together > room.memory:
        fitting = max(1, int(room.memory // alone))
        told += f"; {cost.jobs} stages at a time take about {_gib(together)}"
        yield Finding("memory", "fault", told, f"run fewer at a time: --jobs {fitting}")
    elif untold:
        yield Finding(
            "memory", "note", f"of what is known, {told}; what {untold} of {len(works)} stages take is unknown"
        )
    else:
        yield Finding("memory", "ok", f"{told}; {_gib(together)} are held at most, {cost.jobs} at a time")


def disk(works: Mapping[str, Work], cost: Cost, room: Room, home: Path) -> Iterator[Finding]:
    """Whether what is written, and the checkpoints that are kept meanwhile, fit the disk."""
    scratch = sum(sorted((work.scratch for work in works.values()), reverse=True)[: cost.jobs])
    least = "at least" if any(work.unknown for work in works.values()) else "about"
    told = f"{least} {_gib(cost.written)} are written"
    told += f", and {_gib(scratch)} of checkpoints meanwhile" if scratch > 1 << 30 else ""
    told += f"; {_gib(room.disk)} are free at {home}"
    if cost.written + scratch > room.disk:
        remedy = "free space, set RMPIPE_HOME to a larger disk, or ask for fewer seeds, looks or reward models"
        yield Finding("disk", "fault", told, remedy)
    else:
        yield Finding("disk", "ok", told)


def unknown(cost: Cost, works: Mapping[str, Work]) -> Iterator[Finding]:
    """Stages of which nothing can be told, by why."""
    reasons: dict[str, list[str]] = {}
    for address, why in cost.unknown.items():
        reasons.setdefault(why, []).append(works[address].stage)
    for why, stages in reasons.items():
        names = ", ".join(f"{stages.count(name)} x {name}" for name in dict.fromkeys(stages))
        yield Finding("estimate", "note", f"unknown, and in no total: {names}: {why}")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size > 100 << 20 else f"{size / 2**20:.1f} MiB"
