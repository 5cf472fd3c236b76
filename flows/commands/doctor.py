"""look at this machine, the store and the services: what would keep a run from working, and the remedy"""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from flows.commands import DONE, FAILED, speaks_json, tell

if TYPE_CHECKING:
    from rmpipe.health import Finding


def arguments(parser: ArgumentParser) -> None:
    """Nothing but how to say it."""
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Say each finding as soon as it is known; FAILED if one is a fault."""
    import os
    from dataclasses import asdict
    from pathlib import Path

    from rmpipe.health import examine

    findings = []
    for finding in examine(Path(os.environ.get("RMPIPE_HOME") or ".rmpipe").absolute()):
        findings.append(finding)
        if not options.json:
            print(_lines(finding), flush=True)
    count = {level: sum(each.level == level for each in findings) for level in ("fault", "note")}
    told = {"faults": count["fault"], "notes": count["note"], "findings": [asdict(each) for each in findings]}
    tell(options, told, f"faults: {count['fault']}, notes: {count['note']}")
    return FAILED if count["fault"] else DONE


def _lines(finding: Finding) -> str:
    """A line a finding; below it what to do, and the command for it."""
    lines = [f"{finding.level:<6} {finding.check:<15} {finding.found}"]
    lines += textwrap.wrap(finding.remedy, 120, initial_indent=" " * 23, subsequent_indent=" " * 23)
    return "\n".join([*lines, *([f"{'':<23}$ {finding.command}"] if finding.command else [])])
