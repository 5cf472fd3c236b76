"""Every question has a flow that a schedule may start, and all take the same."""

from __future__ import annotations

import pytest

from flows import scheduled
from flows.schedule import Schedule, _flow
from rmpipe.config import StudyError


@pytest.mark.parametrize("question", ["teach", "generalise"])
def test_a_question_has_a_flow_of_its_name_and_its_deployment_names_it(question: str, tmp_path):
    flow = _flow(question)
    assert flow.name == question
    assert flow.parameters == scheduled.teach.parameters
    schedule = Schedule("nightly", question, {"study": "x"}, cron="0 3 * * *", timezone="UTC", pool="p")
    assert schedule.deployment(tmp_path).entrypoint == f"flows.scheduled.{question}"


def test_a_question_without_a_flow_is_refused_with_its_name():
    with pytest.raises(StudyError, match=r"flow: 'mine' has no flow in .*scheduled\.py, so it cannot be scheduled"):
        _flow("mine")
