"""Handles: an address and a place, known before the artifact is made, that read its data when asked."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmpipe.artifact import (
    Artifact,
    Diagnosis,
    Measurement,
    Policy,
    Preferences,
    Preferred,
    Ranking,
    Report,
    RewardModel,
    Rollouts,
    Scores,
    Weights,
    addresses,
    handles,
    open_artifact,
)
from rmpipe.config import StudyError

CHAT = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


def recorded(home: Path, address: str, kind: str, **more) -> Path:
    folder = home / "store" / address
    folder.mkdir(parents=True)
    record = {"kind": kind, "summary": "3 rows", "inputs": {}, "content": "abc", "run_id": "r1"} | more
    (folder / "record.json").write_text(json.dumps(record))
    return folder


# -- handles ----------------------------------------------------------------------------------------------------------


def test_a_handle_is_known_before_its_artifact_is_made(tmp_path: Path):
    handle = Rollouts("sample/0123456789ab", tmp_path)
    assert repr(handle) == "<Rollouts sample/0123456789ab not built>"
    assert handle.path == tmp_path / "store/sample/0123456789ab"
    with pytest.raises(StudyError, match=f"^sample/0123456789ab: not in {tmp_path / 'store'}; run its study first$"):
        _ = handle.record


def test_a_handle_tells_what_its_record_says(tmp_path: Path):
    recorded(tmp_path, "sample/0123456789ab", "Rollouts")
    handle = Rollouts("sample/0123456789ab", str(tmp_path))
    assert repr(handle) == "<Rollouts sample/0123456789ab 3 rows>"
    assert (handle.content, handle.run) == ("abc", "r1")


def test_handles_are_equal_by_address_and_home_and_travel(tmp_path: Path):
    one, other = Rollouts("sample/1", tmp_path), Rollouts("sample/2", tmp_path)
    assert one == Rollouts("sample/1", str(tmp_path)) != other
    assert one != Rollouts("sample/1", tmp_path / "other")
    assert len({one, other, Rollouts("sample/1", tmp_path)}) == 2
    again = pickle.loads(pickle.dumps(one))
    assert (again, type(again)) == (one, Rollouts)


def test_what_a_stage_returns_is_the_folder_it_wrote_with_a_line_and_numbers(tmp_path: Path):
    (tmp_path / "numbers.json").write_text("[1, 2]")
    draft = Measurement.at(tmp_path, "two numbers", mean=1.5)
    assert (draft.path, draft.summary, draft.metrics) == (tmp_path, "two numbers", {"mean": 1.5})
    assert draft.json("numbers.json") == [1, 2]
    assert Measurement.at(tmp_path).metrics == {}


def test_an_address_is_opened_as_the_kind_that_its_record_names(tmp_path: Path):
    for index, kind in enumerate((Preferences, Scores, Policy, RewardModel, Ranking)):
        recorded(tmp_path, f"stage/{index}", kind.__name__)
        assert type(open_artifact(f"stage/{index}", tmp_path)) is kind
    with pytest.raises(StudyError, match="run its study first"):
        open_artifact("stage/9", tmp_path)


def test_inputs_are_handles_again_in_the_form_they_were_given(tmp_path: Path):
    recorded(tmp_path, "train/1", "RewardModel")
    recorded(tmp_path, "prepare/1", "Preferences")
    told = {"one": "prepare/1", "components": ["train/1", "train/1"], "named": {"x": "train/1"}, "none": None}
    recorded(tmp_path, "derive/1", "RewardModel", inputs=told)
    made = open_artifact("derive/1", tmp_path)
    part = RewardModel("train/1", tmp_path)
    assert isinstance(made, RewardModel)
    expected = {
        "one": Preferences("prepare/1", tmp_path),
        "components": [part, part],
        "named": {"x": part},
        "none": None,
    }
    assert made.inputs == expected
    assert type(made.inputs["one"]) is Preferences
    assert made.components == [part, part]
    assert RewardModel("train/1", tmp_path).components == []


def test_every_handle_inside_an_input_is_found_and_named(tmp_path: Path):
    a, b, c = (Rollouts(f"sample/{name}", tmp_path) for name in "abc")
    value = {"x": [a, None, {"deep": (b,)}], "y": c, "z": 3}
    assert list(handles(value)) == [a, b, c]
    assert list(handles(None)) == []
    assert addresses(value) == {"x": ["sample/a", None, {"deep": ["sample/b"]}], "y": "sample/c", "z": 3}


def test_a_model_computes_in_what_it_was_saved_in_and_one_by_reference_in_what_the_study_says(tmp_path: Path):
    weights = Weights.at(tmp_path)
    assert weights.dtype == "float32"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"dtype": "bfloat16"}')
    assert weights.dtype == "bfloat16"
    told = {"path": str(tmp_path / "model"), "content": ""}
    (tmp_path / "reference.json").write_text(json.dumps(told))
    assert weights.dtype == "float32"  # as before studies could say, whatever it was saved in
    (tmp_path / "reference.json").write_text(json.dumps(told | {"dtype": "bfloat16"}))
    assert weights.dtype == "bfloat16"


def test_a_kind_that_is_declared_is_known_by_its_name(tmp_path: Path):
    try:

        class Sketch(Artifact):
            """Something of a third party's."""

        recorded(tmp_path, "draw/1", "Sketch")
        assert type(open_artifact("draw/1", tmp_path)) is Sketch
    finally:
        del Artifact.kinds["Sketch"]


