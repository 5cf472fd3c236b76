"""Recovery: what prompts of low and of high reward std gained under each arm, and what a few labels bring back of it.

The unit of an interval is the base wherever there are two or more; with one, its seeds; of a single run, its prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.attribution import over_seeds
from rmpipe.gauge import low, related
from rmpipe.generalisation import placed
from rmpipe.interval import Estimate, bootstrap, of_draws

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

PARTS = 4
ENOUGH = 0.8
"""The share of the highest gain that must surely be reached for an arm to be enough."""
BEFORE = (
    "flat", "zero", "mean", "mean_low", "mean_high", "std", "cut", "std_low", "std_high", "norm_low", "norm_high",
    "norm_gap", "ratio", "spearman", "pearson", "exponent", "bound", "tighter",
)  # fmt: skip
"""The numbers that are told of a policy and a reward before any training."""
RECOVERED = {"recovered": "gain", "recovered_low": "low", "recovered_high": "high"}
"""Shares of the reference's gain, and the gains that they are shares of."""
DRAWS = 500


@dataclass(frozen=True)
class Unit:
    """What a number is of, as intervals ask it."""

    base: str
    seed: int

    @classmethod
    def of(cls, place: dict[str, Any]) -> Unit:
        """From a place, or a trial, of an answer."""
        return cls(place["base"], place["seed"])

    @classmethod
    def of_run(cls, run: Run) -> Unit:
        """That of a run."""
        return cls(run.base, run.seed)


@dataclass(frozen=True)
class Run:
    """What one arm did to one policy by one reward with one seed.

    Args:
        table: std, mean (before training, of the draws that say so), norm, before, after, gain (of other draws), in
            reward units, and low; a row a prompt.
        told: kl, tokens, labels of the arm, as far as it has them.
    """

    policy: str
    base: str
    seed: int
    reward: str
    arm: str
    table: pd.DataFrame
    told: dict[str, float]


# -- before any training ----------------------------------------------------------------------------------------------


def vanished(gauges: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """What was told before any training of each policy and reward, over bases or seeds.

    Args:
        gauges: place (policy, base, seed, reward, and what else is to be kept of it) and numbers (of `gauge.numbers`).
    """
    found = []
    for policy, reward in dict.fromkeys((place["policy"], place["reward"]) for place, _ in gauges):
        mine = [(place, told) for place, told in gauges if (place["policy"], place["reward"]) == (policy, reward)]
        row: dict[str, Any] = {"policy": policy, "reward": reward, **counted([place["base"] for place, _ in mine])}
        for name in BEFORE:
            known = [(Unit.of(place), Estimate.of(told[name])) for place, told in mine if told.get(name)]
            if len(mine) > 1:  # an interval over prompts is none of several runs, though but one may have the number
                known = [(unit, Estimate(number.value)) for unit, number in known]
            row[name] = over_seeds(known)
        found.append(row)
    return found


def counted(bases: Sequence[str]) -> dict[str, int]:
    """How many bases and runs a number is of."""
    return {"bases": len(set(bases)), "runs": len(bases)}


# -- what each arm gained ---------------------------------------------------------------------------------------------


def outcome(gauge: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, cut: float) -> pd.DataFrame:
    """Prompt by prompt, what varied beforehand and what was gained.

    Args:
        gauge: prompt_id, std, mean, norm of each prompt.
        before: prompt_id and reward, the mean over its responses.
        after: the same, after an arm.
        cut: the share of prompts of the least std that are low.
    """
    told = gauge[["prompt_id", "std", "mean", "norm"]].assign(low=low(gauge["std"], cut))
    table = told.merge(before, on="prompt_id").merge(after, on="prompt_id", suffixes=("_before", "_after"))
    table = table.rename(columns={"reward_before": "before", "reward_after": "after"})
    return table.assign(gain=table["after"] - table["before"])


def numbers(table: pd.DataFrame, *, alone: bool = True) -> dict[str, Estimate]:
    """The numbers of a run.

    Args:
        table: of `outcome`.
        alone: with intervals over its prompts, which only a run that stands alone is told with.

    Returns:
        `gain`, `low`, `high`, `gap` (high less low), `before`, `after`, `low_after`, `high_after`, reward units;
        `spearman` and `pearson` of the gain with the initial std. NaN where it is not known.
    """
    gain, after, before, std = (table[name].to_numpy(float) for name in ("gain", "after", "before", "std"))
    few = table["low"].to_numpy(bool)
    parts = {"gain": gain, "low": gain[few], "high": gain[~few], "before": before, "after": after}
    parts |= {"low_after": after[few], "high_after": after[~few]}
    found = {name: _mean(values, alone) for name, values in parts.items()}
    found["gap"] = _gap(gain, few, alone)
    return found | {kind: related(std, gain, kind, alone=alone) for kind in ("spearman", "pearson")}


def _mean(values: NDArray[np.float64], alone: bool = True) -> Estimate:
    if not len(values):
        return Estimate(np.nan)
    return bootstrap(values) if alone else Estimate(float(values.mean()))


def _gap(gain: NDArray[np.float64], few: NDArray[np.bool_], alone: bool) -> Estimate:
    """The gain of the others less that of low-std prompts; both sides are drawn by themselves."""
    low, high = gain[few], gain[~few]
    if not len(low) or not len(high):
        return Estimate(np.nan)
    gap, random = float(high.mean() - low.mean()), np.random.default_rng(0)
    if not alone or min(len(low), len(high)) < 2:
        return Estimate(gap)
    sides = [side[random.integers(len(side), size=(DRAWS, len(side)))].mean(axis=1) for side in (high, low)]
    return of_draws(gap, sides[0] - sides[1])


def rows(runs: Sequence[Run], reference: str | None, arms: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each policy, reward and arm, ranked by the gain over all prompts.

    Args:
        runs: of all arms.
        reference: the arm whose gain counts as all that there is to gain.
        arms: what each does, which its rows tell too.
    """
    found: list[dict[str, Any]] = []
    for mine in _cells(runs):
        each = [_row(mine, arm, reference) | _steps(arms[arm]) for arm in dict.fromkeys(run.arm for run in mine)]
        each.sort(key=lambda row: -row["gain"]["value"])
        gaps = [difference(mine, each[0]["arm"], row["arm"]) for row in each[1:]]
        apart = [gap is not None and gap["low"] is not None and gap["low"] > 0 for gap in gaps]
        found += placed(each, apart, "arm")
    return found


def _cells(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs by policy and reward."""
    cells: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.policy, run.reward), []).append(run)
    return list(cells.values())


