"""The scorecard: how forecasts did against what came true, beside their rivals.

In goes `cells`, a tidy table with one row per (truth, seed, policy, algorithm, reward_model): whether it is `trained`,
the `gain` that came true, in standard deviations of that ground truth, any of `judgement.PREDICTORS`, and `judge`, the
ground truth that told what came true, where that is another. Out comes a dictionary that JSON can hold. What is scored
are means over seeds, within one policy, algorithm and ground truth. Reward models are the unit: an interval is over
resamples of them, the same ones in every policy and under every truth.
Nobody is helped by silence: what a forecast refuses counts as tied at the mean of what it tells. The ground truth that
is scored is no candidate: its own forecast is 1 by construction, and nobody could choose it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.interval import Estimate, correlate, of_draws
from rmpipe.judgement import CHANCE, PREDICTORS, sentences

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

KEYS = ("truth", "policy", "algorithm")
PLACES = {"policies": "policy", "truths": "truth"}
"""What is pooled over, by what the count of each is called."""
FEWEST = 3
"""Reward models below which nothing is scored: two always correlate at 1 or -1."""


@dataclass(frozen=True)
class Grid:
    """Reward models under one policy, algorithm and ground truth, means over seeds.

    Attributes:
        names: of KEYS, and `over`.
        models: their names.
        gain: `(models,)`, what came true.
        foretold: predictor -> `(models,)`, NaN where unknown.
    """

    names: dict[str, str]
    models: tuple[str, ...]
    gain: NDArray[np.float64]
    foretold: dict[str, NDArray[np.float64]]

    def known(self, predictor: str) -> NDArray[np.bool_]:
        """Of which reward models a predictor tells something."""
        return np.isfinite(self.foretold[predictor])

    def among(self, kept: NDArray[np.bool_]) -> Grid:
        """Some of the reward models alone."""
        models = tuple(name for name, there in zip(self.models, kept, strict=True) if there)
        return Grid(self.names, models, self.gain[kept], {name: each[kept] for name, each in self.foretold.items()})

    def scores(self, predictor: str, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Spearman, Pearson and regret in each resample.

        A rival's correlations are over the reward models that it knows, the forecast's over all: those that it refuses
        are put at the mean of its others. Whom a predictor does not know, it does not put first.

        Args:
            predictor: that is scored.
            counts: `(draws, models)`, how often each reward model was drawn.
        """
        known, told = self.known(predictor), self.foretold[predictor]
        if predictor == "forecast":
            known, told = np.ones_like(known), np.where(known, told, told[known].mean())
        one, other, drawn = told[known], self.gain[known], counts[:, known]
        agreed = {kind: agreement(one, other, drawn, kind) for kind in ("spearman", "pearson")}
        return agreed | {"regret": regret(self.foretold[predictor], self.gain, counts)}


