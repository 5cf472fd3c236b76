"""Contrasts: one teacher against another on shared seeds, and the claims that a study stated beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.interval import Estimate, bootstrap, bootstrap_correlation, correlate, paired_t

if TYPE_CHECKING:
    import pandas as pd

GAINS = {"truth": "truth_gain", "proxy": "proxy_gain"}
WORDS = {"truth": "ground-truth gain", "proxy": "proxy gain"}
PREMISES = {
    "less accurate": ("accuracy_on", -1, 0.0), "more variance": ("variance", 1, 0.0),
    "no less accurate": ("accuracy_on", 1, 0.005),
}  # fmt: skip
"""What a claim may assume of the first side beside the second: a measured number, which way it must differ, and how far
it may fall short, as rewards that are rounded anew tie here and there."""
CHANCE = 0.05
"""A ladder holds only when its order is at most this likely by chance."""


@dataclass(frozen=True)
class Difference:
    """A paired difference of gains, how many seeds it rests on, and what was resampled or repeated."""

    estimate: Estimate
    seeds: int

    def __str__(self) -> str:
        if self.seeds == 1:
            return f"{self.estimate} (1 seed, over its prompts: its luck is not in the interval)"
        return f"{self.estimate} ({self.seeds} seeds, paired)"


def paired_difference(
    cells: pd.DataFrame, higher: dict[str, Any], lower: dict[str, Any], gain: str = "truth", draws: int = 2000
) -> Difference:  # fmt: skip
    """The gain of one cell less that of another, seed by seed: Student's interval over the seeds that both have.

    With one shared seed, the bootstrap over its prompts; with none, nothing is known (NaN).

    Args:
        cells: see `rmpipe.ranking`.
        higher: policy, algorithm and reward_model of the first.
        lower: the same of the second.
        gain: `"truth"` or `"proxy"`.
        draws: bootstrap draws.
    """
    left, right = (_by_seed(cells, which, GAINS[gain]) for which in (higher, lower))
    seeds = [seed for seed in left if seed in right]
    if len(seeds) > 1:
        a, b = ([side[seed][GAINS[gain]] for seed in seeds] for side in (left, right))
        return Difference(paired_t(a, b), len(seeds))
    if not seeds:
        return Difference(Estimate(math.nan), 0)
    one, other = left[seeds[0]], right[seeds[0]]
    mine, others = (_array(cell.get(f"{GAINS[gain]}_per_prompt")) for cell in (one, other))
    if len(mine) != len(others) or not len(mine):
        return Difference(Estimate(float(one[GAINS[gain]] - other[GAINS[gain]])), 1)
    return Difference(bootstrap(mine - others, draws=draws), 1)


def _by_seed(cells: pd.DataFrame, which: dict[str, Any], column: str) -> dict[Any, dict[str, Any]]:
    """The rows of one cell by seed, those only whose gain is known."""
    if column not in cells:
        return {}
    keys = ("policy", "algorithm", "reward_model")
    mine = np.logical_and.reduce([cells[key] == which[key] for key in keys]) & cells[column].notna()
    return {row["seed"]: row for row in cells[mine].to_dict("records")}


def _array(value: Any) -> np.ndarray:
    """A list of gains, empty where the table has none (None, or the NaN that pandas puts there)."""
    return np.array([] if value is None or isinstance(value, float) else value, dtype=np.float64)


def contrasts(
    cells: pd.DataFrame, rows: list[dict[str, Any]], claims: Iterable[dict[str, Any]], draws: int = 2000
) -> list[dict[str, Any]]:  # fmt: skip
    """Each claim judged: did it hold, by how much, over how many seeds, and one sentence.

    A claim has name, claim (its text), gain ("truth" unless "proxy"), policy and algorithm (all of them when left out),
    and one of: `higher` and `lower` (reward models); `reward_model`, `policy_higher` and `policy_lower` (does it teach
    one policy better than another?); `ladder` (reward models: does the gain rise with the measured variance?). A pair
    holds when the interval of the paired difference is above 0; a ladder, when that of its highest variance less its
    lowest is, and at most one in twenty orders drawn by chance would have as high a Spearman correlation. What a pair
    assumes (`assuming`, see `PREMISES`) is looked up among the measured means; a claim whose premise fails, or that
    cannot be tested for another reason, says so, and stops nothing.

    Returns:
        Dictionaries with name, claim, policy, algorithm, gain, difference (`{"value", "low", "high"}` or None), seeds,
        holds (true, false, or None: not tested), sentence, and for a ladder spearman and chance.
    """
    judged = []
    for claim in claims:
        claim = {"gain": "truth", "policy": None, "algorithm": None, "claim": ""} | claim
        crossover = claim.get("policy_higher") is not None
        policies = [None] if crossover else [claim["policy"]] if claim["policy"] else _distinct(rows, "policy")
        algorithms = [claim["algorithm"]] if claim["algorithm"] else _distinct(rows, "algorithm")
        for policy, algorithm in product(policies, algorithms):
            where = claim | {"policy": policy, "algorithm": algorithm}
            verdict = _ladder(cells, rows, where, draws) if claim.get("ladder") else _pair(cells, rows, where, draws)
            judged.append({key: where[key] for key in ("name", "claim", "policy", "algorithm", "gain")} | verdict)
    return judged


def _distinct(rows: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _pair(
    cells: pd.DataFrame, rows: list[dict[str, Any]], claim: dict[str, Any], draws: int
) -> dict[str, Any]:  # fmt: skip
    """One reward model against another on a policy, or one policy against another under a reward model."""
    sides = [_side(claim, side) for side in ("higher", "lower")]
    numbers: dict[str, Any] = {"difference": None, "spearman": None, "chance": None, "seeds": 0, "holds": None}
    if None in sides[0].values() or None in sides[1].values():
        text = "Not tested: name higher and lower; or reward_model, policy_higher and policy_lower; or a ladder."
        return numbers | {"sentence": text}
    found = paired_difference(cells, sides[0], sides[1], claim["gain"], draws)
    gain, algorithm = WORDS[claim["gain"]], claim["algorithm"]
    names = [f"{side['reward_model']} on {side['policy']}" for side in sides]
    if not found.seeds:
        text = f"Not tested: no shared seed has a {gain} of both {names[0]} and {names[1]} ({algorithm})."
        return numbers | {"sentence": text}
    premises = [_premise(rows, sides, name) for name in claim.get("assuming") or ()]
    text = f"{gain} of {names[0]} less that of {names[1]} ({algorithm}) is {found}"
    text = "; ".join([text, *(said for said, _ in premises)])
    numbers |= {"difference": found.estimate.json(), "seeds": found.seeds}
    if not all(true for _, true in premises):
        return numbers | {"sentence": f"Not tested, what it assumes is not so: {text}."}
    return numbers | {"holds": bool(found.estimate.low > 0), "sentence": f"{_outcome(found.estimate)}: {text}."}


def _premise(rows: list[dict[str, Any]], sides: list[dict[str, Any]], name: str) -> tuple[str, bool]:
    """What was measured of both sides, in words, and whether it is as the claim assumes."""
    number, way, short = PREMISES[name]
    found = [next((row[number] for row in rows if side.items() <= row.items()), None) for side in sides]
    if None in found:
        return f"{number} is not known", False
    first, second = (item["value"] for item in found if item)
    return f"{number.removesuffix('_on')} {first:.2f} against {second:.2f}", way * (first - second) > -short


def _side(claim: dict[str, Any], side: str) -> dict[str, Any]:
    crossover = claim.get("policy_higher") is not None
    policy, model = (f"policy_{side}", "reward_model") if crossover else ("policy", side)
    return {"policy": claim.get(policy), "algorithm": claim["algorithm"], "reward_model": claim.get(model)}


def _outcome(difference: Estimate) -> str:
    if difference.low > 0:
        return "Held"
    if difference.high < 0:
        return "Reversed"
    return (
        "Not settled, the interval includes 0" if math.isfinite(difference.low) else "Not settled, there is no interval"
    )


def _ladder(
    cells: pd.DataFrame, rows: list[dict[str, Any]], claim: dict[str, Any], draws: int
) -> dict[str, Any]:  # fmt: skip
    """Does the gain rise with the measured variance over the named reward models, on means over seeds?"""
    gain, names = GAINS[claim["gain"]], tuple(claim["ladder"])
    mine = [
        row for row in rows
        if row["reward_model"] in names and row["policy"] == claim["policy"] and row["algorithm"] == claim["algorithm"]
        and row["variance"] and row[gain]
    ]  # fmt: skip
    where = f"{len(mine)} of {len(names)} reward models ({claim['policy']}, {claim['algorithm']})"
    numbers: dict[str, Any] = {"difference": None, "seeds": min((row["seeds"] for row in mine), default=0)}
    x, y = (np.array([row[name]["value"] for row in mine]) for name in ("variance", gain))
    found = bootstrap_correlation(x, y, "spearman", draws)
    if not math.isfinite(found.value):
        unknown = {"spearman": None, "chance": None, "holds": None}
        if len(mine) >= 3 and np.ptp(y) == 0:
            text = f"over {where} the {WORDS[claim['gain']]} is {y[0]:.2f} at every variance."
            return numbers | unknown | {"holds": False, "sentence": f"Not settled: {text}"}
        text = f"Not tested: a ladder takes three with variances and gains that differ; {where} have both."
        return numbers | unknown | {"sentence": text}
    chance = _chance(x, y, found.value)
    least, most = (mine[int(place)] for place in (np.argmin(x), np.argmax(x)))
    ends = paired_difference(cells, most, least, claim["gain"], draws)
    holds = bool(chance <= CHANCE and ends.estimate.low > 0)
    text = (
        f"{'Held' if holds else 'Not settled'}: over {where} the {WORDS[claim['gain']]} goes from"
        f" {least[gain]['value']:.2f} at the lowest variance to {most[gain]['value']:.2f} at the highest, a difference"
        f" of {ends}; Spearman {found.value:.2f}, by chance as high in {chance:.1%} of orders."
    )
    numbers["difference"] = ends.estimate.json()
    return numbers | {"spearman": found.json(), "chance": chance, "holds": holds, "sentence": text}


def _chance(x: np.ndarray, y: np.ndarray, value: float, draws: int = 10_000) -> float:
    """The share of orders of x whose Spearman correlation with y reaches `value`: of all up to 7, else of a sample."""
    if len(x) <= 7:
        orders = np.array(list(permutations(x)))
    else:
        orders = np.random.default_rng(0).permuted(np.tile(x, (draws, 1)), axis=1)
    reached = correlate(orders, np.broadcast_to(y, orders.shape), "spearman") >= value - 1e-9
    return float(reached.mean()) if len(x) <= 7 else float((reached.sum() + 1) / (draws + 1))
