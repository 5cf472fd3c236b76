"""Attribution: what of a pair goes with the displacement of its preferred response, and what length alone explains.

A similarity is judged by its rank correlation with the change of log pi(y+): plainly, given the difference in length
or the edit similarity (`partial_spearman`), and among pairs of equal length. The base is the unit of an interval
wherever there are two or more; with one, its seeds are; of a single run, its pairs, those of one prompt together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.diagnosis import LENGTH
from rmpipe.displacement import buckets, partial_spearman
from rmpipe.generalisation import EVERY, over_bases, placed
from rmpipe.interval import LEVEL, Estimate, bootstrap, clustered, correlate, share, t_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

EDIT = "edit"
"""The similarity that knows texts and no model, which is always there."""
ALONE = "alone"
"""What stands for training on each pair alone, among the trainings."""
TESTS = {
    "spearman": "rank correlation",
    "given_length": "given the difference in length",
    "given_edit": "given the edit similarity",
    "equal_length": "among pairs of equal length",
}
GIVEN = {"given_length": LENGTH, "given_edit": EDIT}
"""What a test takes out of both ranks."""
SINGLES = {
    "chosen": "chosen_change", "rejected": "rejected_change", "displaced": "displaced", "decrease": "decrease",
}  # fmt: skip
"""The numbers of training on each pair alone, and the columns of its table that they are means of."""
NUMBERS = (
    "chosen", "rejected", "displaced", "fall", "accuracy", "held_out", "held_out_accuracy", "kl", "tokens", "refusal",
    "refusal_before", "unparsed",
)  # fmt: skip
"""The numbers of a training on a subset."""
MEASURED = {
    "chosen": "trained.chosen", "rejected": "trained.rejected", "displaced": "trained.displaced",
    "fall": "trained.fall", "accuracy": "trained.accuracy", "held_out": "held_out.chosen",
    "held_out_accuracy": "held_out.accuracy", "kl": "kl", "tokens": "tokens_after",
}  # fmt: skip
"""What the measurement of a training calls each; how often it refuses is measured apart."""
CLAIMED = {
    "chosen": "change of log pi(y+) of its own pairs",
    "held_out": "change of log pi(y+) of held-out pairs",
    "refusal": "share of responses that refuse",
}
"""What two subsets may be claimed to differ in."""
FEW = 10
"""Pairs, below which a correlation is not told."""
NEAR = 0.1
"""Of the chosen response's length: by how much lengths may differ where too few pairs are of equal length."""
PARTS = 4
SHARES = (0.05, 0.1, 0.25, 0.5)
"""Of the pairs, that are dropped on trial."""
DRAWS = 500
BLOCK = 1 << 18
"""Pairs, drawn ones counted as often as they are, that are in the memory at a time."""


@dataclass(frozen=True)
class Outcome:
    """What training did to each of some pairs: one policy with one seed, on pairs alone or on a subset of them.

    Args:
        table: prompt, chosen_tokens, the similarities, `length` and `edit` among them, and `change`, log pi(y+) after
            less before in nats; a row a pair.
    """

    policy: str
    base: str
    seed: int
    training: str
    subset: str
    table: pd.DataFrame


# -- what goes with displacement --------------------------------------------------------------------------------------


def correlations(outcomes: Sequence[Outcome], similarities: Sequence[str]) -> list[dict[str, Any]]:
    """How each similarity ranks the pairs by what became of their preferred responses.

    Returns:
        Dictionaries of policy, training, subset, similarity; of each of `TESTS` a number (below 0: the similar are
        displaced more) or None; `length_given`, the correlation of the length difference given that similarity;
        `by_base`, the plain one as the bootstrap that draws bases; `used`, of each test the bases and runs that its
        number is of; `bases` and `runs`, those of the plain one; `pairs`; `equal`, the pairs of equal length; `within`,
        the share of the chosen one's length by which those may differ, 0 where there are `FEW` without.
    """
    return [
        _correlated(policy, training, subset, name, mine)
        for policy, training, subset, mine in groups(outcomes)
        for name in similarities
    ]


