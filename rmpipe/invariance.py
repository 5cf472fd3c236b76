"""Invariance: what must not move a reward model's scores, and what another program may do that moves them.

Scores of public reward models are known to move with batches, padding, end of sequence, tokenizer and loading path. How
far is told in standard deviations (sd) of the reward model's own scores over the texts of its exam, by the text that
moves most: a single text that moves is one that RLHF may find.

Half precision moves scores with the batch though nothing be wrong, and so it does the words of a judge, which may turn
at a tie. In another batch (another order, copies, one at a time, other padding) scores of these drift at most, unless
they move by more than twice what the dtype itself moves any (each of two batches is rounded once) or half an sd, which
holds for no judge, or more than one pair in eight turns round. Asked the same twice, or after a second loading, scores
stay in any dtype.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe import accuracy, interval
from rmpipe.exam import DRAWS, FIRM, Finding, Group, Sitting, asked
from rmpipe.scoring import SequenceScorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALONE = 8
"""Texts that are asked about one at a time."""
EACH_ALONE = "let its scorer look at each text alone: neither at its place nor at the others"
ROUNDED = "rounding alone may do that; computed in float32 it does least"
BATCHED = {"order": None, "repeated": None, "alone": ALONE, "padding": None}
"""What asks in another batch -> about how many pairs at most; None for all."""

MOVED = {
    "again": (
        "Asked the same twice",
        "something in it is random, such as dropout or a temperature: put the model into evaluation mode, or answer at"
        " temperature 0",
    ),
    "loading": (
        "Loaded a second time",
        "some of its weights are made anew at each loading, as a head that was not saved is: save the whole model by"
        " save_pretrained, and name that folder as path",
    ),
    "order": ("Asked in the reverse order, rejected responses first", EACH_ALONE),
    "repeated": ("Asked among copies of the chosen responses", EACH_ALONE),
    "alone": (
        "Asked about one text at a time",
        "its scores depend on what else is in the batch: let its scorer mask the padding, or ask about one text at a"
        " time",
    ),
    "padding": (
        "Padded on the left and not on the right",
        "its positions or its states follow the padding: let a kind of your own ask it about one text at a time",
    ),
    "end_of_sequence": (
        "With the end of sequence left out, or put in, at the end of a text",
        "see that a text ends in scoring as it did in training; here a continuation always ends once",
    ),
    "form": (
        "Read in the other form (conversation against continuation)",
        "set form to the one that it was trained on",
    ),
    "tokenizer": (
        "Read by the policy's tokenizer and template and not its own",
        "here it reads by its own; where a program takes a tokenizer for it, give it the one in its folder",
    ),
    "dtype": (
        "Computed in the other of float32 and bfloat16",
        "set dtype to the one that it is used with, and compare scores of one dtype only",
    ),
    "attention": (
        "Under another implementation of attention (eager or sdpa)",
        "compare scores of one implementation only; other versions of a library may choose another",
    ),
    "padded": (
        "Padded, as other programs read it",
        "here it is read without padding, so its scores stand; elsewhere ask it about one text at a time",
    ),
}
"""Check -> what was done, and the remedy where scores moved."""


# -- what must not move scores ----------------------------------------------------------------------------------------


def invariances(sitting: Sitting) -> Iterator[Finding]:
    """The same texts, asked about again in ways that must not matter."""
    scorer, prompts, (chosen, rejected) = sitting.scorer, sitting.prompts, sitting.sides
    yield moved(sitting, "again", "invariance", asked(scorer, prompts, chosen, rejected))
    backwards = asked(scorer, prompts[::-1], rejected[::-1], chosen[::-1])
    yield moved(sitting, "order", "invariance", backwards[::-1, ::-1])
    among = asked(scorer, prompts, chosen, rejected, chosen)
    yield moved(sitting, "repeated", "invariance", among[:, :2])
    yield _equal(sitting, among[:, 0], among[:, 2])
    yield moved(sitting, "alone", "invariance", _alone(sitting))
    if isinstance(scorer, SequenceScorer) and scorer.read is not None:
        left = asked(scorer.altered(padding="left"), prompts, chosen, rejected)
        yield moved(sitting, "padding", "invariance", left)


def _equal(sitting: Sitting, first: NDArray[np.float64], second: NDArray[np.float64]) -> Finding:
    """Of a pair whose responses are equal it must prefer neither."""
    amount = sitting.distance(first, second)
    told = f"one is scored above the other by {sd(amount)} at most" if amount else "neither is scored above the other"
    found, verdict = f"Of two equal responses {told}.", sitting.graded_apart(amount)
    remedy = ROUNDED if sitting.coarse and verdict == "drift" else EACH_ALONE
    return Finding("equal", "sanity", verdict, amount, "sd", found, "" if verdict == "pass" else remedy)


def _alone(sitting: Sitting) -> NDArray[np.float64]:
    """Its scores, those of some texts from the shortest to the longest asked for one at a time."""
    prompts, responses = sitting.texts
    order = sorted(range(len(responses)), key=lambda place: len(str(prompts[place])) + len(responses[place]))
    scores = sitting.scores.T.flatten()
    for place in {order[int(at)] for at in np.linspace(0, len(order) - 1, ALONE)}:
        scores[place] = asked(sitting.scorer, [prompts[place]], [responses[place]])[0, 0]
    return scores.reshape(2, -1).T


# -- what may move them -----------------------------------------------------------------------------------------------


def sensitivities(sitting: Sitting, tokenizer: Any = None) -> Iterator[Finding]:
    """The same texts read or computed otherwise, as another program may do; of a model that is loaded alone.

    Args:
        tokenizer: the policy's.
    """
    scorer = sitting.scorer
    if not isinstance(scorer, SequenceScorer):
        return
    for check, changes in _readings(scorer, tokenizer).items():
        if (finding := _otherwise(sitting, scorer, check, changes)) is not None:
            yield finding
    if sitting.recomputed is not None:
        yield moved(sitting, "dtype", "sensitivity", sitting.recomputed)


def _readings(scorer: SequenceScorer, tokenizer: Any) -> dict[str, dict[str, Any]]:
    """The changes, by check."""
    form = "conversation" if scorer.form == "continuation" else "continuation"
    attention = "sdpa" if scorer.model.config._attn_implementation == "eager" else "eager"
    found: dict[str, dict[str, Any]] = {
        "end_of_sequence": {"end_of_sequence": not scorer.end_of_sequence}, "form": {"form": form},
        "attention": {"attention": attention},
    }  # fmt: skip
    if tokenizer is not None:
        found["tokenizer"] = {"tokenizer": tokenizer}
    if scorer.read is None:
        found["padded"] = {"padding": scorer.tokenizer.padding_side}
    return found


def _otherwise(sitting: Sitting, scorer: SequenceScorer, check: str, changes: dict[str, Any]) -> Finding | None:
    """None where the change is none for these texts, or this model cannot do it."""
    prompts, responses = sitting.texts
    try:
        other = scorer.altered(**changes)
        if check in ("end_of_sequence", "form", "tokenizer"):
            read = other.ids(prompts, responses)
            if read == scorer.ids(prompts, responses) or (check == "tokenizer" and not _known(scorer, read)):
                return None
        scores = asked(other, sitting.prompts, *sitting.sides)
        finding = moved(sitting, check, "sensitivity", scores)
        return _misread(sitting, finding, scores, changes) if check in ("end_of_sequence", "form") else finding
    except (ValueError, RuntimeError):  # no such attention, no room for other texts: nothing that it is used for
        return None


def _misread(sitting: Sitting, finding: Finding, scores: NDArray[np.float64], changes: dict[str, Any]) -> Finding:
    """It fails where it is right more often when it is read otherwise, by more than chance: so was it trained.

    Told by the pairs of which only one reading is right: the 99 % interval of how many are the other's is above half.
    """
    ours, theirs = (accuracy.ranking_accuracy(*each.T) for each in (sitting.scores, scores))
    differ = np.flatnonzero(theirs - ours)
    if sitting.constructed or not len(differ) or theirs.mean() <= 0.5:
        return finding
    clusters, gains = [sitting.clusters[at] for at in differ], (theirs - ours)[differ]
    if not interval.share((1 + gains) / 2, clusters, draws=DRAWS, level=FIRM).low > 0.5:
        return finding
    found = f"{finding.found} So its accuracy is {theirs.mean():.2f}, and not {ours.mean():.2f}: beyond chance (99 %)."
    ((field, value),) = changes.items()
    place = " of its SequenceScorer" if field == "end_of_sequence" else ""
    remedy = f"set {field} = {json.dumps(value)}{place}, by which it is right more often: so was it trained"
    return replace(finding, verdict="fail", found=found, remedy=remedy)


def _known(scorer: SequenceScorer, rows: list[list[int]]) -> bool:
    """Whether the model has an embedding of every token."""
    return max(map(max, rows)) < scorer.model.get_input_embeddings().num_embeddings


# -- how far ----------------------------------------------------------------------------------------------------------


def moved(sitting: Sitting, check: str, group: Group, scores: NDArray[np.float64]) -> Finding:
    """How far scores have gone from what was said first; a sensitivity drifts at most, one of a pair's order too.

    Another dtype moves all scores a little: it drifts where that is more than would fail, or turns a pair round.

    Args:
        scores: (pairs, 2); NaN where it now says nothing.
    """
    amount = sitting.distance(sitting.scores, scores)
    flips = int((np.diff(sitting.scores) * np.diff(scores) < 0).sum())
    told, remedy = MOVED[check]
    order = f", and {flips} of {len(scores)} pairs turn round" if flips else ""
    found = f"{told}, no score moves." if not amount else f"{told}, scores move by {sd(amount)} at most{order}."
    verdict = sitting.graded(amount)
    if check in BATCHED:
        verdict = sitting.graded_apart(amount, flips, BATCHED[check])
        remedy = ROUNDED if sitting.coarse and verdict == "drift" else remedy
    elif group == "sensitivity":
        stays = ("pass", "drift") if check == "dtype" else ("pass",)
        verdict = "pass" if verdict in stays and not flips else "drift"
    return Finding(check, group, verdict, amount, "sd", found, "" if verdict == "pass" else remedy)


def sd(amount: float) -> str:
    """So many standard deviations, as a person reads them."""
    return "less than 0.001 sd" if 0 < amount < 1e-3 else f"{amount:.2g} sd"
