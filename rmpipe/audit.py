"""Whether a reward model's scores can be trusted, before anything is ranked by them.

The checks are in `rmpipe.exam` and `rmpipe.invariance`. What must not move scores passes, drifts or fails by how far
they move, and half precision drifts at most by what rounding explains; what another program may do otherwise drifts at
most, but fails where a reading by another form or end of sequence is right more often; what a trained reward model must
not be fails, and drifts where it was constructed so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from rmpipe import exam, invariance
from rmpipe.config import Config, StudyError
from rmpipe.exam import Finding, Sitting, Verdict
from rmpipe.table import Row
from rmpipe.verdict import WIDTH

if TYPE_CHECKING:
    from rmpipe.reward import Scorer

VERDICTS: tuple[Verdict, ...] = ("fail", "drift", "pass", "none")
"""The worst first."""


class Auditing(Config):
    """What a reward model is examined for, and what is too much."""

    pairs: int = Field(32, ge=2)
    """How many of the held-out pairs, drawn by the seed."""
    tolerance: float = Field(0.01, gt=0)
    """How far a score that should stay may move, in standard deviations of the reward model's scores."""
    drift: float = Field(0.1, gt=0)
    """How far it may move before the reward model fails."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.drift < self.tolerance:
            raise ValueError(f"drift: {self.drift:g} is below tolerance = {self.tolerance:g}; raise it")
        return self


def audit(
    config: Auditing, load: Callable[[], Scorer], pairs: Sequence[Row], *, constructed: bool = False,
    tokenizer: Any = None,
) -> list[Finding]:  # fmt: skip
    """Examine a reward model on a few pairs.

    Args:
        load: loads its scorer, anew at each call.
        pairs: prompt, chosen, rejected; no more than `config.pairs` are looked at.
        constructed: whether it is made by rule, so that it may well be what a trained one must not be: the length, or
            wrong.
        tokenizer: the policy's, by which its texts are read once for comparison.

    Returns:
        what each check found, the worst first; a check that does not apply is not there.

    Raises:
        StudyError: there are no pairs, or it cannot be loaded.
    """
    pairs, scorer = pairs[: config.pairs], load()
    if not pairs:
        raise StudyError("auditing: the data set holds no pairs out; raise dataset.test_fraction")
    try:
        scores = exam.asked(scorer, *([row[field] for row in pairs] for field in ("prompt", "chosen", "rejected")))
    except StudyError as error:  # a reward that is not a number, a text that does not fit
        found, _, remedy = str(error).rpartition("; ")
        return [Finding("finite", "sanity", "fail", 1.0, "share", f"It gives no scores: {found or remedy}.", remedy)]
    findings = _told(scores, scorer, constructed)
    known = [place for place, row in enumerate(scores) if np.isfinite(row).all()]
    sitting = Sitting(config, scorer, [pairs[place] for place in known], scores[known], constructed)
    findings.append(_spread(sitting))
    if findings[-1].amount < 1:
        findings += [*invariance.invariances(sitting), *invariance.sensitivities(sitting, tokenizer)]
        findings += [*exam.sanity(sitting), *exam.controls(sitting)]
        sitting = replace(sitting, scorer=None)
        del scorer  # one model at a time
        again = exam.asked(load(), sitting.prompts, *sitting.sides)
        findings.append(invariance.moved(sitting, "loading", "invariance", again))
    return sorted(findings, key=lambda finding: VERDICTS.index(finding.verdict))


def _told(scores: Any, scorer: Any, constructed: bool) -> list[Finding]:
    """Whether it gives numbers, and of a judge whether its answers could be read."""
    missing, unread = float(1 - np.isfinite(scores).mean()), getattr(scorer, "unparsed", None)
    found = f"{int(np.isfinite(scores).sum())} of {scores.size} texts get a finite score."
    remedy = "set unparsed to the reward of such an answer" if unread else "give each text a number"
    verdict: Verdict = "pass" if not missing else "drift" if constructed else "fail"
    findings = [Finding("finite", "sanity", verdict, missing, "share", found, remedy if missing else "")]
    if unread is not None:
        share = unread / scores.size
        verdict = "pass" if not unread else "drift" if share <= 0.5 else "fail"
        found = f"{unread} of its answers about {scores.size} texts could not be read."
        remedy = "ask in its template for an answer of one form, and let its parser read that" if unread else ""
        findings.append(Finding("parsed", "sanity", verdict, share, "share", found, remedy))
    return findings


def _spread(sitting: Sitting) -> Finding:
    """The amount is the share of texts that get the commonest score; 1 for a constant, even one that is rounded."""
    if not sitting.pairs or sitting.alike:
        verdict: Verdict = "drift" if sitting.constructed else "fail"
        remedy = "it tells nothing apart: see what it reads, such as output, form and activation, or leave it out"
        return Finding("spread", "sanity", verdict, 1.0, "share", "All texts get the same score.", remedy)
    _, counts = np.unique(sitting.scores, return_counts=True)
    common = float(counts.max() / sitting.scores.size)
    found = (
        f"Its scores have a standard deviation of {sitting.spread:.3g} (its own unit); the commonest is {common:.0%}."
    )
    return Finding("spread", "sanity", "pass", common, "share", found)


# -- in words ---------------------------------------------------------------------------------------------------------


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The worst of all."""
    return min((finding.verdict for finding in findings), key=VERDICTS.index, default="pass")


def sentence(findings: Sequence[Finding]) -> str:
    """All in one: `fail: loading (3.20 sd); drift: form (0.40 sd); pass: 17 of 19 checks.`"""
    parts = []
    for kind in ("fail", "drift"):
        if mine := [f"{each.check} ({_amount(each)})" for each in findings if each.verdict == kind]:
            parts.append(f"{kind}: {', '.join(mine)}")
    judged = [finding.verdict for finding in findings if finding.verdict != "none"]
    return "; ".join([*parts, f"pass: {judged.count('pass')} of {len(judged)} checks."])


def objection(findings: Sequence[Finding]) -> str | None:
    """What speaks most against ranking anything by its scores, with the remedy; None where nothing fails.

    Where it does not even say the same twice, all else that fails follows from that.
    """
    failed = {finding.check: finding for finding in findings if finding.verdict == "fail"}
    if not failed:
        return None
    worst = failed.get("again") or next(iter(failed.values()))
    return f"{worst.found.removesuffix('.')}; {worst.remedy}"


def table(findings: Sequence[Finding], name: str, *, whole: bool = True) -> str:
    """What a terminal shows of an audit: the sentence, then a line a check and below it the remedy, the worst first.

    Args:
        whole: what passes too, and what is only told.
    """
    lines = [textwrap.fill(f"{name}: {sentence(findings)}", WIDTH, subsequent_indent="  ")]
    for finding in [each for each in findings if whole or each.verdict in VERDICTS[:2]]:
        head = f"{finding.verdict:<7}{finding.group:<13}{finding.check:<17}{_amount(finding):>9}  "
        said = finding.found + (f" Remedy: {finding.remedy}." if finding.remedy else "")
        lines.append(textwrap.fill(head + said, WIDTH, subsequent_indent=" " * len(head)))
    return "\n".join(lines) + "\n"


def _amount(finding: Finding) -> str:
    if finding.unit == "sd":
        return f"{finding.amount:.2f} sd"
    return f"{finding.amount:.0%}" if finding.unit == "share" else f"{finding.amount:.2f}"
