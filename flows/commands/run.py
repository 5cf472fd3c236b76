"""make what a study asks for, and print its answer"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, plan, positive, tell
from flows.commands.rank import answer_of

if TYPE_CHECKING:
    from flows.inquiry import Inquiry

SHOWN = 10
"""Lines of what was found by the stages that a run was to stop after."""


def arguments(parser: ArgumentParser) -> None:
    """A study, how it differs, and how it is run."""
    plan.arguments(parser)
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would run, as `rmpipe plan` does")
    how_it_is_run(parser)


def how_it_is_run(parser: ArgumentParser) -> None:
    """Declare what moves no address."""
    cores = os.cpu_count() or 1
    parser.add_argument("-j", "--jobs", type=positive, default=cores, help="stages at a time (default: cores)")
    text = "threads a stage (default: 1); moves last bits of results"
    parser.add_argument("--threads", type=positive, default=1, help=text)
    text = "after a failure, still make what does not need the stage that failed"
    parser.add_argument("-k", "--keep-going", action="store_true", help=text)


def command(options: Namespace) -> int:
    """Make what is missing and print the answer."""
    if options.dry_run:
        return plan.command(options)
    inquiry = plan.asked(options)
    steps, said = made(options, inquiry)
    return _answer(options, steps, inquiry, said)


def made(options: Namespace, inquiry: Inquiry) -> tuple[list[dict[str, Any]], str]:
    """Make what is missing, or recall it where nothing is; what became of each step, and what is said of them."""
    if not inquiry.plan.to_run:
        from flows.progress import hit_notes

        for text in hit_notes(inquiry.plan):
            print(text, file=sys.stderr)
        return inquiry.recall(), inquiry.nothing_to_run
    from flows.conduct import Manner, conduct
    from flows.inquiry import ran

    inquiry.check_sources()
    steps = conduct(inquiry, Manner(options.jobs, options.threads, options.keep_going))
    return steps, ran(steps)


def _answer(options: Namespace, steps: list[dict[str, Any]], inquiry: Inquiry, said: str) -> int:
    report = inquiry.report
    if report.address not in {step["address"] for step in steps}:  # --only stopped before it
        tell(options, {"said": said, "stages": steps}, "\n".join([*_found(inquiry, options.only), said]))
        return DONE
    ranking = report.inputs["ranking"]
    where = f"report   {report.page}\nbrowse   rmpipe ui\n{said}"
    text = f"{ranking.path.joinpath('table.txt').read_text()}\n{where}"
    tell(options, {"said": said, "report": str(report.page), **answer_of(ranking)}, text)
    return DONE


def _found(inquiry: Inquiry, only: list[str]) -> list[str]:
    """A line for each artifact of the named stages: its address and what its record says of it."""
    named = [address for address, step in inquiry.plan.steps.items() if step.call.stage.name in only]
    shown = named if len(named) <= SHOWN else named[: SHOWN - 1]
    records = [inquiry.plan.store.record(address) or {} for address in shown]
    lines = [f"{address}  {record.get('summary', '')}".rstrip() for address, record in zip(shown, records, strict=True)]
    rest = len(named) - len(shown)
    return [*lines, f"and {rest} more; see `rmpipe show ADDRESS`"] if rest else lines
