"""look at this machine; or at a study: whether its models and data are here and fit, and what it would take"""

from __future__ import annotations

import os
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import DONE, FAILED, positive, speaks_json, tell
from flows.commands.rank import names_study

if TYPE_CHECKING:
    from flows.inquiry import Inquiry
    from rmpipe.estimate import Cost, Pace, Work
    from rmpipe.health import Finding
    from rmpipe.workload import Workload

HOW = (
    "An estimate: passes and tokens, counted from the study and the data, times the pace that a short probe of each "
    "model has measured here just now; responses are taken to be as long as the data's. Half or twice of it is no "
    "surprise."
)
HEADS = ("stage", "stages", "texts", "tokens", "passes", "and back", "written", "seconds")


def arguments(parser: ArgumentParser) -> None:
    """A study or none, and how it would be run."""
    names_study(parser, optional=True)
    cores = os.cpu_count() or 1
    parser.add_argument("-j", "--jobs", type=positive, default=cores, help="stages at a time (default: cores)")
    parser.add_argument("--threads", type=positive, default=1, help="threads a stage (default: 1)")
    speaks_json(parser)


def command(options: Namespace) -> int:
    """Say each finding as soon as it is known; FAILED if one is a fault."""
    from rmpipe.health import examine

    if options.study is not None:
        return _of_study(options)
    findings = _said(options, examine(_home()))
    told = _counted(findings)
    tell(options, told, f"faults: {told['faults']}, notes: {told['notes']}")
    return FAILED if told["faults"] else DONE


def _home() -> Path:
    return Path(os.environ.get("RMPIPE_HOME") or ".rmpipe").absolute()


def _said(options: Namespace, found: Iterator[Finding]) -> list[Finding]:
    findings = []
    for finding in found:
        findings.append(finding)
        if not options.json:
            print(_lines(finding), flush=True)
    return findings


def _counted(findings: list[Finding]) -> dict[str, Any]:
    from dataclasses import asdict

    count = {level: sum(each.level == level for each in findings) for level in ("fault", "note")}
    return {"faults": count["fault"], "notes": count["note"], "findings": [asdict(each) for each in findings]}


def _lines(finding: Finding) -> str:
    """A line a finding; below it what to do, and the command for it."""
    lines = [f"{finding.level:<6} {finding.check:<15} {finding.found}"]
    lines += textwrap.wrap(finding.remedy, 120, initial_indent=" " * 23, subsequent_indent=" " * 23)
    return "\n".join([*lines, *([f"{'':<23}$ {finding.command}"] if finding.command else [])])


# -- a study ----------------------------------------------------------------------------------------------------------


def _of_study(options: Namespace) -> int:
    """What a study names, what it would take, and whether that fits."""
    from flows.inquiry import inquire
    from rmpipe import readiness
    from rmpipe.config import StudyError

    inquiry = inquire(options.study, options.set)
    findings = []
    try:
        inquiry.check_sources()
    except StudyError as error:
        findings += _said(options, readiness.sources(error))
    findings += _said(options, readiness.named(inquiry.study))
    if any(finding.check == "study" for finding in findings):
        told = _counted(findings)
        count = f"faults: {told['faults']}, notes: {told['notes']}"
        tell(options, told, f"{count}; nothing is estimated before they are mended")
        return FAILED
    load, works = _works(inquiry)
    room = readiness.Room.of(inquiry.plan.store.home)
    paces = _paces(load, works, options.threads, room.memory)
    cost = _cost(inquiry, works, paces, options.jobs)
    titles = {step.address: step.call.title for step in inquiry.plan.to_run}
    for found in (
        readiness.busy(),
        readiness.memory(works, cost, titles, room),
        readiness.disk(works, cost, room, inquiry.plan.store.home),
        readiness.unknown(cost, works),
    ):
        findings += _said(options, found)
    told = _counted(findings)
    text = [*_table(works, cost), _total(inquiry, cost), *textwrap.wrap(HOW, 120), ""]
    text.append(f"faults: {told['faults']}, notes: {told['notes']}")
    tell(options, told | {"estimate": _json(works, cost, paces)}, "\n".join(["", *text]))
    return FAILED if told["faults"] else DONE


