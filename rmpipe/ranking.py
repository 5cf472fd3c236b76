"""The answer: which reward model teaches each policy best, what goes with it, and which stated claims held.

In go `cells`, a tidy table with one row per (seed, policy, reward_model, algorithm): the columns `kind`, `trained`, any
of `NUMBERS`, each number X with `X_low` and `X_high` over the prompts of its seed, and `truth_gain_per_prompt` and
`proxy_gain_per_prompt` (lists). Out comes a dictionary that JSON can hold: what is unknown is null, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rmpipe.contrast import GAINS, contrasts, paired_difference
from rmpipe.interval import Estimate, bootstrap_correlation, t_interval
from rmpipe.verdict import sentences, table

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")

__all__ = ["answer", "contrasts", "correlations", "ranks", "rows", "sentences", "table"]

KEYS = ("policy", "algorithm", "reward_model")
MEASURED = (
    "variance", "variance_raw", "accuracy_on", "accuracy_on_half", "accuracy_off", "covariance", "correlation",
    "flat_share", "margin", "calibration_error",
)  # fmt: skip
NUMBERS = (*MEASURED, "proxy_gain", "truth_gain", "kl", "length_gain")
PROPERTIES = (*MEASURED, "accuracy_mean", "variance_and_accuracy")
"""What may go with a gain: all that is measured before RLHF, and the two means of 2503.15477's Table 2."""
FEWEST_TRAINED = 4
"""Trained reward models below which a correlation over them alone is not shown."""


def answer(cells: pd.DataFrame, claims: Iterable[dict[str, Any]] = (), draws: int = 2000) -> dict[str, Any]:
    """Everything the table of cells can say: `{"rows", "correlations", "contrasts", "sentences"}`.

    Args:
        cells: see the module.
        claims: comparisons stated beforehand, see `contrasts`.
        draws: bootstrap draws.

    Raises:
        ValueError: a column that names a cell is missing, or two rows are of one cell.
    """
    _check(cells)
    ranked = ranks(rows(cells), cells, draws)
    related = correlations(ranked, draws)
    judged = contrasts(cells, ranked, claims, draws)
    return {"rows": ranked, "correlations": related, "contrasts": judged, "sentences": sentences(ranked, related)}


