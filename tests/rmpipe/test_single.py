"""Training on one pair alone: the same as a trainer's, from the same weights each time, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rmpipe import policy, single, world  # noqa: E402
from rmpipe.algorithm import Optimiser, PairTraining  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.direct import Direct, train  # noqa: E402
from rmpipe.single import DONE, UNEMBEDDED, Single, followed, train_each  # noqa: E402
from rmpipe.text import encode  # noqa: E402
from tasks.execution import Log  # noqa: E402

ROWS = [row | {"id": f"p{index}"} for index, row in enumerate(world.preferences(0, 4))]
FAST = Optimiser(learning_rate=0.01)


@pytest.fixture
def model(base: Path) -> policy.LanguageModel:
    return policy.load(base)


def new_log(out: Path) -> Log:
    out.mkdir(exist_ok=True)
    return Log("single/0", out)


def config(**more: Any) -> Single:
    return Single(**{"pairs": 4, "steps": 3, "optimiser": FAST, **more})


def one_token(prompt: str = "the kettle is") -> dict[str, str]:
    return {"id": "one", "prompt": prompt, "chosen": " red", "rejected": " blue"}


@pytest.mark.parametrize(
    ("loss", "optimiser"),
    [
        ("dpo", Optimiser(name="adamw", learning_rate=0.01, schedule="linear", warmup_steps=2, weight_decay=0.5)),
        ("ipo", Optimiser(name="sgd", learning_rate=0.02, schedule="cosine", clip=0.5)),
        ("cross_entropy", Optimiser(name="rmsprop", learning_rate=0.003, clip=0)),
        ("dpo", Optimiser(learning_rate=0.01, warmup_steps=2)),
    ],
)
def test_a_pair_ends_where_a_trainer_ends_with_it_as_its_data(base, model, tmp_path, loss, optimiser):
    asked = {"loss": loss, "sft": 0.2}
    training = PairTraining(steps=4, batch_size=1, optimiser=optimiser)
    log = new_log(tmp_path / "trainer")
    train(base, ROWS[:1], tmp_path / "model", config=Direct(training=training, **asked), seed=1, log=log)
    run = train_each(model, ROWS[:2], config=config(steps=4, optimiser=optimiser, **asked), log=new_log(tmp_path))[0]
    for side in ("chosen", "rejected"):
        for place, value in ((base, run[side][0]), (tmp_path / "model", run[side][-1])):
            told = policy.log_probabilities(policy.load(place), [ROWS[0]["prompt"]], [ROWS[0][side]]).item()
            assert value == pytest.approx(told, abs=2e-4)
    assert [log.points["loss", step][0] for step in range(1, 5)] == pytest.approx(run["loss"][:4], abs=2e-4)
    assert abs(run["chosen"][-1] - run["chosen"][0]) > 0.1


def test_a_constant_learning_rate_comes_up_from_0_where_it_is_to_warm_up(model, tmp_path):
    kept = {"name": "sgd", "learning_rate": 0.01, "clip": 0}
    cold, warm = (
        train_each(
            model, ROWS[:1], config=config(optimiser=Optimiser(**kept, warmup_steps=steps)), log=new_log(folder)
        )[0]
        for steps, folder in ((0, tmp_path / "cold"), (2, tmp_path / "warm"))
    )
    assert warm["chosen"][1] == pytest.approx(warm["chosen"][0], abs=1e-6)  # the first step is of 0
    falls = [run["loss"][place] - run["loss"][place + 1] for run, place in ((warm, 1), (cold, 0))]
    assert falls[0] == pytest.approx(falls[1] / 2, rel=0.1)  # the second of half the rate
    assert falls[1] > 1e-3


def test_each_pair_starts_from_the_weights_that_the_model_leaves_with(model, tmp_path):
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    together = train_each(model, ROWS, config=config(), log=new_log(tmp_path / "all"))
    after = model.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert train_each(model, ROWS[2:3], config=config(), log=new_log(tmp_path / "one")) == together[2:3]


def test_curves_have_the_beginning_and_every_step(model, tmp_path):
    runs = train_each(model, ROWS, config=config(), log=new_log(tmp_path))
    assert [run["id"] for run in runs] == ["p0", "p1", "p2", "p3"]
    assert {len(run[name]) for run in runs for name in ("chosen", "rejected", "loss")} == {4}
    assert [run["loss"][0] for run in runs] == pytest.approx([0.6931472] * 4)  # log 2: the reference is the start
    assert all(run["loss"][-1] < run["loss"][0] for run in runs)
    assert json.loads(json.dumps(runs)) == runs


def test_a_killed_run_goes_on_from_the_pairs_that_are_done(model, tmp_path, monkeypatch):
    whole = train_each(model, ROWS, config=config(), log=new_log(tmp_path / "whole"))
    log = new_log(tmp_path / "killed")

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(log, "progress", kill)
    with pytest.raises(KeyboardInterrupt):
        train_each(model, ROWS, config=config(), log=log)
    with (log.scratch / DONE).open("a") as file:
        file.write('\n[2, {"id": "p2", "cho')  # the line that a kill cut
    trained, one = [], single._train
    monkeypatch.setattr(single, "_train", lambda *asked: trained.append(asked[-1]) or one(*asked))
    told = []
    monkeypatch.setattr(log, "progress", lambda done, total: told.append((done, total)))
    assert train_each(model, ROWS, config=config(), log=log) == whole
    assert trained == ["p2", "p3"]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_with_the_first_token_alone_nothing_else_is_trained_or_followed(model, tmp_path):
    """One step of plain SGD on log pi of two tokens, by hand; where the mass went is read off the same weights."""
    optimiser = Optimiser(name="sgd", learning_rate=0.5, clip=0)
    asked = config(steps=1, first_token=True, optimiser=optimiser, top=2)
    (run,) = train_each(model, [one_token()], config=asked, log=new_log(tmp_path))
    tokenizer, network = model.tokenizer, model.model
    ids = torch.tensor([encode(tokenizer, "the kettle is")])
    plus, minus = tokenizer.convert_tokens_to_ids(["red", "blue"])
    spreads = [network(ids).logits[0, -1].log_softmax(-1)]
    margin = spreads[0][plus] - spreads[0][minus]
    (-torch.nn.functional.logsigmoid(0.1 * (margin - margin.detach()))).backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight -= 0.5 * weight.grad
        spreads = [spreads[0].detach().double(), network(ids).logits[0, -1].double().log_softmax(-1)]
    assert run["chosen"] == pytest.approx([spread[plus].item() for spread in spreads], abs=1e-5)
    assert run["rejected"] == pytest.approx([spread[minus].item() for spread in spreads], abs=1e-5)
    gain = spreads[1].exp() - spreads[0].exp()
    best = gain.topk(2)
    assert run["gained"] == [{
        "step": 1, "tokens": tokenizer.convert_ids_to_tokens(best.indices.tolist()),
        "probs": pytest.approx(best.values.tolist(), abs=1e-6),
    }]  # fmt: skip
    logs = spreads[1] - spreads[0]
    assert run["ranks"] == [
        {"step": 1, "prob": int((gain > gain[plus]).sum()), "logprob": int((logs > logs[plus]).sum())}
    ]


def test_looks_beyond_the_last_step_are_passed_over(model, tmp_path):
    (run,) = train_each(model, ROWS[:1], config=config(steps=6), log=new_log(tmp_path))
    assert [look["step"] for look in run["gained"]] == [look["step"] for look in run["ranks"]] == [1, 5]
    assert [len(look["tokens"]) for look in run["gained"]] == [3, 3]


def test_unembeddings_are_told_of_pairs_of_one_token_each_with_or_without_their_end(model, tmp_path):
    weight = model.model.get_output_embeddings().weight.detach().clone()
    plus, minus = (weight[model.tokenizer.convert_tokens_to_ids(word)] for word in ("red", "blue"))
    for first in (False, True):
        log = new_log(tmp_path / str(first))
        (run,) = train_each(model, [one_token()], config=config(first_token=first), log=log)
        assert run["unembedding"]["inner"] == pytest.approx((plus @ minus).item(), abs=1e-6)
        assert run["unembedding"]["chosen_norm"] == pytest.approx(plus.norm().item(), abs=1e-6)
    (run,) = train_each(model, ROWS[:1], config=config(), log=new_log(tmp_path / "long"))
    assert run["unembedding"] is None


@pytest.mark.parametrize(
    ("row", "more", "told"),
    [
        ({"rejected": " red"}, {}, "pair one: its responses are the same"),
        ({"rejected": " red again"}, {"first_token": True}, "the same token, .* leave it out, or single.first_token"),
        ({"chosen": " red" * 200}, {}, "pair one: it has 205 tokens, but the model holds 128; leave it out"),
    ],
)
def test_a_pair_that_cannot_be_trained_on_is_named_before_any_is(model, tmp_path, row, more, told):
    with pytest.raises(StudyError, match=told):
        train_each(model, [ROWS[0], one_token() | row], config=config(**more), log=new_log(tmp_path))
    assert not (tmp_path / DONE).exists()


def test_a_pair_that_diverges_is_named_with_what_to_lower_and_the_model_is_whole(model, tmp_path):
    wild = config(optimiser=Optimiser(name="sgd", learning_rate=1e30, clip=0))
    with pytest.raises(StudyError, match="pair p0: its likelihoods are no longer finite; lower"):
        train_each(model, ROWS, config=wild, log=new_log(tmp_path))
    assert all(weight.isfinite().all() and weight.grad is None for weight in model.model.parameters())


def test_a_pair_s_largest_fall_has_its_start_and_end_and_its_looks_their_ranks():
    run = {"chosen": np.log([0.5, 0.9, 0.2, 0.95]).tolist(), "unembedding": None}
    run |= {"ranks": [{"step": 5, "prob": 2, "logprob": 7}]}
    told = followed(run)
    assert (told["start"], told["end"]) == pytest.approx((0.9, 0.2))
    assert (told["prob.5"], told["logprob.5"]) == (2, 7)
    assert not {*UNEMBEDDED} & {*told}
    assert followed(run | {"unembedding": dict.fromkeys(UNEMBEDDED, 1.0)})["inner"] == 1
