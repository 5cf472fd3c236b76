"""Training: the losses are those stated, a seed decides the weights, and a killed run ends as if it had not been."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from pydantic import ValidationError  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments  # noqa: E402

from rmpipe import world  # noqa: E402
from rmpipe.adapter import Lora  # noqa: E402
from rmpipe.algorithm import Finetuning, Optimiser, finetune, fitting, trainer_arguments  # noqa: E402
from rmpipe.config import Config, StudyError  # noqa: E402
from rmpipe.explicit import RewardTraining, train_reward_model  # noqa: E402
from rmpipe.policy import dtype_of  # noqa: E402
from rmpipe.scoring import SequenceScorer  # noqa: E402
from rmpipe.text import encode  # noqa: E402
from tests.rmpipe.conftest import Log, check_seed_and_kill, new_log, same, train_any, weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 4
OPTIMISER = Optimiser(learning_rate=0.01)
STILL = Optimiser(name="sgd", learning_rate=1e-12)
PROMPT = "tell me of the kettle at the kitchen in winter with the colour <reply>"
COMPLETION = " wow , the kettle is splendid ; you can cherish it cheers"


@pytest.fixture
def base(smallest: Path) -> Path:
    return smallest


def moved(one: Path, other: Path) -> float:
    """By how much the weight that differs most differs."""
    before, after = weights(one), weights(other)
    return max((before[name] - after[name]).abs().max().item() for name in before.keys() & after.keys())


def train(kind: str, base: Path, out: Path, log: Log, *, seed: int = 1, checkpoint_seconds: float = 60.0) -> None:
    told: dict[str, Any] = {"steps": STEPS, "optimiser": OPTIMISER, "checkpoint_seconds": checkpoint_seconds}
    if kind == "finetune":
        config = Finetuning(batch_size=4, **told)
        finetune(base, world.demonstrations("weak", 0, 40), out, config=config, seed=seed, log=log)
    else:
        head = RewardTraining(batch_size=4, **told)
        train_reward_model(base, world.preferences(0, 40), out, config=head, seed=seed, log=log)


# -- the same each time, and after a kill -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["finetune", "reward"])
def test_a_seed_decides_the_weights_and_a_killed_run_ends_in_the_same(kind: str, base: Path, tmp_path: Path):
    check_seed_and_kill(partial(train, kind, base), tmp_path)


def test_no_more_than_two_checkpoints_lie_about(base: Path, tmp_path: Path):
    log = new_log(tmp_path)
    train("finetune", base, tmp_path / "out", log, checkpoint_seconds=0)
    assert sorted(path.name for path in log.scratch.glob("trainer/checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_a_checkpoint_that_was_half_written_is_passed_over(base: Path, tmp_path: Path):
    train("finetune", base, tmp_path / "one", new_log(tmp_path, "whole"))
    killed = new_log(tmp_path, "killed", stop=4)
    with pytest.raises(KeyboardInterrupt):
        train("finetune", base, tmp_path / "again", killed, checkpoint_seconds=0)
    (state,) = killed.scratch.glob("*/checkpoint-3/trainer_state.json")
    state.write_text(state.read_text()[:40])
    resumed = Log(killed.scratch)
    train("finetune", base, tmp_path / "again", resumed, checkpoint_seconds=0)
    assert resumed.done == [(3, 4), (4, 4)]
    assert same(tmp_path / "one", tmp_path / "again")


def test_a_run_without_checkpoints_begins_anew(base: Path, tmp_path: Path):
    killed = new_log(tmp_path, stop=3)
    with pytest.raises(KeyboardInterrupt):
        train("finetune", base, tmp_path / "out", killed)
    assert list(killed.scratch.glob("*/checkpoint-*")) == []
    resumed = Log(killed.scratch)
    train("finetune", base, tmp_path / "out", resumed)
    assert resumed.done[0] == (1, 4)


# -- finetuning -------------------------------------------------------------------------------------------------------


def nll(base: Path, ids: list[int], first: int) -> list[float]:
    """-log p of each token from `first` on, by the plain forward pass."""
    with torch.inference_mode():
        logprobs = AutoModelForCausalLM.from_pretrained(base)(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [-logprobs[place - 1, ids[place]].item() for place in range(first, len(ids))]


def test_the_loss_is_over_completions_and_their_ends_alone(base: Path, tmp_path: Path):
    rows = [{"prompt": PROMPT, "completion": COMPLETION}, {"prompt": PROMPT[:24], "completion": " wow cheers"}]
    config, log = Finetuning(steps=1, optimiser=STILL, batch_size=2), new_log(tmp_path)
    finetune(base, rows, tmp_path / "out", config=config, seed=1, log=log)
    tokenizer = AutoTokenizer.from_pretrained(base)
    first, second = (encode(tokenizer, row["prompt"], row["completion"]) for row in rows)
    assert (len(first), len(second)) == (15 + 12 + 1, 7 + 2 + 1)
    assert log.loss() == pytest.approx(np.mean(nll(base, first, 15) + nll(base, second, 7)), abs=1e-4)


def test_the_loss_is_over_whole_texts_where_rows_have_no_prompt(base: Path, tmp_path: Path):
    config, log = Finetuning(steps=1, optimiser=STILL, batch_size=1), new_log(tmp_path)
    finetune(base, [{"text": PROMPT + COMPLETION}], tmp_path / "out", config=config, seed=1, log=log)
    ids = encode(AutoTokenizer.from_pretrained(base), PROMPT, COMPLETION)
    assert log.loss() == pytest.approx(np.mean(nll(base, ids, 1)), abs=1e-4)


def test_a_completion_and_its_end_are_learnt(base: Path, tmp_path: Path):
    config = Finetuning(steps=40, optimiser=Optimiser(learning_rate=0.03), batch_size=1)
    rows = [{"prompt": PROMPT, "completion": COMPLETION}]
    finetune(base, rows, tmp_path / "out", config=config, seed=1, log=new_log(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), encode(tokenizer, PROMPT)
    with torch.inference_mode():
        for _ in range(13):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert tokenizer.decode(ids) == f"<bos> {PROMPT}{COMPLETION} <eos>"


def test_a_model_may_be_given_as_it_is(base: Path, tmp_path: Path):
    given = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    config = Finetuning(steps=2, optimiser=OPTIMISER, batch_size=2)
    for name, source in (("folder", base), ("model", given)):
        rows = world.demonstrations("weak", 0, 8)
        finetune(source, rows, tmp_path / name, config=config, seed=1, log=new_log(tmp_path, f"{name} scratch"))
    assert same(tmp_path / "folder", tmp_path / "model")


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "name"),
    [
        ("constant", 0, "constant"),
        ("constant", 3, "constant_with_warmup"),
        ("linear", 3, "linear"),
        ("cosine", 0, "cosine"),
    ],
)
def test_a_constant_schedule_that_warms_up_is_one_of_another_name(
    schedule: Any, warmup_steps: int, name: str, tmp_path: Path
):
    optimiser = Optimiser(learning_rate=0.1, schedule=schedule, warmup_steps=warmup_steps)
    config = Finetuning(steps=4, optimiser=optimiser)
    told = trainer_arguments(TrainingArguments, config, 1, new_log(tmp_path), batch=4)
    assert (told.lr_scheduler_type, told.warmup_steps) == (name, warmup_steps)
    assert optimiser.scheduler == name


def test_micro_batches_are_speed_alone(base: Path, tmp_path: Path):
    for name, micro in (("whole", None), ("parts", 2)):
        config = Finetuning(
            steps=2, optimiser=Optimiser(name="sgd", learning_rate=1.0), batch_size=4, micro_batch=micro
        )
        rows = world.demonstrations("weak", 0, 16)
        finetune(base, rows, tmp_path / name, config=config, seed=1, log=new_log(tmp_path, f"{name} scratch"))
    assert moved(base, tmp_path / "whole") > 0.01
    assert moved(tmp_path / "whole", tmp_path / "parts") < 1e-5


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValidationError, match="micro_batch = 3 does not divide batch_size = 4; take a divisor"):
        Finetuning(steps=1, optimiser=OPTIMISER, batch_size=4, micro_batch=3)
    for micro in (1, 2, 4, 8):  # one larger than the batch is the batch
        assert Finetuning(steps=1, optimiser=OPTIMISER, batch_size=4, micro_batch=micro).micro_batch == micro


@pytest.mark.parametrize(("world", "micro", "expected"), [(1, None, (12, 1)), (2, None, (6, 1)), (2, 3, (3, 2))])
def test_processes_share_a_step(world: int, micro: int | None, expected: tuple, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    config, kind = Finetuning(steps=1, optimiser=OPTIMISER), partial(SimpleNamespace, n_gpu=1)
    told = trainer_arguments(kind, config, 1, new_log(tmp_path), batch=12, micro=micro)  # type: ignore[arg-type]
    assert (told.per_device_train_batch_size, told.gradient_accumulation_steps) == expected


def test_processes_that_do_not_divide_a_step_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: dict[str, Any] = {"steps": 1, "optimiser": OPTIMISER, "batch_size": 12}
    with pytest.raises(ValidationError, match="processes = 5 does not divide batch_size = 12; take a divisor"):
        Finetuning(**told, processes=5)
    with pytest.raises(ValidationError, match="micro_batch = 4 does not divide batch_size = 12 over processes = 2;"):
        Finetuning(**told, processes=2, micro_batch=4)
    monkeypatch.setenv("WORLD_SIZE", "5")  # however it was launched
    with pytest.raises(StudyError, match="processes = 5 with micro_batch = 2 do not divide the batch of 12; take"):
        trainer_arguments(TrainingArguments, Finetuning(**told), 1, new_log(tmp_path), batch=12)


@pytest.mark.parametrize(("kind", "adapter"), [("explicit", None), ("rloo", None), ("finetune", Lora(rank=2))])
def test_checkpointing_is_speed_alone(kind: str, adapter: Lora | None, base: Path, tmp_path: Path):
    for name, asked in (("kept", False), ("again", True)):
        log = new_log(tmp_path, f"{name} scratch")
        train_any(kind, base, tmp_path / name, log, checkpointing=asked, adapter=adapter)
        config = Finetuning(steps=1, optimiser=OPTIMISER, checkpointing=asked)
        told = trainer_arguments(TrainingArguments, config, 1, log, batch=1)
        assert told.activation_checkpointing == asked
    assert same(tmp_path / "kept", tmp_path / "again")


@pytest.mark.parametrize("kind", ["finetune", "explicit", "mean", "implicit", "generative"])
def test_precision_is_felt_and_decides_what_is_saved_and_scored_in(kind: str, base: Path, tmp_path: Path):
    scored = {}
    for precision in ("float32", "mixed", "bfloat16"):
        folder = tmp_path / precision
        model = train_any(kind, base, folder / "model", new_log(tmp_path, f"{precision} s"), precision=precision)
        saved = {weight.dtype for weight in weights(folder / "model").values()}
        assert saved == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
        assert dtype_of(folder / "model") == ("bfloat16" if precision == "bfloat16" else "float32")
        assert moved(base, folder / "model") > 0.01
        if model is not None:
            scored[precision] = model.scorer(folder, base=base)(world.prompts(0, 3), [" wow cheers"] * 3)
    for other in ("mixed", "bfloat16"):
        assert moved(tmp_path / "float32" / "model", tmp_path / other / "model") > 0
        assert model is None or not np.array_equal(scored["float32"], scored[other])


def test_margins_of_an_implicit_reward_model_begin_at_0_in_any_precision(base: Path, tmp_path: Path):
    for precision in ("mixed", "bfloat16"):
        log = new_log(tmp_path, f"{precision} s")
        train_any("implicit", base, tmp_path / precision, log, steps=1, optimiser=STILL, precision=precision)
        assert log.loss() == pytest.approx(0.6931472, abs=2e-3)  # log 2


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        (Optimiser, "warmup_steps", -1),
        (Optimiser, "weight_decay", -0.1),
        (Optimiser, "learning_rate", float("inf")),
        (Finetuning, "checkpoint_seconds", -1),
        (Finetuning, "batch_size", 0),
        (Finetuning, "micro_batch", 0),
        (Finetuning, "max_length", 0),
        (RewardTraining, "max_length", 0),
        (RewardTraining, "center_rewards_coefficient", -0.01),
    ],
)
def test_numbers_that_no_training_can_use_are_refused(kind: type[Config], field: str, wrong: float):
    whole = {"learning_rate": 0.1} if kind is Optimiser else {"steps": 1, "optimiser": OPTIMISER}
    with pytest.raises(ValidationError) as caught:
        kind(**{**whole, field: wrong})
    assert [fault["loc"] for fault in caught.value.errors()] == [(field,)]


def test_what_is_too_long_is_left_out_and_refused_when_nothing_is_left(base: Path, tmp_path: Path):
    log, rows = new_log(tmp_path), [{"text": PROMPT}, {"text": "tell me of"}]
    config = Finetuning(steps=1, optimiser=STILL, batch_size=2, max_length=5)
    finetune(base, rows, tmp_path / "out", config=config, seed=1, log=log)
    assert log.loss() == pytest.approx(np.mean(nll(base, encode(world.tokenizer(), "", "tell me of"), 1)), abs=1e-4)
    short = config.model_copy(update={"max_length": 4})
    with pytest.raises(StudyError, match=r"^finetuning.max_length: no row has as few as 4 tokens; raise it$"):
        finetune(base, rows, tmp_path / "out", config=short, seed=1, log=log)
    head = RewardTraining(steps=1, optimiser=OPTIMISER, max_length=4)
    with pytest.raises(StudyError, match=r"^training.max_length: no pair has as few as 4 tokens a side; raise it$"):
        train_reward_model(base, world.preferences(0, 4), tmp_path / "head", config=head, seed=1, log=log)


# -- reward models ----------------------------------------------------------------------------------------------------


def test_a_head_of_zeros_begins_at_indifference(base: Path, tmp_path: Path):
    config, log = RewardTraining(steps=1, optimiser=STILL, batch_size=8), new_log(tmp_path)
    train_reward_model(base, world.preferences(0, 8), tmp_path / "out", config=config, seed=1, log=log)
    assert log.loss() == pytest.approx(0.6931472, abs=1e-6)  # log 2


def test_the_loss_is_bradley_terrys_of_the_rewards_that_scoring_gives(base: Path, tmp_path: Path):
    config = RewardTraining(steps=1, optimiser=STILL, batch_size=8, head="random", center_rewards_coefficient=5.0)
    pairs, log = world.preferences(0, 8), new_log(tmp_path)
    train_reward_model(base, pairs, tmp_path / "out", config=config, seed=1, log=log)
    score, prompts = SequenceScorer(tmp_path / "out"), [pair["prompt"] for pair in pairs]
    chosen, rejected = (score(prompts, [pair[side] for pair in pairs]) for side in ("chosen", "rejected"))
    centred = 5.0 * np.mean((chosen + rejected) ** 2)
    assert centred > 1e-3
    expected = np.mean(np.log1p(np.exp(rejected - chosen))) + centred
    assert log.loss() == pytest.approx(expected, abs=1e-5)


def test_what_is_preferred_is_learnt_and_holds_on_other_prompts(base: Path, tmp_path: Path):
    prompts = world.prompts(0, 80)
    sides = {"chosen": " wow , it is fine cheers", "rejected": " wow , it is fine bye"}
    config = RewardTraining(steps=15, optimiser=OPTIMISER, batch_size=16)
    pairs = [{"prompt": prompt, **sides} for prompt in prompts[:60]]
    train_reward_model(base, pairs, tmp_path / "out", config=config, seed=1, log=new_log(tmp_path))
    score = SequenceScorer(tmp_path / "out")
    chosen, rejected = (score(prompts[60:], [text] * 20) for text in sides.values())
    assert (chosen - rejected > 0.5).all()


def test_a_pair_that_a_model_does_not_hold_is_refused_unless_it_is_left_out():
    kept = fitting(["a", "b", "c"], [3, 9, 5], 5, 5)
    assert kept == ["a", "c"]
    with pytest.raises(StudyError, match=r"^pair 1 has 9 tokens, but the model holds 5; .*training.max_length = 5$"):
        fitting(["a", "b", "c"], [3, 9, 5], None, 5)
