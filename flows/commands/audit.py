"""examine whether the scores of a study's reward models can be trusted, before anything is ranked by them"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from flows.commands import DONE, FAILED, speaks_json, tell
from flows.commands.rank import names_study
from flows.commands.run import how_it_is_run

if TYPE_CHECKING:
    from flows.inquiry import Inquiry
    from rmpipe.artifact import Audit
    from tasks.stage import Step


def arguments(parser: ArgumentParser) -> None:
    """A study, and how its audits are run."""
    names_study(parser)
    parser.add_argument("--all", action="store_true", help="print what passes too, and what is only told")
    how_it_is_run(parser)
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Examine each reward model, and print a table each; FAILED if one cannot be trusted."""
    from flows.audits import audits
    from flows.inquiry import inquire

    inquiry = inquire(options.study, options.set, only=("audit",), also=audits)
    if inquiry.plan.to_run:
        from flows.conduct import Manner, conduct

        inquiry.check_sources()
        conduct(inquiry, Manner(options.jobs, options.threads, options.keep_going))
    found = [(step.call.title.removeprefix("audit "), audit) for step, audit in _audits(inquiry)]
    told = [{"title": title, "address": audit.address, **audit.json("audit.json")} for title, audit in found]
    failed = [title for title, audit in found if audit.failed]
    said = f"{len(failed)} of {len(told)} failed: {', '.join(failed)}" if failed else f"none of {len(told)} failed"
    text = "\n".join(_table(title, audit, options.all) for title, audit in found)
    tell(options, {"audits": told, "failed": failed}, f"{text}\n{said}")
    return FAILED if failed else DONE


def _audits(inquiry: Inquiry) -> list[tuple[Step, Audit]]:
    """The steps that examine, each with what it left."""
    home = inquiry.plan.store.home
    steps = [step for step in inquiry.plan.steps.values() if step.call.stage.name == "audit"]
    return [(step, step.call.stage.output(step.address, home)) for step in steps]


def _table(title: str, audit: Audit, whole: bool) -> str:
    """An audit as a person reads it: what did not pass, or all."""
    from rmpipe.audit import table
    from rmpipe.exam import Finding

    findings = [Finding(**row) for row in audit.table().to_dict("records")]
    return table(findings, title, whole=whole)
