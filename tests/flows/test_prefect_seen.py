"""What a person sees in Prefect's pages, in a headless Chromium: `rmpipe ui` on a store with runs of every fate."""

from __future__ import annotations

import re
import signal
import sqlite3
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

JUDGE = """
def judge(prompts, responses):
    raise ValueError("the judge has no budget left; top it up")
"""


@pytest.fixture(scope="module")
def seen(tiny, places, chromium, until):
    """The pages of a store on which a run of one study was killed, one failed, and one was made again in part."""
    place = places(tiny)
    killed = place.start("run", "tiny.toml", "--set", "sampling.temperature=0.7", "--set", 'name="killed"')
    until(lambda: "1/" in killed.said(), "a stage", 120, 0.2)
    killed.signal(signal.SIGKILL)
    killed.ended()
    (place.folder / "court.py").write_text(JUDGE)
    kind = 'reward_models.bad={kind="truth", function="court:judge"}'
    failing = place.rmpipe("run", "tiny.toml", "--set", kind, "--set", 'name="failing"', "--keep-going", code=1)
    place.rmpipe("run", "tiny.toml", "--refresh", "report")
    ui = place.start("ui", "--port", "5400")
    text = until(lambda: "Ctrl-C" in (said := ui.output.read_text()) and said, "the pages", 240, 0.2)
    (base,) = re.findall(r"Prefect\s+(http://127\.0\.0\.1:\d+)$", text, re.MULTILINE)
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.base, page.place, page.failing = base, place, failing.said()
    yield page
    context.close()
    ui.signal(signal.SIGINT)
    assert ui.ended(60) == 0
    assert place.processes() == []


def visit(page: Any, study: str, tab: str) -> None:
    """From the list of runs by clicks to a tab of the newest run of a study."""
    page.goto(f"{page.base}/v2/runs")
    page.get_by_role("link", name=study, exact=True).first.click()
    page.get_by_role("tab", name=tab).click()


def test_a_run_shows_its_stages_by_name_and_the_hits_as_cached(seen):
    visit(seen, "tiny", "Task Runs")
    expect(seen.get_by_text(re.compile(r"^report \([0-9a-f]{12}\)$")).first).to_be_visible()
    expect(seen.get_by_text(re.compile(r"^align weak off rloo · seed 1 \([0-9a-f]{12}\)$")).first).to_be_visible()
    expect(seen.get_by_text("Cached").first).to_be_visible()


def test_a_failure_says_why_in_words_a_person_reads(seen):
    visit(seen, "failing", "Details")
    expect(
        seen.get_by_text(re.compile("(score|audit) .*bad · seed 1.*the judge has no budget left; top it up")).first
    ).to_be_visible()


def test_a_run_that_keeps_going_says_how_much_failed_and_how_much_was_left_out(seen):
    left = "(3 more failed, 17 that need what failed were not run, the rest is made)"
    assert left in seen.failing.splitlines()[-1]


def test_a_run_that_was_killed_is_no_longer_running(seen):
    visit(seen, "killed", "Details")
    expect(seen.get_by_text("Crashed").first).to_be_visible()
    expect(seen.get_by_text("its process was killed; what it had finished is in the store").first).to_be_visible()
    connection = sqlite3.connect(seen.place.home / "prefect" / "prefect.db")
    for table in ("flow_run", "task_run"):
        states = {name for (name,) in connection.execute(f"SELECT state_type FROM {table}")}
        assert states <= {"COMPLETED", "FAILED", "CRASHED"}
    connection.close()


def test_the_ranking_is_a_table_among_the_artifacts_of_the_run(seen):
    visit(seen, "tiny", "Artifacts")
    seen.get_by_text("tiny-ranking").first.click()
    seen.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    for words in ("reward model", "truth gain", "offset"):
        expect(seen.get_by_text(words).first).to_be_visible()


def test_the_report_opens_by_clicks(seen):
    visit(seen, "tiny", "Artifacts")
    seen.get_by_text("tiny-report").first.click()
    seen.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    with seen.context.expect_page() as opened:
        seen.get_by_role("link", name="report.html").click(modifiers=["Control"])
    expect(opened.value.get_by_role("heading", level=1)).to_have_text("Which reward model teaches this policy best?")


def test_the_pages_ask_this_machine_alone(seen):
    visit(seen, "tiny", "Logs")
    expect(seen.get_by_text("Finished in state Cached").first).to_be_visible()
    asked = {url for url in seen.asked if not url.startswith((seen.base, "data:", "blob:"))}
    assert asked == set()