def _steps(arm: dict[str, Any]) -> dict[str, Any]:
    return {name: arm[name] for name in ("share", "of", "sft_steps", "rlhf_steps")}


def _row(cell: list[Run], arm: str, reference: str | None) -> dict[str, Any]:
    mine = [run for run in cell if run.arm == arm]
    row: dict[str, Any] = {"policy": mine[0].policy, "reward": mine[0].reward, "arm": arm}
    row |= counted([run.base for run in mine])
    each = [numbers(run.table, alone=len(mine) == 1) for run in mine]
    for name in each[0]:
        row[name] = over_seeds([(run, told[name]) for run, told in zip(mine, each, strict=True) if _known(told[name])])
    for name in ("kl", "tokens", "labels"):
        row[name] = over_seeds([(run, Estimate(run.told[name])) for run in mine if name in run.told])
    for name, number in RECOVERED.items():
        row[name] = None if reference is None else recovered(cell, arm, reference, number)
    return row


def _known(number: Estimate) -> bool:
    return bool(np.isfinite(number.value))


def value(run: Run, number: str) -> float:
    """A number of a run: gain, low, high, gap or spearman, as in `numbers`."""
    few, gain = run.table["low"].to_numpy(bool), run.table["gain"].to_numpy(float)
    if number == "spearman":
        return related(run.table["std"], gain, alone=False).value
    if number == "gap":
        return value(run, "high") - value(run, "low")
    return _mean(_part(gain, few, number), alone=False).value


def difference(runs: Sequence[Run], higher: str, lower: str, number: str = "gain") -> dict[str, Any] | None:
    """A number of one arm less that of another, over the runs that both have; None where they have none."""
    return over_seeds(measured(runs, [higher, lower], number))


def recovered(runs: Sequence[Run], arm: str, reference: str, number: str = "gain") -> dict[str, Any] | None:
    """The share of the reference's gain that an arm has: its mean gain over that of the reference.

    A ratio of means, whose interval is that of its linearisation (delta method): a run in which the reference gains
    next to nothing moves it as little as any other. None where the reference does not surely gain: of noise there is no
    share.
    """
    return over_seeds(shares(runs, [arm, reference], number))


def _key(run: Run) -> tuple[str, str, int]:
    """What a run of every arm is of."""
    return run.policy, run.reward, run.seed


def _beside(runs: Sequence[Run], arms: Sequence[str]) -> list[list[Run]]:
    """Runs of these arms side by side, as far as there is one of each."""
    found: dict[tuple[str, str, int], dict[str, Run]] = {}
    for run in runs:
        found.setdefault(_key(run), {})[run.arm] = run
    return [[mine[arm] for arm in arms] for mine in found.values() if all(arm in mine for arm in arms)]


