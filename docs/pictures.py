"""Take the README's pictures: `python docs/pictures.py`, with a finished `pocket` in the store and Debian's chromium.

The report opens from disk; MLflow and Prefect are served by `rmpipe ui`, on the usual ports or the next free ones.
`python docs/pictures.py foresee` draws that of docs/foresight.md, with a finished `foresee` in the store.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from rmpipe.artifact import Ranking
from rmpipe.lineage import Ledger
from rmpipe.store import Store, find

HERE = Path(__file__).parent
QUIET = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main() -> None:
    """Write report.png, figures.png, mlflow.png and prefect.png beside this file; or foresight.png."""
    if sys.argv[1:] == ["foresee"]:
        rankings = sorted(find("rank"), key=lambda ranking: ranking.record["created"])
        answers = (ranking.answer() for ranking in rankings if isinstance(ranking, Ranking))
        return of_foresight([answer for answer in answers if answer["study"] == "foresee"][-1])
    program = shutil.which("chromium") or sys.exit("no chromium on this machine; Debian's package `chromium` has it")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(QUIET))
        of_report(browser)
        with _served() as (mlflow, prefect):
            of_mlflow(browser, mlflow)
            of_prefect(browser, prefect)


def of_foresight(answer: dict[str, Any]) -> None:
    """Foretold and realised gains by algorithm, and below them how each predictor did.

    Args:
        answer: of `foresee`.
    """
    import matplotlib.pyplot as plt

    told = answer["forecast"]
    names = list(told["formulas"])
    shades = dict(
        zip(dict.fromkeys(row["truth"] for row in told["rows"]), ("#1f5fa8", "#c2571a", "#3b7d3b"), strict=False)
    )
    figure, panels = plt.subplots(2, len(names), figsize=(4.2 * len(names), 7.2), height_ratios=(3, 2.6))
    for name, above, below in zip(names, *panels, strict=True):
        rows = [row for row in told["rows"] if row["algorithm"] == name and row["gain"] and row.get("gain_foretold")]
        for row in rows:
            face = shades[row["truth"]] if row["trained"] else "none"
            x, y = row["gain_foretold"]["value"], row["gain"]["value"]
            above.plot(x, y, "o", markersize=4.5, color=shades[row["truth"]], markerfacecolor=face, alpha=0.8)
        above.axline((0, 0), slope=1, color="grey", linewidth=0.8, linestyle="--")
        above.set(title=name, xlabel="foretold gain, sd", ylabel="realised gain, sd")
        _dots(below, [row for row in told["scorecard"]["pooled"] if (row["algorithm"], row["over"]) == (name, "all")])
    discs = [plt.Line2D([], [], marker="o", linestyle="", color=shade, label=truth) for truth, shade in shades.items()]
    panels[0][min(1, len(names) - 1)].legend(
        handles=discs,
        frameon=False,
        loc="lower right",
        fontsize=8,
        title="ground truth (open: constructed)",
        title_fontsize=8,
    )
    figure.tight_layout()
    figure.savefig(HERE / "foresight.png", dpi=110)


def _dots(axes: Any, pooled: list[dict[str, Any]]) -> None:
    """Spearman of each predictor with its interval."""
    from rmpipe.judgement import PREDICTORS

    known = [row for row in pooled if row["spearman"] and row["spearman"]["low"] is not None][::-1]
    for place, row in enumerate(known):
        ends, colour = row["spearman"], "#1f5fa8" if row["predictor"] == "forecast" else "#555555"
        axes.plot([ends["low"], ends["high"]], [place, place], color=colour, linewidth=1.2)
        axes.plot(ends["value"], place, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(known)), [PREDICTORS[row["predictor"]] for row in known], fontsize=8)
    axes.set(xlim=(-1, 1), xlabel="Spearman with the realised gain")
    axes.axvline(0, color="grey", linewidth=0.6)


def of_report(browser: Any) -> None:
    """The answer, and the first figures."""
    (report,) = find("report")[-1:]
    page = _page(browser, 1280, 1010)
    page.goto(report.path.joinpath("report.html").as_uri())
    page.screenshot(path=HERE / "report.png")
    page.set_viewport_size({"width": 1280, "height": 760})
    page.evaluate("document.getElementById('figures')?.scrollIntoView()")
    page.screenshot(path=HERE / "figures.png")


def of_mlflow(browser: Any, base: str) -> None:
    """The run of a trained reward model: what it was made from, what it scores, whom it taught."""
    (run,) = (artifact.run for artifact in find("train", reward_model="off", seed=1))
    experiment = Ledger(Store().home).client.get_run(run).info.experiment_id
    page = _page(browser, 1280, 860)
    page.goto(base)
    page.get_by_text("Model training", exact=True).first.click()
    page.goto(f"{base}/#/experiments/{experiment}/runs/{run}")
    page.get_by_text("MLflow Assistant").wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_text("Show more").first.click()
    page.get_by_text("What it scores").wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=HERE / "mlflow.png")


def of_prefect(browser: Any, base: str) -> None:
    """The flow run of the study, its stages by name."""
    page = _page(browser, 1280, 860)
    page.goto(f"{base}/v2/runs")
    page.get_by_role("link", name="pocket", exact=True).last.click()
    page.wait_for_url("**/flow-run/**")
    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_text("report (").first.wait_for()
    page.wait_for_timeout(3000)
    page.screenshot(path=HERE / "prefect.png")


def _page(browser: Any, width: int, height: int) -> Any:
    return browser.new_page(viewport={"width": width, "height": height})


@contextmanager
def _served() -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "flows.cli", "ui"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ui:
        try:
            lines = [str(ui.stdout.readline()) for _ in range(2)] if ui.stdout else []
            first, second = (re.findall(r"http://[\w.:]+", line)[0] for line in lines)
            yield first, second
        finally:
            ui.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
