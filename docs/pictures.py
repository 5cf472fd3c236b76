"""Take the README's pictures: `python docs/pictures.py`, with a finished `pocket` in the store and Debian's chromium.

The report opens from disk; MLflow and Prefect are served by `rmpipe ui`, on the usual ports or the next free ones.
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

from rmpipe.lineage import Ledger
from rmpipe.store import Store, find

HERE = Path(__file__).parent
QUIET = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main() -> None:
    """Write report.png, figures.png, mlflow.png and prefect.png beside this file."""
    program = shutil.which("chromium") or sys.exit("no chromium on this machine; Debian's package `chromium` has it")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(QUIET))
        of_report(browser)
        with _served() as (mlflow, prefect):
            of_mlflow(browser, mlflow)
            of_prefect(browser, prefect)


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