def rows(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per policy, algorithm and reward model, every number with a 95 % interval.

    With two seeds or more, the mean over seeds with Student's interval (three seeds: wide, and honestly so); with one,
    that seed's own value with its bootstrap over prompts, in which the luck of the seed is not.

    Returns:
        Dictionaries with policy, algorithm, reward_model, kind, trained, seeds (how many), and each of `NUMBERS` as
        `{"value", "low", "high"}` or None.
    """
    return [_row(names, group) for names, group in cells.groupby(list(KEYS), sort=False)]


def _row(names: tuple[str, ...], group: pd.DataFrame) -> dict[str, Any]:
    first = group.iloc[0]
    row: dict[str, Any] = dict(zip(KEYS, names, strict=True))
    row |= {"kind": str(first["kind"]), "trained": bool(first["trained"]), "seeds": len(group)}
    return row | {name: over_seeds(group, name).json() for name in NUMBERS}


def over_seeds(group: pd.DataFrame, name: str) -> Estimate:
    """A number of one cell: the mean over seeds with Student's interval, or the one seed's value with its own.

    Args:
        group: a row a seed, with the number and, of one seed, `NAME_low` and `NAME_high`.
        name: of the number.
    """
    values = _floats(group, name)
    known = np.isfinite(values)
    if known.sum() > 1:
        return t_interval(values[known])
    if not known.any():
        return Estimate(math.nan)
    low, high = (_floats(group, f"{name}_{end}")[known][0] for end in ("low", "high"))
    return Estimate(float(values[known][0]), float(low), float(high))


def _floats(group: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats, NaN where it has no number or is not there at all."""
    import pandas as pd

    if name not in group:
        return np.full(len(group), math.nan)
    return pd.to_numeric(group[name]).to_numpy(dtype=np.float64, na_value=math.nan)


def _check(cells: pd.DataFrame) -> None:
    missing = [name for name in ("seed", *KEYS, "kind", "trained") if name not in cells]
    if missing:
        raise ValueError(f"cells: no column {', '.join(missing)}; it has {', '.join(map(str, cells.columns))}")
    twice = cells.duplicated(["seed", *KEYS])
    if twice.any():
        cell = cells.loc[twice, ["seed", *KEYS]].iloc[0].to_dict()
        raise ValueError(f"cells: two rows of one cell, {cell}; keep one")


def ranks(rows: list[dict[str, Any]], cells: pd.DataFrame, draws: int = 2000) -> list[dict[str, Any]]:
    """The rows in order, best teacher first in each policy and algorithm, with `rank`, `ranked_by`, `not_told_from`.

    Ordered by the ground-truth gain; by the proxy gain where no ground truth is known. Walking down, a reward model
    joins the rank above it unless some member of that rank is told apart from it: a paired advantage whose interval is
    above 0 (Student's over shared seeds; with one seed, bootstrap over its prompts). So no two of one rank are told
    apart; one whose own gain is very uncertain may not be told apart from those of lower ranks either, and
    `not_told_from` names these. Ranks are those of a competition: "1=", "1=", "3". Sharing a rank says "not told
    apart", not "equal". Unknown gain: "?".

    Args:
        rows: of `rows`.
        cells: the same cells, for the paired differences.
        draws: bootstrap draws.
    """
    ordered: list[dict[str, Any]] = []
    for policy, algorithm in dict.fromkeys((row["policy"], row["algorithm"]) for row in rows):
        mine = [row for row in rows if (row["policy"], row["algorithm"]) == (policy, algorithm)]
        gain = "truth" if any(row["truth_gain"] for row in mine) else "proxy"
        known = [row for row in mine if row[GAINS[gain]]]
        best = sorted(known, key=lambda row: -row[GAINS[gain]]["value"])
        for row, label, unsure in places(best, partial(_apart, cells, gain=gain, draws=draws)):
            names = [other["reward_model"] for other in unsure]
            ordered.append(row | {"rank": label, "ranked_by": gain, "not_told_from": names})
        unknown = [row for row in mine if not row[GAINS[gain]]]
        ordered += [row | {"rank": "?", "ranked_by": gain, "not_told_from": []} for row in unknown]
    return ordered


def places(best: Sequence[R], apart: Callable[[R, R], bool]) -> Iterator[tuple[R, str, list[R]]]:
    """Ranks of a competition for what is in order, the best first: each with its label and whom it is not told from.

    Args:
        best: in order.
        apart: whether the first of two, which stands before the second, is told apart from it.

    Returns:
        of each, in order: itself, "1", "1=", ..., and those of lower ranks that it is not told apart from.
    """
    tied: list[list[R]] = []
    for row in best:
        if tied and not any(apart(better, row) for better in tied[-1]):
            tied[-1].append(row)
        else:
            tied.append([row])
    place = 1
    for index, group in enumerate(tied):
        label = f"{place}=" if len(group) > 1 else str(place)
        lower = [row for after in tied[index + 1 :] for row in after]
        for row in group:
            yield row, label, [other for other in lower if not apart(row, other)]
        place += len(group)


def _apart(cells: pd.DataFrame, leader: dict[str, Any], other: dict[str, Any], gain: str, draws: int) -> bool:
    return paired_difference(cells, leader, other, gain, draws).estimate.low > 0  # NaN: not told apart


def correlations(rows: list[dict[str, Any]], draws: int = 2000) -> list[dict[str, Any]]:
    """Every property with both gains over reward models, per policy and algorithm: the paper's Table 2, with intervals.

    `accuracy_mean` is the mean of the accuracies on and off policy, `variance_and_accuracy` the mean of that and the
    (whitened) variance. Over `"all"` reward models and, from four on, over the `"trained"` ones alone: constructed ones
    set variance against accuracy on purpose. A pair of quantities of which fewer than three models know both is absent.

    Returns:
        Dictionaries with policy, algorithm, over, property, gain ("truth" or "proxy"), n, constructed (how many of the
        n), and pearson and spearman as `bootstrap_correlation(...).json()`, None where either side is constant.
    """
    found = []
    for policy, algorithm in dict.fromkeys((row["policy"], row["algorithm"]) for row in rows):
        mine = [row for row in rows if (row["policy"], row["algorithm"]) == (policy, algorithm)]
        trained = [row for row in mine if row["trained"]]
        groups = {"all": mine} | ({"trained": trained} if FEWEST_TRAINED <= len(trained) < len(mine) else {})
        for over, group in groups.items():
            for name in PROPERTIES:
                for gain in GAINS:
                    if pairs := _known_pairs(group, name, gain):
                        names = {"policy": policy, "algorithm": algorithm, "over": over, "property": name, "gain": gain}
                        found.append(names | _correlation(pairs, draws))
    return found


def _known_pairs(group: list[dict[str, Any]], name: str, gain: str) -> list[tuple[float, float, bool]]:
    pairs = [(_property(row, name), _value(row, GAINS[gain]), row["trained"]) for row in group]
    known = [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]
    return known if len(known) >= 3 else []


def _correlation(pairs: list[tuple[float, float, bool]], draws: int) -> dict[str, Any]:
    left, right, trained = zip(*pairs, strict=True)
    kinds = {kind: bootstrap_correlation(left, right, kind, draws).json() for kind in ("pearson", "spearman")}
    return {"n": len(pairs), "constructed": len(pairs) - sum(trained)} | kinds


def _property(row: dict[str, Any], name: str) -> float:
    if name == "accuracy_mean":
        return (_value(row, "accuracy_on") + _value(row, "accuracy_off")) / 2
    if name == "variance_and_accuracy":
        return (_property(row, "accuracy_mean") + _value(row, "variance")) / 2
    return _value(row, name)


def _value(row: dict[str, Any], name: str) -> float:
    return row[name]["value"] if row[name] else math.nan
