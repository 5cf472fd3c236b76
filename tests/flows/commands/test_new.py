"""`rmpipe new`: a study about what was named, written whole once it can be planned, and never over another unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main
from rmpipe import world
from rmpipe.study import Study


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and pairs that it can read."""
    folder = tmp_path_factory.mktemp("place")
    world.new_model(3, hidden=32, layers=1, heads=2).save_pretrained(folder / "model")
    world.tokenizer().save_pretrained(folder / "model")
    rows = [{"question": f"q{n}", "answer_better": f" yes {n}", "answer_worse": f" no {n}"} for n in range(40)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labelled = [{"prompt": f"q{n}", "responses": [" yes", " no"], "labels": [1, 0]} for n in range(4)]
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    (folder / "unlike.jsonl").write_text(json.dumps(labelled[0] | {"labels": ["good", "bad"]}))
    return folder


@pytest.fixture
def new(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`rmpipe new mine.toml` in that folder; its exit code, what it printed and what it complained of."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("RMPIPE_HOME", str(place / "home"))

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["new", "mine.toml", "--policy", "model", "--preferences", "pairs.jsonl", *words])
        return (code, *capsys.readouterr())

    yield run
    (place / "mine.toml").unlink(missing_ok=True)


def test_what_is_written_can_be_planned_and_what_was_seen_and_assumed_is_said(new, place: Path):
    code, said, _ = new("--ground-truth", "story")
    assert code == 0
    study = Study.read(place / "mine.toml")
    study.check_sources()
    assert study.dataset.columns == {"prompt": "question", "chosen": "answer_better", "rejected": "answer_worse"}
    assert study.ground_truth == "truth"
    assert "model: LlamaForCausalLM, 0.0" in said
    assert "40 pairs (6 held out), prompts as text" in said
    assert "- pairs.jsonl: answer_better is its chosen" in said
    assert said.splitlines()[-1] == "the answer      rmpipe run mine.toml"
    assert main(["plan", "mine.toml"]) == 0


def test_labels_lead_to_a_forecast(new, place: Path):
    code, said, _ = new("--labels", "labels.jsonl")
    assert code == 0
    study = Study.read(place / "mine.toml")
    study.check_sources()
    assert study.foresight.labels.path == str(place / "labels.jsonl")
    assert "labels       labels.jsonl: model: labels of 8 responses to 4 prompts" in said
    assert "- labels.jsonl: rows that name no policy are responses of model, as it came" in said
    assert said.splitlines()[-1] == "foretold        rmpipe forecast mine.toml"


def test_a_program_is_told_the_same(new):
    code, said, _ = new("--json")
    told = json.loads(said)
    assert code == 0
    assert told["study"] == "mine.toml"
    assert told["stages"] > 10
    assert [each["what"] for each in told["seen"]] == ["policy", "preferences", "tokens"]
    assert any("proxy gain" in text for text in told["assumed"])


def test_a_file_that_is_there_stays_unless_it_is_asked_for(new, place: Path):
    (place / "mine.toml").write_text("mine")
    code, _, complaint = new()
    assert (code, complaint) == (
        2,
        "rmpipe new: mine.toml: there already; give another name, or --force to write over it\n",
    )
    assert (place / "mine.toml").read_text() == "mine"
    assert new("--force")[0] == 0
    assert Study.read(place / "mine.toml").name == "mine"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--reward-model", "model"), "--reward-model: model: LlamaForCausalLM is a language model and scores nothing"),
        (("--policy", "./none"), "--policy: ./none: nothing there"),
        (("--labels", "unlike.jsonl"), "--labels: unlike.jsonl: row 1: labels.0: expected a number, got str; mend the"),
        (("--labels", "none.jsonl"), "--labels: none.jsonl: nothing there; give a file of prompts, responses and"),
        (("--ground-truth", "nowhere:function"), "mine.toml: reward_models.truth.function: cannot import 'nowhere'"),
    ],
)
def test_bad_input_writes_nothing(new, place: Path, words: tuple[str, ...], told: str):
    code, _, complaint = new(*words)
    assert code == 2
    assert told in complaint
    assert sorted(path.name for path in place.iterdir() if path.name != "home") == [
        "labels.jsonl", "model", "pairs.jsonl", "unlike.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "told"), [("mine", "ends in .toml"), ("none/mine.toml", "no folder none; make it first")]
)
def test_a_place_where_no_study_can_be_is_refused_before_anything_is_looked_at(new, capsys, file: str, told: str):
    assert main(["new", file, "--policy", "nothing", "--preferences", "nothing"]) == 2
    assert told in capsys.readouterr().err
