"""What a person finds in MLflow's pages by clicks alone, in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from rmpipe.lineage import Ledger

ALIGNED, TEACHER = "align weak off rloo · seed 1", "train off · seed 1"


@pytest.fixture(scope="module")
def address(tiny) -> Iterator[str]:
    """Where the pages of the finished store are."""
    with Ledger(tiny.home).serving(5300) as pages:
        yield pages.ready()


@pytest.fixture
def page(chromium, address) -> Iterator[Any]:
    """The first page, on which one says what one has come for."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(address)
    page.get_by_text("Model training", exact=True).click()
    yield page
    context.close()


def experiment(page: Any, name: str) -> Any:
    """The page of a stage, from wherever one is."""
    page.get_by_role("link", name="Experiments", exact=True).first.click()
    page.get_by_role("link", name=name, exact=True).click()
    return page


def followed(page: Any, name: str) -> Any:
    """The page behind a link of a description, which opens beside it."""
    with page.context.expect_page() as opened:
        page.get_by_role("link", name=name, exact=True).first.click()
    return opened.value


def headed(page: Any, title: str) -> Any:
    """A run's page, whose description is open."""
    page.get_by_role("heading", name=re.compile(f"^{re.escape(title)}")).wait_for()
    page.get_by_text("Show more", exact=True).first.click()
    return page


def run_of(page: Any, title: str) -> Any:
    """The page of a run of the stage that its title begins with."""
    experiment(page, title.split()[0]).get_by_role("link", name=re.compile(f"^{re.escape(title)}")).first.click()
    return headed(page, title)


def test_from_a_trained_policy_one_clicks_to_its_teacher_its_preferences_and_its_base(page):
    teacher = headed(followed(run_of(page, ALIGNED), TEACHER), TEACHER)
    headed(followed(teacher, "relabel · seed 1"), "relabel · seed 1")
    policy = headed(followed(teacher, "finetune weak · seed 1"), "finetune weak · seed 1")
    followed(policy, "pretrain world · seed 1").get_by_role("heading", name="pretrain world · seed 1").wait_for()


def test_the_page_of_a_reward_model_shows_its_accuracies_its_variances_and_what_it_taught(tiny, page):
    teacher = _clicked(run_of(page, TEACHER), "tiny-reward-model-off")
    teacher.get_by_text("@ seed-1").first.wait_for()
    for policy in ("weak", "strong"):
        rows = {cells[0]: cells[1:] for row in teacher.get_by_role("row").all() if (cells := row.inner_text().split())}
        measured = tiny.records()[tiny.address("measure", policy=policy, reward_model="off")]["metrics"]
        aligned = tiny.records()[tiny.address("align", policy=policy, reward_model="off", algorithm="rloo")]["metrics"]
        assert rows[policy][:2] == [f"{measured[name]:.2f}" for name in ("variance", "accuracy_on")]
        assert rows[f"{policy}.rloo"][:2] == [f"{aligned[name]:.2f}" for name in ("truth_gain", "proxy_gain")]


def test_the_page_of_a_study_shows_its_answer_and_opens_its_report(tiny, page):
    study = headed(_clicked(experiment(page, "study"), "tiny · 41 of 41 made"), "tiny · 41 of 41 made")
    (file,) = tiny.home.glob("store/rank/*/answer.json")
    answer = json.loads(file.read_text())
    shown = study.locator("main, #root").first.inner_text()
    assert answer["sentences"][0] in shown
    for row in answer["rows"]:
        assert f"{row['variance']['value']:.2f} [{row['variance']['low']:.2f}," in shown
    report = followed(study, "the report").frame_locator("iframe")
    report.get_by_role("heading", name=answer["question"]).wait_for()
    figure = followed(study, "its figures").get_by_role("img", name="figures/weak-rloo/accuracy-against-variance.svg")
    figure.wait_for()
    assert figure.bounding_box()["width"] > 200
    stages = followed(study, "every stage")
    stages.get_by_role("link", name=TEACHER, exact=True).click()
    stages.get_by_role("heading", name=re.compile(f"^{TEACHER}")).wait_for()


def _clicked(page: Any, name: str) -> Any:
    page.get_by_role("link", name=name, exact=True).first.click()
    return page


def test_runs_stand_side_by_side_by_what_was_gained(page):
    table = followed(experiment(page, "align"), "Side by side")
    table.get_by_text("truth_gain", exact=True).first.wait_for()
    table.get_by_role("gridcell", name="offset", exact=True).first.wait_for()
    heads = table.get_by_role("columnheader").all_inner_texts()
    assert {"truth_gain", "proxy_gain", "kl"} <= {text.strip() for text in heads}


def test_the_registered_models_show_what_they_are_their_aliases_and_descriptions(page):
    page.get_by_role("link", name="Model registry").click()
    page.get_by_role("button", name="Try it now").click()
    page.get_by_text("rmpipe.study: tiny").first.wait_for()
    assert page.get_by_text("@ seed-1").count() == 12
    _clicked(page, "tiny-aligned-weak-off-rloo")
    page.get_by_text("A policy that RLHF taught, made for the study tiny.").first.wait_for()
    page.get_by_role("cell", name=re.compile(f"^{ALIGNED}")).wait_for()


def test_no_experiment_is_there_without_a_meaning(tiny, page):
    page.get_by_role("link", name="Experiments", exact=True).first.click()
    page.get_by_role("link", name="align", exact=True).wait_for()
    names = [row.get_by_role("link").first.inner_text() for row in page.get_by_role("row").all()[1:]]
    assert {*names} == {"study", *(address.split("/")[0] for address in tiny.records())}
