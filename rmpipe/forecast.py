"""Forecast: which reward model will teach a policy best, told from samples and labels before RLHF is paid for.

Where gradients may be taken, the study's own RLHF is gone through on the initial policy's samples (`rehearsal`). Where
not, its first step is told by a rule: climbing a reward r moves the ground truth g at the rate <grad E[r], grad E[g]>,
for which a covariance stands in, and how that is to be read depends on the optimiser. `formula` says which, and why.
Every forecast is told as a share of what the ground truth itself would teach by the same formula: 1 is as much, 0 is
nothing, and below 0 the ground truth falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rmpipe.calibration import Calibrator, course, slope, slopes
from rmpipe.foreseeing import Foreseeing
from rmpipe.foresight import Felt, resamples, shown
from rmpipe.interval import of_draws
from rmpipe.ranking import places
from rmpipe.recipe import unfollowed
from rmpipe.reinforcement import Algorithm
from rmpipe.study import Drawing
from rmpipe.verdict import listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rmpipe.foresight import Terms

Rule = Literal["tilted", "ip_free", "correlation"]
Proxy = Literal["rehearsed_proxy", "tilted_proxy", "variance"]
PREDICTORS = {
    "rule": "the rule of the first step", "tilted": "tilted policy", "ip": "inner product of gradients",
    "ip_free": "inner product, free of scale", "covariance": "covariance", "correlation": "correlation",
    "variance": "reward variance", "accuracy_on": "on-policy accuracy", "proxy": "the formula without labels",
}  # fmt: skip
"""What is told of each reward model beside its forecast, in words: `rule` is of the first step, and `proxy` needs no
label."""
ROUNDING = 1e-9
"""Forecasts that differ by no more are alike."""
LABELS = "labels"
"""What the ground truth is called that somebody's own labels stand for."""
PLACE = ("truth", "policy", "algorithm")
UNSCALED = "gains are not scaled"


@dataclass(frozen=True)
class Formula:
    """How gains are foretold under an algorithm.

    Attributes:
        felt: which rewards are felt, of `foresight.FELT`.
        predictor: what ranks, of `foresight.NAMES` and `BESIDE`.
        rule: what would, of the first step alone.
        proxy: what foretells the reward model's own reward by the same reading; needs no label.
        why: in words.
    """

    felt: Felt
    predictor: Rule | Literal["rehearsed"]
    rule: Rule
    proxy: Proxy
    why: str


def formula(algorithm: Algorithm, sampling: Drawing, gradients: bool = True) -> Formula:
    """The formula that an algorithm and its optimiser imply.

    A rehearsal, where gradients may be taken and it follows all that the algorithm does. Otherwise, and beside it, a
    rule of the first step. Where a step is as long as the reward's spread says (plain SGD without clipping), the policy
    moves towards pi exp(eta r), and the tilted policy at eta = 1 of whitened rewards tells what comes of it. Where a
    step's length does not depend on that spread (Adam divides by the gradient's root mean square, clipping by its norm,
    both ruled by the noise of sampling, which goes as the spread), the rate is <grad E[r], grad E[g]> / sqrt(Var r).
    Where rewards are divided by their spread within a prompt first (GRPO), the same is asked of such rewards.

    Args:
        sampling: how the samples were drawn that it rests on.
        gradients: whether any may be taken; else the correlation stands in for the inner product. Where an adapter is
            trained, those of the whole weights tell nothing.
    """
    why_not = unfollowed(algorithm, sampling) if gradients else "no gradients are to be taken (foresight.gradients)"
    gradients = gradients and algorithm.adapter is None
    group = getattr(algorithm, "scale_rewards", "none") == "group"
    how: Felt = "group" if group else "whitened"
    first = "the rewards of a prompt are divided by their spread" if group else "rewards are whitened as a whole"
    undone = _undone(algorithm)
    rule: Rule = "tilted"
    proxy: Proxy = "tilted_proxy"
    told = f"{algorithm.optimiser.name.upper()} without clipping feels their spread: the policy tilted by them"
    if undone:
        rule, proxy = "ip_free" if gradients else "correlation", "variance"
        told = f"{undone}: {'the covariance of gradients over the spread' if gradients else 'the correlation'}"
    if not why_not:
        steps = f"its {algorithm.steps} steps are gone through on the samples, with its own optimiser, rate and KL"
        return Formula(how, "rehearsed", rule, "rehearsed_proxy", f"{steps}; beside it, as {first} and {told}")
    return Formula(how, rule, rule, proxy, f"only the first step is told, since {why_not}: {first}, and {told}")


