"""Direct preference optimisation: the paper's losses, each a step by hand, and what is logged of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rmpipe import direct, policy, world  # noqa: E402
from rmpipe.algorithm import Optimiser, PairTraining  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.direct import Direct, Objective, train  # noqa: E402
from rmpipe.implicit import Implicit  # noqa: E402
from rmpipe.text import encode  # noqa: E402
from tasks.execution import Log  # noqa: E402

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "dpo_ipo_losses_and_displacement.json"
PAIRS = world.preferences(0, 24)
STEP = {"steps": 1, "batch_size": 24, "optimiser": Optimiser(name="sgd", learning_rate=0.01, clip=0)}


def new_log(out: Path) -> Log:
    (out / "scratch").mkdir(parents=True)
    return Log("prefer/0", out / "scratch")


def config(training: dict[str, Any] = STEP, **more: Any) -> Direct:
    return Direct(training=PairTraining(**training), **more)


def likelihoods(model: Any, tokenizer: Any, side: str) -> Any:
    """By hand: log pi of that response of each pair, one text at a time, its end of sequence included."""
    sums = []
    for row in PAIRS:
        ids, begin = encode(tokenizer, row["prompt"], row[side]), len(encode(tokenizer, row["prompt"]))
        spread = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(spread[range(begin - 1, len(ids) - 1), ids[begin:]].sum())
    return torch.stack(sums)


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")
@pytest.mark.parametrize("beta", [0.1, 0.01])
@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_losses_are_those_of_the_published_code(loss: str, beta: float):
    told = json.loads(REFERENCE.read_text())
    names = ("policy_preferred", "policy_dispreferred", "ref_preferred", "ref_dispreferred")
    given = [torch.tensor(told["inputs"][name]) for name in names]
    expected = told["expected"]
    found = {sft: Objective(loss=loss, beta=beta, sft=sft).of(*given).item() for sft in (0, 1)}
    assert found[0] == pytest.approx(expected[f"{loss}_beta_{beta}"], rel=1e-6)
    assert found[1] == pytest.approx(expected[f"{loss}_beta_{beta}_plus_sft_1"], rel=1e-6)
    assert Objective(loss="cross_entropy").of(*given).item() == pytest.approx(expected["cross_entropy"], rel=1e-6)


def test_losses_of_two_pairs_by_hand():
    # m = (-1 - -2) - (-4 - -3) = 2 and (-5 - -4) - (-2 - -2) = -1
    given = [torch.tensor(values) for values in ([-1.0, -5.0], [-4.0, -2.0], [-2.0, -4.0], [-3.0, -2.0])]
    dpo = [torch.tensor(0.5 * m).sigmoid().log().item() for m in (2.0, -1.0)]
    assert Objective(beta=0.5).of(*given).item() == pytest.approx(-sum(dpo) / 2)
    assert Objective(loss="ipo", beta=0.5).of(*given).item() == pytest.approx(((2 - 1) ** 2 + (-1 - 1) ** 2) / 2)
    assert Objective(loss="ipo", beta=0.5, sft=0.1).of(*given).item() == pytest.approx(2.5 + 0.1 * 3)
    assert Objective(loss="cross_entropy").of(*given).item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("loss", "sft", "reference"),
    [("dpo", 0.0, True), ("dpo", 0.3, True), ("ipo", 0.0, True), ("ipo", 0.3, False), ("cross_entropy", 0.0, True)],
)
def test_training_is_one_step_on_this_loss(base, tmp_path, loss, sft, reference):
    """The gradient by hand, a step of plain SGD, gives TRL's weights: responses differ in length, so sums are seen."""
    asked = config(STEP | {"micro_batch": 8}, loss=loss, sft=sft)
    train(base, PAIRS, tmp_path / "model", config=asked, seed=1, log=new_log(tmp_path), reference=reference)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    chosen, rejected = (likelihoods(model, tokenizer, side) for side in ("chosen", "rejected"))
    before = (chosen.detach(), rejected.detach()) if reference else (0.0, 0.0)
    margins = (chosen - before[0]) - (rejected - before[1])
    by_hand = {
        "dpo": -torch.nn.functional.logsigmoid(0.1 * margins).mean(),
        "ipo": ((margins - 5) ** 2).mean(),
        "cross_entropy": -chosen.mean(),
    }[loss]
    (by_hand - sft * chosen.mean()).backward()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for (name, weight), other in zip(model.named_parameters(), after.parameters(), strict=True):
        assert (weight.grad != 0).any(), name
        assert torch.allclose(weight - 0.01 * weight.grad, other, atol=5e-6), name


def test_what_is_minimised_is_what_is_logged_beside_what_trl_has_to_say(base, tmp_path):
    log = new_log(tmp_path)
    train(base, PAIRS, tmp_path / "model", config=config(loss="ipo"), seed=1, log=log)
    assert log.points["loss", 1][0] == pytest.approx(25, abs=0.01)  # at the start m = 0, and (1 / 0.2)^2 is left
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    assert log.points["logps/chosen", 1][0] == pytest.approx(likelihoods(model, tokenizer, "chosen").mean().item())
    assert {"rewards/margins", "rewards/accuracies"} < {name for name, _ in log.points}


def test_an_implicit_reward_model_is_trained_by_dpo_to_the_byte(base, tmp_path):
    training = PairTraining(steps=3, batch_size=8, optimiser=Optimiser(learning_rate=0.01))
    model = Implicit(beta=0.5, training=training)
    model.train(base, PAIRS, tmp_path / "implicit", seed=1, log=new_log(tmp_path / "a"))
    asked = Direct(beta=0.5, training=training)
    train(base, PAIRS, tmp_path / "direct", config=asked, seed=1, log=new_log(tmp_path / "b"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("implicit", "direct")]
    assert weights[0] == weights[1]


def test_a_killed_run_reads_no_pair_by_the_reference_again(base, tmp_path, monkeypatch):
    monkeypatch.setattr(direct, "CHUNK", 10)
    likelihoods, asked, told = policy.likelihoods, [], []
    log = new_log(tmp_path)
    log.progress = lambda *done: told.append(done)

    def dying(model: Any, pairs: Any) -> Any:
        asked.append(len(pairs))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return likelihoods(model, pairs)

    monkeypatch.setattr(policy, "likelihoods", dying)
    with pytest.raises(KeyboardInterrupt):
        train(base, PAIRS, tmp_path / "model", config=config(), seed=1, log=log)
    assert train(base, PAIRS, tmp_path / "model", config=config(), seed=1, log=log) == 24
    assert asked == [10, 10, 10, 10, 10, 10, 4, 4]
    assert told[:4] == [(10, 24), (10, 24), (20, 24), (24, 24)]
    train(base, PAIRS, tmp_path / "other", config=config(), seed=1, log=log)
    assert len(asked) == 8
    monkeypatch.undo()
    train(base, PAIRS, tmp_path / "whole", config=config(), seed=1, log=new_log(tmp_path / "afresh"))
    weights = [AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("model", "whole")]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-6), name


def test_weights_are_kept_on_the_way(base, tmp_path):
    asked = config(STEP | {"steps": 4, "looks": 2}, loss="ipo")
    train(base, PAIRS, tmp_path / "model", config=asked, seed=1, log=new_log(tmp_path))
    assert [place.name for place in (tmp_path / "looks").iterdir()] == ["000002"]


def test_pairs_that_are_all_too_long_say_so(base, tmp_path):
    with pytest.raises(StudyError, match="max_length: no pair has as few as 2 tokens"):
        train(base, PAIRS, tmp_path / "model", config=config(STEP | {"max_length": 2}), seed=1, log=new_log(tmp_path))
