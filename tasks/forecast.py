"""Which reward model will teach each policy best, before any RLHF."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe import forecast as foretelling
from rmpipe import foresight, foretold
from rmpipe.accuracy import on_policy_accuracy
from rmpipe.artifact import Forecast, Gradients, Policy, Rehearsal, Rollouts, Scores
from rmpipe.calibration import Calibrator
from rmpipe.forecast import Candidate, Formula
from rmpipe.foreseeing import Foreseeing
from rmpipe.foresight import Felt
from rmpipe.slopes import influence
from rmpipe.teaching import known_as
from rmpipe.variance import shift_and_scale
from tasks.execution import Log
from tasks.rehearse import OWN
from tasks.stage import stage

if TYPE_CHECKING:
    from rmpipe.rehearsal import Rehearsed

SIFTED = (
    "its prompts are sifted, by its own rewards, and a forecast is of all prompts; foretell the one that it sifts for"
)
LEAST = 0.1
"""Effective sample size, as a share if samples were many, below which a tilted policy is not followed."""
BEST_OF = (1, 2, 4, 8, 16, 32, 64)


@stage(version=2)
def forecast(
    config: Foreseeing, cells: list[dict[str, Any]], formulas: dict[str, dict[str, Any]], about: dict[str, Any],
    rollouts: dict[str, Rollouts], rewards: list[Scores], labels: dict[str, Scores], gradients: dict[str, Gradients],
    rehearsals: dict[str, Rehearsal],
    sifted: list[str], calibrating: list[dict[str, Any]], aligned: list[Policy] | None = None,
    *, out: Path, log: Log,
) -> Forecast:  # fmt: skip
    """Rank reward models by what they are foretold to teach, with ties, refusals and intervals over prompts.

    Args:
        cells: what is ranked: seed, policy, reward_model, algorithm, kind, trained.
        formulas: by algorithm, of `rmpipe.forecast.formula`.
        about: the study's name, its ground truths, and the samples of an RLHF run by algorithm.
        rollouts: each policy's samples, by `pool`.
        rewards: of these, one a cell.
        labels: the ground truths' rewards of the same samples, by `key`; NaN where a sample has no label.
        gradients: of the same samples, by `pool`, where they are taken.
        rehearsals: of RLHF on these, by `lesson`.
        sifted: reward models of whose prompts some are left out or put off, which no forecast follows.
        calibrating: the cells of which RLHF was paid for, so that gains can be told in reward units.
        aligned: what came of it, one a cell.
    """
    import pandas as pd

    pools = Pools(cells, about["truths"], rollouts, rewards, labels, gradients, rehearsals)
    paid = list(zip(calibrating, aligned or [], strict=True))
    said = {name: Formula(**each) for name, each in formulas.items()}
    rows = [
        row
        for place in pools.places()
        for row in _rows(config, pools, said, place, sifted, calibrators(place, about["ground_truth"], paid))
    ]
    answer: dict[str, Any] = about | {
        "paid": list(config.calibrate),
        "rows": rows,
        "formulas": formulas,
        "spent": pools.spent(about),
    }
    answer |= {"pairs": True} if pools.by_pairs() else _curves(pools, said)
    answer["sentences"] = foretold.sentences(answer)
    (out / "forecast.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False))
    (out / "table.txt").write_text(foretold.table(answer))
    pd.DataFrame(foretold.flat(rows)).to_parquet(out / "forecast.parquet", index=False)
    return Forecast.at(out, foretold.summary(answer), **foretold.metrics(rows))


def key(truth: str, seed: int, policy: str) -> str:
    """What the labels of a policy's samples are called among those of a forecast."""
    return f"{truth} {seed} {policy}"


def pool(seed: int, policy: str) -> str:
    """What a policy's samples are called."""
    return f"{seed} {policy}"


def lesson(seed: int, policy: str, algorithm: str) -> str:
    """What the RLHF of a policy is called."""
    return f"{seed} {policy} {algorithm}"