def _undone(algorithm: Algorithm) -> str:
    """What takes the spread of rewards out of the length of a step; "" where nothing does."""
    if algorithm.optimiser.name != "sgd":
        return f"{algorithm.optimiser.name} divides a step by the gradient's root mean square"
    if algorithm.optimiser.clip:
        return f"gradients are clipped at {algorithm.optimiser.clip:g}"
    if getattr(algorithm, "normalise_advantages", False) or getattr(algorithm, "scale_rewards", "none") == "batch":
        return "advantages are divided by their spread over a step"
    return ""


# -- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A reward model under a truth, policy and algorithm.

    Attributes:
        about: reward_model, kind, trained.
        terms: of its rewards as they are felt, by seed.
        plain: of its whitened rewards, however they are felt, by seed.
        course: its rehearsed gain, `{"steps", "gain"}`; None where nothing is rehearsed.
        refused: why nothing is foretold of it; "" where nothing forbids it.
    """

    about: dict[str, Any]
    terms: Mapping[int, Terms]
    plain: Mapping[int, Terms]
    course: dict[str, Any] | None = None
    refused: str = ""


def foretold(
    place: Mapping[str, str], said: Formula, candidates: Sequence[Candidate], own: Mapping[int, Terms],
    prompts: Mapping[int, Sequence[str]], config: Foreseeing, calibrators: Mapping[str, Calibrator] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of one truth, policy and algorithm, the best first, with ranks, ties and refusals.

    Intervals are bootstraps over prompts; a resample is the same for all reward models, so that what is common to them
    does not part them, and draws a prompt in every seed that has it.

    Args:
        place: truth, policy, algorithm.
        own: terms of the ground truth's own rewards, by seed.
        prompts: all of them, by seed, those that do not count too.
        calibrators: what came of RLHF on some of them, by name; None where none was asked for.

    Returns:
        rows with `place`, about, rank, not_told_from, forecast (`{"value", "low", "high"}`, share of what the ground
        truth itself would teach; None where refused), refused, each of `PREDICTORS` and, where it is rehearsed or
        calibrated, `gain_foretold` (standard deviations of the ground truth) and `curve_foretold`, `{"steps", "gain"}`;
        with calibrators `scaling` too, in words: by what gains are scaled, or why by nothing.
    """
    weights = _resamples({seed: [prompts[seed][row] for row in own[seed].kept] for seed in own}, config.draws)
    whole = _refused_whole(said, own, weights, config)
    found = [_Row(place, said, each, own, weights, whole, config) for each in candidates]
    known = sorted((row for row in found if not row.refused), key=lambda row: -row.value)
    scaling = {} if calibrators is None else {"scaling": _calibrate(known, calibrators, config)}
    rows = [
        row.told() | scaling | {"rank": label, "not_told_from": [other.name for other in unsure]}
        for row, label, unsure in places(known, lambda a, b: _low(a.draws - b.draws) > ROUNDING)
    ]
    return rows + [row.told() | scaling | {"rank": "?", "not_told_from": []} for row in found if row.refused]


class _Row:
    """One candidate with the draws of its forecast."""

    def __init__(
        self, place: Mapping[str, str], said: Formula, candidate: Candidate, own: Mapping[int, Terms],
        weights: Mapping[int, NDArray[np.float64]], whole: str, config: Foreseeing,
    ):  # fmt: skip
        self.place, self.said, self.candidate, self.weights = dict(place), said, candidate, weights
        self.name = candidate.about["reward_model"]
        own = {seed: own[seed] for seed in candidate.terms}
        teaches, unit = (_mean(terms, said.predictor) for terms in (candidate.terms, own))
        self.value = teaches / unit if unit else math.nan
        drawn, units = (_mean(terms, said.predictor, weights) for terms in (candidate.terms, own))
        with np.errstate(divide="ignore", invalid="ignore"):
            self.draws = drawn / units
        self.refused = whole or _refused(said, candidate, config)
        self.gain: dict[str, Any] = {}
        if said.predictor == "rehearsed" and candidate.course is not None and not self.refused:
            self.gain = {"gain_foretold": of_draws(teaches, drawn).json(), "curve_foretold": candidate.course}

    def told(self) -> dict[str, Any]:
        """As JSON holds it."""
        row = self.place | self.candidate.about | {"formula": self.said.predictor, "refused": self.refused or None}
        row["forecast"] = None if self.refused else of_draws(self.value, self.draws).json()
        names = {name: {"proxy": self.said.proxy, "rule": self.said.rule}.get(name, name) for name in PREDICTORS}
        return row | {name: self._number(name, of) for name, of in names.items()} | self.gain

    def _number(self, name: str, of: str) -> dict[str, Any] | None:
        terms = self.candidate.plain if name in ("covariance", "correlation", "variance") else self.candidate.terms
        return of_draws(_mean(terms, of), _mean(terms, of, self.weights)).json()


