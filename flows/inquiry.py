"""A study's name, or its file, read; and what its flow needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmpipe.artifact import Ranking, Report
    from rmpipe.study import Study
    from tasks.stage import Plan

STUDIES = Path(__file__).parent / "studies"


@dataclass(frozen=True)
class Inquiry:
    """A study, what its flow needs, and what it ends in."""

    study: Study
    plan: Plan
    report: Report

    @property
    def nothing_to_run(self) -> str:
        """What is said when every stage is a hit."""
        return f"nothing had to run: all {len(self.plan.steps)} stages are in the store"

    @property
    def ranking(self) -> Ranking:
        """What its report is made of."""
        return self.plan.steps[self.report.address].call.told["ranking"]

    def check_sources(self) -> None:
        """Look into every file and folder that the study names; what hubs give is kept below our home.

        Raises:
            StudyError: names field, file, what is wrong and the remedy.
        """
        from rmpipe.source import keep_hub_below

        keep_hub_below(self.plan.store.home)
        self.study.check_sources()

    def recall(self) -> list[dict[str, Any]]:
        """Answer from the records alone, and leave MLflow a note of the invocation; what became of each step."""
        from rmpipe.journal import Journal

        steps, study, home = self.plan.summary(), self.study, self.plan.store.home
        told = {"study": study.name, "question": study.flow, "report": self.report.address, "addresses": steps}
        try:  # MLflow, seconds to import, learns of it later
            Journal(home).note(told)
        except OSError as error:  # the answer matters more than that it was asked for
            print(f"MLflow will not list this invocation: {home}: {error.strerror or error}", file=sys.stderr)
        return steps


def ran(steps: list[dict[str, Any]]) -> str:
    """What is said of the steps of a run once they have ended."""
    return f"{sum(step['status'] == 'made' for step in steps)} of {len(steps)} stages ran"


def shipped() -> list[str]:
    """The names of the studies that come with us."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def find_study(name: str) -> Path:
    """A study by file or by the name of a shipped one.

    Raises:
        StudyError: neither; the shipped names are listed.
    """
    from rmpipe.config import StudyError, nearest

    if name.endswith(".toml") or Path(name).is_file():
        return Path(name)
    if name not in shipped():
        raise StudyError(f"{name}: no such study; {nearest(name, shipped())}; or give a .toml file")
    return STUDIES / f"{name}.toml"


def inquire(
    name: str,
    changes: Iterable[str] = (),
    *,
    strict: bool = False,
    refresh: Iterable[str] = (),
    only: Iterable[str] = (),
    also: Callable[[Study], Any] | None = None,
) -> Inquiry:
    """Read a study and ask its flow what it needs; nothing runs.

    Args:
        name: a TOML file, or the name of a shipped study.
        changes: `a.b=value` each.
        strict: refuse hits whose code or inputs have changed.
        refresh: stages to make again.
        only: stages to stop after; all by default.
        also: what else is asked for of the study, before its own question.

    Raises:
        StudyError: whatever is wrong with the study, or with a stage's name.
    """
    from rmpipe.store import Store
    from rmpipe.study import Study
    from tasks.stage import planning

    file, refresh, only = find_study(name), tuple(refresh), tuple(only)
    _import_from(file.absolute().parent)
    study = Study.read(file, changes)
    with planning(Store(), strict=strict, refresh=refresh) as plan:
        if also is not None:
            also(study)
        report = _flow(study)(study)
    plan.check_names(refresh, "--refresh")
    if only:
        plan.keep(only)
    return Inquiry(study, plan, report)


def _flow(study: Study) -> Any:
    """The function that asks a study's question: `flows/NAME.py` has it."""
    return getattr(import_module(f"flows.{study.flow}"), study.flow)


def _import_from(folder: Path) -> None:
    """Let a study name functions of modules beside it, here and in the workers, after whatever is installed."""
    if folder != STUDIES and str(folder) not in sys.path:
        sys.path.append(str(folder))
        known = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([known, str(folder)] if known else [str(folder)])
