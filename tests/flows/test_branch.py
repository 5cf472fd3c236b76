"""What studies of all kinds share: the diagnoses that a report tells of are of the answer's seeds and policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.generalise import generalise
from flows.teach import teach
from rmpipe.diagnosed import key
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning
from tests.conftest import TINY
from tests.flows.test_generalise import STUDY as SHIFTED

FLOWS: dict[str, Any] = {"teach": teach, "generalise": generalise}


def reported(folder: Path, text: str, *changes: str) -> tuple[dict[str, str], dict[str, str]]:
    """Address by place: as the report is told, and as the diagnoses are labelled."""
    (folder / "s.toml").write_text(text)
    study = Study.read(folder / "s.toml", ["diagnosing={}", *changes])
    with planning(Store(folder / "home")) as plan:
        FLOWS[study.flow](study)
    calls = [step.call for step in plan.steps.values()]
    (report,) = (call for call in calls if call.stage.name == "report")
    made = {key(call.labels["seed"], call.labels["policy"]): call.address for call in calls
            if call.stage.name == "diagnose"}  # fmt: skip
    return {place: diagnosis.address for place, diagnosis in report.told["diagnoses"].items()}, made


@pytest.mark.parametrize("policies", [["strong", "weak"], ["weak"]])
def test_a_grid_of_another_order_or_of_some_policies_has_the_diagnoses_of_its_cells(tmp_path, policies):
    told, made = reported(tmp_path, TINY, f"grid=[{{policies={policies}}}]")
    assert list(told) == [key(1, policy) for policy in policies]
    assert told == made


def test_seeds_that_the_grid_leaves_to_some_policies_have_no_others_diagnoses(tmp_path):
    grid = "grid=[{policies=['weak']},{policies=['strong'],seeds=[2]}]"
    told, made = reported(tmp_path, TINY, "seeds=[2,1]", grid)
    assert set(told) == {key(2, "weak"), key(2, "strong"), key(1, "weak")}
    assert told == made


def test_reward_models_that_name_their_base_leave_other_policies_undiagnosed(tmp_path):
    changes = [
        "policies.other={base='world'}",
        *(f"reward_models.{name}.base='pretrained'" for name in ("explicit", "implicit")),
    ]
    told, made = reported(tmp_path, SHIFTED, *changes)
    assert told == made
    assert set(told) == {key(seed, "pretrained") for seed in (1, 2)}


def test_without_the_question_nothing_is_told(tmp_path):
    (tmp_path / "s.toml").write_text(TINY)
    with planning(Store(tmp_path / "home")) as plan:
        teach(Study.read(tmp_path / "s.toml"))
    (report,) = (step.call for step in plan.steps.values() if step.call.stage.name == "report")
    assert report.told["diagnoses"] is None
    assert "diagnoses" not in report.identity["inputs"]
