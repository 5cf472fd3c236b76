"""What an invocation of a study leaves on the page of its run: the answer, the report with its figures, every stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rmpipe import card
from rmpipe.answer import Form
from rmpipe.artifact import Report

FORETOLD = ("truth", "policy", "algorithm", "rank", "reward_model", "forecast", "gain")
"""The columns of a forecast in the order in which they are read."""


@dataclass(frozen=True)
class Invocation:
    """One invocation of a study.

    Args:
        client: MLflow's.
        run: the id of its run.
        experiment: that of the run's experiment.
        links: to the runs of everything in the store.
    """

    client: Any
    run: str
    experiment: str
    links: card.Links

    def list_stages(self, listed: list[dict[str, Any]], at: int | None = None) -> None:
        """Every address, hits too, each with the run that made it.

        Args:
            listed: {"stage", "title", "address", "status"} each.
            at: milliseconds since the epoch; now by default.
        """
        columns = {name: [item[name] for item in listed] for name in ("stage", "title", "address", "status")}
        if listed:
            columns["run"] = [self.links.run(address) or "" for address in columns["address"]]
            self.client.log_table(self.run, columns, "addresses.json")
            self.client.log_text(self.run, card.stages(listed, self.links), "stages.md")
        for status in ("made", "hit", "failed"):
            self.client.log_metric(self.run, f"stages.{status}", columns["status"].count(status), at)

    def keep_report(self, report: Report) -> dict[str, Any]:
        """The report, its figures, and the ranking it shows, whose answer is given back."""
        answer: dict[str, Any] = report.inputs["ranking"].answer()
        self.client.set_tag(self.run, "rmpipe.report", report.address)
        self.client.log_artifact(self.run, str(report.page))
        drawn = dict(figures(report.page.read_text(encoding="utf-8")))
        for name, svg in drawn.items():
            self.client.log_text(self.run, svg, name)
        self._table([_flat(row, Form.of(answer).first) for row in answer["rows"]], "ranking.json")
        self.client.log_text(self.run, card.ranking(answer, self.links), "ranking.md")
        self.client.log_text(self.run, "\n\n".join(answer["sentences"]), "what-it-supports.md")
        if told := answer.get("forecast"):
            self._table([_flat(row, FORETOLD) for row in told["rows"]], "forecast.json")
            scored = told["scorecard"] or {"pooled": [], "sentences": []}
            self._table([_flat(row, ("algorithm", "over", "predictor")) for row in scored["pooled"]], "scorecard.json")
            said = dict.fromkeys([*told["sentences"], *scored["sentences"]])
            self.client.log_text(self.run, "\n\n".join(said), "what-was-foretold.md")
        page = f"#/experiments/{self.experiment}/runs/{self.run}"
        self.client.set_tag(self.run, card.NOTE, card.of_study(answer, page, list(drawn)))
        return answer

    def _table(self, rows: list[dict[str, Any]], file: str) -> None:
        """Rows as a table of the run, where there are any."""
        names = dict.fromkeys(name for row in rows for name in row)
        if rows:
            self.client.log_table(self.run, {name: [row.get(name) for row in rows] for name in names}, file)


def named(study: str, listed: list[dict[str, Any]], status: str) -> str:
    """What the run of an invocation is called once it has ended."""
    made = [item["status"] for item in listed].count("made")
    ended = "" if status == "FINISHED" else f"{status.lower()}, "
    return f"{study} · {ended}{made} of {len(listed)} made" if made or ended else f"{study} · nothing had to run"


def figures(page: str) -> Iterator[tuple[str, str]]:
    """The figures of a report by file names, each an SVG of its own size, without which MLflow shows an empty page."""
    over, seen = "", set[str]()
    for heading, svg in re.findall(r"<h3>(.*?)</h3>|(<svg .*?</svg>)", page, re.DOTALL):
        over = heading.split(":")[0] or over
        label, size = re.search(r'aria-label="([^":;]*)', svg), re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
        if label and size:
            names = [_file(over, text) for text in (label[1].split(",")[0], label[1])]
            for name in [name for name in names if name not in seen][:1]:
                seen.add(name)
                yield name, svg.replace("<svg ", f'<svg width="{size[1]}pt" height="{size[2]}pt" ', 1)


def _file(*names: str) -> str:
    """A place among the figures, without what no name of a file should have."""
    parts = (re.sub(r"\W+", "-", text.lower()).strip("-") for text in ("figures", *names))
    return f"{'/'.join(filter(None, parts))}.svg"


def _flat(row: dict[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    """A row of an answer in plain columns, each number as three, those that are read first in front."""
    flat: dict[str, Any] = {}
    for name in dict.fromkeys((*first, *row)):
        value = row.get(name)
        if isinstance(value, dict) and "value" in value:
            flat |= {name: value["value"], f"{name}.low": value["low"], f"{name}.high": value["high"]}
        elif not isinstance(value, dict | list):
            flat[name] = value
    return flat