# -- data -------------------------------------------------------------------------------------------------------------


def test_a_kind_without_a_table_says_so(tmp_path: Path):
    with pytest.raises(StudyError, match=r"^<Scores score/1 not built> has no table$"):
        Scores("score/1", tmp_path).table()


@pytest.mark.parametrize("chat", [False, True])
def test_the_prompts_of_a_split_are_distinct_and_called_by_their_first_pair(tmp_path: Path, chat: bool):
    def prompt(text: str) -> object:
        return [CHAT[0], {"role": "user", "content": text}] if chat else text

    rows = [("1", "p", "policy"), ("2", "q", "test"), ("3", "p", "policy"), ("4", "r", "policy"), ("5", "P", "policy")]
    table = pd.DataFrame([{"id": i, "prompt": prompt(text), "split": split} for i, text, split in rows])
    table.to_parquet(tmp_path / "preferences.parquet")
    preferences = Preferences.at(tmp_path)
    assert preferences.prompts("policy") == (["1", "4", "5"], [prompt("p"), prompt("r"), prompt("P")])
    assert preferences.prompts("none") == ([], [])
    assert preferences.split("test")["id"].tolist() == ["2"]
    assert preferences.split("policy").index.tolist() == [0, 1, 2, 3]


def test_rollouts_are_flattened_prompt_by_prompt(tmp_path: Path):
    table = pd.DataFrame({"prompt": ["p", "q"], "responses": [["a", "b"], ["c", "d"]]})
    table.to_parquet(tmp_path / "rollouts.parquet")
    assert Rollouts.at(tmp_path).pairs() == (["p", "p", "q", "q"], ["a", "b", "c", "d"])


def test_scores_are_arrays_and_pairs_are_none_where_none_were_scored(tmp_path: Path):
    np.save(tmp_path / "rollouts.npy", np.array([[1.0, 2.0]], dtype=np.float32))
    scores = Scores.at(tmp_path)
    assert scores.rewards().tolist() == [[1.0, 2.0]]
    assert scores.pairs() is None
    np.save(tmp_path / "pairs.npy", np.array([[3.0, 4.0]], dtype=np.float32))
    assert scores.pairs().tolist() == [[3.0, 4.0]]


# -- what a person reads ----------------------------------------------------------------------------------------------


def test_what_holds_no_texts_has_no_preview(tmp_path: Path):
    for kind in (Weights, Policy, RewardModel, Scores, Measurement, Ranking):
        assert kind.at(tmp_path).preview() is None