def card(cells: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How each predictor did, cell by cell and pooled by algorithm, and what that supports.

    A predictor that tells all reward models alike has no correlation, and counts as 0 where correlations are pooled:
    who cannot order is not helped by being left out. A resample in which all gains are alike is left out, of all. A
    regret in a resample is against the best that was drawn. Of every predictor alike the row is left out whose reward
    model is the truth that is scored.

    Args:
        cells: see the module.
        draws: bootstrap draws.
        seed: of the resampling.

    Returns:
        As JSON holds it: `cells`, a row per truth, policy, algorithm, over ("all", and "trained" where others were
        constructed) and predictor, with n, spearman, pearson, regret (the best gain less that of the reward model put
        first, mean over those tied there) and regret_share (as a share of a random pick's); `pooled`, their means over
        truths and policies with intervals, how many forecasts were `asked` for and `refused` there, whether the truth
        itself was left `aside`, and `difference`, the forecast's scores less each one's on the reward models that both
        know; `reliability`; `sentences`.
    """
    random = np.random.default_rng(seed)
    itself = cells["reward_model"] == cells.get("judge", cells["truth"])
    dropped, cells = cells[itself], cells[~itself]
    aside = {
        (row.algorithm, over) for row in dropped.itertuples() for over in ("all", "trained")[: 1 + bool(row.trained)]
    }
    grids = list(_grids(cells))
    groups: dict[tuple[str, str], list[Grid]] = {}
    for grid in grids:
        groups.setdefault((grid.names["algorithm"], grid.names["over"]), []).append(grid)
    built = set(cells.loc[~cells["trained"].astype(bool), "reward_model"])
    pooled = [line | {"aside": (line["algorithm"], line["over"]) in aside}
              for mine in groups.values() for line in _pooled(mine, built, draws, random)]  # fmt: skip
    told = {"cells": [line for grid in grids for line in _scored(grid)], "pooled": pooled}
    told |= {"reliability": reliability(cells)}
    return told | {"sentences": sentences(pooled, told["reliability"])}


# -- one cell ---------------------------------------------------------------------------------------------------------


def agreement(
    predicted: ArrayLike, gain: ArrayLike, counts: ArrayLike, kind: str = "spearman"
) -> NDArray[np.float64]:  # fmt: skip
    """The correlation in each resample: NaN where all gains drawn are alike, 0 where only the predictions are.

    Args:
        predicted: `(models,)`.
        gain: `(models,)`.
        counts: `(draws, models)`, how often each reward model was drawn.
        kind: `"pearson"`, or `"spearman"` (ties get the mean of their ranks).
    """
    counts, pair = np.asarray(counts, float), [np.asarray(values, float) for values in (predicted, gain)]
    drawn, total = counts > 0, np.maximum(counts.sum(axis=1, keepdims=True), 1)
    vary = [np.ptp(np.where(drawn, side, side[drawn.argmax(axis=1), None]), axis=1) > 0 for side in pair]
    x, y = (_ranks(side, counts) if kind == "spearman" else np.broadcast_to(side, counts.shape) for side in pair)
    x, y = (side - (counts * side).sum(axis=1, keepdims=True) / total for side in (x, y))
    product, *squares = ((counts * each).sum(axis=1) for each in (x * y, x**2, y**2))
    both = vary[0] & vary[1]
    found = np.clip(product / np.where(both, np.sqrt(squares[0] * squares[1]), 1.0), -1, 1)
    return np.where(vary[1], np.where(vary[0], found, 0.0), math.nan)


def _ranks(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each reward model in each resample, the mean over those tied, up to a constant: `(draws, models)`."""
    below = (values[None, :] < values[:, None]) + 0.5 * (values[None, :] == values[:, None])
    return counts @ below.T


def regret(predicted: ArrayLike, gain: ArrayLike, counts: ArrayLike) -> NDArray[np.float64]:
    """What is lost in each resample by trusting a prediction: the best gain drawn less that of who is put first.

    A prediction that is the same for all picks at random. One that does not know the best is not helped by it.

    Args:
        predicted: `(models,)`, NaN where unknown.
        gain: `(models,)`.
        counts: `(draws, models)`, how often each reward model was drawn.
    """
    predicted, gain, counts = (np.asarray(values, float) for values in (predicted, gain, counts))
    best = np.where(counts > 0, gain, -math.inf).max(axis=1)
    told = np.where((counts > 0) & np.isfinite(predicted), predicted, -math.inf)
    top = told.max(axis=1, keepdims=True)
    first = counts * ((told == top) & np.isfinite(told))
    picked = first.sum(axis=1)
    return np.where(picked > 0, best - (first * gain).sum(axis=1) / np.maximum(picked, 1), math.nan)


def _grids(cells: pd.DataFrame) -> Iterator[Grid]:
    """Every truth, policy and algorithm: over all reward models, and over the trained where there are others."""
    known = [name for name in PREDICTORS if name in cells]
    means = cells.groupby([*KEYS, "reward_model"], sort=False, as_index=False)[["gain", *known]].mean()
    trained = cells.groupby("reward_model")["trained"].first().astype(bool)
    means = means[np.isfinite(means["gain"])].assign(trained=lambda table: table["reward_model"].map(trained))
    for names, whole in means.groupby(list(KEYS), sort=False):
        groups = {"all": whole} | ({} if whole["trained"].all() else {"trained": whole[whole["trained"]]})
        for over, group in groups.items():
            if len(group) >= FEWEST:
                foretold = {name: group[name].to_numpy(float) for name in known
                            if group[name].count() >= (1 if name == "forecast" else FEWEST)}  # fmt: skip
                foretold["random"] = np.zeros(len(group))
                told = dict(zip(KEYS, map(str, names), strict=True)) | {"over": over}
                yield Grid(told, tuple(group["reward_model"]), group["gain"].to_numpy(float), foretold)


def _scored(grid: Grid) -> Iterator[dict[str, Any]]:
    """A row a predictor."""
    whole = np.ones((1, len(grid.models)))
    for name in grid.foretold:
        found = {score: float(values[0]) for score, values in grid.scores(name, whole).items()}
        if np.ptp(grid.foretold[name][grid.known(name)]) == 0:
            found |= {"spearman": math.nan, "pearson": math.nan}
        found["regret_share"] = _share(found["regret"], float(grid.gain.max() - grid.gain.mean()))
        told = {score: value if math.isfinite(value) else None for score, value in found.items()}
        yield grid.names | {"predictor": name, "n": int(grid.known(name).sum())} | told


def _share(lost: Any, at_random: Any) -> Any:
    """Of what a random pick loses; NaN where that loses nothing."""
    return lost / np.where(at_random > 0, at_random, math.nan)


# -- all cells of an algorithm ----------------------------------------------------------------------------------------


def _pooled(grids: list[Grid], built: set[str], draws: int, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """A row a predictor: means over truths and policies; the first draw is of every reward model once."""
    models = list(dict.fromkeys(name for grid in grids for name in grid.models))
    counts = random.multinomial(len(models), np.full(len(models), 1 / len(models)), size=draws).astype(float)
    counts = np.concatenate([np.ones((1, len(models))), counts])
    drawn = [counts[:, [models.index(name) for name in grid.models]] for grid in grids]
    found = {
        name: {place: grid.scores(name, drawn[place]) for place, grid in enumerate(grids) if name in grid.foretold}
        for name in dict.fromkeys(name for grid in grids for name in grid.foretold)
    }
    for name in (name for name in PREDICTORS if name in found):
        mine = [grids[place] for place in found[name]]
        told = {model for grid in mine for model, known in zip(grid.models, grid.known(name), strict=True) if known}
        row: dict[str, Any] = {key: grids[0].names[key] for key in ("algorithm", "over")} | {"predictor": name}
        row |= {"n": len(told), "constructed": len(told & built), "models": len(models), "cells": len(mine)}
        asked = sum(len(grid.models) for grid in mine)
        row |= {"asked": asked, "refused": asked - sum(int(grid.known(name).sum()) for grid in mine)}
        row |= {key: len({grid.names[name] for grid in mine}) for key, name in PLACES.items()}
        means = _means(list(found[name].values()))
        row |= {score: _interval(values).json() for score, values in means.items()}
        at_random = _mean([found["random"][place]["regret"] for place in found[name]])
        row["regret_share"] = _interval(_share(means["regret"], at_random)).json()
        yield row | {"difference": _differences(mine, [drawn[place] for place in found[name]], name)}


def _differences(
    grids: Sequence[Grid], drawn: Sequence[NDArray[np.float64]], rival: str
) -> dict[str, Any] | None:  # fmt: skip
    """The forecast's scores less a rival's, in the cells and resamples of both, over the reward models both know."""
    less = []
    for grid, counts in zip(grids, drawn, strict=True):
        if rival != "forecast" and "forecast" in grid.foretold:
            both = grid.known("forecast") & grid.known(rival)
            if both.sum() >= FEWEST:
                one, other = (grid.among(both).scores(name, counts[:, both]) for name in ("forecast", rival))
                less.append({score: one[score] - other[score] for score in one})
    if not less:
        return None
    return {score: _interval(values).json() for score, values in _means(less).items()}


def _means(cells: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """Of each score."""
    return {score: _mean([each[score] for each in cells]) for score in cells[0]}


def _mean(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Over cells, of those that have a score in a resample: `(draws,)`."""
    stacked = np.stack(scores)
    known = np.isfinite(stacked)
    return _share(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0))


def _interval(values: NDArray[np.float64]) -> Estimate:
    """The first value with the percentiles of the others; without any where these are all alike, which says nothing."""
    others = values[1:][np.isfinite(values[1:])]
    if not others.size or np.ptp(others) < 1e-12:
        return Estimate(float(values[0]))
    return of_draws(values[0], others)


# -- how far gains agree with themselves ------------------------------------------------------------------------------


def reliability(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """How far gains agree between seeds, by algorithm.

    Of a table of reward models by seeds, without what is common to a seed: the share of a single gain's variance that
    is between reward models (the intraclass correlation ICC(3,1) of Shrout and Fleiss, 1979, Psychol. Bull. 86,
    420-428), and the root of that share for the mean over seeds: beyond it Pearson is not to be expected of who does
    not know the seed. A seed trains reward models of its own, so that who sees these may go beyond.

    Returns:
        Dictionaries with algorithm, seeds, spearman (of two seeds), between, ceiling, and by_seed, the truths and
        policies where an F test does not tell that reward models differ beyond what differs by seed; None for all of
        them where there is one seed.
    """
    found = []
    for algorithm, table in cells.groupby("algorithm", sort=False):
        rows = {
            (str(truth), str(policy)): agreed
            for (truth, policy), mine in table.groupby(["truth", "policy"], sort=False)
            if (agreed := _between_seeds(mine))
        }
        told: dict[str, Any] = {"algorithm": str(algorithm), "seeds": int(table["seed"].nunique())}
        told |= {
            name: float(np.mean([row[name] for row in rows.values()])) if rows else None
            for name in ("spearman", "between", "ceiling")
        }
        lost = [{"truth": truth, "policy": policy} for (truth, policy), row in rows.items() if row["chance"] > CHANCE]
        found.append(told | {"by_seed": lost if rows else None})
    return found


def _between_seeds(cells: pd.DataFrame) -> dict[str, float] | None:
    """Of the gains of one truth and policy; None where fewer than three reward models share two seeds."""
    from scipy.special import fdtrc

    gains = cells.pivot_table(index="reward_model", columns="seed", values="gain").dropna().to_numpy(float)
    models, seeds = gains.shape
    if models < FEWEST or seeds < 2:
        return None
    alike = [correlate(one, other, "spearman") for one, other in combinations(gains.T, 2)]
    own = gains - gains.mean(axis=0)
    freedom = (models - 1) * (seeds - 1)
    between = seeds * own.mean(axis=1).var(ddof=1)
    noise = ((own - own.mean(axis=1, keepdims=True)) ** 2).sum() / freedom
    whole = between + (seeds - 1) * noise
    return {
        "spearman": float(np.nan_to_num(alike).mean()),
        "between": max(0.0, float((between - noise) / whole)) if whole else 0.0,
        "ceiling": math.sqrt(max(0.0, float(1 - noise / between))) if between else 0.0,
        "chance": float(fdtrc(models - 1, freedom, between / noise)) if noise else float(between == 0),
    }