class Pools:
    """Rewards and labels of every policy and seed with what gradients tell, and the terms of forecasts from them."""

    def __init__(
        self, cells: list[dict[str, Any]], truths: list[str], rollouts: dict[str, Rollouts], scores: list[Scores],
        labels: dict[str, Scores], gradients: dict[str, Gradients], rehearsals: dict[str, Rehearsal],
    ):  # fmt: skip
        self.cells, self.labels, self.gradients, self.rehearsals = cells, labels, gradients, rehearsals
        self.rollouts = rollouts
        self.scores = {self._name(cell): each for cell, each in zip(cells, scores, strict=True)}
        self.truths = truths

    @staticmethod
    def _name(cell: dict[str, Any]) -> tuple[Any, ...]:
        return cell["seed"], cell["policy"], cell["reward_model"]

    def places(self) -> list[dict[str, str]]:
        """Every truth, policy and algorithm."""
        pairs = dict.fromkeys((cell["policy"], cell["algorithm"]) for cell in self.cells)
        return [{"truth": truth, "policy": p, "algorithm": a} for truth in self.truths for p, a in pairs]

    def at(self, place: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        """The cells of a place, by reward model, one a seed."""
        found: dict[str, list[dict[str, Any]]] = {}
        for cell in self.cells:
            if all(cell[name] == place[name] for name in ("policy", "algorithm")):
                found.setdefault(cell["reward_model"], []).append(cell)
        return found

    def foretold(self, place: dict[str, str], seed: int, reward_model: str | None, form: Felt) -> foresight.Terms:
        """The terms of a reward model's forecast, or of the ground truth itself, with what was rehearsed of it."""
        terms = self.terms(place["truth"], seed, place["policy"], reward_model, form)
        found = self.rehearsed(lesson(seed, place["policy"], place["algorithm"]))
        if found is None:
            return terms
        (told, at), truth = (found[0], self._at(found, place, reward_model)), place["truth"]
        rise = (told.truth[truth][at, -1] + told.taught[truth][at]) * self.scale(place, seed)
        return terms.beside(rehearsed=rise, rehearsed_proxy=told.proxy[at, -1], rehearsed_ess=told.ess[at, -1])

    def course(self, place: dict[str, str], seeds: Iterable[int], reward_model: str) -> dict[str, Any] | None:
        """The rehearsed gain by step, mean over prompts and seeds, standard deviations of the ground truth."""
        import numpy as np

        each, steps = [], []
        for seed in seeds:
            if (found := self.rehearsed(lesson(seed, place["policy"], place["algorithm"]))) is None:
                return None
            rise = found[0].truth[place["truth"]][self._at(found, place, reward_model)]
            each.append(np.nanmean(rise, axis=1) * self.scale(place, seed))
            steps = found[0].steps
        return {"steps": steps, "gain": [float(value) for value in np.mean(each, axis=0)]}

    @staticmethod
    def _at(found: tuple[Rehearsed, list[str]], place: dict[str, str], reward_model: str | None) -> int:
        return found[1].index(f"{OWN}{place['truth']}" if reward_model is None else reward_model)

    @cache  # noqa: B019 - it lives as long as its stage
    def rehearsed(self, name: str) -> tuple[Rehearsed, list[str]] | None:
        """What was rehearsed, and of whom."""
        held = self.rehearsals.get(name)
        return None if held is None else (held.rehearsed(), held.names())

    def scale(self, place: dict[str, str], seed: int) -> float:
        """Standard deviations of a ground truth in one of its units, as its gain is told."""
        labels = self.rewards(place["truth"], seed, place["policy"])
        return shift_and_scale(labels[foresight.known(labels)][None])[1]

    @cache  # noqa: B019
    def terms(self, truth: str, seed: int, policy: str, reward_model: str | None, felt: Felt) -> foresight.Terms:
        """Of a reward model, or of the ground truth itself."""
        import numpy as np

        labels = self.rewards(truth, seed, policy)
        rewards = labels if reward_model is None else self.scores[seed, policy, reward_model].rewards()
        rewards = np.where(np.isnan(labels), np.nan, rewards)  # what stands there without a label is no draw
        returned = self.returned(seed, policy, felt).get(f"{OWN}{truth}" if reward_model is None else reward_model)
        on = self.influences(seed, policy).get(truth)
        told = foresight.terms(rewards, labels, on, form=felt, returned=returned)
        accuracies = np.full(len(labels), np.nan)
        if np.isfinite(labels).all():
            accuracies = on_policy_accuracy(rewards, labels, "both")
        return told.beside(accuracy_on=accuracies)

    def white(self, place: dict[str, str], seed: int, reward_model: str) -> foresight.Terms:
        """The terms of a reward model's whitened rewards, however an algorithm feels them."""
        return self.terms(place["truth"], seed, place["policy"], reward_model, "whitened")

    @cache  # noqa: B019
    def influences(self, seed: int, policy: str) -> dict[str, Any]:
        """How much each sample, made likelier, raises each ground truth; none where no gradients are taken."""
        return self._influences(seed, policy, {truth: self.rewards(truth, seed, policy) for truth in self.truths})

    @cache  # noqa: B019
    def returned(self, seed: int, policy: str, felt: Felt) -> dict[str, Any]:
        """How much it raises each reward, as it is felt, those that the ground truths would be among them."""
        import numpy as np

        labels = {truth: self.rewards(truth, seed, policy) for truth in self.truths}
        there = np.isfinite(sum(labels.values()))
        taught = {name: each.rewards() for (*place, name), each in self.scores.items() if place == [seed, policy]}
        taught |= {f"{OWN}{truth}": each for truth, each in labels.items()}
        rewards = {name: foresight.felt(np.where(there, each, np.nan), felt) for name, each in taught.items()}
        return self._influences(seed, policy, rewards)

    def _influences(self, seed: int, policy: str, of: dict[str, Any]) -> dict[str, Any]:
        """How much each sample, made likelier, raises each of some rewards, by name."""
        if (held := self.gradients.get(pool(seed, policy))) is None:
            return {}
        slopes = held.slopes()
        return {
            name: influence(slopes, each, seed)
            for name, each in of.items()
            if foresight.known(each).any(axis=1).sum() >= 2
        }

    @cache  # noqa: B019
    def asked(self, seed: int, policy: str) -> list[str]:
        """The prompts of a policy's samples, one that two seeds have by the same words."""
        return [str(prompt) for prompt in self.rollouts[pool(seed, policy)].table()["prompt"]]

    @cache  # noqa: B019
    def rewards(self, truth: str, seed: int, policy: str) -> Any:
        """The ground truth's, (prompts, samples)."""
        return self.labels[key(truth, seed, policy)].rewards().astype("float64")

    def by_pairs(self) -> int:
        """Pairs that labels are shares of: an order and no distances, so that no gain can be told in a unit; or 0."""
        given = self.labels.values() if self.truths[0] == foretelling.LABELS else ()
        return sum(int(held.record["metrics"].get("pairs", 0)) for held in given)

    def spent(self, about: dict[str, Any]) -> dict[str, Any]:
        """Samples and labels that the forecast rests on, over all seeds, and what RLHF would draw."""
        pools = [(seed, policy) for seed, policy, _ in self.scores]
        given = self.truths[0] == foretelling.LABELS  # a file's, where rows of a prompt may be filled up
        sizes = {place: foresight.known(told).sum() if given else told.size
                 for place in pools for told in [self.rewards(self.truths[0], *place)]}  # fmt: skip
        labels = {truth: sum(int(foresight.known(self.rewards(truth, *place)).sum()) for place in sizes)
                  for truth in self.truths}  # fmt: skip
        rlhf = sum(about["rlhf"][cell["algorithm"]] for cell in self.cells)
        told = {"samples": int(sum(sizes.values())), "labels": labels, "rlhf_samples": rlhf}
        return told | ({"pairs": self.by_pairs()} if self.by_pairs() else {})


def calibrators(
    place: dict[str, str], first: str, paid: list[tuple[dict[str, Any], Policy]]
) -> dict[str, Calibrator] | None:  # fmt: skip
    """What came of RLHF at a place, by reward model; None where none was paid for anywhere.

    Args:
        first: the ground truth that policies know as `truth`.
        paid: cells with the policies that were trained.
    """
    if not paid:
        return None
    column = known_as(place["truth"], first)
    found: dict[str, list[Policy]] = {}
    for cell, policy in paid:
        if all(cell[name] == place[name] for name in ("policy", "algorithm")):
            found.setdefault(cell["reward_model"], []).append(policy)
    return {
        name: Calibrator(
            [each.samples()[f"{column}_gain"].to_numpy() for each in mine],
            mine[0].table()["step"].to_list(), [each.table()[column].to_list() for each in mine],
        )
        for name, mine in found.items()
    }  # fmt: skip


def _rows(
    config: Foreseeing,
    pools: Pools,
    formulas: dict[str, Formula],
    place: dict[str, str],
    sifted: list[str],
    paid: dict[str, Calibrator] | None,
) -> list[dict[str, Any]]:
    said, models = formulas[place["algorithm"]], pools.at(place)
    candidates = [
        Candidate(
            {name: mine[0][name] for name in ("reward_model", "kind", "trained")},
            {cell["seed"]: pools.foretold(place, cell["seed"], model, said.felt) for cell in mine},
            {cell["seed"]: pools.white(place, cell["seed"], model) for cell in mine},
            None if pools.by_pairs() else pools.course(place, [cell["seed"] for cell in mine], model),
            SIFTED if model in sifted else "",
        )
        for model, mine in models.items()
    ]
    seeds = {cell["seed"] for mine in models.values() for cell in mine}
    own = {seed: pools.foretold(place, seed, None, said.felt) for seed in sorted(seeds)}
    prompts = {seed: pools.asked(seed, place["policy"]) for seed in own}
    return foretelling.foretold(place, said, candidates, own, prompts, config, paid)


def _curves(pools: Pools, formulas: dict[str, Formula]) -> dict[str, list[dict[str, Any]]]:
    """What else may be done with a reward, and how much it adds to the ground truth, in its standard deviations."""
    tilted = [row for place in pools.places() for row in _tilted(pools, place, formulas[place["algorithm"]].felt)]
    return {"tilted": tilted, "best_of_n": list(_best_of_n(pools))}


def _tilted(pools: Pools, place: dict[str, str], felt: Felt) -> Iterator[dict[str, Any]]:
    """What tilting the policy towards each reward does, ever further; means over prompts and seeds.

    Yields:
        a reward model's `eta` (inverse units of the felt reward) and, at each, `gain`, `proxy` (units of the felt
        reward), `kl` (nats a response) and `ess`; `turn`, the eta at which the ground truth turns, None where it does
        not, looked for as far as `ess` is at `least` that.
    """
    import numpy as np

    for model, mine in pools.at(place).items():
        seeds = [cell["seed"] for cell in mine]
        if not _fewest(pools, place, seeds):
            continue  # nothing is foretold here, and why is said of the rows
        paths = [pools.terms(place["truth"], seed, place["policy"], model, felt).along() for seed in seeds]
        gains = [path.truth * pools.scale(place, seed) for path, seed in zip(paths, seeds, strict=True)]
        parts = {name: [getattr(path, name) for path in paths] for name in ("proxy", "kl", "ess")}
        mean = {name: np.mean(values, axis=0) for name, values in ({"truth": gains} | parts).items()}
        path = foresight.Path(paths[0].eta, **mean)
        least = foresight.shown(LEAST, _fewest(pools, place, seeds))
        turn = foresight.turn(path, least)
        told = {"eta": path.eta, "gain": path.truth, "proxy": path.proxy, "kl": path.kl, "ess": path.ess}
        yield (
            place | {"reward_model": model} | {name: values.tolist() for name, values in told.items()}
            | {"turn": turn if turn == turn else None, "least": least}
        )  # fmt: skip


def _best_of_n(pools: Pools) -> Iterator[dict[str, Any]]:
    """What choosing the best of `n` by each reward does, whatever the algorithm; means over prompts and seeds."""
    import numpy as np

    seeds: dict[tuple[str, str], dict[int, None]] = {}
    for cell in pools.cells:
        seeds.setdefault((cell["policy"], cell["reward_model"]), {})[cell["seed"]] = None
    for truth in pools.truths:
        for (policy, model), mine in seeds.items():
            place, gains = {"truth": truth, "policy": policy}, []
            fewest = _fewest(pools, place, mine)
            counts = tuple(n for n in BEST_OF if n <= fewest)  # so that all speak of all prompts
            for seed in mine if counts else ():
                rewards = pools.scores[seed, policy, model].rewards()
                best = foresight.best_of_n(rewards, pools.rewards(truth, seed, policy), counts)
                gains.append((best - best[0]) * pools.scale(place, seed))
            if gains:
                yield place | {"reward_model": model, "n": counts, "gain": np.mean(gains, axis=0).tolist()}


def _fewest(pools: Pools, place: dict[str, str], seeds: Iterable[int]) -> int:
    """Labels of the prompt that has fewest, of those that count; 0 where a seed has none."""
    each = [foresight.known(pools.rewards(place["truth"], seed, place["policy"])).sum(axis=1) for seed in seeds]
    return min(int(counts[counts > 0].min()) if counts.any() else 0 for counts in each)