@pytest.mark.parametrize("chat", [False, True])
def test_the_first_pairs_are_shown_as_text(tmp_path: Path, chat: bool):
    prompt = CHAT if chat else "hello"
    rows = [
        {"id": i, "prompt": prompt, "chosen": f"yes {i}", "rejected": "x" * 5000, "split": "test", "score": 1.0}
        for i in range(60)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "preferences.parquet")
    shown = Preferences.at(tmp_path).preview()
    assert list(shown) == ["id", "split", "prompt", "chosen", "rejected"]
    assert shown["id"].tolist() == list(range(50))
    assert set(shown["prompt"]) == {"system: be kind\nuser: hello" if chat else "hello"}
    assert shown["chosen"][49] == "yes 49"
    assert set(shown["rejected"]) == {"x" * 2000}


def test_of_no_pairs_nothing_is_shown(tmp_path: Path):
    columns = ["id", "split", "prompt", "chosen", "rejected"]
    pd.DataFrame({name: pd.Series(dtype=str) for name in columns}).to_parquet(tmp_path / "preferences.parquet")
    assert Preferences.at(tmp_path).preview().shape == (0, 5)


def test_the_first_responses_are_shown_one_a_row(tmp_path: Path):
    rows = [
        {"prompt": [CHAT[1]], "responses": [f"{i}.{j}" for j in range(6)], "tokens": list(range(6))} for i in range(60)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "rollouts.parquet")
    shown = Rollouts.at(tmp_path).preview()
    assert list(shown) == ["prompt", "response", "tokens"]
    assert shown.iloc[:5].to_numpy().tolist() == [
        ["user: hello", "0.0", 0], ["user: hello", "0.1", 1], ["user: hello", "0.2", 2], ["user: hello", "0.3", 3],
        ["user: hello", "1.0", 0],
    ]  # fmt: skip
    assert len(shown) == 200


@pytest.mark.parametrize(("steps", "prompts", "each"), [(5, 8, 8), (10, 100, 20), (300, 2, 1)])
def test_a_policys_texts_are_shown_over_the_whole_training(tmp_path: Path, steps: int, prompts: int, each: int):
    rows = [
        {"step": step, "prompt": f"p{i}", "response": f"{step}", "proxy": 0.5}
        for step in reversed(range(steps))
        for i in range(prompts)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "texts.parquet")
    shown = Policy.at(tmp_path).preview()
    assert list(shown) == ["step", "prompt", "response", "proxy"]
    assert shown["step"].is_monotonic_increasing
    assert (shown["step"].iloc[0], shown["step"].iloc[-1]) == (0, steps - 1)
    assert set(shown.groupby("step").size()) == {each}
    assert len(shown) <= 200


def measured(home: Path, count: int, *, chat: bool = False) -> Measurement:
    """A measurement of rewards over rollouts of so many prompts, of which the first has equal rewards."""
    rows = [
        {"prompt_id": f"p{n}", "prompt": CHAT if chat else f"q{n}", "responses": ["x" * 5000, "b", "c"]}
        for n in range(count)
    ]
    pd.DataFrame(rows).to_parquet(recorded(home, "sample/1", "Rollouts") / "rollouts.parquet")
    rewards = np.array([[1.0, 1 + n * 37 % count, 1.0] for n in range(count)])
    np.save(recorded(home, "score/2", "Scores") / "rollouts.npy", rewards)
    told = {"inputs": {"rollouts": "sample/1", "scores": "score/2"}, "config": {"threshold": 0.05}}
    recorded(home, "measure/3", "Measurement", **told)
    return Measurement("measure/3", home)


@pytest.mark.parametrize(("count", "chat"), [(3, True), (600, False)])
def test_a_measurement_shows_the_flattest_prompts_with_two_responses_each(tmp_path: Path, count: int, chat: bool):
    shown = measured(tmp_path, count, chat=chat).preview()
    assert list(shown) == [
        "prompt", "std", "teaches_nothing", "mean", "response", "reward", "other", "other_reward",
    ]  # fmt: skip
    assert len(shown) == min(count, 500)
    assert shown["std"].is_monotonic_increasing
    assert shown["teaches_nothing"].iloc[[0, -1]].tolist() == [True, False]
    assert shown["prompt"][0] == ("system: be kind\nuser: hello" if chat else "q0")
    assert set(shown["response"][1:]) == {"b"}
    assert set(shown["other"][1:]) <= {"c", "x" * 2000}
    assert (shown["reward"][1:] > shown["other_reward"][1:]).all()


