"""Which reward model will teach each policy best, before any RLHF."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rmpipe import forecast as foretelling
from rmpipe import foresight, foretold
from rmpipe.accuracy import on_policy_accuracy
from rmpipe.artifact import Forecast, Gradients, Policy, Rehearsal, Scores
from rmpipe.calibration import Calibrator
from rmpipe.forecast import Candidate, Formula
from rmpipe.foreseeing import Foreseeing
from rmpipe.foresight import Felt
from rmpipe.rehearsal import Rehearsed
from rmpipe.slopes import influence
from rmpipe.teaching import known_as
from rmpipe.variance import shift_and_scale
from tasks.execution import Log
from tasks.rehearse import OWN
from tasks.stage import stage

SIFTED = (
    "its prompts are sifted, by its own rewards, and a forecast is of all prompts; foretell the one that it sifts for"
)
LEAST = 0.1
"""Effective sample size, as a share, below which a tilted policy is not followed to where the ground truth turns."""
BEST_OF = (1, 2, 4, 8, 16, 32, 64)


@stage(version=1)
def forecast(
    config: Foreseeing, cells: list[dict[str, Any]], formulas: dict[str, dict[str, Any]], about: dict[str, Any],
    rewards: list[Scores], labels: dict[str, Scores], gradients: dict[str, Gradients],
    rehearsals: dict[str, Rehearsal],
    sifted: list[str], calibrating: list[dict[str, Any]], aligned: list[Policy] | None = None,
    *, out: Path, log: Log,
) -> Forecast:  # fmt: skip
    """Rank reward models by what they are foretold to teach, with ties, refusals and intervals over prompts.

    Args:
        cells: what is ranked: seed, policy, reward_model, algorithm, kind, trained.
        formulas: by algorithm, of `rmpipe.forecast.formula`.
        about: the study's name, its ground truths, and the samples of an RLHF run by algorithm.
        rewards: over the policy's samples, one a cell.
        labels: the ground truths' rewards of the same samples, by `key`; NaN where a sample has no label.
        gradients: of the same samples, by `pool`, where they are taken.
        rehearsals: of RLHF on these, by `lesson`.
        sifted: reward models of whose prompts some are left out or put off, which no forecast follows.
        calibrating: the cells of which RLHF was paid for, so that gains can be told in reward units.
        aligned: what came of it, one a cell.
    """
    import pandas as pd

    pools = Pools(cells, about["truths"], rewards, labels, gradients, rehearsals)
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
    answer["curves"] = [curve for place in pools.places() for curve in _curves(pools, said, place)]
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
        self, cells: list[dict[str, Any]], truths: list[str], scores: list[Scores], labels: dict[str, Scores],
        gradients: dict[str, Gradients], rehearsals: dict[str, Rehearsal],
    ):  # fmt: skip
        self.cells, self.labels, self.gradients, self.rehearsals = cells, labels, gradients, rehearsals
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
        rise = told.truth[truth][at, -1] * self.scale(place, seed)
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
        told = foresight.terms(rewards, labels, self.influences(seed, policy).get(truth), form=felt)
        accuracies = np.full(len(labels), np.nan)
        if np.isfinite(labels).all():
            accuracies = on_policy_accuracy(rewards, labels, "both")
        return told.beside(accuracy_on=accuracies)

    @cache  # noqa: B019
    def influences(self, seed: int, policy: str) -> dict[str, Any]:
        """How much each sample, made likelier, raises each ground truth; none where no gradients are taken."""
        if (held := self.gradients.get(pool(seed, policy))) is None:
            return {}
        labels, slopes = {truth: self.rewards(truth, seed, policy) for truth in self.truths}, held.slopes()
        return {
            truth: influence(slopes, each, seed)
            for truth, each in labels.items()
            if foresight.known(each).any(axis=1).sum() >= 2
        }

    @cache  # noqa: B019
    def best_of(self, truth: str, seed: int, policy: str, reward_model: str, counts: tuple[int, ...]) -> Any:
        """The ground truth of the best of n, whichever algorithm is asked about."""
        rewards = self.scores[seed, policy, reward_model].rewards()
        return foresight.best_of_n(rewards, self.rewards(truth, seed, policy), counts)

    @cache  # noqa: B019
    def rewards(self, truth: str, seed: int, policy: str) -> Any:
        """The ground truth's, (prompts, samples)."""
        return self.labels[key(truth, seed, policy)].rewards().astype("float64")

    def spent(self, about: dict[str, Any]) -> dict[str, Any]:
        """Samples and labels that the forecast rests on, over all seeds, and what RLHF would draw."""
        pools = [(seed, policy) for seed, policy, _ in self.scores]
        given = self.truths[0] == foretelling.LABELS  # a file's, where rows of a prompt may be filled up
        sizes = {place: foresight.known(told).sum() if given else told.size
                 for place in pools for told in [self.rewards(self.truths[0], *place)]}  # fmt: skip
        labels = {truth: sum(int(foresight.known(self.rewards(truth, *place)).sum()) for place in sizes)
                  for truth in self.truths}  # fmt: skip
        rlhf = sum(about["rlhf"][cell["algorithm"]] for cell in self.cells)
        return {"samples": int(sum(sizes.values())), "labels": labels, "rlhf_samples": rlhf}


