"""The answer of `generalise`: accuracies on every set, differences with intervals, what held of what was claimed.

Runs that share a base are not independent, so the base is the unit wherever there are two or more of them: intervals
are Student's over the means of bases, and beside them stands the bootstrap that draws bases. With one base alone the
unit is the prompt, and so it is of a reward model that starts from none of them (somebody's own, the same for all),
which no base can move: bases would give it an interval of no width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.interval import Estimate, bootstrap, clustered, share, t_interval

if TYPE_CHECKING:
    import pandas as pd

EVERY = "every base"
"""What stands for all policies together."""
SHOWN = ("accuracy", "margin", "loss", "chosen", "rejected", "cues", "carried")
"""The numbers of a reward model on a set."""
SHIFTS = ("in-distribution", "token", "domain")
COIN = 0.5
"""What a coin earns of pairs."""


def rows(trials: pd.DataFrame, pairs: pd.DataFrame, draws: int = 2000) -> list[dict[str, Any]]:
    """A row for each policy, reward model and set: its numbers, and where its accuracy stands among the others.

    Args:
        trials: a row a trial and set: policy, base, seed, reward_model, kind, trained, made_here (it starts from the
            base), set, shift, of_training (a set of prompts that reward models are trained on), and `SHOWN` with their
            bounds in `NAME_low` and `NAME_high`.
        pairs: a row a pair of each trial: trial, set, asked, id, correct.
        draws: bootstrap draws.

    Returns:
        Dictionaries; `bases` is 0 of a reward model that starts from none, `rank` as in a ranking, `not_told_from`
        those the leader is not told apart from.
    """
    found = []
    for policy in places(trials):
        for name in dict.fromkeys(trials["set"]):
            mine = _of(trials, policy, name)
            found += _ranked([_row(part, policy, pairs, draws) for part in _parts(mine)], mine, pairs, draws)
    return found


def places(trials: pd.DataFrame) -> list[str]:
    """The policies, and all of them together where there are several."""
    names = list(dict.fromkeys(trials["policy"]))
    return [EVERY, *names] if len(names) > 1 else names


def _of(trials: pd.DataFrame, policy: str, name: str) -> pd.DataFrame:
    return trials[(trials["set"] == name) & ((trials["policy"] == policy) | (policy == EVERY))]


def _parts(trials: pd.DataFrame) -> list[pd.DataFrame]:
    return [trials[trials["reward_model"] == name] for name in dict.fromkeys(trials["reward_model"])]


def _row(part: pd.DataFrame, policy: str, pairs: pd.DataFrame, draws: int) -> dict[str, Any]:
    first = part.iloc[0]
    row: dict[str, Any] = {"policy": policy, "reward_model": first["reward_model"], "set": first["set"]}
    row |= {"shift": first["shift"], "kind": first["kind"], "trained": bool(first["trained"])}
    row |= {"bases": int(part["base"].nunique()) if first["made_here"] else 0, "runs": len(part)}
    part = part if row["bases"] else part.assign(base="")
    row |= {number: _mean(part, number) for number in SHOWN}
    if row["bases"] < 2 and row["runs"] > 1:  # one base has no interval over bases
        mine = pairs[pairs["trial"].isin(part["trial"]) & (pairs["set"] == first["set"])]
        row["accuracy"] = share(mine["correct"].to_list(), mine["asked"].to_list(), draws=draws).json()
    return row


def _mean(part: pd.DataFrame, number: str) -> dict[str, Any] | None:
    """Over the means of bases; of a single run with its own interval, over prompts."""
    known = part[part[number].notna()]
    ends = zip(*(known[f"{number}{end}"].astype(float) for end in ("", "_low", "_high")), strict=True)
    return over_bases(list(zip(known["base"], (Estimate(*each) for each in ends), strict=True)))


def over_bases(runs: Sequence[tuple[str, Estimate]]) -> dict[str, Any] | None:
    """The mean over bases, Student's where there are two or more; a single run keeps its own interval.

    Args:
        runs: the base of each run, and its number.
    """
    if len(runs) < 2:
        return runs[0][1].json() if runs else None
    by_base: dict[str, list[float]] = {}
    for base, number in runs:
        by_base.setdefault(base, []).append(number.value)
    return t_interval([float(np.mean(values)) for values in by_base.values()]).json()


def over_runs(runs: Sequence[tuple[str, Estimate]]) -> dict[str, Any] | None:
    """As `over_bases`, and with one base Student's over its runs, one a seed: of what is not known prompt by prompt."""
    if len(runs) > 1 and len({base for base, _ in runs}) == 1:
        return t_interval([number.value for _, number in runs]).json()
    return over_bases(runs)


