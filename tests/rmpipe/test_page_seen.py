"""The report as a person meets it: in a browser, wide and narrow, light and dark, by keyboard and by ear."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from rmpipe import figure, page
from tests.rmpipe.test_page import foretold, told

ADDRESS = "rank/0123456789ab"
CONTRAST = """() => {
  const paint = text => text.match(/[\\d.]+/g).map(Number)
  const light = rgb => rgb.slice(0, 3).map(x => x / 255)
    .map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [.2126, .7152, .0722][i], 0)
  const paper = one => { for (; one; one = one.parentElement) {
    const rgb = paint(getComputedStyle(one).backgroundColor); if ((rgb[3] ?? 1) > 0) return rgb } }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = []
  for (let text; text = texts.nextNode();) {
    const one = text.parentElement
    if (!text.data.trim() || one.tagName == 'STYLE') continue
    const style = getComputedStyle(one), inside = one.closest('svg')
    const [a, b] = [light(paint(inside ? style.fill : style.color)), light(paper(one))].sort((x, y) => y - x)
    found.push([(a + .05) / (b + .05), text.data.trim().slice(0, 40)])
  }
  return found }"""
UNLINKED = """() => [...document.querySelectorAll('td, li, dd, figcaption, .lead, .sides b, main p')].map(one => {
  const copy = one.cloneNode(true)
  copy.querySelectorAll('a.n, small, svg, code').forEach(part => part.remove())
  return copy.textContent.replace(/\\[[^\\]]*\\]|\\([^()]* to [^()]*\\)/g, '')
}).filter(text => /\\d\\.\\d/.test(text) && !/Published|\\d{4}\\.\\d{5}/.test(text))"""


OVERLAPS = """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
  const all = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()])
  return all.flatMap(([name, a], i) => all.slice(i + 1)
    .filter(([_, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
    .map(([other]) => `${name} and ${other}`))
})"""


OUTSIDE = """all => all.flatMap(svg => {
  const box = svg.getBoundingClientRect()
  return [...svg.querySelectorAll('text')].filter(one => {
    const {left, right} = one.getBoundingClientRect(); return left < box.left - 1 || right > box.right + 1
  }).map(one => one.textContent) })"""


LOST = "all => all.filter(one => !document.getElementById(one.hash.slice(1))).map(one => one.outerHTML)"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("page") / "report.html"
    where.write_text(page.render(foretold(told()), ADDRESS), encoding="utf-8")
    return where


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_as_wide_as_the_screen_and_asks_for_nothing_else(look, file, width):
    seen = look(width)
    assert seen.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.asked == [file.as_uri()]


def test_on_a_telephone_a_table_scrolls_and_its_names_stay(look):
    seen = look(390)
    table = seen.get_by_role("region", name="Ranking, weak, taught by rloo")
    table.focus()
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")
    table.evaluate("one => one.scrollLeft = 9999")
    name = table.get_by_role("rowheader").first
    assert name.bounding_box()["x"] >= 0
    assert table.locator("td").last.bounding_box()["x"] < 390
    assert name.evaluate("one => { const {x, y} = one.getBoundingClientRect();"
                         " return one.contains(document.elementFromPoint(x + 9, y + 9)) }")  # fmt: skip


def test_letters_in_figures_and_targets_for_a_thumb_are_large_enough_on_a_telephone(look):
    seen = look(390)
    letters = seen.locator("figure svg text").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(letters) >= 10
    heights = seen.locator("td a.n, summary, nav a, .back").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24


def test_no_name_in_a_figure_lies_upon_another(look):
    assert look(390).evaluate(OVERLAPS) == []


def test_every_number_of_the_ranking_leads_to_the_addresses_it_came_from(look):
    seen, answer = look(), told()
    shown = {"truth_gain", "proxy_gain", "kl", "length_gain"}
    found = seen.locator("#answer tbody tr").evaluate_all(
        "rows => rows.map(row => [row.cells[1].firstChild.nextSibling.data, [...row.querySelectorAll('td.n a')].map("
        " one => document.getElementById(one.hash.slice(1)).innerText)])"
    )
    assert [name for name, _ in found] == [row["reward_model"] for row in answer["rows"]]
    for row, (_, entries) in zip(answer["rows"], found, strict=True):
        names = [name for name in page.COLUMNS if row[name]]
        assert len(names) == 7  # all but the covariance, which these cells have not
        for name, text in zip(names, entries, strict=True):
            stage = "align" if name in shown else "measure"
            assert re.findall(r"rmpipe why (\S+)", text) == row["addresses"][stage]


def test_a_number_is_followed_and_the_way_back_leads_to_its_row(look):
    seen = look()
    row = seen.get_by_role("row", name=re.compile("<b>off")).first
    row.get_by_role("link").nth(2).click()
    entry = seen.locator(":target")
    assert "rmpipe why measure/" in entry.inner_text()
    assert 0 <= entry.bounding_box()["y"] < 800
    seen.get_by_role("link", name="back to <b>off in the ranking of weak, rloo").click()
    assert seen.locator(":target").inner_text() == row.inner_text()


def test_no_number_stands_without_a_link_and_no_link_without_a_place(look):
    seen = look()
    assert seen.evaluate(UNLINKED) == []
    assert seen.locator("a[href]").evaluate_all(LOST) == []
    claim = seen.locator("section[aria-labelledby=claims] li a").first.get_attribute("href")
    entry = seen.locator(f"[id='{claim[1:]}']")
    assert entry.get_by_role("link").all_inner_texts() == ["back", "truth on weak", "flat on weak"]
    assert f"rmpipe why {ADDRESS}" in entry.inner_text()


def test_each_place_is_in_the_order_of_the_tab_key_once(look):
    numbers = look().locator("a.n").evaluate_all("all => all.map(one => [one.hash, one.tabIndex])")
    stops = [target for target, place in numbers if place == 0]
    assert sorted(stops) == sorted({target for target, _ in numbers})
    assert len(stops) < len(numbers) / 4


def test_tab_reaches_first_what_skips_to_the_answer_and_focus_is_seen(look):
    seen = look()
    seen.keyboard.press("Tab")
    skip = seen.locator(":focus")
    assert skip.inner_text() == "Skip to the answer"
    assert skip.bounding_box()["x"] >= 0
    seen.keyboard.press("Enter")
    assert seen.evaluate("document.activeElement.id") == "answer"
    seen.keyboard.press("Tab")
    style = seen.locator(":focus").evaluate("one => { const {outlineStyle, outlineWidth} = getComputedStyle(one);"
                                            " return [one.className, outlineStyle, outlineWidth] }")  # fmt: skip
    assert style == ["n", "solid", "2px"]


def test_those_who_listen_hear_regions_headings_figures_and_tables(look):
    seen = look()
    assert seen.locator("html").get_attribute("lang") == "en"
    for role in ("banner", "navigation", "main"):
        assert seen.get_by_role(role).count() == 1
    levels = seen.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert 1 not in levels[1:]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    figures = seen.locator("svg").count()
    assert figures == 14
    assert seen.get_by_role("img", name=re.compile(r"\w+ .*\d")).count() == figures
    tables = seen.locator("table").count()
    assert seen.locator("table > caption").count() == tables == 6
    assert seen.locator("th:not([scope])").count() == 0
    assert seen.locator("tbody tr").count() == seen.get_by_role("rowheader").count()
    assert seen.locator(".scroll[tabindex='0'][role=region][aria-label]").count() == tables
    assert seen.locator(".swatch:not([aria-hidden=true])").count() == 0


def test_every_text_can_be_read_in_light_and_in_dark(look):
    paper = {}
    for scheme in ("light", "dark"):
        seen = look(scheme=scheme)
        faint = [(round(ratio, 2), text) for ratio, text in seen.evaluate(CONTRAST) if ratio < 4.5]
        assert faint == []
        paper[scheme] = seen.evaluate("getComputedStyle(document.body).backgroundColor")
        colours = [f"rgb({', '.join(str(int(hue[i : i + 2], 16)) for i in (1, 3, 5))})" for hue in figure.PALETTE]
        ratios = [_ratio(colour, paper[scheme]) for colour in colours]
        assert min(ratios) >= 3, dict(zip(figure.PALETTE, ratios, strict=True))
    assert paper["light"] != paper["dark"]


def test_on_paper_the_page_is_light_and_its_tables_are_whole(look):
    seen = look(718, "dark")
    seen.emulate_media(media="print", color_scheme="dark")
    assert not seen.get_by_role("navigation").is_visible()
    assert _ratio(seen.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)") < 1.1
    assert seen.evaluate("document.scrollingElement.scrollWidth") <= 718


def _ratio(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
