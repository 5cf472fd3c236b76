"""How two artifacts of one stage came to differ: what was told differently is followed to where it first differs.

An address is a hash of what was told, so two that differ say only that something does, perhaps many inputs away. Here
that is said once, where it arises, and beside it what no address tells: code, packages, machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rmpipe.artifact import Artifact
from rmpipe.config import StudyError, flatten
from rmpipe.ranking import KEYS

Cell = tuple[str, ...]
"""A policy, an algorithm and a reward model; of accuracies on sets, a policy and a reward model; of what displaces, a
policy, alone or with a training and a subset; of what vanishes, a policy and a reward, alone or with an arm, or a
controlled experiment."""
Cells = dict[Cell, dict[int, dict[str, Artifact]]]
"""Cell -> seed -> what was made for it, by stage: "measure" and "align", say."""
ANSWERS = ("rank", "judge", "weigh", "conclude")
"""Stages whose inputs are those of cells."""
GRIDS = ("places", "treatments", "trials", "controlled")
"""What an answer is told of its cells, beside what they were made from."""
ABSENT = object()


@dataclass
class Change:
    """One thing that differs, and in which artifacts of which stages.

    Attributes:
        name: a dotted leaf, `optimiser.learning_rate`.
        a: the value of the one; `ABSENT` when it has none.
        b: that of the other.
        where: (stage, what a person calls the artifact without its seed), each once.
    """

    name: str
    a: Any
    b: Any
    where: list[tuple[str, str]] = field(default_factory=list)

    @property
    def stages(self) -> list[str]:
        """The stages in which it differs."""
        return list(dict.fromkeys(stage for stage, _ in self.where))

    def json(self) -> dict[str, Any]:
        """`{"name", "a", "b", "stages", "artifacts"}`, a side without a value left out."""
        sides = {side: value for side, value in (("a", self.a), ("b", self.b)) if value is not ABSENT}
        return {"name": self.name, **sides, "stages": self.stages, "artifacts": [title for _, title in self.where]}


@dataclass
class Ancestry:
    """All that differs between two artifacts and what they were made from.

    Attributes:
        told: of configurations, versions and inputs: what decides addresses.
        made: of code, packages, machines, and inputs that were made again with other bytes: what no address tells.
        lost: ancestors that could not be followed, a sentence each.
    """

    told: list[Change] = field(default_factory=list)
    made: list[Change] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, a: Artifact, b: Artifact) -> Ancestry:
        """Compare two artifacts and, where inputs differ, these in turn, down to the first that say why."""
        found = cls()
        found._follow(a, b, "", ("", ""))
        return found

    def _follow(self, a: Artifact, b: Artifact, name: str, above: tuple[str, str]) -> None:
        """Compare two artifacts, which are the input `name` of those above."""
        if a.address == b.address or (a.address, b.address) in self._seen:
            return
        self._seen.add((a.address, b.address))
        try:
            mine, other = a.record, b.record
        except StudyError as error:
            self.lost.append(f"{a.address} and {b.address} differ, and were not followed: {error}")
            return
        if mine["stage"] != other["stage"]:
            one, another = (f"{_title(side.record)} ({side.address})" for side in (a, b))
            return self._note(self.told, f"inputs.{name}", one, another, above)
        titles = {_title(record) for record in (mine, other)}
        where = (mine["stage"], titles.pop() if len(titles) == 1 else mine["stage"])
        for leaf, one, another in _differing(_told(mine), _told(other)):
            self._note(self.told, leaf, one, another, where)
        for leaf, one, another in _made_differently(mine, other):
            self._note(self.made, leaf, one, another, where)
        for name, left, right in _inputs(a, b):
            if left and right:
                self._follow(left, right, name, where)
            else:
                values = [side.address if side else ABSENT for side in (left, right)]
                self._note(self.told, f"inputs.{name}", values[0], values[1], where)

    @staticmethod
    def _note(changes: list[Change], name: str, a: Any, b: Any, where: tuple[str, str]) -> None:
        known = next((item for item in changes if (item.name, item.a, item.b) == (name, a, b)), None)
        if known is None:
            changes.append(known := Change(name, a, b))
        if where not in known.where:
            known.where.append(where)


def _title(record: dict[str, Any]) -> str:
    return str(record["title"]).partition(" · ")[0]


def _told(record: dict[str, Any]) -> dict[str, Any]:
    """What a stage was told beside its inputs; of a ranking, its cells are told by what they were made from."""
    config = dict(record["config"])
    if record["stage"] in ANSWERS:
        told = config.pop("about", {})
        cells = config.pop("cells", None) or config.pop("trials", None) or told.get("places") or []
        about = {name: value for name, value in told.items() if name not in GRIDS}
        config = {"seeds": sorted({cell["seed"] for cell in cells})} | about | config
        config["claims"] = {claim["name"]: _unnamed(claim) for claim in config["claims"]}
    return {"version": record["version"], **config}


def _unnamed(claim: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in claim.items() if key != "name"}


def _differing(a: dict[str, Any], b: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Leaves that differ; a section that only one side has is one of them."""
    for name in {**a, **b}:
        mine, other, path = a.get(name, ABSENT), b.get(name, ABSENT), above + name
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from _differing(mine, other, f"{path}.")
        elif mine != other:
            yield path, mine, other


