"""Reckoning: what was claimed beforehand of `vanish`, judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmpipe.attribution import over_seeds
from rmpipe.generalisation import EVERY
from rmpipe.interval import Estimate
from rmpipe.recovery import RECOVERED, Run, Unit, counted, measured, shares

Gauges = Sequence[tuple[dict[str, Any], dict[str, Any]]]
"""Places and numbers, as `recovery.vanished` takes them."""
Seeds = list[tuple[int, dict[str, dict[str, float]]]]
"""A controlled experiment: seed, and of each method `modified` and `unmodified`."""
ALL = "all rewards"
"""What stands for every reward of a study."""
WORDS = {
    "norm": "gradient norm of prompts of high std less that of prompts of low std",
    "correlation": "Spearman of std with gradient norm",
    "gain": "gain", "low": "gain of low-std prompts", "high": "gain of high-std prompts",
    "gap": "gain of high-std prompts less that of low-std prompts",
    "spearman": "Spearman of the gain with the initial std", "recovered": "share of the gain",
    "recovered_low": "share of the gain of low-std prompts",
    "recovered_high": "share of the gain of high-std prompts", "modified": "gain of modified inputs",
    "unmodified": "gain of unmodified inputs",
}  # fmt: skip


def judged(
    claims: Sequence[dict[str, Any]],
    gauges: Gauges,
    runs: Sequence[Run],
    reference: str | None,
    experiments: dict[str, Seeds],
) -> list[dict[str, Any]]:
    """Each claim with its number, and whether it held.

    Args:
        claims: of the study, `rmpipe.vanishing.Expectation` as dictionaries.
        gauges: of each place, its numbers before any training.
        runs: of all arms.
        reference: the arm whose gain counts as all that there is to gain.
        experiments: controlled ones by name.
    """
    return [
        claim | {"policy": claim.get("policy", EVERY), "reward": claim.get("reward", ALL)}
        | _judged(claim, gauges, runs, reference, experiments)
        for claim in claims
    ]  # fmt: skip


def _judged(
    claim: dict[str, Any], gauges: Gauges, runs: Sequence[Run], reference: str | None, experiments: dict[str, Seeds]
) -> dict[str, Any]:
    number, arm, than = claim["number"], claim.get("arm"), claim.get("than")
    if claim.get("controlled"):
        found = _controlled(experiments[claim["controlled"]], str(arm), than, number)
        return _told(claim, found, f" in {claim['controlled']}", "seed")
    if arm is None:
        return _told(claim, _before([each for each in gauges if _meant(claim, each[0])], number), "", "base")
    some = [run for run in runs if _meant(claim, {"policy": run.policy, "reward": run.reward})]
    where = f" of {reference} that {arm} has" if number in RECOVERED else ""
    arms = [side for side in (arm, than) if side]
    if number in RECOVERED:
        return _told(claim, shares(some, [*arms, str(reference)], RECOVERED[number]), where, "base")
    return _told(claim, measured(some, arms, number), where, "base")


def _meant(claim: dict[str, Any], place: dict[str, Any]) -> bool:
    return all(claim.get(key) in (None, place[key]) for key in ("policy", "reward"))


def _before(gauges: Gauges, number: str) -> list[tuple[Unit, Estimate]]:
    """A number of each gauge that a claim may name; over prompts of a single one."""
    name = "spearman" if number == "correlation" else "norm_gap"
    known = [(Unit.of(place), Estimate.of(told[name])) for place, told in gauges if told.get(name)]
    return known if len(gauges) == 1 else [(unit, Estimate(told.value)) for unit, told in known]


def _controlled(seeds: Seeds, arm: str, than: str | None, number: str) -> list[tuple[Unit, Estimate]]:
    def told(methods: dict[str, dict[str, float]], method: str) -> float:
        each = methods[method]
        return each["unmodified"] - each["modified"] if number == "gap" else each[number]

    return [
        (Unit(f"seed {seed}", seed), Estimate(told(methods, arm) - (told(methods, than) if than else 0.0)))
        for seed, methods in seeds
    ]


def _told(claim: dict[str, Any], found: Sequence[tuple[Any, Estimate]], where: str, unit: str) -> dict[str, Any]:
    """Whether an interval lies wholly above what was claimed."""
    number, above = over_seeds(found), claim.get("above", 0.0)
    outcome = _outcome(number, above)
    rests = counted([each.base for each, _ in found])
    arm, than = claim.get("arm"), claim.get("than")
    of = "" if arm is None or claim["number"].startswith("recovered") else f" under {arm}"
    what = f"{WORDS[claim['number']]}{of}{where}" + (f" less that of {than}" if than else "")
    said = "not known, of too few prompts or of none" if number is None else str(Estimate.of(number))
    least = f", claimed above {above:g}" if above else ""
    counts = rests if unit == "base" else {"seeds": rests["runs"]}
    drawn = ", ".join(f"{count} {name.removesuffix('s' * (count == 1))}" for name, count in counts.items())
    sentence = f"{outcome}: {what} is {said}{least}{f' ({drawn})' if found else ''}."
    return {"difference": number, "outcome": outcome, "sentence": sentence} | rests


def _outcome(number: dict[str, Any] | None, above: float) -> str:
    if number is None or number["low"] is None:
        return "Not settled, there is no interval"
    if number["low"] <= above <= number["high"]:
        return f"Not settled, the interval includes {above:g}"
    return "Held" if number["low"] > above else "Reversed"