def groups(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, list[Outcome]]]:
    """Outcomes of one kind of training, for each policy, and for all of them together where there are several."""
    policies = list(dict.fromkeys(one.policy for one in outcomes))
    found = []
    for policy in [EVERY, *policies] if len(policies) > 1 else policies:
        for training, subset in dict.fromkeys((one.training, one.subset) for one in outcomes):
            mine = [one for one in outcomes if (one.training, one.subset) == (training, subset)
                    and policy in (EVERY, one.policy)]  # fmt: skip
            if mine:
                found.append((policy, training, subset, mine))
    return found


def _correlated(policy: str, training: str, subset: str, name: str, mine: list[Outcome]) -> dict[str, Any]:
    found: dict[str, Any] = {"policy": policy, "training": training, "subset": subset, "similarity": name, "used": {}}
    within = _within(mine)
    for test in TESTS:
        asked = name != GIVEN.get(test) and not (name == LENGTH and test == "equal_length")
        found[test], used = _over(mine, partial(_ranks, name, test, within)) if asked else (None, [])
        found["used"][test] = counts(used)
    found["length_given"] = None if name == LENGTH else _over(mine, partial(_partial, LENGTH, name))[0]
    plain = _by_base(mine, partial(_ranks, name, "spearman", within))
    found["by_base"] = bootstrap(plain).json() if len(plain) > 1 else None
    found["displaced"] = over_seeds([(one, share((one.table["change"] < 0).astype(float))) for one in mine])
    found["pairs"] = sum(len(one.table) for one in mine)
    found["equal"] = sum(int(alike(one.table, within).sum()) for one in mine)
    return found | {"within": within} | found["used"]["spearman"]


def counts(used: Sequence[str]) -> dict[str, int]:
    """How many bases and runs a number is of, from the base of each run."""
    return {"bases": len(set(used)), "runs": len(used)}


def alike(table: pd.DataFrame, within: float) -> pd.Series[bool]:
    """Which pairs have responses of equal length, or within a share of the chosen one's."""
    return table[LENGTH].abs() <= within * table["chosen_tokens"]


def _within(mine: Sequence[Outcome]) -> float:
    """0 where each run has enough pairs of equally many tokens, as real pairs seldom have."""
    return 0.0 if all(alike(one.table, 0).sum() >= FEW for one in mine) else NEAR


@dataclass(frozen=True)
class Asked:
    """What is asked of pairs.

    Args:
        rows: numbers, (pairs, columns).
        statistic: (..., pairs, columns) to (...).
        prompts: those of one prompt are drawn together.
    """

    rows: NDArray[np.float64]
    statistic: Statistic
    prompts: list[str]


Statistic = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]


def _ranks(name: str, test: str, within: float, table: pd.DataFrame) -> Asked:
    """How a similarity ranks the pairs by the change of log pi(y+), by one of `TESTS`."""
    if test in GIVEN:
        return _partial(name, GIVEN[test], table)
    return _asked(table[alike(table, within)] if test == "equal_length" else table, spearman, name, "change")


def _partial(name: str, given: str, table: pd.DataFrame) -> Asked:
    return _asked(table, lambda rows: partial_spearman(*np.moveaxis(rows, -1, 0)), name, "change", given)


def _less(name: str, than: str, test: str, within: float, table: pd.DataFrame) -> Asked:
    """The rank correlation of one similarity less that of another, by the same test."""
    one, other = (_ranks(each, test, within, table) for each in (name, than))
    width = one.rows.shape[1]
    both = np.hstack([one.rows, other.rows])
    return Asked(both, lambda rows: one.statistic(rows[..., :width]) - other.statistic(rows[..., width:]), one.prompts)


