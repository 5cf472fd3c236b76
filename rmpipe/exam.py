"""An exam of a reward model's scores on a few pairs: what a trained one must not be, and must be better than.

An accuracy says little that length alone reaches, and a score that rises when a response is cut in half is not one of
its worth. What must not move scores is asked in `rmpipe.invariance`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rmpipe import accuracy, interval
from rmpipe.config import in_one_line
from rmpipe.scoring import SequenceScorer, encoded
from rmpipe.table import Row
from rmpipe.text import Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rmpipe.audit import Auditing

Group = Literal["invariance", "sensitivity", "sanity", "control"]
Verdict = Literal["pass", "drift", "fail", "none"]
Unit = Literal["sd", "accuracy", "share", "correlation"]

FEW = 12
"""Texts, below which a correlation over them says nothing."""
IS_LENGTH = 0.999
"""A Spearman correlation with length above which a score is the length."""
RESOLVED = 1e-6
"""A spread below this share of the scores' size is rounding."""
DRAWS = 1000
FIRM = 0.99
"""The level of an interval that a failure rests on, for several reward models are examined, of several seeds."""
HALF = ("bfloat16", "float16")
MOST = 0.5
"""How far half precision may move a score with the batch at most, sd; all there is where float32 cannot be asked."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        verdict: `none` of what is only told.
        amount: how much, in its unit.
        found: a sentence.
        remedy: what to do about it; empty where nothing need be done.
    """

    check: str
    group: Group
    verdict: Verdict
    amount: float
    unit: Unit
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Sitting:
    """A reward model in its exam.

    Args:
        pairs: what it is asked about: prompt, chosen, rejected.
        scores: what it said first, (pairs, 2) of chosen and rejected, finite, reward units.
        constructed: whether it is made by rule, so that it may well be what a trained one must not be.
    """

    config: Auditing
    scorer: Any
    pairs: Sequence[Row]
    scores: NDArray[np.float64]
    constructed: bool = False

    @cached_property
    def prompts(self) -> list[Text]:
        """One a pair."""
        return [row["prompt"] for row in self.pairs]

    @cached_property
    def sides(self) -> tuple[list[str], list[str]]:
        """The chosen responses and the rejected ones."""
        return [row["chosen"] for row in self.pairs], [row["rejected"] for row in self.pairs]

    @property
    def texts(self) -> tuple[list[Text], list[str]]:
        """Prompts and responses as they were asked first: all chosen ones, then the others."""
        return self.prompts * 2, [*self.sides[0], *self.sides[1]]

    @cached_property
    def spread(self) -> float:
        """The standard deviation of its scores, reward units: the unit in which they move."""
        return float(self.scores.std(ddof=1))

    @property
    def alike(self) -> bool:
        """Whether it gives every text the same, but for rounding."""
        return self.spread <= RESOLVED * float(np.abs(self.scores).max())

    def graded(self, amount: float) -> Verdict:
        """The verdict on scores that should stay and move by so many sd."""
        return "pass" if amount <= self.config.tolerance else "drift" if amount <= self.config.drift else "fail"

    def graded_apart(self, amount: float, turned: int = 0, pairs: int | None = None) -> Verdict:
        """As `graded`, in another batch: what rounding explains drifts at most; see `rmpipe.invariance`.

        Args:
            turned: how many pairs turn round.
            pairs: of how many; None for all.
        """
        verdict = self.graded(amount)
        explained = self.coarse and amount <= self.rounding and turned <= self.few(pairs)
        return "drift" if verdict == "fail" and explained else verdict

    @property
    def coarse(self) -> bool:
        """Whether it computes in half precision or writes its answers, so that rounding shows in its scores."""
        dtype = str(getattr(self.scorer, "dtype", None)).removeprefix("torch.")
        return dtype in HALF or hasattr(self.scorer, "unparsed")

    @cached_property
    def rounding(self) -> float:
        """How far rounding may move the score of a text, sd: what is written has no bound, for a word may turn."""
        if hasattr(self.scorer, "unparsed"):
            return float("inf")
        return MOST if self.recomputed is None else min(MOST, 2 * self.distance(self.scores, self.recomputed))

    @cached_property
    def recomputed(self) -> NDArray[np.float64] | None:
        """Its scores computed in the other of float32 and bfloat16; None where it cannot be."""
        if not isinstance(self.scorer, SequenceScorer):
            return None
        dtype = "bfloat16" if self.scorer.dtype == "float32" else "float32"
        try:
            return asked(self.scorer.altered(dtype=dtype), self.prompts, *self.sides)
        except (ValueError, RuntimeError):  # no room for it
            return None

    def few(self, pairs: int | None = None) -> int:
        """How many of so many pairs may turn round by rounding: one in eight, and two of any."""
        return max(2, (len(self.pairs) if pairs is None else pairs) // 8)

    def distance(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
        """The largest difference, in sd; of what only one of both can tell, as far as all scores lie apart."""
        apart = np.abs(first - second)
        return float(np.where(np.isfinite(apart), apart, np.ptp(self.scores)).max() / self.spread)

    @cached_property
    def clusters(self) -> list[str]:
        """What is drawn together: pairs of one prompt."""
        return [json.dumps(prompt, sort_keys=True) for prompt in self.prompts]

    def share(self, values: NDArray[np.float64], level: float = interval.LEVEL) -> interval.Estimate:
        """A share of the pairs with its interval."""
        return interval.share(values, self.clusters, draws=DRAWS, level=level)


def asked(scorer: Any, prompts: Sequence[Text], *sides: Sequence[str]) -> NDArray[np.float64]:
    """What a scorer gives when it is asked about all sides at once, one after the other, (prompts, sides).

    NaN for all that is not finite.
    """
    rewards = scorer([*prompts] * len(sides), [text for side in sides for text in side])
    scores = np.asarray(rewards, dtype=np.float64).reshape(len(sides), -1).T
    return np.where(np.isfinite(scores), scores, np.nan)


# -- what scores must not be ------------------------------------------------------------------------------------------


def sanity(sitting: Sitting) -> Iterator[Finding]:
    """Faults of the scores themselves, and of what they prefer."""
    yield _accuracy(sitting)
    yield _flipped(sitting)
    yield from _cut(sitting)
    chosen = sitting.sides[0]
    yield from _preferred(sitting, "empty", "an empty response", [""] * len(chosen))
    yield from _preferred(sitting, "half", "the first half of the chosen response", [_half(text) for text in chosen])
    twice = [text if text[:1].isspace() else f" {text}" for text in chosen]
    told = "the chosen response said twice over"
    yield from _preferred(sitting, "doubled", told, [a + b for a, b in zip(chosen, twice, strict=True)])


def _accuracy(sitting: Sitting) -> Finding:
    """Below one half by more than chance, it reads another output, or labels that are turned round.

    A weak one is below half now and then, so it drifts by its 95 % interval, and fails by the 99 % one only.
    """
    right = accuracy.ranking_accuracy(*sitting.scores.T)
    found = sitting.share(right)
    told = f"It prefers the chosen response in {found} of {len(sitting.pairs)} pairs (ties one half)"
    if not found.high < 0.5:
        return Finding("accuracy", "sanity", "pass", found.value, "accuracy", f"{told}.")
    remedy = "set output to the one that is the reward, or mend dataset.columns if chosen and rejected are exchanged"
    firmly = not sitting.constructed and sitting.share(right, FIRM).high < 0.5
    verdict: Verdict = "fail" if firmly else "drift"
    return Finding("accuracy", "sanity", verdict, found.value, "accuracy", f"{told}, less than a coin.", remedy)


def _flipped(sitting: Sitting) -> Finding:
    """With the sides of every pair exchanged its accuracy is 1 less what it was, unless it knows where it is asked."""
    chosen, rejected = sitting.sides
    right = float(accuracy.ranking_accuracy(*sitting.scores.T).mean())
    margins = np.nan_to_num(np.diff(asked(sitting.scorer, sitting.prompts, rejected, chosen))[:, 0])
    mirrored = float(((1 - np.sign(margins)) / 2).mean())
    amount, few = abs(right + mirrored - 1), sitting.few() if sitting.coarse else 2
    found = f"With the labels of all pairs turned round its accuracy is {mirrored:.2f}, and was {right:.2f}."
    verdict: Verdict = "pass" if amount < 1e-9 else "drift" if amount <= few / len(margins) else "fail"
    remedy = "it is told by something else than the texts which response is the chosen one: find what tells it"
    return Finding("flipped", "sanity", verdict, amount, "accuracy", found, "" if verdict == "pass" else remedy)


def _cut(sitting: Sitting) -> Iterator[Finding]:
    """How many texts lose their beginning, where that is allowed."""
    scorer, (prompts, responses) = sitting.scorer, sitting.texts
    if not isinstance(scorer, SequenceScorer) or not scorer.truncate:
        return
    pairs = zip(prompts, responses, strict=True)
    lengths = [len(encoded(scorer.tokenizer, scorer.form, *pair, end=scorer.end_of_sequence)) for pair in pairs]
    amount = float(np.mean([length > scorer.max_length for length in lengths]))
    found = f"{amount:.0%} of the texts are longer than the {scorer.max_length} tokens that it is given, and are cut."
    remedy = "leave long pairs out by dataset.max_prompt_tokens and max_response_tokens, or raise max_length"
    yield Finding("cut", "sanity", "drift" if amount else "pass", amount, "share", found, remedy if amount else "")


def _preferred(sitting: Sitting, check: str, told: str, responses: list[str]) -> Iterator[Finding]:
    """In how many pairs it scores a worse response above the chosen one, which is compared where the two differ."""
    kept = [at for at, chosen in enumerate(sitting.sides[0]) if responses[at] != chosen]
    remedy = "see what it rewards before anything is taught by it: RLHF finds such responses"
    if not kept:
        return
    try:
        scores = asked(sitting.scorer, [sitting.prompts[at] for at in kept], [responses[at] for at in kept])[:, 0]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # what a function of somebody's own raises
        if check == "empty":  # others may only be too long
            found = f"Asked about an empty response it fails: {in_one_line(error)}."
            yield Finding(check, "sanity", "drift", 1.0, "share", found, "give it a score too: a policy may write it")
        return
    amount = float((scores > sitting.scores[kept, 0]).mean())
    found = f"It scores {told} above the chosen one itself in {amount:.0%} of {len(kept)} pairs."
    verdict: Verdict = "drift" if amount > 0.5 else "pass"
    yield Finding(check, "sanity", verdict, amount, "share", found, remedy if amount > 0.5 else "")


def _half(text: str) -> str:
    """The first half of its words, of which one at least; a single word is left whole."""
    words = re.findall(r"\s*\S+", text)
    return text if len(words) < 2 else "".join(words[: len(words) // 2])


# -- what they must be better than ------------------------------------------------------------------------------------


def controls(sitting: Sitting) -> Iterator[Finding]:
    """What length alone, a constant and a coin prefer, under the same rule for ties, and how scores go with length."""
    ours, lengths = accuracy.ranking_accuracy(*sitting.scores.T), _lengths(sitting)
    rules = accuracy.controls(lengths["characters"].reshape(2, -1).T, [[1, 0]] * len(ours))
    name = max(("longer", "shorter"), key=lambda rule: float(rules[rule].mean()))
    alone, better = sitting.share(rules[name]), interval.clustered(ours - rules[name], sitting.clusters, draws=DRAWS)
    found = f"The {name} response is the chosen one in {alone} of the pairs; the accuracy less that is {better}."
    verdict: Verdict = "pass" if better.low > 0 else "drift"
    remedy = "raise auditing.pairs to tell, and compare on pairs of equal length" if verdict == "drift" else ""
    yield Finding("length_alone", "control", verdict, alone.value, "accuracy", found, remedy)
    for rule, told in (("constant", "A constant score"), ("random", "A random score")):
        share = sitting.share(rules[rule])
        found = f"{told} is right in {share} of the pairs (ties one half)."
        yield Finding(rule, "control", "none", share.value, "accuracy", found)
    yield from _correlation(sitting, lengths)


def _lengths(sitting: Sitting) -> dict[str, NDArray[np.float64]]:
    """Lengths of the texts in the order in which they were asked, (texts,), by what they are counted in."""
    prompts, responses = sitting.texts
    counted = {"characters": [len(text) for text in responses], "words": [len(text.split()) for text in responses]}
    if isinstance(sitting.scorer, SequenceScorer):
        counted["tokens"] = [len(ids) for ids in sitting.scorer.ids(prompts, responses)]
    return {name: np.array(counts, dtype=np.float64) for name, counts in counted.items()}


def _correlation(sitting: Sitting, lengths: dict[str, NDArray[np.float64]]) -> Iterator[Finding]:
    scores = sitting.scores.T.flatten()
    found = {name: abs(float(interval.correlate(scores, counts, "spearman"))) for name, counts in lengths.items()}
    known = {name: amount for name, amount in found.items() if amount == amount}
    if len(scores) < FEW or not known:
        return
    name = max(known, key=lambda one: known[one])
    told = f"The Spearman correlation of its scores with the number of {name} is {known[name]:.2f} in size"
    if known[name] <= IS_LENGTH:
        yield Finding("length", "control", "pass", known[name], "correlation", f"{told}.")
        return
    verdict: Verdict = "drift" if sitting.constructed else "fail"
    remedy = "leave it out; as a control it is kind = truth, function = length, or a kind of yours that is constructed"
    yield Finding("length", "control", verdict, known[name], "correlation", f"{told}: it is the length.", remedy)