def _less(first: Any, *others: Any) -> Any:
    return first - sum(others)


def measured(runs: Sequence[Run], arms: Sequence[str], number: str) -> list[tuple[Unit, Estimate]]:
    """A number of the first arm, less that of another where there are two, run by run; over prompts of a single one.

    Args:
        arms: one or two.
        number: as in `value`.
    """
    beside = _beside(runs, arms)
    if len(beside) == 1:
        found = [(Unit.of_run(beside[0][0]), _alone(beside[0], number))]
    else:
        each = [(mine[0], _less(*(value(run, number) for run in mine))) for mine in beside]
        found = [(Unit.of_run(run), Estimate(told)) for run, told in each]
    return [(unit, told) for unit, told in found if _known(told)]


def _alone(mine: Sequence[Run], number: str) -> Estimate:
    """What a single run says, prompts drawn for both arms together."""
    few, gain = mine[0].table["low"].to_numpy(bool), _less(*(run.table["gain"].to_numpy(float) for run in mine))
    if number == "spearman":
        alone = related(mine[0].table["std"], gain)
        return alone if len(mine) == 1 else Estimate(_less(*(value(run, number) for run in mine)))
    return _gap(gain, few, True) if number == "gap" else _mean(_part(gain, few, number))


def _part(values: NDArray[np.float64], few: NDArray[np.bool_], number: str) -> NDArray[np.float64]:
    """Of all prompts, of those of low std, or of the others."""
    return {"gain": values, "low": values[few], "high": values[~few]}[number]


def _share(one: float, whole: float) -> float:
    return one / whole if whole > 0 else float("nan")


def shares(runs: Sequence[Run], arms: Sequence[str], number: str) -> list[tuple[Unit, Estimate]]:
    """The share of the last arm's gain that the first has, less that of another between them where there is one.

    Of each run what the share of means would be by it alone, in first order: their mean is that share. Policies and
    rewards have shares of their own, for rewards have units of their own; a single run has its interval over prompts.

    Args:
        arms: two or three, the last of which is the reference.
        number: gain, low or high.
    """
    beside = _beside(runs, arms)
    if len(beside) == 1:
        told = _share_alone(beside[0], number)
        return [(Unit.of_run(beside[0][0]), told)] if _known(told) else []
    found = []
    for cell in _cells([mine[0] for mine in beside]):
        keys = {_key(run) for run in cell}
        found += _linear([mine for mine in beside if _key(mine[0]) in keys], number)
    return found


def _linear(beside: Sequence[Sequence[Run]], number: str) -> list[tuple[Unit, Estimate]]:
    """The pseudo-values of a ratio of means, run by run; none where the reference does not surely gain."""
    gains = np.array([[value(run, number) for run in mine] for mine in beside])
    known = np.isfinite(gains).all(axis=1)
    tops, wholes = gains[known, 0] - gains[known, 1:-1].sum(axis=1), gains[known, -1]
    units = [Unit.of_run(mine[0]) for mine, there in zip(beside, known, strict=True) if there]
    if not units or not _surely(over_seeds([(unit, Estimate(w)) for unit, w in zip(units, wholes, strict=True)])):
        return []
    whole = wholes.mean()
    share = tops.mean() / whole
    return [(unit, Estimate(float(told)))
            for unit, told in zip(units, share + (tops - share * wholes) / whole, strict=True)]  # fmt: skip


def _surely(number: dict[str, Any] | None) -> bool:
    """Whether a number is above 0, as far as its interval tells."""
    return number is not None and (number["value"] if number["low"] is None else number["low"]) > 0


def _share_alone(mine: Sequence[Run], number: str) -> Estimate:
    """The share that a single run tells, prompts drawn for all arms together."""
    few, gains = mine[0].table["low"].to_numpy(bool), [run.table["gain"].to_numpy(float) for run in mine]
    parts = [_part(gain, few, number) for gain in (_less(*gains[:-1]), gains[-1])]
    if not len(parts[0]) or not _surely(bootstrap(parts[1]).json()):
        return Estimate(np.nan)
    return bootstrap(np.stack(parts, axis=1), lambda rows: _share(*rows.mean(axis=0)))


