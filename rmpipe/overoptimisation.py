"""Over-optimisation: how far from its initial policy a policy may go before the ground truth turns.

A proxy rises for as long as it is climbed; what people want rises with it, and turns (Goodhart's law). Here are, for
each reward model, where that is in KL and in steps, what is lost by going on, and what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.interval import LEVEL, Estimate, t_interval
from rmpipe.verdict import listed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

KEYS = ("policy", "algorithm", "reward_model")
OUTCOMES = ("turns", "has not turned", "not settled")
UNKNOWN = (
    "No ground truth is known, so nothing can be told of where optimisation goes too far: the proxy rises either way."
)


def answer(curves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is to be said of going too far: a row a reward model, and a sentence a policy and algorithm.

    Args:
        curves: one a seed: policy, algorithm, reward_model, and lists steps, kl (nats a response), proxy and, where a
            ground truth is known, truth, in standard deviations of the initial policy's reward.

    Returns:
        `{"rows", "sentences"}`, as JSON holds it; a row has `KEYS`, seeds, looks, what `judged` gives, advice, and a
        sentence where the ground truth turns.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for curve in curves:
        if curve.get("truth"):
            groups.setdefault(tuple(curve[key] for key in KEYS), []).append(curve)
    rows = [_told(dict(zip(KEYS, names, strict=True)) | _of_runs(mine)) for names, mine in groups.items()]
    places = dict.fromkeys((row["policy"], row["algorithm"]) for row in rows)
    said = [_sentence([row for row in rows if (row["policy"], row["algorithm"]) == place]) for place in places]
    return {"rows": rows, "sentences": said or [UNKNOWN]}


def _told(row: dict[str, Any]) -> dict[str, Any]:
    advice = _advice(row)
    return row | {"advice": advice, "sentence": f"{_turned(row)}: {advice}" if row["outcome"] == "turns" else ""}


def _of_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs of one reward model, as far as the shortest goes."""
    looks = min(len(run["steps"]) for run in runs)
    kl, proxy, truth = (np.array([run[name][:looks] for run in runs], dtype=float) for name in ("kl", "proxy", "truth"))
    return {"seeds": len(runs), "looks": looks} | judged(runs[0]["steps"][:looks], kl, proxy, truth)


