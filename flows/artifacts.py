"""What a flow run leaves among Prefect's artifacts: the ranking, what it supports, and the report."""

from __future__ import annotations

import re
from typing import Any

from flows.server import OWN, server_of
from rmpipe.answer import Form
from rmpipe.artifact import Report
from rmpipe.interval import Estimate


def leave_artifacts(report: Report) -> None:
    """The ranking as a table and a link to the report, among Prefect's artifacts of this flow run."""
    if not report.built:  # --only stopped before it
        return
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    ranking = report.inputs["ranking"]
    answer = ranking.answer()
    study = re.sub(r"[^a-z0-9]+", "-", answer["study"].lower()).strip("-") or "study"  # all that a key may hold
    table = [_line(row, Form.of(answer)) for row in answer["rows"]]
    create_table_artifact(table=table, key=f"{study}-ranking", description=answer["question"])
    create_markdown_artifact(
        markdown="\n\n".join(answer["sentences"]), key=f"{study}-answer", description="What the ranking supports"
    )
    create_link_artifact(
        link=_link(report), link_text="report.html", key=f"{study}-report", description=str(report.page)
    )


def _line(row: dict[str, Any], form: Form) -> dict[str, Any]:
    """A row of the ranking as Prefect shows it."""
    line = {name: row[name] for name in (*form.keys[:2], *form.about, "rank")} | {form.ranked: row[form.keys[2]]}
    return line | {name.replace("_", " "): _shown(row.get(name)) for name in form.numbers}


def _link(report: Report) -> str:
    """Where the page opens by a click: the store's own server has it; from another, only the file is known."""
    ours = server_of(report.home) == OWN
    return f"/report/{report.address.split('/')[1]}" if ours else report.page.as_uri()


def _shown(number: dict[str, float] | None) -> str:
    return "" if number is None else str(Estimate.of(number))