def test_a_measurement_whose_rollouts_are_not_here_shows_nothing(tmp_path: Path):
    measurement = measured(tmp_path, 3)
    (tmp_path / "store" / "sample" / "1" / "record.json").unlink()
    assert measurement.preview() is None


def test_weights_are_a_folder_of_their_own_or_a_reference_to_another(tmp_path: Path):
    assert Weights.at(tmp_path).model == tmp_path / "model"
    (tmp_path / "reference.json").write_text('{"path": "somebody/model"}')
    assert Weights.at(tmp_path).model == Path("somebody/model")


def test_each_kind_reads_its_own_file(tmp_path: Path):
    (tmp_path / "measurement.json").write_text('{"variance": {"value": 1.0, "low": 0.5, "high": 2.0}, "other": null}')
    (tmp_path / "answer.json").write_text('{"rows": []}')
    pd.DataFrame({"prompt": ["p"], "before": ["a"]}).to_parquet(tmp_path / "prompts.parquet")
    pd.DataFrame({"step": [0, 5]}).to_parquet(tmp_path / "curve.parquet")
    assert Measurement.at(tmp_path).numbers()["variance"] == {"value": 1.0, "low": 0.5, "high": 2.0}
    assert Measurement.at(tmp_path).numbers()["other"] is None
    assert Measurement.at(tmp_path).table()["prompt"].tolist() == ["p"]
    assert Ranking.at(tmp_path).answer() == {"rows": []}
    assert Policy.at(tmp_path).samples()["before"].tolist() == ["a"]
    assert Policy.at(tmp_path).table()["step"].tolist() == [0, 5]
    assert Report.at(tmp_path).page == tmp_path / "report.html"


def test_a_record_cut_short_is_called_altered(tmp_path: Path):
    recorded(tmp_path, "prepare/1", "Preferences")
    file = tmp_path / "store" / "prepare" / "1" / "record.json"
    file.write_text(file.read_text()[:20])
    with pytest.raises(StudyError, match=r"record\.json: altered; the next run of its study makes it again"):
        open_artifact("prepare/1", tmp_path)


@pytest.mark.parametrize("count", [3, 500, 501, 9973])
def test_a_diagnosis_shows_pairs_over_the_whole_range_of_ches_both_ends_whole(tmp_path, count):
    chat = json.dumps([{"role": "user", "content": "tell me"}])
    table = pd.DataFrame({"id": [f"p{n}" for n in range(count)], "prompt": chat, "chosen": "a", "rejected": "b",
                          "ches": [float((n * 37) % count) for n in range(count)]})  # fmt: skip
    table.to_parquet(tmp_path / "pairs.parquet")
    shown = Diagnosis.at(tmp_path).preview()
    ches = shown["ches"].to_list()
    assert len(set(ches)) == min(count, 500)
    assert ches[:100] == [*range(count - 1, -1, -1)][:100]
    assert ches[-100:] == [*range(count - 1, -1, -1)][-100:]
    steps = [high - low for high, low in pairwise(ches)]
    assert min(steps) >= 1
    assert max(steps) <= max(1, count / 300) + 1
    assert "tell me" in shown["prompt"][0]
    assert "role" not in shown["prompt"][0]


def test_weights_kept_on_the_way_come_in_the_order_of_their_steps(tmp_path):
    for step in (5, 10, 100):
        (tmp_path / "looks" / f"{step:06d}").mkdir(parents=True)
    kept = Preferred.at(tmp_path)
    assert [int(step) for step in kept.looks()] == [5, 10, 100]
    assert kept.look(kept.looks()[0]) == tmp_path / "looks" / "000005"
    assert kept.model == tmp_path / "model"
