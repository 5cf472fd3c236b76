"""Every question has a flow that a schedule may start, and all take the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

LOOK = """
from pathlib import Path

from flows import scheduled
from flows.schedule import Schedule, _flow
from rmpipe.config import StudyError

for question in ("teach", "generalise", "displace"):
    assert _flow(question).name == question
    assert _flow(question).parameters == scheduled.teach.parameters
    schedule = Schedule("nightly", question, {"study": "x"}, cron="0 3 * * *", timezone="UTC", pool="p")
    assert schedule.deployment(Path(".")).entrypoint == f"flows.scheduled.{question}"
try:
    _flow("mine")
except StudyError as error:
    print(error)
"""


def test_a_question_has_a_flow_of_its_name_and_one_without_is_refused(tmp_path: Path):
    """In a process of its own, for Prefect keeps a home, and a browser's loop in this one would take its answers."""
    where = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=where, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "flow: 'mine' has no flow in" in done.stdout
    assert "so it cannot be scheduled" in done.stdout