def _made_differently(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Definitions and inputs that only one of them has follow from what it was told: those of both count."""
    for name in ("code", "read"):
        mine, other = a.get(name, {}), b.get(name, {})
        both = [key for key in mine if key in other and mine[key] != other[key]]
        yield from ((f"{name}.{key}", mine[key][:12], other[key][:12]) for key in both)
    for name in ("packages", "machine", "runtime"):
        yield from _differing({name: a.get(name) or {}}, {name: b.get(name) or {}})
    mine, other = ((record.get("commit") or "unknown")[:12] for record in (a, b))
    if mine != other:
        yield "commit", mine, other


def _inputs(a: Artifact, b: Artifact) -> Iterator[tuple[str, Artifact | None, Artifact | None]]:
    """The inputs of both by name; those of answers by cell, for one seed of each: a study tells all the same."""
    if a.record["stage"] in ANSWERS:
        yield from _alike(cells(a), cells(b))
        return
    mine, other = (
        {name: Artifact(address, side.home) for name, address in flatten(side.record["inputs"]).items() if address}
        for side in (a, b)
    )
    yield from ((name, mine.get(name), other.get(name)) for name in {**mine, **other})


def _alike(a: Cells, b: Cells) -> Iterator[tuple[str, Artifact | None, Artifact | None]]:
    """What was made in the cells of both, for a seed of both where there is one."""
    for cell in a:
        if cell in b:
            shared = [seed for seed in a[cell] if seed in b[cell]]
            left, right = (side[cell][shared[0] if shared else next(iter(side[cell]))] for side in (a, b))
            yield from ((stage, left.get(stage), right.get(stage)) for stage in {**left, **right})


def cells(ranking: Artifact) -> Cells:
    """What an answer was made from."""
    found: Cells = {}
    record = ranking.record
    if record["stage"] == "judge":
        return _examined(record, ranking)
    if record["stage"] == "weigh":
        return _displaced(record, ranking)
    if record["stage"] == "conclude":
        return _vanished(record, ranking)
    inputs = (record["inputs"]["measurements"], record["inputs"]["policies"])
    for cell, measured, aligned in zip(record["config"]["cells"], *inputs, strict=True):
        made = {"measure": Artifact(measured, ranking.home), "align": Artifact(aligned, ranking.home)}
        found.setdefault(tuple(cell[key] for key in KEYS), {})[cell["seed"]] = made
    return found


def _displaced(record: dict[str, Any], answer: Artifact) -> Cells:
    found: Cells = {}
    about, inputs = record["config"]["about"], record["inputs"]
    kept = {"diagnose": "places", "single": "places", "track": "treatments", "classify": "treatments"}
    for stage, made in zip(kept, (inputs[name] for name in ("diagnoses", "singles", "tracked", "after")), strict=True):
        for item, address in zip(about[kept[stage]], made, strict=bool(made)):
            cell = tuple(item[key] for key in ("policy", "training", "subset") if key in item)
            found.setdefault(cell, {}).setdefault(item["seed"], {})[stage] = Artifact(address, answer.home)
    return found


def _vanished(record: dict[str, Any], answer: Artifact) -> Cells:
    found: Cells = {}
    about, inputs = record["config"]["about"], record["inputs"]
    experiments = [dict(zip(("experiment", "seed"), each, strict=True)) for each in about["controlled"]]
    kept = {
        "gauges": ("gauge", about["places"]), "before": ("score", about["places"]), "after": ("score", about["trials"]),
        "imitated": ("imitate", about["trials"]), "aligned": ("align", about["trials"]),
        "sieves": ("sift", about["trials"]), "controlled": ("control", experiments),
    }  # fmt: skip
    for name, (stage, items) in kept.items():
        for item, address in zip(items, inputs[name], strict=True):
            cell = tuple(item[key] for key in ("experiment", "policy", "reward", "arm") if key in item)
            made = found.setdefault(cell, {}).setdefault(item["seed"], {})
            made |= {stage: Artifact(address, answer.home)} if address else {}
    return found


def _examined(record: dict[str, Any], answer: Artifact) -> Cells:
    found: Cells = {}
    config, inputs = record["config"], record["inputs"]
    places = zip(config["about"]["places"], inputs["separations"], strict=True)
    separations = {(seed, policy): address for (seed, policy), address in places}
    for trial, *made in zip(config["trials"], inputs["measurements"], inputs["written"], strict=True):
        addresses = [made[0], separations[trial["seed"], trial["policy"]], made[1]]
        named = zip(("evaluate", "separate", "generate"), addresses, strict=True)
        cell = (trial["policy"], trial["reward_model"])
        found.setdefault(cell, {})[trial["seed"]] = {
            stage: Artifact(address, answer.home) for stage, address in named if address
        }
    return found