def _asked(table: pd.DataFrame, statistic: Statistic, *columns: str) -> Asked:
    rows = np.stack([table[column].to_numpy(float) for column in columns], axis=1)
    return Asked(rows, statistic, table["prompt"].to_list())


def spearman(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank correlation of two columns, (..., pairs, 2) to (...)."""
    return correlate(rows[..., 0], rows[..., 1], "spearman")


def over_pairs(
    rows: NDArray[np.float64], statistic: Statistic, prompts: Sequence[str] | None = None, draws: int = DRAWS
) -> Estimate:
    """A statistic with its percentile bootstrap interval over pairs: many resamples at once where pairs are few.

    Args:
        rows: (pairs, columns).
        prompts: (pairs,); those of one prompt are drawn together. None where each pair has its own.
        draws: how many resamples.

    Returns:
        NaN below `FEW` pairs, and where it is not known; no interval where it is not known of a resample, nor where all
        resamples are alike, as those of a perfect correlation and of a share of 0 are, which says nothing.
    """
    value = float(statistic(rows)) if len(rows) >= FEW else math.nan
    if not math.isfinite(value):
        return Estimate(value)
    if prompts is not None and len(set(prompts)) < len(rows):
        found = clustered(rows, prompts, statistic, draws=draws)
        return found if found.low < found.high else Estimate(value)
    random, block = np.random.default_rng(0), max(1, BLOCK // len(rows))
    sizes = [min(block, draws - done) for done in range(0, draws, block)]
    drawn = [statistic(rows[random.integers(len(rows), size=(size, len(rows)))]) for size in sizes]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, low, high) if low < high else Estimate(value)


def _over(mine: list[Outcome], asked: Callable[[pd.DataFrame], Asked]) -> tuple[dict[str, Any] | None, list[str]]:
    """A statistic of pairs, over bases, seeds, or the pairs of a single run; and the base of each run that has one."""
    if len(mine) == 1:
        told = asked(mine[0].table)
        number = over_pairs(told.rows, told.statistic, told.prompts).json()
        return number, [mine[0].base] if number else []
    values = _values(mine, asked)
    return over_seeds([(one, Estimate(value)) for one, value in values]), [one.base for one, _ in values]


def _values(mine: list[Outcome], asked: Callable[[pd.DataFrame], Asked]) -> list[tuple[Outcome, float]]:
    """Runs with their statistic; those left out that have none."""
    found = [(one, asked(one.table)) for one in mine]
    told = [(one, float(each.statistic(each.rows))) for one, each in found if len(each.rows) >= FEW]
    return [(one, value) for one, value in told if math.isfinite(value)]


def over_seeds(runs: Sequence[tuple[Any, Estimate]]) -> dict[str, Any] | None:
    """The mean over bases, Student's where there are two or more; with one base over seeds, policies together.

    Policies finetuned from one base are no units of their own: over one base and one seed they have no interval. A
    single run keeps its own.

    Args:
        runs: each, with `base` and `seed`, and its number.
    """
    if len(runs) > 1 and len({run.base for run, _ in runs}) == 1:
        by_seed: dict[int, list[float]] = {}
        for run, number in runs:
            by_seed.setdefault(run.seed, []).append(number.value)
        return t_interval([float(np.mean(values)) for values in by_seed.values()]).json()
    return over_bases([(run.base, number) for run, number in runs])


def _by_base(mine: list[Outcome], asked: Callable[[pd.DataFrame], Asked]) -> list[float]:
    """The mean of a statistic over the runs of each base."""
    by: dict[str, list[float]] = {}
    for one, value in _values(mine, asked):
        by.setdefault(one.base, []).append(value)
    return [float(np.mean(values)) for values in by.values()]


def parts(outcomes: Sequence[Outcome], similarities: Sequence[str]) -> list[dict[str, Any]]:
    """The mean change and the share displaced in each quarter of a similarity, from the lowest up.

    Returns:
        Dictionaries of policy, training, subset, similarity, part (1 the lowest), change and displaced, with intervals
        over bases or runs. None of a similarity that does not part the pairs so.
    """
    found = []
    for policy, training, subset, mine in groups(outcomes):
        for name in similarities:
            each = [(one, buckets(one.table[name], one.table["change"], PARTS)) for one in mine]
            whole = [(one, part) for one, part in each if len(part) == PARTS]
            for place in range(PARTS if whole else 0):
                keys = {"policy": policy, "training": training, "subset": subset, "similarity": name, "part": place + 1}
                numbers = {
                    told: over_seeds([(one, Estimate(part[place][key])) for one, part in whole])
                    for told, key in (("change", "mean"), ("displaced", "displaced"))
                }
                found.append(keys | numbers)
    return found


# -- what training on subsets did -------------------------------------------------------------------------------------


def rows(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each policy, training and subset: its numbers, and where it stands among the subsets.

    Args:
        runs: of one training each: policy, base, seed, training, subset, pairs (trained on), and of each of `NUMBERS`
            an estimate as JSON or None.

    Returns:
        Dictionaries, within a policy and training those first whose preferred responses end likeliest; `rank` as in a
        ranking, `not_told_from` those that the first is not told apart from.
    """
    policies = list(dict.fromkeys(run["policy"] for run in runs))
    found: list[dict[str, Any]] = []
    for policy in [EVERY, *policies] if len(policies) > 1 else policies:
        for training in dict.fromkeys(run["training"] for run in runs):
            mine = [run for run in runs if run["training"] == training and policy in (EVERY, run["policy"])]
            if mine:
                found += _ranked([_row(policy, training, name, mine) for name in _subsets(mine)], mine)
    return found


def _subsets(runs: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(run["subset"] for run in runs))


def _row(policy: str, training: str, subset: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [run for run in runs if run["subset"] == subset]
    row: dict[str, Any] = {"policy": policy, "training": training, "subset": subset}
    row |= {"bases": len({run["base"] for run in mine}), "runs": len(mine), "pairs": mine[0]["pairs"]}
    for number in NUMBERS:
        row[number] = over_seeds([(_run(run), Estimate.of(run[number])) for run in mine if run.get(number)])
    refused = list(dict.fromkeys(address for run in mine for address in run.get("refused", ())))
    told = {"track": [run["address"] for run in mine]} | ({"classify": refused} if refused else {})
    return row | {"addresses": told}


def _ranked(mine: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    mine = sorted(mine, key=lambda row: -row["chosen"]["value"])
    gaps = [difference(runs, mine[0]["subset"], row["subset"]) for row in mine[1:]]
    apart = [gap is not None and gap["low"] is not None and gap["low"] > 0 for gap in gaps]
    return placed(mine, apart, "subset")


def difference(
    runs: Sequence[dict[str, Any]], higher: str, lower: str, number: str = "chosen"
) -> dict[str, Any] | None:
    """A number of one subset less that of another, over what both have: policies, seeds, and trainings.

    Two subsets that have no training in common, and one each, are compared as they were trained.

    Returns:
        an estimate as JSON, over bases, or over seeds where there is one base; None where they have no run in common.
    """
    return over_seeds(_gaps(runs, higher, lower, number))


@dataclass(frozen=True)
class _Run:
    """What a run is of, as intervals ask it."""

    base: str
    seed: int


def _run(run: dict[str, Any]) -> _Run:
    return _Run(run["base"], run["seed"])


def _gaps(runs: Sequence[dict[str, Any]], higher: str, lower: str, number: str) -> list[tuple[_Run, Estimate]]:
    """The difference in each run that both subsets have."""
    sides = [[run for run in runs if run["subset"] == name and run.get(number)] for name in (higher, lower)]
    taught = [{run["training"] for run in side} for side in sides]
    each_its_own = not taught[0] & taught[1] and len(taught[0]) == len(taught[1]) == 1
    keys = ("policy", "seed") if each_its_own else ("policy", "seed", "training")
    ones, others = ({tuple(run[key] for key in keys): run for run in side} for side in sides)
    both = [(one, others[key]) for key, one in ones.items() if key in others]
    return [(_run(one), Estimate(one[number]["value"] - other[number]["value"])) for one, other in both]


def ladders(
    found: Sequence[dict[str, Any]], subsets: dict[str, Any], runs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The change of log pi(y+) over the quantiles of a similarity (2410.08847, Figure 2), and how far it is in order.

    Args:
        found: of `rows`.
        subsets: how each is chosen; those of kind `quantile` are rungs.
        runs: as in `rows`.

    Returns:
        Dictionaries of policy, training, by, equal_length; `rungs` (at, subset, chosen), `order`: Spearman of the
        change with the quantile, -1 where each rung is below the one before, over bases or runs.
    """
    told: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        rule = subsets[row["subset"]]
        if rule["kind"] == "quantile":
            key = (row["policy"], row["training"], rule["by"], rule["equal_length"])
            told.setdefault(key, []).append({"at": rule["at"], "subset": row["subset"], "chosen": row["chosen"]})
    ladders = []
    for (policy, training, by, equal), rungs in told.items():
        rungs.sort(key=lambda rung: rung["at"])
        names = [rung["subset"] for rung in rungs]
        mine = [run for run in runs if run["training"] == training and policy in (EVERY, run["policy"])]
        keys = {"policy": policy, "training": training, "by": by, "equal_length": equal}
        ladders.append(keys | {"rungs": rungs, "order": _order(mine, names) if len(rungs) > 2 else None})
    return ladders


def _order(runs: Sequence[dict[str, Any]], names: list[str]) -> dict[str, Any] | None:
    heights: dict[tuple[Any, ...], dict[str, float]] = {}
    for run in runs:
        heights.setdefault((run["base"], run["policy"], run["seed"]), {})[run["subset"]] = run["chosen"]["value"]
    whole = [
        (_Run(key[0], key[2]), np.array([each[name] for name in names]))
        for key, each in heights.items() if set(names) <= set(each)
    ]  # fmt: skip
    order = np.arange(len(names), dtype=float)
    return over_seeds([(run, Estimate(float(correlate(order, values, "spearman")))) for run, values in whole])


# -- what was claimed beforehand --------------------------------------------------------------------------------------


def judged(
    claims: Sequence[dict[str, Any]], outcomes: Sequence[Outcome], runs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each claim with its number, and whether it held.

    Args:
        claims: of the study, `rmpipe.displacing.Expectation` as dictionaries.
        outcomes: those of pairs trained on alone are tested.
        runs: as in `rows`.
    """
    return [claim | {"policy": claim.get("policy", EVERY)} | _judged(claim, outcomes, runs) for claim in claims]


def _judged(claim: dict[str, Any], outcomes: Sequence[Outcome], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    policy = claim.get("policy")
    if "similarity" in claim:
        mine = [one for one in outcomes if one.training == ALONE and policy in (None, one.policy)]
        return _told(*_tested(claim, mine), -1)
    trained = [run for run in runs if policy in (None, run["policy"])]
    if "training" in claim:  # of the subsets that have it
        having = {run["subset"] for run in trained if run["training"] == claim["training"]}
        trained = [run for run in trained if run["subset"] not in having or run["training"] == claim["training"]]
    number = claim.get("number", "chosen")
    gaps = _gaps(trained, claim["higher"], claim["lower"], number)
    what = f"{CLAIMED[number]} after {claim['higher']} less that after {claim['lower']}"
    return _told(over_seeds(gaps), [run.base for run, _ in gaps], what, 1)


def _tested(claim: dict[str, Any], mine: list[Outcome]) -> tuple[dict[str, Any] | None, list[str], str]:
    """A similarity's rank correlation, or how far it is below that of another; of what runs; in words what it is."""
    test, name, than, within = claim["test"], claim["similarity"], claim.get("than"), _within(mine)
    how = "" if test == "spearman" else f" {TESTS[test]}{nearly(within) if test == 'equal_length' else ''}"
    what = f"Spearman of {name} with the change of log pi(y+){how}"
    if than is None:
        return *_over(mine, partial(_ranks, name, test, within)), what
    return *_over(mine, partial(_less, name, than, test, within)), f"{what} less that of {than}"


def nearly(within: float) -> str:
    """What is to be said after "equal length" where lengths may differ."""
    return f" within {within:.0%}" if within else ""


def _told(number: dict[str, Any] | None, used: list[str], what: str, sign: int) -> dict[str, Any]:
    """Whether an interval lies wholly on the side that was claimed."""
    if number is None or number["low"] is None:
        outcome = "Not settled, there is no interval"
    elif number["low"] <= 0 <= number["high"]:
        outcome = "Not settled, the interval includes 0"
    else:
        outcome = "Held" if sign * number["value"] > 0 else "Reversed"
    value, rests = "not known" if number is None else str(Estimate.of(number)), counts(used)
    of = ", ".join(f"{count} {name.removesuffix('s' * (count == 1))}" for name, count in rests.items())
    return {"difference": number, "outcome": outcome, "sentence": f"{outcome}: {what} is {value} ({of})."} | rests


# -- what to drop -----------------------------------------------------------------------------------------------------


def savings(outcomes: Sequence[Outcome], name: str) -> list[dict[str, Any]]:
    """What it is worth to drop the pairs of the highest similarity: on the same outcomes, so an expectation.

    Returns:
        for each of `SHARES`: `share`; `saved`, the mean change of the pairs that stay less that of all, nats a pair;
        `displaced` and `displaced_all`, the shares of pairs displaced, of those that stay and of all.
    """
    return [{"share": share} | _saved(outcomes, name, share) for share in SHARES]


def _saved(outcomes: Sequence[Outcome], name: str, share: float) -> dict[str, Any]:
    return {key: _over(list(outcomes), partial(_left, name, share, key))[0] for key in LEFT}


def _left(name: str, share: float, key: str, table: pd.DataFrame) -> Asked:
    """What is told of the pairs that stay: with drawn pairs the cut is made anew, and all move with those that stay."""

    def statistic(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(rows[..., 0], axis=-1, kind="stable")
        change = np.take_along_axis(rows[..., 1], order, axis=-1)
        count = change.shape[-1]
        return LEFT[key](change, change[..., : count - max(1, round(share * count))])

    return _asked(table, statistic, name, "change")


LEFT: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "saved": lambda every, stay: stay.mean(-1) - every.mean(-1),
    "displaced": lambda every, stay: (stay < 0).mean(-1),
    "displaced_all": lambda every, stay: (every < 0).mean(-1),
}
"""From the changes of all pairs, (..., pairs), and those of the pairs that stay."""


def measured(runs: Sequence[dict[str, Any]], lowest: str, random: str) -> list[dict[str, Any]]:
    """What filtering did where it was tried: a number after the pairs of lowest similarity less that after random ones.

    Returns:
        for each training: `training`, `lowest`, `random`, `pairs` (that the filter kept), and differences or None:
        `held_out` (log pi(y+) of the same held-out pairs), `chosen` (of each subset's own pairs, which are not the
        same, as 2410.08847's Table 16 has it), `accuracy` (of held-out pairs: what it costs).
    """
    found = []
    for training in dict.fromkeys(run["training"] for run in runs):
        mine = [run for run in runs if run["training"] == training]
        if own := difference(mine, lowest, random):
            kept = next(run["pairs"] for run in mine if run["subset"] == lowest)
            told = {"training": training, "lowest": lowest, "random": random, "pairs": kept, "chosen": own}
            told |= {"held_out": difference(mine, lowest, random, "held_out")}
            found.append(told | {"accuracy": difference(mine, lowest, random, "held_out_accuracy")})
    return found
