"""RLHF: what is rewarded is learnt, a variant does what it states, and a killed run ends as if it had not been."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from pydantic import ValidationError  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rmpipe import world  # noqa: E402
from rmpipe.algorithm import Optimiser  # noqa: E402
from rmpipe.config import StudyError, identity  # noqa: E402
from rmpipe.reinforcement import Algorithm, Grpo, Rloo, adapted, align, in_passes  # noqa: E402
from tests.rmpipe.conftest import Log, check_seed_and_kill, new_log, same, train_any, weights  # noqa: E402

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
published = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")
pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 4
OPTIMISER = Optimiser(learning_rate=0.01)
PROMPT = "tell me of the kettle at the kitchen in winter with the colour <reply>"
SHORT = {"prompts_per_step": 3, "samples_per_prompt": 2, "max_new_tokens": 6}


@pytest.fixture
def base(smallest: Path) -> Path:
    return smallest


def distinct_words(prompts: list[Any], responses: list[str]) -> list[float]:
    return [float(len({word[0] for word in response.split()})) for response in responses]


def train(kind: str, base: Path, out: Path, log: Log, *, seed: int = 1, checkpoint_seconds: float = 60.0) -> None:
    told: dict[str, Any] = {"steps": STEPS, "optimiser": OPTIMISER, "checkpoint_seconds": checkpoint_seconds}
    algorithm = Algorithm.family[kind](**SHORT, **told)
    align(base, world.prompts(0, 20), distinct_words, out, config=algorithm, seed=seed, log=log)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_a_seed_decides_the_weights_and_a_killed_run_ends_in_the_same(kind: str, base: Path, tmp_path: Path):
    check_seed_and_kill(partial(train, kind, base), tmp_path)


@pytest.mark.parametrize(
    ("steps", "evaluations", "expected"),
    [(20, 3, [0, 10, 20]), (10, 5, [0, 2, 5, 8, 10]), (3, 5, [0, 1, 2, 3]), (1, 2, [0, 1])],
)
def test_held_out_prompts_are_looked_at_from_beginning_to_end(steps: int, evaluations: int, expected: list[int]):
    assert Rloo(steps=steps, evaluations=evaluations, optimiser=OPTIMISER).looks() == expected


def test_the_reward_is_asked_with_the_prompts_given_and_the_texts_written(base: Path, tmp_path: Path):
    chat = [{"role": "user", "content": "tell me"}]
    asked: list[tuple[Any, str]] = []

    def reward(prompts: list[Any], responses: list[str]) -> list[float]:
        asked.extend(zip(prompts, responses, strict=True))
        return distinct_words(prompts, responses)

    config = Rloo(steps=2, optimiser=OPTIMISER, prompts_per_step=2, samples_per_prompt=3, max_new_tokens=4)
    align(base, [chat, PROMPT], reward, tmp_path / "out", config=config, seed=1, log=new_log(tmp_path))
    assert len(asked) == 2 * 2 * 3
    for step in (asked[:6], asked[6:]):
        assert [sum(prompt == given for prompt, _ in step) for given in (chat, PROMPT)] == [3, 3]
    words = set(world.words.vocabulary())
    assert len({text for _, text in asked}) > 6
    for _, text in asked:
        assert text == "".join(f" {word}" for word in text.split())  # its leading space kept
        assert set(text.split()) <= words  # and no special token shown
        assert len(text.split()) <= 4


def test_fewer_prompts_than_a_step_takes_are_refused_for_a_trainer_would_do_no_step(base: Path, tmp_path: Path):
    config = Rloo(steps=2, optimiser=OPTIMISER, **SHORT)
    with pytest.raises(StudyError, match=r"prompts_per_step: 3 prompts a step, .* has 2 distinct ones; lower it"):
        align(base, ["a", "b", "a"], distinct_words, tmp_path / "out", config=config, seed=1, log=new_log(tmp_path))


@pytest.mark.parametrize("kind", [Rloo, Grpo])
def test_a_policy_comes_to_write_what_is_rewarded(kind: type[Algorithm], base: Path, tmp_path: Path):
    rewards: list[float] = []

    def early(prompts: list[Any], responses: list[str]) -> list[float]:
        """The share of words of the first half of the alphabet."""
        shares = [np.mean([word < "m" for word in response.split()] or [0.0]) for response in responses]
        rewards.append(float(np.mean(shares)))
        return [float(share) for share in shares]

    told: dict[str, Any] = {"prompts_per_step": 8, "samples_per_prompt": 4, "max_new_tokens": 4, "kl_coefficient": 0.0}
    config = kind(steps=10, optimiser=Optimiser(learning_rate=0.05), **told)
    align(base, world.prompts(0, 20), early, tmp_path / "out", config=config, seed=1, log=new_log(tmp_path))
    assert np.mean(rewards[:2]) < 0.55
    assert np.mean(rewards[-2:]) > 0.85


def step_of(kind: type[Algorithm], base: Path, folder: Path, factor: float, **more: Any) -> dict[str, Any]:
    """The change of the weights in one step of plain SGD on rewards times a factor."""
    optimiser = Optimiser(name="sgd", learning_rate=0.1, clip=0)
    config = kind(steps=1, optimiser=optimiser, kl_coefficient=0.0, **SHORT, **more)

    def reward(prompts: list[Any], responses: list[str]) -> list[float]:
        return [factor * value for value in distinct_words(prompts, responses)]

    out = folder / f"{factor}"
    align(base, world.prompts(0, 6), reward, out, config=config, seed=3, log=new_log(folder, f"{factor} scratch"))
    before, after = weights(base), weights(out)
    return {name: after[name] - before[name] for name in before}


@pytest.mark.parametrize(
    ("kind", "more", "felt"),
    [
        (Rloo, {}, 10.0),
        (Rloo, {"normalise_advantages": True}, 1.0),
        (Grpo, {}, 1.0),
        (Grpo, {"scale_rewards": "none"}, 10.0),
    ],
)
def test_the_scale_of_the_reward_is_felt_unless_advantages_are_scaled(
    kind: type[Algorithm], more: dict, felt: float, base: Path, tmp_path: Path
):
    small, large = (step_of(kind, base, tmp_path, factor, **more) for factor in (1.0, 10.0))
    assert max(change.abs().max().item() for change in small.values()) > 1e-4
    for name, change in small.items():
        torch.testing.assert_close(large[name], felt * change, rtol=0.02, atol=2e-6)


def test_looking_at_held_out_prompts_leaves_training_as_it_was(base: Path, tmp_path: Path):
    seen = []

    def evaluate(model: Any, tokenizer: Any, step: int) -> dict[str, float]:
        torch.rand(7)
        seen.append((step, model.training, torch.is_grad_enabled(), tokenizer.bos_token))
        return {}

    train("rloo", base, tmp_path / "blind", new_log(tmp_path, "blind scratch"))
    config = Rloo(steps=STEPS, optimiser=OPTIMISER, evaluations=3, **SHORT)
    log, prompts = new_log(tmp_path), world.prompts(0, 20)
    align(base, prompts, distinct_words, tmp_path / "seen", config=config, seed=1, log=log, evaluate=evaluate)
    assert seen == [(step, False, False, "<bos>") for step in (0, 2, 4)]
    assert same(tmp_path / "blind", tmp_path / "seen")


def test_the_tokenizer_is_saved_as_it_came(base: Path, tmp_path: Path):
    tokenizer = world.tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = "<eos>", "right"
    world.new_model(0, hidden=16, layers=1, heads=2).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config = Rloo(steps=1, optimiser=OPTIMISER, **SHORT)
    prompts = world.prompts(0, 6)
    align(tmp_path / "base", prompts, distinct_words, tmp_path / "out", config=config, seed=1, log=new_log(tmp_path))
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (saved.pad_token, saved.padding_side) == ("<eos>", "right")


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        (Rloo, "temperature", 0),
        (Rloo, "temperature", float("inf")),
        (Grpo, "top_k", -1),
        (Grpo, "top_p", 0),
        (Grpo, "top_p", 1.5),
    ],
)
def test_numbers_that_no_algorithm_can_use_are_refused(kind: type[Algorithm], field: str, wrong: float):
    with pytest.raises(ValidationError) as caught:
        kind(**{"steps": 1, "optimiser": OPTIMISER, field: wrong})
    assert [fault["loc"] for fault in caught.value.errors()] == [(field,)]


# -- variants of RLHF -------------------------------------------------------------------------------------------------


@published
def test_the_kl_coefficient_follows_the_published_controller():
    told = json.loads((REFERENCE / "adaptive_kl_controller.json").read_text())
    coefficient, found = told["inputs"]["kl_coeff"], []
    for kl in told["inputs"]["observed"]:
        coefficient = adapted(coefficient, kl, told["inputs"]["target_kl"])
        found.append(coefficient)
    assert found == pytest.approx(told["expected"]["coefficients"], rel=told["tolerance"])


@pytest.mark.parametrize(
    ("kl", "target", "factor"),
    [(0.1, 0.1, 1.0), (0.11, 0.1, 1.01), (5.0, 0.1, 1.02), (-5.0, 0.1, 0.98), (5.0, None, 1.0)],
)
def test_a_coefficient_moves_by_two_per_cent_at_most_and_not_at_all_without_a_target(kl, target, factor):
    assert adapted(0.3, kl, target) == pytest.approx(0.3 * factor)


def variant(
    kind: type[Algorithm], base: Path, out: Path, log: Log, *, steps: int = STEPS, optimiser: Any = OPTIMISER,
    seconds: float = 60.0, later: tuple[str, ...] = (), **more: Any,
) -> None:  # fmt: skip
    config = kind(steps=steps, optimiser=optimiser, checkpoint_seconds=seconds, **SHORT, **more)
    align(base, world.prompts(0, 20), distinct_words, out, config=config, seed=1, log=log, later=later)


def curve(log: Log, name: str) -> list[float]:
    return [values[name] for _, values in log.points if name in values]


ADAPTED = {"kl_coefficient": 0.5, "kl_target": 0.001}


@pytest.mark.parametrize("kind", [Rloo, Grpo])
def test_the_coefficient_is_adapted_to_each_steps_own_divergence(kind: type[Algorithm], base: Path, tmp_path: Path):
    log = new_log(tmp_path)
    variant(kind, base, tmp_path / "out", log, **ADAPTED)
    coefficients, divergences = curve(log, "kl_coefficient"), curve(log, "kl")
    assert coefficients[0] == 0.5
    for before, kl, after in zip(coefficients, divergences, coefficients[1:], strict=False):
        assert after == pytest.approx(adapted(before, kl, 0.001))
    assert {after > before for before, after in pairwise(coefficients)} == {True, False}  # first 0, then far


@pytest.mark.parametrize("kind", [Rloo, Grpo])
def test_an_adapted_coefficient_is_felt(kind: type[Algorithm], base: Path, tmp_path: Path):
    variant(kind, base, tmp_path / "fixed", new_log(tmp_path, "one"), steps=3, kl_coefficient=0.5)
    variant(kind, base, tmp_path / "adapted", new_log(tmp_path, "other"), steps=3, **ADAPTED)
    assert not same(tmp_path / "fixed", tmp_path / "adapted")


def test_a_killed_run_goes_on_with_the_coefficient_it_had_come_to(base: Path, tmp_path: Path):
    more = {**ADAPTED, "entropy_bonus": 0.1}
    whole, killed = new_log(tmp_path, "whole"), new_log(tmp_path, "killed", stop=3)
    variant(Rloo, base, tmp_path / "one", whole, **more)
    with pytest.raises(KeyboardInterrupt):
        variant(Rloo, base, tmp_path / "again", killed, seconds=0, **more)
    resumed = Log(killed.scratch)
    variant(Rloo, base, tmp_path / "again", resumed, seconds=0, **more)
    assert resumed.done == [(3, 4), (4, 4)]
    assert curve(resumed, "kl_coefficient") == curve(whole, "kl_coefficient")[2:]
    assert curve(whole, "kl_coefficient")[2] != 0.5
    assert same(tmp_path / "one", tmp_path / "again")


def test_a_target_without_a_coefficient_is_refused():
    with pytest.raises(ValidationError, match="kl_coefficient = 0, which nothing raises from 0; set a kl_coefficient"):
        Rloo(steps=1, optimiser=OPTIMISER, kl_coefficient=0, kl_target=0.1)


def mean_entropy(model: Any, inputs: dict[str, Any], temperature: float) -> Any:
    """By the plain forward pass over each response on its own, without padding."""
    entropies = []
    for row in range(len(inputs["prompt_ids"])):
        asked = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
        given = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
        logits = model(torch.cat([asked, given])[None]).logits[0, len(asked) - 1 : -1]
        logprobs = (logits / temperature).log_softmax(-1)
        entropies.append(-(logprobs.exp() * logprobs).sum(-1))
    return torch.cat(entropies).mean()


@pytest.mark.parametrize(("kind", "more"), [(Rloo, {}), (Grpo, {}), (Grpo, {"loss": "dr_grpo"})])
def test_a_bonus_moves_the_weights_by_the_gradient_of_the_entropy(
    kind: Any, more: dict[str, Any], base: Path, tmp_path: Path
):
    seen: list[dict[str, Any]] = []

    class Watched(kind):
        def trainer(self) -> tuple[type, type, dict[str, Any]]:
            trainer, arguments, special = super().trainer()

            class Watching(trainer):  # type: ignore[valid-type, misc]
                def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
                    seen.append(inputs)
                    return super()._compute_loss(model, inputs)

            return Watching, arguments, special

    still = Optimiser(name="sgd", learning_rate=0.5, clip=0)
    told = {"steps": 1, "optimiser": still, "kl_coefficient": 0.0, "temperature": 0.7, **more}
    for name, bonus in (("without", 0.0), ("with", 20.0)):
        variant(Watched, base, tmp_path / name, new_log(tmp_path, f"{name} scratch"), entropy_bonus=bonus, **told)
    model = AutoModelForCausalLM.from_pretrained(base)
    mean_entropy(model, seen[1], 0.7).backward()
    before, after = weights(tmp_path / "without"), weights(tmp_path / "with")
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert torch.equal(seen[0]["completion_ids"], seen[1]["completion_ids"])
    assert max((after[name] - before[name]).abs().max().item() for name in before) > 1e-2
    for name, weight in before.items():
        torch.testing.assert_close(after[name] - weight, 0.5 * 20.0 * gradients[name], rtol=1e-3, atol=5e-6)


@pytest.mark.parametrize("kind", [Rloo, Grpo])
def test_what_is_not_asked_for_changes_neither_addresses_nor_weights(kind: Any, base: Path, tmp_path: Path):
    plain, asked = kind(steps=2, optimiser=OPTIMISER), {"entropy_bonus": 0.0, "kl_target": None}
    assert identity(plain) == identity(kind(steps=2, optimiser=OPTIMISER, **asked))
    assert not {"entropy_bonus", "kl_target"} & set(identity(plain))
    assert identity(kind(steps=2, optimiser=OPTIMISER, entropy_bonus=0.1))["entropy_bonus"] == 0.1
    variant(kind, base, tmp_path / "plain", new_log(tmp_path, "one"), steps=2)
    variant(kind, base, tmp_path / "asked", new_log(tmp_path, "other"), steps=2, **asked)
    assert same(tmp_path / "plain", tmp_path / "asked")


def test_a_trainer_that_tells_no_entropy_takes_no_bonus(base: Path, tmp_path: Path):
    class Silent(Rloo):
        def trainer(self) -> tuple[type, type, dict[str, Any]]:
            return type("Mute", (), {}), super().trainer()[1], {}

    with pytest.raises(StudyError, match="entropy_bonus: Mute tells no entropy while it is trained; leave it out"):
        variant(Silent, base, tmp_path / "out", new_log(tmp_path), entropy_bonus=0.1)


# -- prompts that come later ------------------------------------------------------------------------------------------


def test_a_pass_has_all_of_the_first_before_the_later_ones_and_none_twice():
    first, later = list(range(5)), list(range(100, 104))
    taken = in_passes(first, later, 3, 7, seed=1)
    assert len(taken) == 21
    passes = [taken[:9], taken[9:18]]
    for once in passes:
        assert (sorted(once[:5]), sorted(once[5:])) == (first, later)
    assert passes[0] != passes[1]
    assert taken[:9] != sorted(taken[:9])
    assert set(taken[18:]) < set(first)  # the last pass is cut short, and reaches no later one
    assert in_passes(first, later, 3, 7, seed=1) == taken != in_passes(first, later, 3, 7, seed=2)


def test_what_does_not_fill_a_step_is_left_out_of_its_pass_and_comes_in_others():
    taken = in_passes([0, 1, 2], [10, 11], 2, 40, seed=3)
    passes = [taken[at : at + 4] for at in range(0, 80, 4)]
    assert all(set(once[:3]) == {0, 1, 2} for once in passes)
    assert {once[3] for once in passes} == {10, 11}


def test_deferred_prompts_are_asked_after_all_others_in_each_pass(base: Path, tmp_path: Path):
    asked: list[str] = []

    def reward(prompts: list[Any], responses: list[str]) -> list[float]:
        asked.extend(prompts[::2])  # two samples a prompt
        return distinct_words(prompts, responses)

    prompts = world.prompts(0, 9)
    first, later = prompts[:6], prompts[6:]
    config = Rloo(steps=6, optimiser=OPTIMISER, **SHORT)
    told: dict[str, Any] = {"config": config, "seed": 1, "log": new_log(tmp_path)}
    align(base, first, reward, tmp_path / "out", **told, later=[*later, first[0]])
    for once in (asked[:9], asked[9:]):
        assert (sorted(once[:6]), sorted(once[6:])) == (sorted(first), sorted(later))
    assert asked[:9] != asked[9:]


def test_a_killed_run_goes_on_in_the_order_of_its_passes(base: Path, tmp_path: Path):
    later = tuple(world.prompts(5, 3))
    variant(Rloo, base, tmp_path / "one", new_log(tmp_path, "whole"), later=later)
    killed = new_log(tmp_path, "killed", stop=3)
    with pytest.raises(KeyboardInterrupt):
        variant(Rloo, base, tmp_path / "again", killed, seconds=0, later=later)
    variant(Rloo, base, tmp_path / "again", Log(killed.scratch), seconds=0, later=later)
    assert same(tmp_path / "one", tmp_path / "again")


def test_deferred_prompts_count_among_those_that_a_step_takes(base: Path, tmp_path: Path):
    config = Rloo(steps=1, optimiser=OPTIMISER, **SHORT)
    told: dict[str, Any] = {"config": config, "seed": 1, "log": new_log(tmp_path)}
    align(base, ["tell me", "tell"], distinct_words, tmp_path / "out", **told, later=["me"])
    with pytest.raises(StudyError, match="has 2 distinct ones"):
        align(base, ["tell me", "tell"], distinct_words, tmp_path / "out", **told, later=["tell"])


# -- in parts, and in other numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("rloo", {}),
        ("rloo", {"entropy_bonus": 0.3, "kl_target": 0.01, "kl_coefficient": 0.5}),
        ("grpo", {"loss": "dapo"}),
        ("grpo", {"loss": "grpo"}),
        ("grpo", {"loss": "dr_grpo", "scale_rewards": "none"}),
    ],
)
def test_micro_batches_are_speed_alone_and_need_no_whole_groups(
    kind: str, more: dict[str, Any], base: Path, tmp_path: Path
):
    told = {"optimiser": Optimiser(name="sgd", learning_rate=0.3, clip=0), **more}
    for name, micro in (("whole", None), ("parts", 4)):  # of 12 responses, 3 a prompt
        log = new_log(tmp_path, f"{name} scratch")
        train_any(kind, base, tmp_path / name, log, micro_batch=micro, **told)
        assert curve(log, "completions/min_length") != curve(log, "completions/max_length")  # so that means can differ
        assert log.done == [(1, 2), (2, 2)]
    before, whole, parts = (weights(folder) for folder in (base, tmp_path / "whole", tmp_path / "parts"))
    moved = max((whole[name] - before[name]).abs().max().item() for name in before)
    apart = max((whole[name] - parts[name]).abs().max().item() for name in before)
    assert apart < 1e-5 < 1e-2 < moved


@pytest.mark.parametrize("more", [{"entropy_bonus": 0.1}, {"kl_target": 0.1}])
def test_means_that_grpo_takes_of_micro_batches_are_refused(more: dict[str, float]):
    told = {"steps": 1, "optimiser": OPTIMISER, **SHORT, **more}
    with pytest.raises(ValidationError, match=f"micro_batch with {next(iter(more))}, of which .*; leave one out"):
        Grpo(**told, micro_batch=3)
    assert Grpo(**told, micro_batch=6).micro_batch == 6  # all of them
    assert Rloo(**told, micro_batch=3).micro_batch == 3


def test_parts_that_do_not_divide_a_step_are_refused():
    told = {"steps": 1, "optimiser": OPTIMISER, **SHORT}
    called = "prompts_per_step x samples_per_prompt = 6"
    for more, wrong in (
        ({"micro_batch": 4}, f"micro_batch = 4 does not divide {called}; take a divisor"),
        ({"processes": 4}, f"processes = 4 does not divide {called}; take a divisor"),
        ({"processes": 2, "micro_batch": 2}, f"micro_batch = 2 does not divide {called} over processes = 2; take a"),
    ):
        with pytest.raises(ValidationError, match=wrong):
            Rloo(**told, **more)


def test_processes_are_part_of_the_address_where_each_draws_responses_of_its_own():
    told = {"steps": 1, "optimiser": OPTIMISER}
    assert identity(Rloo(**told, micro_batch=8, checkpointing=True)) == identity(Rloo(**told))
    assert identity(Rloo(**told, processes=2)) == identity(Rloo(**told)) | {"processes": 2}


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_precision_is_felt_and_decides_what_is_saved(kind: str, base: Path, tmp_path: Path):
    for precision in ("float32", "mixed", "bfloat16"):
        train_any(kind, base, tmp_path / precision, new_log(tmp_path, f"{precision} s"), steps=1, precision=precision)
    found = {name: weights(tmp_path / name) for name in ("float32", "mixed", "bfloat16")}
    assert {name: {weight.dtype for weight in each.values()} for name, each in found.items()} == {
        "float32": {torch.float32}, "mixed": {torch.float32}, "bfloat16": {torch.bfloat16},
    }  # fmt: skip
    for one, other in (("float32", "mixed"), ("float32", "bfloat16"), ("mixed", "bfloat16")):
        assert any(not torch.equal(found[one][name].float(), found[other][name].float()) for name in found[one])
