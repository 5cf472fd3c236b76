"""What a flow run leaves among Prefect's artifacts, whichever question was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import prefect.artifacts
import pytest

import flows.artifacts
from rmpipe.artifact import Report

NUMBER = {"value": 0.5, "low": 0.25, "high": 0.75}
TAUGHT = {"policy": "weak", "algorithm": "rloo", "reward_model": "off", "rank": "1", "truth_gain": NUMBER}
ASKED = {"policy": "weak", "set": "para", "shift": "token", "reward_model": "off", "rank": "1=", "accuracy": NUMBER}
TRIED = {"policy": "weak", "training": "dpo", "subset": "low", "rank": "1=", "chosen": NUMBER}


def report(home: Path, answer: dict[str, Any]) -> Report:
    for address, kind, inputs in (("rank/0", "Ranking", {}), ("report/0", "Report", {"ranking": "rank/0"})):
        folder = home / "store" / address
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"kind": kind, "inputs": inputs}))
    (home / "store" / "rank" / "0" / "answer.json").write_text(json.dumps(answer))
    return Report("report/0", home)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"rows": [TAUGHT]}, ["weak", "rloo", "1", "off", "0.50 [0.25, 0.75]", "", "", "", ""]),
        ({"flow": "generalise", "rows": [ASKED]}, ["weak", "para", "token", "1=", "off", "0.50 [0.25, 0.75]", "", ""]),
        (
            {"flow": "displace", "rows": [TRIED]},
            ["weak", "dpo", "1=", "low", "0.50 [0.25, 0.75]", "", "", "", "", "", ""],
        ),
    ],
    ids=["teach", "generalise", "displace"],
)
def test_the_rows_are_a_table_by_what_tells_them_apart(monkeypatch, tmp_path: Path, answer, expected):
    left: dict[str, dict[str, Any]] = {}
    for kind in ("table", "markdown", "link"):
        keep = lambda *, key, **told: left.update({key: told})  # noqa: E731 - what Prefect's own would take
        monkeypatch.setattr(prefect.artifacts, f"create_{kind}_artifact", keep)
    monkeypatch.setattr(flows.artifacts, "server_of", lambda home: "a server of the team's")
    flows.artifacts.leave_artifacts(
        report(tmp_path, answer | {"study": "My study", "question": "Which?", "sentences": ["So.", "Yet."]})
    )
    assert [list(line.values()) for line in left["my-study-ranking"]["table"]] == [expected]
    assert left["my-study-answer"]["markdown"] == "So.\n\nYet."
    assert left["my-study-report"]["link"] == (tmp_path / "store/report/0/report.html").as_uri()
