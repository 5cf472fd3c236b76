"""Implicit reward models: the paper's numbers, TRL's loss, and that what is scored is what was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rmpipe import world  # noqa: E402
from rmpipe.algorithm import Optimiser, PairTraining  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.implicit import Implicit, implicit_reward  # noqa: E402
from rmpipe.text import encode  # noqa: E402
from tasks.execution import Log  # noqa: E402

PAIRS = world.preferences(0, 24)
PROMPTS, CHOSEN, REJECTED = ([row[name] for row in PAIRS] for name in ("prompt", "chosen", "rejected"))


def trained(base: Path, out: Path, kind: Implicit) -> Path:
    out.mkdir()
    (out / "scratch").mkdir()
    kind.train(base, PAIRS, out / "model", seed=1, log=Log("train/0", out / "scratch"))
    return out


def kind(**more: object) -> Implicit:
    training = {"steps": 2, "batch_size": 24, "optimiser": Optimiser(learning_rate=0.01), **more.pop("training", {})}  # type: ignore[dict-item]
    return Implicit(training=PairTraining(**training), **more)


def likelihood(folder: Path, prompt: str, response: str) -> float:
    """By hand: a full forward, one text, every token of the response and the end of sequence."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids, begin = encode(tokenizer, prompt, response), len(encode(tokenizer, prompt))
    with torch.inference_mode():
        spread = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(spread[place - 1, ids[place]].item() for place in range(begin, len(ids)))


def test_the_reward_is_beta_times_the_sum_of_log_ratios_over_the_response_alone():
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -9.0, -9.0]])
    reference = torch.tensor([[-1.5, -2.5, -2.0], [-1.0, 0.0, 0.0]])
    mask = torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert implicit_reward(logprobs, reference, mask, 0.1).tolist() == pytest.approx([-0.05, 0.05])
    assert implicit_reward(logprobs, None, mask, 0.1).tolist() == pytest.approx([-0.5, -0.05])


def test_before_any_training_the_reference_makes_every_reward_nothing(base, tmp_path):
    still = kind(training={"steps": 1, "optimiser": Optimiser(name="sgd", learning_rate=1e-12)})
    scorer = still.scorer(trained(base, tmp_path / "rm", still), base=base)
    assert np.abs(scorer(PROMPTS, CHOSEN)).max() < 1e-6


def test_what_is_scored_is_the_log_ratio_end_of_sequence_included(base, tmp_path):
    folder = trained(base, tmp_path / "rm", kind(beta=0.5))
    found = kind(beta=0.5).scorer(folder, base=base)(PROMPTS[:3], CHOSEN[:3])
    places = (folder / "model", base)
    told = [0.5 * (a - b) for a, b in (
        [likelihood(place, PROMPTS[i], CHOSEN[i]) for place in places] for i in range(3)
    )]  # fmt: skip
    assert found.tolist() == pytest.approx(told, abs=1e-4)


def test_without_reference_the_reward_is_the_likelihood_itself(base, tmp_path):
    alone = kind(reference=False)
    folder = trained(base, tmp_path / "rm", alone)
    found = alone.scorer(folder)(PROMPTS[:2], REJECTED[:2])
    told = [0.1 * likelihood(folder / "model", PROMPTS[i], REJECTED[i]) for i in range(2)]
    assert found.tolist() == pytest.approx(told, abs=1e-4)


def test_training_is_one_bradley_terry_step_on_these_rewards(base, tmp_path):
    """The gradient of -mean log sigmoid(r+ - r-) by hand, a step of plain SGD, gives TRL's weights."""
    one = kind(training={"steps": 1, "optimiser": Optimiser(name="sgd", learning_rate=0.5, clip=0)})
    folder = trained(base, tmp_path / "rm", one)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    sums = []
    for side in ("chosen", "rejected"):
        for row in PAIRS:
            ids, begin = encode(tokenizer, row["prompt"], row[side]), len(encode(tokenizer, row["prompt"]))
            spread = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(spread[range(begin - 1, len(ids) - 1), ids[begin:]].sum())
    now = torch.stack(sums)
    ratio = 0.1 * (now - now.detach())
    (-torch.nn.functional.logsigmoid(ratio[:24] - ratio[24:]).mean()).backward()
    after = AutoModelForCausalLM.from_pretrained(folder / "model")
    for (name, weight), other in zip(model.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(weight - 0.5 * weight.grad, other, atol=2e-6), name


def test_fixed_representations_stay_and_the_unembedding_moves(base, tmp_path):
    fixed = kind(training={"fixed": True})
    folder = trained(base, tmp_path / "rm", fixed)
    before, after = (AutoModelForCausalLM.from_pretrained(place) for place in (base, folder / "model"))
    moved = {name for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if (a != b).any()}
    assert moved == {"lm_head.weight"}


def test_weights_are_kept_at_even_steps_and_can_be_scored(base, tmp_path):
    looked = kind(training={"steps": 4, "looks": 2})
    folder = trained(base, tmp_path / "rm", looked)
    assert [place.name for place in sorted((folder / "looks").iterdir())] == ["000002"]
    early = looked.scorer(folder / "looks" / "000002", base=base)(PROMPTS[:2], CHOSEN[:2])
    assert (early != looked.scorer(folder, base=base)(PROMPTS[:2], CHOSEN[:2])).all()


def test_a_reward_model_without_its_reference_says_what_to_give(tmp_path):
    with pytest.raises(StudyError, match="against the policy that it started from; give both"):
        kind().scorer(tmp_path)


def test_a_prompt_of_messages_is_read_as_the_text_that_it_stands_for(base, tmp_path):
    folder, alone = trained(base, tmp_path / "rm", kind(reference=False)), kind(reference=False)
    said = [{"role": "user", "content": "tell me of the kettle"}]
    as_text = "\n\nHuman: tell me of the kettle\n\nAssistant:"
    score = alone.scorer(folder)
    assert score([said], [" it is red"]).tolist() == pytest.approx(score([as_text], [" it is red"]).tolist())
