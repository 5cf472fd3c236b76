"""say what would run, and why; nothing is made"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, speaks_json, tell
from flows.commands.rank import names_study

if TYPE_CHECKING:
    from flows.inquiry import Inquiry


def arguments(parser: ArgumentParser) -> None:
    """A study, and what of it."""
    names_study(parser)
    parser.add_argument("--only", metavar="STAGE", action="append", default=[], help="stop after these stages")
    parser.add_argument("--refresh", metavar="STAGE", action="append", default=[], help="make these again")
    text = "take no hit whose code or inputs have changed: make it again"
    parser.add_argument("--strict", action="store_true", help=text)
    speaks_json(parser)


def asked(options: Namespace) -> Inquiry:
    """The study that the options name, and its plan."""
    from flows.inquiry import inquire

    return inquire(options.study, options.set, strict=options.strict, refresh=options.refresh, only=options.only)


def command(options: Namespace) -> int:
    """Print what would run, and why."""
    plan = asked(options).plan
    steps = [step.json() for step in plan.steps.values()]
    total = f"{len(plan.to_run)} of {len(steps)} stages to run"
    tell(options, {"stages": steps, "to_run": len(plan.to_run)}, "\n".join([*map(_line, steps), total]))
    return DONE


def _line(step: dict[str, Any]) -> str:
    name, _, code = step["address"].partition("/")
    title = step["title"].removeprefix(name).strip(" ·")
    said, more = "; ".join(step["why"][:3]), len(step["why"]) - 3
    rest = f"; and {more} more" if more > 0 else ""
    return f"  {name:<9} {code}  {step['status']:<4} {title:<34} {said}{rest}".rstrip()
