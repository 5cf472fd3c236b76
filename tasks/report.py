"""The report: one page that opens from disk."""

from __future__ import annotations

from pathlib import Path

from rmpipe import page
from rmpipe.artifact import Diagnosis, Ranking, Report
from tasks.execution import Log
from tasks.stage import stage


@stage(version=3)
def report(ranking: Ranking, diagnoses: dict[str, Diagnosis] | None = None, *, out: Path, log: Log) -> Report:
    """A self-contained HTML page: the answer, what it supports, figures, texts, and where every number came from.

    Args:
        diagnoses: of the pairs before training, by `rmpipe.diagnosed.key` of the answer's seeds and policies.
    """
    html = page.render(ranking.answer(), ranking.address, diagnoses or {})
    (out / "report.html").write_text(html, encoding="utf-8")
    return Report.at(out, f"{len(html) / 1024:.0f} KiB")
