"""A curriculum: which prompts teach nothing, and that others read what is written of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmpipe import curriculum
from rmpipe.config import StudyError
from rmpipe.sieve import Sifting

CHAT = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "tell me"}]
PROMPTS = ["loud", CHAT, "louder", "quiet"]
RESPONSES = [["a", "b", "c"], ["same", "same", "other"], ["d", "e", "f"], ["g", "h", "i"]]
REWARDS = [[1.0, 5.0, 3.0], [3.0, 3.0, 3.0], [2.0, 4.0, 9.0], [3.0, 3.01, 3.02]]
TEACHING = [{"id": "p0", "prompt": "loud"}, {"id": "p2", "prompt": CHAT}]
LEFT = [{"id": "p1", "prompt": "quiet", "mean": 3.0, "std": 0.0, "white_std": 0.0, "why": "all its rewards are equal"}]


@pytest.fixture
def sampled() -> tuple[Any, Any]:
    """Rollouts, read back as a table is, and scores."""
    asked = [prompt if isinstance(prompt, str) else np.array(prompt) for prompt in PROMPTS]
    table = pd.DataFrame({"prompt_id": ["p0", "p1", "p2", "p3"], "prompt": asked, "responses": RESPONSES})
    return SimpleNamespace(table=lambda: table), SimpleNamespace(rewards=lambda: np.array(REWARDS))


# -- which ------------------------------------------------------------------------------------------------------------


def test_the_flattest_come_first_with_their_best_and_worst_responses(sampled: Any):
    found = curriculum.flattest(*sampled, 0.05, 3, 2)
    assert [(row["prompt_id"], row["flat"]) for row in found] == [("p1", True), ("p3", True), ("p0", False)]
    assert found[0] == {
        "prompt_id": "p1", "prompt": CHAT, "mean": 3.0, "std": 0.0, "white_std": 0.0, "flat": True,
        "responses": [{"response": "same", "reward": 3.0}, {"response": "other", "reward": 3.0}],
    }  # fmt: skip
    assert found[2]["responses"] == [{"response": "b", "reward": 5.0}, {"response": "a", "reward": 1.0}]
    assert found[2]["std"] == pytest.approx(2.0)
    json.dumps(found)


@pytest.mark.parametrize(("samples", "told"), [(0, []), (1, ["f"]), (2, ["f", "d"]), (3, ["f", "e", "d"])])
def test_of_many_responses_the_ends_are_told(sampled: Any, samples: int, told: list[str]):
    last = curriculum.flattest(*sampled, 0.05, 4, samples)[-1]
    assert [each["response"] for each in last["responses"]] == told


def test_prompts_are_parted_as_a_sieve_parts_them(sampled: Any):
    teaching, nothing = curriculum.parted(*sampled, Sifting())
    assert teaching == [{"id": "p0", "prompt": "loud"}, {"id": "p2", "prompt": "louder"}]
    assert [(row["id"], row["prompt"], row["why"]) for row in nothing] == [
        ("p1", CHAT, "all its rewards are equal"),
        ("p3", "quiet", "its whitened reward's std is below 0.05"),
    ]
    assert (nothing[1]["mean"], nothing[1]["std"]) == pytest.approx((3.01, 0.01))
    lowest = curriculum.parted(*sampled, Sifting(low=0.7))[1]
    assert [row["id"] for row in lowest] == ["p0", "p1", "p3"]
    assert lowest[0]["why"] == "its reward's std is among the lowest 70%"


# -- as others read them ----------------------------------------------------------------------------------------------


def loaded(file: Path) -> Any:
    from datasets import load_dataset

    kind = "parquet" if file.suffix == ".parquet" else "json"
    return load_dataset(kind, data_files=str(file), cache_dir=str(file.parent / "cache"))["train"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("chat", [False, True])
def test_trl_finds_a_column_of_prompts_and_nothing_else(tmp_path: Path, ending: str, chat: bool):
    from trl.data_utils import is_conversational

    rows = [{"id": "a", "prompt": CHAT if chat else "loud"}, {"id": "b", "prompt": CHAT[1:] if chat else "louder"}]
    data, _ = curriculum.write(rows, LEFT, "trl", "here", tmp_path / f"prompts.{ending}")
    found = loaded(data)
    assert found.column_names == ["prompt"]
    assert found["prompt"][:] == [row["prompt"] for row in rows]
    assert is_conversational(found[0]) == chat


def test_verl_finds_messages_and_what_its_reward_manager_reads(tmp_path: Path):
    data, _ = curriculum.write(TEACHING, LEFT, "verl", "here", tmp_path / "out")
    assert data == tmp_path / "out" / "train.parquet"
    found = loaded(data)
    assert found.column_names == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert found["prompt"][:] == [[{"role": "user", "content": "loud"}], CHAT]
    assert found["reward_model"][:] == [{"ground_truth": "", "style": "model"}] * 2
    assert found["extra_info"][1] == {"id": "p2", "index": 1, "split": "train"}


@pytest.mark.parametrize(("form", "key"), [("trl", "prompt"), ("openrlhf", "input")])
def test_a_text_that_a_chat_template_made_a_turn_of_is_written_as_a_turn(tmp_path: Path, base: Path, form, key):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "chat")
    written = {}
    for name, inputs in (("chat", tmp_path / "chat"), ("plain", base), ("adopted", None)):
        drawn: Any = SimpleNamespace(inputs={"policy": SimpleNamespace(model=inputs)} if inputs else {})
        rows = curriculum.as_read(drawn, TEACHING[:1])
        written[name] = loaded(curriculum.write(rows, LEFT, form, "here", tmp_path / f"{name}.jsonl")[0])[key][0]
    turns = [{"role": "user", "content": "loud"}]
    assert written == {"chat": turns, "plain": "loud", "adopted": "loud"}
    drawn = SimpleNamespace(inputs={"policy": SimpleNamespace(model=tmp_path / "chat")})
    assert curriculum.as_read(drawn, TEACHING)[1] == TEACHING[1]


def test_a_policy_that_is_gone_cannot_say_how_it_read_a_text(tmp_path: Path):
    drawn: Any = SimpleNamespace(inputs={"policy": SimpleNamespace(model=tmp_path / "gone")})
    with pytest.raises(StudyError, match="run its study again, which makes it"):
        curriculum.as_read(drawn, TEACHING)


def test_openrlhf_finds_its_usual_key(tmp_path: Path):
    rows = [{"id": "a", "prompt": CHAT}]
    data, _ = curriculum.write(rows, LEFT, "openrlhf", "here", tmp_path / "prompts.jsonl")
    assert loaded(data)[0] == {"input": CHAT, "datasource": "here"}


def test_a_folder_is_loaded_without_the_list_of_those_left_out(tmp_path: Path):
    from datasets import load_dataset

    rows = [{"id": "a", "prompt": "loud"}]
    _, rest = curriculum.write(rows, LEFT, "trl", "here", tmp_path / "out")
    found = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: part.to_list() for name, part in found.items()} == {"train": [{"prompt": "loud"}]}
    assert [json.loads(line) for line in rest.read_text().splitlines()] == LEFT


def test_those_left_out_are_beside_a_file_that_is_named(tmp_path: Path):
    files = curriculum.write(TEACHING, LEFT, "openrlhf", "here", tmp_path / "mine.jsonl")
    assert [file.name for file in files] == ["mine.jsonl", "mine.left-out.jsonl"]
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path):
    with pytest.raises(StudyError, match=r"mine.jsonl: verl takes its prompts as .parquet; give such a file, or"):
        curriculum.write(TEACHING, LEFT, "verl", "here", tmp_path / "mine.jsonl")
    with pytest.raises(StudyError, match=r"out: none of 1 prompts would be left; lower the threshold, or the share"):
        curriculum.write([], LEFT, "trl", "here", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there.left-out.jsonl").write_text("mine")
    with pytest.raises(StudyError, match=r"there.left-out.jsonl: something is there; remove it, or give another place"):
        curriculum.write(TEACHING, LEFT, "trl", "here", tmp_path / "there.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["there.left-out.jsonl"]


def test_trls_trainer_trains_on_what_is_written_for_it(tmp_path: Path, base: Path, one_thread: None):
    pytest.importorskip("trl")
    from trl import RLOOConfig, RLOOTrainer

    rows = [{"id": str(n), "prompt": f"tell me of the {word}"} for n, word in enumerate(["kettle", "cat"])]
    data, _ = curriculum.write(rows, LEFT, "trl", "here", tmp_path / "prompts.jsonl")
    seen: list[str] = []

    def reward(prompts: list[str], completions: list[str], **told: Any) -> list[float]:
        seen.extend(prompts)
        return [float(len(text)) for text in completions]

    config = RLOOConfig(
        output_dir=str(tmp_path / "trained"), max_steps=1, per_device_train_batch_size=4, num_generations=2,
        max_completion_length=3, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, bf16=False,
    )  # fmt: skip
    RLOOTrainer(str(base), reward, args=config, train_dataset=loaded(data)).train()
    assert set(seen) == {row["prompt"] for row in rows}