def _calibrate(rows: Sequence[_Row], calibrators: Mapping[str, Calibrator], config: Foreseeing) -> str:
    """Gains and curves in reward units, where the runs that were paid for tell how far a step goes.

    Returns:
        in words, by what they are scaled, or why by nothing.
    """
    if not calibrators:
        return f"{UNSCALED}: the grid has no RLHF on {listed(list(config.calibrate))} here"
    paid = [row for row in rows if row.name in calibrators]
    if not paid:
        return f"{UNSCALED}: nothing is foretold of {listed(list(calibrators))}"
    told = [calibrators[row.name] for row in paid]
    names, seeds = listed([row.name for row in paid]), min(len(each.gains) for each in told)
    over = "one seed's prompts" if seeds == 1 else f"{seeds} seeds"
    hold = "do not hold" if seeds == 1 else "hold"
    drawn = slopes(told, [row.value for row in paid], [row.draws for row in paid])
    if not _low(drawn) > 0:
        return f"{UNSCALED}: what RLHF on {names} gained is not told from nothing over {over}"
    value = slope([each.value() for each in told], [row.value for row in paid])
    shape = course({row.name: calibrators[row.name] for row in paid})
    for row in rows:
        gain = float(value * row.value)
        known = row.gain.get("curve_foretold")
        row.gain = {"gain_foretold": of_draws(gain, drawn * row.draws).json(), "calibrates": row.name in calibrators}
        if known is not None and known["gain"][-1]:
            scale = gain / known["gain"][-1]
            row.gain["curve_foretold"] = known | {"gain": [scale * each for each in known["gain"]]}
        elif shape is not None:
            row.gain["curve_foretold"] = {"steps": shape[0], "gain": [gain * share for share in shape[1]]}
    return f"gains are scaled by what RLHF on {names} did gain over {over}; their intervals {hold} how far seeds differ"


def _resamples(prompts: Mapping[int, Sequence[str]], draws: int) -> dict[int, NDArray[np.float64]]:
    """How often each prompt of each seed is in each resample, `(draws, prompts)`."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(chain.from_iterable(prompts.values())))}
    drawn = resamples(len(places), draws)
    return {seed: drawn[:, [places[prompt] for prompt in mine]] for seed, mine in prompts.items()}


def _mean(terms: Mapping[int, Terms], name: str, weights: Mapping[int, NDArray[np.float64]] | None = None) -> Any:
    """Of a predictor over seeds: a number, or one a resample."""
    each = [one.of(name, None if weights is None else weights[seed]) for seed, one in terms.items()]
    return np.mean(each, axis=0)


def _low(draws: NDArray[np.float64]) -> float:
    """The lower end of an interval; NaN where no draw is a number."""
    return of_draws(math.nan, draws).low


# -- what is not told -------------------------------------------------------------------------------------------------


def _refused_whole(
    said: Formula, own: Mapping[int, Terms], weights: Mapping[int, NDArray[np.float64]], config: Foreseeing
) -> str:  # fmt: skip
    """Why nothing is foretold here of anybody; "" where it is."""
    prompts = min(terms.prompts for terms in own.values())
    if prompts < config.fewest:
        told = f"{prompts} prompts have two labelled responses or more, and {config.fewest} are needed"
        return f"{told}; label more, or lower foresight.fewest"
    if not max(terms.columns["spread"].max() for terms in own.values()):
        return "the labels of a prompt's responses are all alike; label responses that differ"
    if not _low(_mean(own, said.predictor, weights)) > 0:
        told = "what the labels themselves would teach as a reward is not told from nothing"
        return f"{told}; raise sampling.prompts or sampling.responses, label more, or see whether RLHF is so short"
    return ""


def _refused(said: Formula, candidate: Candidate, config: Foreseeing) -> str:
    """Why a reward model's gain is not foretold; "" where it is."""
    if candidate.refused:
        return candidate.refused
    share = {"tilted": "ess", "rehearsed": "rehearsed_ess"}.get(said.predictor)
    if share is not None:
        rest = float(_mean(candidate.terms, share))
        samples = round(np.mean([terms.labels / terms.prompts for terms in candidate.terms.values()]))
        if rest < (least := shown(config.least_share, samples)):
            told = f"the policy that it makes rests on {rest * samples:.2f} of {samples} samples a prompt, of which"
            told = f"{told} {least * samples:.2f} are the least (foresight.least_share = {config.least_share:g})"
            shorter = said.predictor == "rehearsed"
            mend = "foretell fewer or smaller steps" if shorter else "take outliers off its rewards"
            return f"{told}; {mend}, or lower that"
    return ""