def each(runs: Sequence[Run], reference: str | None) -> list[dict[str, Any]]:
    """The numbers of each run by itself, by which two answers are compared; None for what is not known."""
    found = []
    for run in runs:
        told: dict[str, float] = {name: value(run, name) for name in ("gain", "low", "high")}
        if reference is not None:
            whole = next((one for one in runs if one.arm == reference and _key(one) == _key(run)), None)
            told["recovered"] = _share(told["gain"], value(whole, "gain") if whole else 0.0)
        told |= {"kl": run.told["kl"]} if "kl" in run.told else {}
        names = {key: getattr(run, key) for key in ("policy", "base", "seed", "reward", "arm")}
        known = {key: told.get(key, float("nan")) for key in ("gain", "low", "high", "recovered", "kl")}
        found.append(names | {key: number if np.isfinite(number) else None for key, number in known.items()})
    return found


def quarters(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The gain in each quarter of the prompts by initial std, from the least up.

    Prompts of equal std are taken in their order, so that quarters are of one size; a run of fewer than two prompts a
    quarter has none.

    Returns:
        Dictionaries of policy, reward, arm, part (1 the least), std and gain.
    """
    found = []
    for cell in _cells(runs):
        for arm in dict.fromkeys(run.arm for run in cell):
            mine = [run for run in cell if run.arm == arm and len(run.table) >= 2 * PARTS]
            cut = [_quarters(run.table) for run in mine]
            for place in range(PARTS if mine else 0):
                keys = {"policy": cell[0].policy, "reward": cell[0].reward, "arm": arm, "part": place + 1}
                told = {
                    name: over_seeds([
                        (run, _mean(parts[place][name].to_numpy(float), len(mine) == 1))
                        for run, parts in zip(mine, cut, strict=True)
                    ])
                    for name in ("std", "gain")
                }  # fmt: skip
                found.append(keys | told)
    return found


def _quarters(table: pd.DataFrame) -> list[pd.DataFrame]:
    order = np.argsort(table["std"].to_numpy(), kind="stable")
    return [table.iloc[places] for places in np.array_split(order, PARTS)]


# -- how many labels --------------------------------------------------------------------------------------------------


def curve(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The measured curve: what the labels of any inputs brought, alone and before reinforcement, and without any.

    Args:
        found: of `rows`.
    """
    mine = [row | {"rlhf": row["rlhf_steps"] > 0} for row in found if row["of"] in (None, "all")]
    mine.sort(key=lambda row: (row["policy"], row["reward"], row["rlhf"], row["share"], row["sft_steps"]))
    names = ("policy", "reward", "arm", "share", "labels", "sft_steps", "rlhf", "gain", "low", "recovered")
    return [{name: row[name] for name in names} for row in mine]


def advised(runs: Sequence[Run], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many labels are worth it before reinforcement: of the arms that surely reach enough, that of the fewest.

    An arm is enough where the interval of its share of the highest gain lies above `ENOUGH`. That gain is of the arm
    that came out highest, so that luck is in it, and shares are a little too low.

    Returns:
        Dictionaries of policy, reward, `arm` (None where nothing was gained), `labels`, `sft_steps`, `recovered` (of
        the highest gain), `best` (its arm), `alone` (the same share of `without`, the best arm without labels), `why`:
        `enough`, or `best` where no other arm is, or `nothing`. None of a place of which every arm learnt labels of
        chosen inputs.
    """
    told = []
    for cell in _cells(runs):
        mine = [row for row in found if (row["policy"], row["reward"]) == (cell[0].policy, cell[0].reward)]
        any_of = [row for row in mine if row["of"] in (None, "all")]
        if not any_of:
            continue
        best = max(any_of, key=lambda row: row["gain"]["value"])
        advice: dict[str, Any] = {"policy": best["policy"], "reward": best["reward"], "best": best["arm"]}
        alone = next((row for row in any_of if not row["sft_steps"]), None)
        advice["alone"] = alone and recovered(cell, alone["arm"], best["arm"])
        advice["without"] = alone and alone["arm"]
        advice |= {"arm": None, "labels": None, "sft_steps": 0, "recovered": None, "why": "nothing"}
        if _surely(best["gain"]):
            advice |= _cheapest(cell, any_of, best)
        told.append(advice)
    return told


def _cheapest(cell: Sequence[Run], any_of: Sequence[dict[str, Any]], best: dict[str, Any]) -> dict[str, Any]:
    for row in sorted(any_of, key=lambda row: (row["share"], row["sft_steps"], row["rlhf_steps"])):
        part = recovered(cell, row["arm"], best["arm"])
        sure = row is best or (part is not None and part["low"] is not None and part["low"] >= ENOUGH)
        if sure:
            why = "best" if row is best else "enough"
            return {"arm": row["arm"], "labels": row["labels"], "sft_steps": row["sft_steps"], "recovered": part,
                    "why": why}  # fmt: skip
    raise AssertionError("the best is among them")
