"""print a study's answer from the records"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, FAILED, complain, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.artifact import Ranking


PRINTED = (
    "flow", "study", "rows", "correlations", "parts", "ladders", "advice", "singles", "diagnoses", "contests",
    "contrasts", "groups", "generation", "reference", "arms", "vanished", "quarters", "labelled", "sieves",
    "controlled", "audits", "overoptimisation", "forecast", "sentences",
)  # fmt: skip
"""The parts of an answer that `--json` prints, as far as its question has them."""


def arguments(parser: ArgumentParser) -> None:
    """A study."""
    names_study(parser)
    speaks_json(parser)


def names_study(parser: ArgumentParser, *, optional: bool = False) -> None:
    """Declare a study, and how it differs from its file."""
    from flows.inquiry import shipped

    text = f"a TOML file, or one of {', '.join(shipped())}"
    study = parser.add_argument("study", metavar="STUDY", help=text, nargs="?" if optional else None)
    study.complete = {"bash": "_rmpipe_study", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined] # for shtab
    text = "change one value of the study"
    parser.add_argument("--set", metavar="A.B=VALUE", action="append", default=[], help=text)
    text = "rank reward models that fail their audit too, and say so of them; as --set allow_unsound=true"
    told: Any = {"action": "append_const", "dest": "set", "const": "allow_unsound=true"}
    parser.add_argument("--allow-unsound", **told, help=text)


def command(options: Namespace) -> int:
    """Print the answer from the records."""
    from flows.inquiry import inquire

    inquiry = inquire(options.study, options.set)
    missing = len([step for step in inquiry.plan.to_run if step.address != inquiry.report.address])
    count = len(inquiry.plan.steps)
    if missing:
        text = f"{missing} of {count} stages have not been made; first: rmpipe run {options.study}"
        return complain(options, text, FAILED)
    ranking = inquiry.ranking
    page = f"\nreport   {inquiry.report.page}" if inquiry.report.built else ""
    text = (ranking.path / "table.txt").read_text() + page
    tell(options, answer_of(ranking), text)
    return DONE


def answer_of(ranking: Ranking) -> dict[str, Any]:
    """The part of an answer that `--json` prints."""
    answer = ranking.answer()
    return {key: answer[key] for key in PRINTED if key in answer}