def judged(steps: Sequence[int], kl: ArrayLike, proxy: ArrayLike, truth: ArrayLike) -> dict[str, Any]:
    """Whether the ground truth turns, where, and what going on loses.

    It `turns` where its fall from the highest look to the last has an interval above 0. It `has not turned` where the
    last look is the highest, and its rise since half of training has one. Otherwise that is `not settled`.

    Args:
        steps: `(looks,)`, the first of them 0.
        kl: `(runs, looks)`, nats a response.
        proxy: `(runs, looks)`, standard deviations.
        truth: `(runs, looks)`, standard deviations.

    Returns:
        outcome; peak and end, each step, kl and gain of a look, means over runs; turn, the KL of `turning`, None where
        it has no interval or lies beyond what was looked at; fall, rise and, from the same looks as the fall, what the
        proxy gained meanwhile.
    """
    kl, proxy, truth = (np.asarray(values, dtype=np.float64) for values in (kl, proxy, truth))
    gain, far = (truth - truth[:, :1]).mean(axis=0), kl.mean(axis=0)
    peak, last = int(gain.argmax()), len(gain) - 1
    fall, rise = since_peak(truth, truth), t_interval(truth[:, -1] - truth[:, len(gain) // 2])
    turns, rises = fall.low > 0, peak == last and rise.low > 0  # NaN, of a single run: neither
    turn = turning(kl, truth)
    told: dict[str, Any] = {"outcome": OUTCOMES[0 if turns else 1 if rises else 2]}
    for name, look in (("peak", peak), ("end", last)):
        told[name] = {"step": int(steps[look]), "kl": float(far[look]), "gain": float(gain[look])}
    told["turn"] = turn.json() if turn.value < far.max() and math.isfinite(turn.low) else None
    told |= {"fall": fall.json(), "rise": rise.json(), "meanwhile": _less(since_peak(proxy, truth)).json()}
    return told


def since_peak(values: ArrayLike, truth: ArrayLike) -> Estimate:
    """How much is lost from the look at which the ground truth is highest to the last one, with Student's interval.

    The highest of several looks is high by luck too, and a fall from it is to be expected of mere noise. So each run is
    taken from the look at which the *other* runs are highest, in the mean; a single run from its own, and has no
    interval.

    Args:
        values: `(runs, looks)`, of what is lost.
        truth: `(runs, looks)`, by which the look is chosen.
    """
    values, truth = (np.asarray(array, dtype=np.float64) for array in (values, truth))
    gain, runs = truth - truth[:, :1], len(truth)
    others = gain.sum(axis=0) - gain if runs > 1 else gain
    return t_interval(values[np.arange(runs), others.argmax(axis=1)] - values[:, -1])


def turning(kl: ArrayLike, truth: ArrayLike) -> Estimate:
    """The KL at which the ground truth turns, nats: `(a / 2b)^2` of Gao et al.'s curve `d (a - b d)`, d = sqrt(KL).

    The curve (2210.10760, section 3.1) is fitted to each run by least squares, and the mean curve over runs turns where
    the ratio of the means says, with Fieller's interval (1954, J. R. Stat. Soc. B 16, 175-185). That has no ends where
    b may be 0, so that the curve may not turn at all, and is then not known.

    Args:
        kl: `(runs, looks)`, nats.
        truth: `(runs, looks)`, the first look that of the initial policy.
    """
    kl, truth = (np.asarray(array, dtype=np.float64) for array in (kl, truth))
    fits = np.array([_fit(np.sqrt(np.maximum(x, 0)), y - y[0]) for x, y in zip(kl, truth, strict=True)])
    found = ratio(fits[:, 0], 2 * fits[:, 1])
    if fits[:, 1].mean() <= 0 or not found.value > 0:
        return Estimate(math.nan)
    return Estimate(*(max(end, 0.0) ** 2 for end in (found.value, found.low, found.high)))


def _fit(d: NDArray[np.float64], gain: NDArray[np.float64]) -> Any:
    """a and b of the curve, reward units a root nat and a nat: `(2,)`."""
    return np.linalg.lstsq(np.stack([d, -(d**2)], axis=1), gain, rcond=None)[0]


def ratio(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """The mean of a over the mean of b, paired, with Fieller's interval; its ends are NaN where b may be 0.

    Args:
        a: `(runs,)`.
        b: `(runs,)`, of the same runs.
        level: of the interval.
    """
    from scipy.special import stdtrit

    pair = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)])
    (above, below), runs = pair.mean(axis=1), pair.shape[1]
    value = float(above / below) if below else math.nan
    if runs < 2:
        return Estimate(value)
    spread = np.cov(pair) / runs * stdtrit(runs - 1, (1 + level) / 2) ** 2
    square, middle, rest = below**2 - spread[1, 1], above * below - spread[0, 1], above**2 - spread[0, 0]
    if square <= 0:
        return Estimate(value)
    half = math.sqrt(max(middle**2 - square * rest, 0.0))
    return Estimate(value, float((middle - half) / square), float((middle + half) / square))


def _less(estimate: Estimate) -> Estimate:
    """What was lost, as what was gained."""
    return Estimate(*(0.0 - end for end in (estimate.value, estimate.high, estimate.low)))


def _advice(told: dict[str, Any]) -> str:
    """What to do about it."""
    if told["outcome"] != "turns":
        return {"has not turned": "go on", "not settled": "run more seeds, or look more often"}[told["outcome"]]
    if not told["peak"]["step"]:
        return "do not teach with it"
    if told["meanwhile"]["high"] < 0:
        return "stop there, or lower the learning rate, since its own reward falls too"
    return "stop there, or raise kl_coefficient"


def _sentence(rows: list[dict[str, Any]]) -> str:
    """Who turns, where, and what that costs; who does not; and for whom it is not settled."""
    named = {outcome: [row for row in rows if row["outcome"] == outcome] for outcome in OUTCOMES}
    turned, rising, open_ = named.values()
    said = [row["sentence"] for row in turned] or ["the ground truth is not seen to turn"]
    if rising:
        said.append(f"{_names(rising)} {'has' if len(rising) == 1 else 'have'} not turned: go on")
    if open_:
        said.append(f"not settled of {_names(open_)}: run more seeds, or look more often")
    return f"{rows[0]['policy']}, {rows[0]['algorithm']}: {'; '.join(said)}."


def _turned(row: dict[str, Any]) -> str:
    """Where, and what going on loses."""
    peak, lost = row["peak"], f"loses {Estimate.of(row['fall'])} sd of ground truth by step {row['end']['step']}"
    if not peak["step"]:
        return f"{row['reward_model']} {lost}, from the start"
    fitted = f" (fitted {Estimate.of(row['turn'])})" if row["turn"] else ""
    return f"{row['reward_model']} turns at step {peak['step']}, KL {peak['kl']:.2f}{fitted}, and {lost}"


def _names(rows: list[dict[str, Any]]) -> str:
    return listed([row["reward_model"] for row in rows])