def _ranked(mine: list[dict[str, Any]], trials: pd.DataFrame, pairs: pd.DataFrame, draws: int) -> list[dict[str, Any]]:
    mine = sorted(mine, key=lambda row: -row["accuracy"]["value"])
    leader = mine[0]
    apart = [
        difference(trials, pairs, leader["reward_model"], row["reward_model"], draws)["difference"].low > 0
        for row in mine[1:]
    ]
    return placed(mine, apart, "reward_model")


def placed(rows: list[dict[str, Any]], apart: Sequence[bool], name: str) -> list[dict[str, Any]]:
    """Rows with their `rank`, and with those that the leader is `not_told_from`.

    Args:
        rows: the leader first.
        apart: of each behind it, whether the leader is told apart from it.
        name: the column that names a row.
    """
    tied = 1 + next((index for index, told in enumerate(apart) if told), len(apart))
    for place, row in enumerate(rows):
        row["rank"] = ("1=" if tied > 1 else "1") if place < tied else str(place + 1)
        row["not_told_from"] = []
    rows[0]["not_told_from"] = [row[name] for row, told in zip(rows[1:], apart, strict=True) if not told]
    return rows


def above_a_coin(row: dict[str, Any]) -> bool:
    """Whether a row's accuracy is told from a coin's, and is higher: a leader that is not is nobody to trust."""
    low = row["accuracy"]["low"]
    return low is not None and low > COIN


def below_a_coin(row: dict[str, Any]) -> bool:
    """Whether a row's accuracy is told from a coin's, and is lower."""
    high = row["accuracy"]["high"]
    return high is not None and high < COIN


def difference(trials: pd.DataFrame, pairs: pd.DataFrame, higher: str, lower: str, draws: int = 2000) -> dict[str, Any]:
    """Accuracy of one reward model less that of another, over what both have: bases, seeds, sets, pairs.

    Args:
        trials: those of the policies and sets in question, as in `rows`.
        pairs: as in `rows`.

    Returns:
        `difference` (an `Estimate`, Student's over bases, or a bootstrap over prompts where there is one base, or
        neither starts from any), `by_base` (the bootstrap that draws bases, None over prompts), `bases`, `runs`, and
        `wins`: the share of runs (a policy, a seed and a set) that the first wins, ties half.
    """
    sides = [trials[trials["reward_model"] == name] for name in (higher, lower)]
    both = sides[0].merge(sides[1], on=["policy", "seed", "set", "base"], suffixes=("_a", "_b"))
    if both.empty:
        return {"difference": Estimate(math.nan), "by_base": None, "bases": 0, "runs": 0, "wins": None}
    gaps = (both["accuracy_a"] - both["accuracy_b"]).to_numpy()
    bases = both["base"].nunique() if (both["made_here_a"] | both["made_here_b"]).any() else 0
    told = {"bases": int(bases), "runs": len(both), "wins": float(((np.sign(gaps) + 1) / 2).mean())}
    if told["bases"] > 1:
        means = both.assign(gap=gaps).groupby("base", sort=False)["gap"].mean().to_numpy()
        return told | {"difference": t_interval(means), "by_base": bootstrap(means, draws=draws).json()}
    return told | {"difference": _over_prompts(both, pairs, draws), "by_base": None}


def _over_prompts(both: pd.DataFrame, pairs: pd.DataFrame, draws: int) -> Estimate:
    """With one base or none: prompts are drawn, over all runs, each set and seed with its own."""
    gaps, asked = [], []
    for row in both.itertuples():
        sides = [pairs[(pairs["trial"] == trial) & (pairs["set"] == row.set)] for trial in (row.trial_a, row.trial_b)]
        joined = sides[0].merge(sides[1], on=["id", "asked"], suffixes=("_a", "_b"))
        gaps += (joined["correct_a"] - joined["correct_b"]).to_list()
        asked += joined["asked"].to_list()
    return clustered(gaps, asked, draws=draws)


