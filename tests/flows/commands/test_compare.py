"""`rmpipe compare`: what a person may name, and what is said of it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main

FREE_OF_SERVICES = """
import sys
from flows.cli import main
code = main(["compare", *sys.argv[1:]])
heavy = {"torch", "mlflow", "prefect", "transformers"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.fixture
def compare(tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `rmpipe compare ...` on the finished study: exit code, output, errors."""
    monkeypatch.setenv("RMPIPE_HOME", str(tiny.home))
    monkeypatch.chdir(tiny.folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["compare", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def measured(place: Any, reward_model: str, policy: str = "weak") -> str:
    return place.address("measure", policy=policy, reward_model=reward_model)


def test_two_reward_models_under_a_policy_are_told_apart_by_what_made_them(tiny, compare):
    code, said, _ = compare(measured(tiny, "off"), measured(tiny, "offset"))
    assert code == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0].startswith(f"A {measured(tiny, 'off')} measure weak off · seed 1, variance ")
    assert any(line.startswith("score.inputs.reward_model: train off (train/") for line in lines)
    assert any(line.startswith("variance ") and line.endswith(" told apart") for line in lines)
    assert "control_" not in said
    assert max(map(len, said.splitlines())) <= 120


def test_two_policies_differ_where_their_demonstrations_do(tiny, compare):
    code, said, _ = compare(measured(tiny, "truth"), measured(tiny, "truth", "strong"))
    assert code == 0
    told = said.split("told differently, A -> B\n")[1].split("\n\n")[0]
    assert told == "  finetune.demonstrations.quality: weak -> strong"


def test_the_first_digits_will_do_and_json_is_one_document(tiny, compare):
    ends = [tiny.address("align", policy="weak", reward_model=name, algorithm="rloo") for name in ("off", "offset")]
    code, said, _ = compare(*(end[:12] for end in ends), "--json")
    told = json.loads(said)
    assert code == 0
    assert [told["a"]["address"], told["b"]["address"]] == ends
    assert {change["name"] for change in told["told"]} == {"inputs.teacher"}
    gain = next(number for number in told["numbers"] if number["name"] == "truth_gain")
    assert gain["difference"]["low"] <= gain["difference"]["value"] <= gain["difference"]["high"]
    assert gain["how"] == "paired over 6 prompts of one seed, whose own luck is not in the interval"


def test_one_address_named_twice_does_not_differ(tiny, compare):
    address = measured(tiny, "off")
    assert (
        compare(address, address[:15])[1]
        == f"{address} and {address[:15]}: the same address, {address}; nothing differs\n"
    )
    assert json.loads(compare(address, address, "--json")[1])["same"] is True


def test_what_cannot_be_compared_is_refused_with_what_can(tiny, compare):
    policy = tiny.address("align", policy="weak", reward_model="off", algorithm="rloo")
    code, _, said = compare(measured(tiny, "off"), policy)
    assert code == 2
    assert "of stage measure" in said
    assert "compare two of one stage, or two studies" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("measure/zz", "measure/zz"), "measure/zz: no such address"),
        (("tinny", "tinny"), "tinny: no such study"),
        (("0" * 32, "0" * 32), "no run that made anything"),
    ],
)
def test_what_nobody_made_is_said_to_be_unknown(compare, arguments, said):
    code, _, errors = compare(*arguments)
    assert code == 2
    assert said in errors


def test_set_is_for_a_study(tiny, compare):
    code, _, said = compare("tiny.toml", measured(tiny, "off"), "--set", "seeds=[2]")
    assert code == 2
    assert "--set changes a study" in said


def test_a_study_that_has_not_been_answered_is_said_with_the_command_to_run(tiny):
    run = tiny.rmpipe("compare", "tiny.toml", "tiny.toml", "--set", "algorithms.rloo.steps=4", code=1)
    assert "first: rmpipe run tiny.toml --set algorithms.rloo.steps=4" in run.said()


def test_a_study_its_report_and_its_runs_are_one_and_nothing_heavy_is_imported(tiny):
    (report,) = tiny.records("report")
    for b in ("tiny.toml", report):
        done = subprocess.run(
            [sys.executable, "-c", FREE_OF_SERVICES, "tiny.toml", b], cwd=tiny.folder, env=tiny.environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert "the same address, rank/" in done.stdout


def test_a_run_stands_for_what_it_made_and_a_studys_run_for_its_answer(tiny, compare):
    address = measured(tiny, "off")
    run = tiny.records("measure")[address]["run_id"]
    assert "the same address" in compare(run, address)[1]
    (ranking,) = tiny.records("rank")
    query = "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = 'study'"
    with sqlite3.connect(tiny.home / "mlflow.db") as connection:
        (study,) = connection.execute(query).fetchone()
    assert "the same address" in compare(study, ranking)[1]


def test_two_studies_are_compared_row_by_row(tiny, another, compare, monkeypatch):
    (address,) = another.records("rank")
    shorter = _with_other_policy(another, address)
    monkeypatch.setenv("RMPIPE_HOME", str(another.home))
    code, said, _ = compare(address, shorter)
    assert code == 0
    block = said.split("weak, rloo\n")[1].split("\n\n")[0]
    assert "the same artifacts, on the seeds that both have: " in block
    assert [line.split()[0] for line in block.splitlines()[1:2]] == ["off"]
    assert "truth gain" in block
    assert "only in A: strong, rloo: " in said
    told = json.loads(compare(address, shorter, "--json")[1])
    assert {row["reward_model"]: len(row["numbers"]) for row in told["rows"]} == {"off": 2, "truth": 0, "offset": 0}
    assert {cell[0] for cell in told["only_a"]} == {"strong"}


def _with_other_policy(place: Any, address: str) -> str:
    """A ranking of the weak policy alone, in which `off` taught it what `offset` did: its address."""
    folder = place.home / "store" / address
    made = folder.parent / "0123456789ab"
    made.mkdir()
    record, answer = (json.loads((folder / f"{name}.json").read_text()) for name in ("record", "answer"))
    cells, policies = record["config"]["cells"], record["inputs"]["policies"]
    at = {cell["reward_model"]: place for place, cell in enumerate(cells) if cell["policy"] == "weak"}
    policies[at["off"]] = policies[at["offset"]]
    kept = [place for place, cell in enumerate(cells) if cell["policy"] == "weak"]
    record["config"]["cells"] = [cells[place] for place in kept]
    for name in ("measurements", "policies"):  # one a cell
        record["inputs"][name] = [record["inputs"][name][place] for place in kept]
    answer["rows"] = [row for row in answer["rows"] if row["policy"] == "weak"]
    (made / "record.json").write_text(json.dumps(record))
    (made / "answer.json").write_text(json.dumps(answer))
    return "rank/0123456789ab"


# -- answers about sets of pairs, of records alone --------------------------------------------------------------------


def answered(home: Path, address: str, **told: Any) -> None:
    """An answer to one of the questions, in which one reward model has one number, made from one artifact of one seed.

    Args:
        told: what made it, and its accuracy, or nothing for an answer of the question `teach`.
    """
    about = {"study": address.split("/")[1], "places": [[1, "small"]]}
    cell = {"seed": 1, "policy": "small", "reward_model": "im", "base": "pretrain/b"}
    made = f"evaluate/{told['accuracy']}" if told else "evaluate/none"
    inputs = {"measurements": [made], "separations": ["separate/s"], "written": [None]}
    row = {"policy": "small", "set": "para", "shift": "token", "reward_model": "im", "rank": "1"}
    row["accuracy"] = {"value": told.get("accuracy"), "low": 0.1, "high": 0.9}
    record = {"kind": "Ranking", "inputs": inputs, "config": {"trials": [cell], "about": about, "claims": []}}
    numbers = {"kind": "Measurement", "inputs": {"sets": {}}, "metrics": {"para.accuracy": told.get("accuracy")}}
    for name, found in ((address, record), (made, numbers | {"config": {"draws": told.get("draws")}})):
        folder = home / "store" / name
        folder.mkdir(parents=True, exist_ok=True)
        stage = name.split("/")[0]
        rest = {"stage": stage, "version": 1, "title": stage, "summary": "", "labels": {}, "content": name}
        (folder / "record.json").write_text(json.dumps(rest | found))
        (folder / "measurement.json").write_text("{}")
    answer = {"flow": "generalise", "rows": [row], "contrasts": []}
    (home / "store" / address / "answer.json").write_text(json.dumps(answer))


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path))
    answered(tmp_path, "judge/aaaaaaaaaaaa", accuracy=0.5, draws=100)
    answered(tmp_path, "judge/bbbbbbbbbbbb", accuracy=0.75, draws=200)
    answered(tmp_path, "rank/cccccccccccc")
    return tmp_path


def test_answers_about_sets_are_compared_by_policy_set_and_reward_model(judge, capsys):
    assert main(["compare", "judge/aaaaaaaaaaaa", "judge/bbbbbbbbbbbb"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "A judge/aaaaaaaaaaaa judge aaaaaaaaaaaa" in lines
    assert "evaluate.draws: 100 -> 200" in lines
    start = lines.index("small, para")
    assert lines[start + 2] == "im 1 accuracy 0.50 [0.10, 0.90] 0.75 [0.10, 0.90] 0.250 no interval"


def test_answers_to_unlike_questions_are_refused_and_it_is_said_what_each_is_about(judge, capsys):
    assert main(["compare", "judge/aaaaaaaaaaaa", "rank/cccccccccccc"]) == 2
    said = capsys.readouterr().err
    assert "judge/aaaaaaaaaaaa (judge aaaaaaaaaaaa) says which reward model is most accurate on each set" in said
    assert "rank/cccccccccccc (rank cccccccccccc) says which reward model teaches a policy best" in said
    assert "they answer unlike questions and have no number in common; compare two of one flow" in said
