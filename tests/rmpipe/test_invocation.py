"""What an invocation leaves: figures as files, and a name that says what became of it."""

from __future__ import annotations

import pytest

from rmpipe.invocation import figures, named

PAGE = """
<h3>Claim a: one is better</h3><svg viewBox="0 0 30.5 20" aria-label="Difference, sd: b 1"><path/></svg>
<h3>weak, rloo</h3><svg viewBox="0 0 30 20" aria-label="Accuracy against variance; area: x 1"><path/></svg>
<svg viewBox="0 0 30 21" aria-label="Accuracy against variance; area: x 2"><path/></svg><svg class="mark"></svg>
"""


def test_the_figures_of_a_report_are_files_of_their_own_size():
    found = dict(figures(PAGE))
    assert list(found) == ["figures/claim-a/difference.svg", "figures/weak-rloo/accuracy-against-variance.svg"]
    assert found["figures/claim-a/difference.svg"].startswith('<svg width="30.5pt" height="20pt" viewBox="0 0 30.5 20"')


def test_figures_of_one_name_are_told_apart_by_the_rest_of_it():
    labels = ("accuracy, test: ex 0.75", "accuracy, train: ex 0.76", "accuracy, train: ex 0.77")
    page = "".join(f'<svg viewBox="0 0 30 20" aria-label="{label}"></svg>' for label in labels)
    assert list(dict(figures(page))) == ["figures/accuracy.svg", "figures/accuracy-train.svg"]


def test_a_figure_above_every_heading_has_a_place_too():
    assert list(dict(figures(PAGE.partition("</h3>")[2])))[:1] == ["figures/difference.svg"]


@pytest.mark.parametrize(
    ("statuses", "status", "expected"),
    [
        (["made", "hit", "made"], "FINISHED", "pocket · 2 of 3 made"),
        (["hit", "taken"], "FINISHED", "pocket · nothing had to run"),
        (["made", "failed", "not run"], "FAILED", "pocket · failed, 1 of 3 made"),
        ([], "FAILED", "pocket · failed, 0 of 0 made"),
    ],
)
def test_an_invocation_is_named_by_what_became_of_it(statuses: list[str], status: str, expected: str):
    assert named("pocket", [{"status": each} for each in statuses], status) == expected