def judged(
    claims: list[dict[str, Any]], trials: pd.DataFrame, pairs: pd.DataFrame, draws: int = 2000
) -> list[dict[str, Any]]:
    """Each claim with its difference, and whether it held.

    Args:
        claims: of the study, `rmpipe.generalising.Expectation` as dictionaries.
    """
    found = []
    for claim in claims:
        moved = ~trials["of_training"] & (trials["shift"] == claim.get("shift"))
        sets = [claim["set"]] if "set" in claim else list(dict.fromkeys(trials[moved]["set"]))
        policy = claim.get("policy", EVERY)
        mine = trials[trials["set"].isin(sets) & ((trials["policy"] == policy) | (policy == EVERY))]
        first, second = claim.get("alike") or (claim["higher"], claim["lower"])
        told = difference(mine, pairs, first, second, draws)
        judge: Callable[..., str] = _alike if "alike" in claim else _higher
        outcome = judge(told["difference"], claim)
        names = {
            "name": claim["name"],
            "claim": claim["claim"],
            "policy": policy,
            "sets": sets,
            "sides": [first, second],
        }
        found.append(names | told | {"difference": told["difference"].json(), "outcome": outcome})
        found[-1]["sentence"] = _sentence(found[-1])
    return found


def _higher(gap: Estimate, claim: dict[str, Any]) -> str:
    if not math.isfinite(gap.value) or not math.isfinite(gap.low):
        return "Not settled, there is no interval"
    if gap.low > 0:
        return "Held"
    return "Reversed" if gap.high < 0 else "Not settled, the interval includes 0"


def _alike(gap: Estimate, claim: dict[str, Any]) -> str:
    within = claim["within"]
    if not math.isfinite(gap.value) or not math.isfinite(gap.low):
        return "Not settled, there is no interval"
    if -within < gap.low and gap.high < within:
        return "Held"
    if gap.low > within or gap.high < -within:
        return "Reversed"
    return f"Not settled, the interval leaves ±{within:g}"


def _sentence(item: dict[str, Any]) -> str:
    first, second = item["sides"]
    if item["difference"] is None:
        return f"{item['outcome']}: {first} and {second} have no run in common."
    gap = Estimate.of(item["difference"])
    bases = {0: "no base, prompts drawn", 1: "one base, prompts drawn"}.get(item["bases"], f"{item['bases']} bases")
    drawn = f"; drawing bases {_ends(item['by_base'])}" if item["by_base"] else ""
    on = " and ".join(item["sets"])
    return (
        f"{item['outcome']}: accuracy of {first} less that of {second} on {on} is {gap} ({bases}{drawn}); "
        f"{first} wins {item['wins']:.0%} of {counted(item['runs'])}."
    )


def counted(runs: int) -> str:
    """How many runs, in words."""
    return "1 run" if runs == 1 else f"{runs} runs"


def _ends(number: dict[str, Any]) -> str:
    gap = Estimate.of(number)
    return f"[{gap.low:.2f}, {gap.high:.2f}]"


def contests(trials: pd.DataFrame, pairs: pd.DataFrame, draws: int = 2000) -> list[dict[str, Any]]:
    """Every two reward models under each kind of shift: who wins how often, and by how much (the paper's bar figures).

    Returns:
        Dictionaries of policy, shift, higher and lower (in the study's order), wins, difference, by_base, bases, runs.
    """
    found = []
    names = list(dict.fromkeys(trials["reward_model"]))
    trials = trials[~trials["of_training"]]
    for policy in places(trials):
        for shift in [one for one in SHIFTS if one in set(trials["shift"])]:
            mine = trials[(trials["shift"] == shift) & ((trials["policy"] == policy) | (policy == EVERY))]
            for higher, lower in combinations(names, 2):
                told = difference(mine, pairs, higher, lower, draws)
                if told["runs"]:
                    keys = {"policy": policy, "shift": shift, "higher": higher, "lower": lower}
                    found.append(keys | told | {"difference": told["difference"].json()})
    return found