def _works(inquiry: Inquiry) -> tuple[Workload, dict[str, Work]]:
    """What each stage that would run does."""
    from rmpipe.tally import tally
    from rmpipe.workload import Workload

    plan = inquiry.plan
    load = Workload({address: (step.call.stage.name, step.call.told) for address, step in plan.steps.items()})
    return load, {step.address: tally(load, step.address) for step in plan.to_run}


def _paces(load: Workload, works: dict[str, Work], threads: int, free: float) -> dict[str, Pace]:
    """The pace of each model that is used, measured with as many threads as a stage has."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        uses = [use for work in works.values() for use in work.uses]
        paces: dict[str, Pace] = {}
        for name in dict.fromkeys(use.model for use in uses):
            model, trains = load.models[name], any(use.model == name and use.how == "trained" for use in uses)
            size = model.size
            if size is not None and 1.2 * size.weights(model.dtype) < free:
                fits = 4.5 * size.weights(model.dtype) < free
                pace = model.pace(tokens=load.longest(name), trains=trains and fits)
                paces |= {} if pace is None else {name: pace}
        return paces
    finally:
        torch.set_num_threads(before)


def _cost(inquiry: Inquiry, works: dict[str, Work], paces: dict[str, Pace], jobs: int) -> Cost:
    from rmpipe import estimate

    needs = {step.address: [need.address for need in step.call.needs] for step in inquiry.plan.to_run}
    return estimate.cost(works, needs, paces, jobs)


# -- the table --------------------------------------------------------------------------------------------------------


def _rows(works: dict[str, Work], cost: Cost) -> list[dict[str, Any]]:
    """Sums over the stages of one name, in the order in which they are first asked for."""
    rows = []
    for name in dict.fromkeys(work.stage for work in works.values()):
        mine = {address: work for address, work in works.items() if work.stage == name}
        each = [cost.seconds[address] for address in mine]
        rows.append({
            "stage": name, "stages": len(mine), "unknown": sum(seconds is None for seconds in each),
            "texts": round(sum(work.texts for work in mine.values())),
            "tokens": round(sum(work.tokens() for work in mine.values())),
            "forward": round(sum(work.passes() for work in mine.values())),
            "backward": round(sum(work.passes("trained") for work in mine.values())),
            "written": round(sum(work.written for work in mine.values())),
            "seconds": round(sum(seconds or 0.0 for seconds in each), 1),
        })  # fmt: skip
    return rows


def _table(works: dict[str, Work], cost: Cost) -> list[str]:
    cells = [HEADS, *(_cells(row) for row in _rows(works, cost))] if works else []
    widths = [max(len(line[place]) for line in cells) for place in range(len(HEADS))] if cells else []
    return [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in cells
    ]  # fmt: skip


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    said = "unknown" if row["unknown"] == row["stages"] else f"{row['seconds']:.0f}"
    said += f" + {row['unknown']} unknown" if 0 < row["unknown"] < row["stages"] else ""
    counts = [f"{row[name]:,}" if row[name] else "-" for name in ("texts", "tokens", "forward", "backward")]
    written = f"{row['written'] / 1e6:,.1f} MB" if row["written"] >= 50_000 else "-"
    return (row["stage"], str(row["stages"]), *counts, written, said)


def _total(inquiry: Inquiry, cost: Cost) -> str:
    if not cost.seconds:
        return inquiry.nothing_to_run
    stages = f"{len(cost.seconds)} of {len(inquiry.plan.steps)} stages to run"
    least = "at least " if cost.unknown else "about "
    jobs = "1 job" if cost.jobs == 1 else f"{cost.jobs} jobs"
    return f"{stages}: {least}{_spoken(cost.total)} on {jobs}"


def _spoken(seconds: float) -> str:
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _json(works: dict[str, Work], cost: Cost, paces: dict[str, Pace]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "seconds": round(cost.total, 1), "jobs": cost.jobs, "written": round(cost.written), "memory": round(cost.peak),
        "unknown": dict(cost.unknown), "kinds": _rows(works, cost), "how": HOW,
        "paces": {name: asdict(pace) for name, pace in paces.items()},
        "stages": {address: asdict(work) | {"seconds": cost.seconds[address]} for address, work in works.items()},
    }  # fmt: skip