def calibrators(
    place: dict[str, str], first: str, paid: list[tuple[dict[str, Any], Policy]]
) -> dict[str, Calibrator]:  # fmt: skip
    """What came of RLHF at a place, by reward model.

    Args:
        first: the ground truth that policies know as `truth`.
        paid: cells with the policies that were trained.
    """
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
    paid: dict[str, Calibrator],
) -> list[dict[str, Any]]:
    said, models = formulas[place["algorithm"]], pools.at(place)
    candidates = [
        Candidate(
            {name: mine[0][name] for name in ("reward_model", "kind", "trained")},
            {cell["seed"]: pools.foretold(place, cell["seed"], model, said.felt) for cell in mine},
            pools.course(place, [cell["seed"] for cell in mine], model),
            SIFTED if model in sifted else "",
        )
        for model, mine in models.items()
    ]
    seeds = {cell["seed"] for mine in models.values() for cell in mine}
    own = {seed: pools.foretold(place, seed, None, said.felt) for seed in sorted(seeds)}
    return foretelling.foretold(place, said, candidates, own, config, paid)


def _curves(pools: Pools, formulas: dict[str, Formula], place: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What tilting the policy towards each reward, and choosing the best of n by it, does to the ground truth."""
    import numpy as np

    felt, truth, policy = formulas[place["algorithm"]].felt, place["truth"], place["policy"]
    for model, mine in pools.at(place).items():
        paths = [pools.terms(truth, cell["seed"], policy, model, felt).along() for cell in mine]
        labelled = [foresight.known(pools.rewards(truth, cell["seed"], policy)).sum(axis=1) for cell in mine]
        if not all(each.any() for each in labelled):
            continue  # nothing is foretold here, and why is said of the rows
        least = min(each[each > 0].min() for each in labelled)
        counts = tuple(n for n in BEST_OF if n <= least)  # so that all speak of all prompts
        best = np.mean([pools.best_of(truth, cell["seed"], policy, model, counts) for cell in mine], axis=0)
        mean = {name: np.mean([getattr(path, name) for path in paths], axis=0)
                for name in ("truth", "proxy", "kl", "ess")}  # fmt: skip
        turn = foresight.turn(foresight.Path(paths[0].eta, **mean), LEAST)
        told = {name: values.tolist() for name, values in mean.items()}
        known = {"turn": turn if turn == turn else None, "n": counts, "best_of_n": best.tolist()}
        yield place | {"reward_model": model, "eta": paths[0].eta.tolist()} | told | known
