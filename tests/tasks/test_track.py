"""What training did: likelihoods before and after of fixed sets, at each look, and where the mass went."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from rmpipe import policy as lm  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.direct import Direct  # noqa: E402
from rmpipe.displacing import Tracking  # noqa: E402
from rmpipe.text import parted  # noqa: E402
from tasks.execution import Log  # noqa: E402
from tasks.prefer import prefer  # noqa: E402
from tasks.track import _at_places, _frame, _numbers, track  # noqa: E402

LOOKS, STEPS = 3, 3


@pytest.fixture(scope="module")
def trained(base, pairs, tmp_path_factory) -> SimpleNamespace:
    """A policy trained on three pairs, with looks, by IPO."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "scratch").mkdir()
    data, log = pairs(3, held_out=2), Log("prefer/0", folder / "scratch")
    training = {"steps": STEPS, "batch_size": 2, "looks": LOOKS, "optimiser": {"learning_rate": 1e-2}}
    config = Direct(loss="ipo", training=training)
    draft = prefer.function(config, base, data, 1, out=folder, log=log)
    found = {"looks": draft.looks, "look": draft.look, "model": draft.model, "dtype": draft.dtype}
    return SimpleNamespace(data=data, record={"config": config.model_dump(mode="json")}, draft=draft, **found)


@pytest.fixture
def tracked(trained, base, out, log) -> tuple[pd.DataFrame, Any]:
    config = Tracking(writing={"prompts": 2, "max_new_tokens": 4}, top=4)
    track.function(config, base, trained, trained.data, 1, out=out, log=log)
    return pd.read_parquet(out / "prompts.parquet"), lambda name: json.loads((out / f"{name}.json").read_text())


def likelihoods(folder, rows: pd.DataFrame, side: str) -> np.ndarray:
    model = lm.load(folder)
    return lm.likelihoods(
        model, [parted(model.tokenizer, *texts) for texts in zip(rows["prompt"], rows[side], strict=True)]
    ).numpy()


def test_likelihoods_numbers_and_curves_are_those_of_the_weights_that_were_kept(trained, tracked, base):
    frame, read = tracked
    assert frame["set"].to_list() == ["trained"] * 3 + ["held_out"] * 2
    for name, split in (("trained", "reward"), ("held_out", "test")):
        mine, rows = frame[frame["set"] == name], trained.data.split(split)
        before, after = (likelihoods(folder, rows, "chosen") for folder in (base.model, trained.model))
        assert mine["chosen_before"].to_numpy() == pytest.approx(before, abs=1e-5)
        assert mine["chosen_after"].to_numpy() == pytest.approx(after, abs=1e-5)
        numbers = read("measurement")
        assert numbers["pairs"]["value"] == 3
        assert numbers[f"{name}.chosen"]["value"] == pytest.approx((after - before).mean(), abs=1e-5)
        assert numbers[f"{name}.displaced"]["value"] == pytest.approx((after < before).mean())
        curve = read("curves")
        assert curve["steps"] == [0, 1, 2, STEPS]
        assert curve[name]["chosen"][0] == 0
        assert curve[name]["chosen"][-1] == pytest.approx((after - before).mean(), abs=1e-5)
        looked = likelihoods(trained.look(trained.looks()[0]) / "model", rows, "chosen")
        assert curve[name]["chosen"][1] == pytest.approx((looked - before).mean(), abs=1e-5)


def test_the_mass_went_where_the_mean_probability_grew_most(trained, tracked, base):
    _, read = tracked
    rows, spreads = trained.data.split("reward"), []
    for folder in (base.model, trained.model):
        model, places = lm.load(folder), []
        for texts in zip(rows["prompt"], rows["chosen"], strict=True):
            prompt, ids = parted(model.tokenizer, *texts)
            with torch.no_grad():
                logits = model.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            places.append(logits.softmax(-1))
        spreads.append(places)
    gain = torch.cat(spreads[1]).mean(0) - torch.cat(spreads[0]).mean(0)
    gained = read("gained")
    tokens = lm.load(base.model).tokenizer.convert_tokens_to_ids([token for token, _ in gained["everywhere"]])
    assert [value for _, value in gained["everywhere"]] == pytest.approx(gain.topk(4).values.tolist(), abs=1e-6)
    assert gain[tokens].tolist() == pytest.approx(gain.topk(4).values.tolist(), abs=1e-6)
    firsts = [after[0] - before[0] for before, after in zip(*spreads, strict=True)]
    best = {token for first in firsts for token in first.topk(3).indices.tolist()}
    word = lm.load(base.model).tokenizer.convert_ids_to_tokens
    assert {token for token, _ in gained["first"]} <= {word(token) for token in best}


def test_a_first_place_keeps_its_own_distribution_in_memory_and_not_its_batch(base, pairs):
    model, rows = lm.load(base.model), pairs(4).split("reward")
    asked = [parted(model.tokenizer, *texts) for texts in zip(rows["prompt"], rows["chosen"], strict=True)]
    _, first = _at_places(model, asked)
    for spread in first.values():
        assert spread.base.untyped_storage().nbytes() == spread.nbytes


def test_the_largest_fall_between_two_looks_is_told_though_the_end_is_higher():
    rows = [{"id": "a", "prompt": "x", "chosen": "c", "rejected": "r"}]
    states = {step: {"s": {"chosen": np.array([value]), "rejected": np.array([-1.0])}}
              for step, value in ((0, -2.0), (1, -1.0), (2, -6.0), (3, 0.0))}  # fmt: skip
    frame = _frame("s", rows, states)
    assert frame["fall"].item() == 5
    assert frame["chosen_after"].item() - frame["chosen_before"].item() == 2


def test_of_pairs_that_are_all_displaced_the_share_is_not_said_to_be_certain():
    rows = [{"id": str(n), "prompt": str(n), "chosen": "c", "rejected": "r"} for n in range(8)]
    states = {step: {"s": {"chosen": np.full(8, value), "rejected": np.full(8, -3.0)}}
              for step, value in ((0, -1.0), (1, -2.0))}  # fmt: skip
    numbers = _numbers(_frame("s", rows, states))
    for name in ("displaced", "accuracy_before", "accuracy"):
        assert numbers[name] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 8)), "high": 1.0}, name
    assert numbers["chosen"] == {"value": -1.0, "low": -1.0, "high": -1.0}


def test_a_policy_whose_training_diverged_is_refused_with_the_remedy(trained, base, out, log, tmp_path):
    model = lm.load(trained.model)
    with torch.no_grad():
        next(model.model.parameters()).fill_(float("nan"))
    model.model.save_pretrained(tmp_path / "broken")
    model.tokenizer.save_pretrained(tmp_path / "broken")
    broken = SimpleNamespace(looks=list, record=trained.record, model=tmp_path / "broken", dtype="float32")
    with pytest.raises(
        StudyError, match=r"no longer finite; lower trainings\.NAME\.training\.optimiser\.learning_rate"
    ):
        track.function(Tracking(), base, broken, trained.data, 1, out=out, log=log)


def test_what_was_trained_says_by_what_and_on_how_many(trained):
    assert trained.draft.summary == "ipo on 3 pairs"
    assert trained.draft.metrics == {"pairs": 3.0}
