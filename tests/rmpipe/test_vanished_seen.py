"""The page of `vanish` as a person meets it: wide and narrow, light and dark, by keyboard and by ear."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from rmpipe import page
from tests.rmpipe.test_page_seen import CONTRAST, LOST, OUTSIDE, OVERLAPS, UNLINKED
from tests.rmpipe.test_vanished import told

ADDRESS = "conclude/0123456789ab"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("vanished") / "report.html"
    where.write_text(page.render(told(), ADDRESS), encoding="utf-8")
    return where


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_as_wide_as_the_screen_and_asks_for_nothing_else(look, file, width):
    seen = look(width)
    assert seen.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.asked == [file.as_uri()]


def test_on_a_telephone_names_stay_and_letters_and_targets_are_large_enough(look):
    seen = look(390)
    table = seen.get_by_role("region", name="Arms, small, rouge", exact=True)
    table.evaluate("one => one.scrollLeft = 9999")
    assert table.get_by_role("rowheader").first.bounding_box()["x"] >= 0
    letters = seen.locator("figure svg text").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(letters) >= 10
    heights = seen.locator("td.n a.n, summary, nav a, .back").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24
    assert seen.evaluate(OVERLAPS) == []


def test_no_letter_of_a_figure_lies_outside_of_it(look):
    assert look().locator("figure svg").evaluate_all(OUTSIDE) == []


def test_no_number_stands_without_a_link_and_no_link_without_a_place(look):
    seen = look()
    assert seen.evaluate(UNLINKED.replace("Published", "Published|2310\\.20703")) == []
    assert seen.locator("a[href]").evaluate_all(LOST) == []


def test_a_number_is_followed_and_the_way_back_leads_to_its_row(look):
    seen = look()
    row = seen.get_by_role("region", name="Arms, large, rouge", exact=True).get_by_role("row", name=re.compile("few_"))
    row.get_by_role("link").nth(1).click()
    entry = seen.locator(":target")
    assert "rmpipe why score/largefew_rft1" in entry.inner_text()
    assert 0 <= entry.bounding_box()["y"] < 800
    entry.get_by_role("link", name="back to few_rft, large, rouge").click()
    assert seen.locator(":target").inner_text() == row.inner_text()


def test_what_is_low_or_modified_is_told_by_words_and_marks_and_not_by_colour_alone(look):
    seen = look()
    for where, names in {"a prompt": {"low", "high"}, "an input": {"modified", "unmodified"}}.items():
        svg = seen.locator(f"svg[aria-label*='gradient norm against std of the reward at {where}']")
        assert names <= set(svg.locator("text").all_text_contents())
        marks = svg.locator("use[style*='fill-opacity: 0.75']").evaluate_all(
            "all => all.map(one => document.querySelector(one.getAttribute('xlink:href')).getAttribute('d'))"
        )
        assert len(set(marks)) == 2


def test_those_who_listen_hear_headings_figures_and_tables(look):
    seen = look()
    levels = seen.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert 1 not in levels[1:]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    figures = seen.locator("svg").count()
    assert seen.get_by_role("img", name=re.compile(r"\w+.*\d")).count() == figures > 0
    tables = seen.locator("table").count()
    assert seen.locator("table > caption").count() == tables
    assert seen.locator("th:not([scope])").count() == 0
    assert seen.locator("tbody tr").count() == seen.get_by_role("rowheader").count()
    assert seen.locator(".scroll[tabindex='0'][role=region][aria-label]").count() == tables


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_in_dark(look, scheme):
    seen = look(scheme=scheme)
    assert [(round(ratio, 2), text) for ratio, text in seen.evaluate(CONTRAST) if ratio < 4.5] == []


def test_on_paper_the_page_fits(look):
    seen = look(718, "dark")
    seen.emulate_media(media="print", color_scheme="dark")
    assert not seen.get_by_role("navigation").is_visible()
    assert seen.evaluate("document.scrollingElement.scrollWidth") <= 718
