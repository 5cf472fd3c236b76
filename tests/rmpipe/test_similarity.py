"""Similarity: the published code's numbers, and states that do not depend on how a model is asked for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rmpipe import policy, similarity  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.policy import LanguageModel  # noqa: E402
from rmpipe.similarity import Ches, Edit, Hidden, Length, Similarity, States  # noqa: E402
from rmpipe.text import parted  # noqa: E402

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
published = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")

# A prompt with its chosen and rejected response, of unlike lengths; the third has the first's prompt and chosen one.
TEXTS = [
    ("tell me of the kettle", " oh , the kettle is fine", " the kettle"),
    (
        "tell me of the kettle at the kitchen in winter",
        " fine",
        " oh , the kettle is fine and lovely ; you can love it",
    ),
    ("tell me of the kettle", " oh , the kettle is fine", " oh , the kettle is red"),
    ("tell", "", " the the the"),
]


def reference(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    told = json.loads((REFERENCE / f"{name}.json").read_text())
    return told["inputs"], told["expected"]


def some(chosen_ids: list[list[int]], rejected_ids: list[list[int]]) -> States:
    nothing = np.zeros((len(chosen_ids), 1))
    return States(nothing, nothing, nothing, nothing, chosen_ids, rejected_ids)


# -- formulas ---------------------------------------------------------------------------------------------------------


@published
def test_ches_and_its_normalised_form_are_those_of_the_published_code():
    given, expected = reference("ches_padded_batch")
    sums, counts = [], []
    for side in ("preferred", "dispreferred"):
        hidden, last = torch.tensor(given[f"{side}_hidden"]), torch.tensor(given[f"{side}_last_prompt_index"])
        count = hidden.shape[1] - 1 - last  # the published code knows only the padding's side, not where it ends
        rows = similarity.predicting(torch.ones(hidden.shape[:2], dtype=torch.long), count)
        sums.append((hidden * rows[..., None]).sum(1))
        counts.append(count)
    assert similarity.ches(*sums) == pytest.approx(expected["ches"], abs=1e-4)
    assert similarity.normalised_ches(*sums, *counts) == pytest.approx(expected["ln_ches"], abs=1e-4)


@published
def test_the_edit_similarity_is_that_of_the_published_code():
    given, expected = reference("edit_distance_preference_similarity")
    found = [similarity.edit_similarity(pair["preferred"], pair["dispreferred"]) for pair in given["pairs"]]
    assert found == pytest.approx(expected["minus_normalized_edit_distances"], abs=1e-5)


@published
def test_the_states_that_predict_a_response_are_those_of_the_published_mask():
    given, expected = reference("dpo_prompt_mask")
    ids = torch.tensor(given["input_ids"])
    counts = ids.shape[1] - 1 - (ids == given["assistant_token_id"]).long().argmax(-1)
    rows = similarity.predicting((ids != 0).long(), counts)
    assert rows[:, :-1].long().tolist() == expected["mask"]
    assert not rows[:, -1].any()


def test_states_that_predict_a_response_are_found_whichever_side_the_padding_is_on():
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0]])
    rows = similarity.predicting(mask, torch.tensor([2, 2, 2]))  # of the text's four tokens the last two are predicted
    assert rows.long().tolist() == [[0, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]]


def test_a_pair_of_equal_responses_has_ches_0_and_one_that_outgrows_the_chosen_a_higher_one():
    assert similarity.ches([[1, 2], [1, 2]], [[1, 2], [3, 6]]).tolist() == [0, 10]
    assert similarity.normalised_ches([[1, 2], [1, 2]], [[1, 2], [3, 6]], [2, 2], [2, 6]).tolist() == [0, 0]


def test_tensors_and_equal_texts_have_an_edit_similarity():
    assert similarity.edit_similarity(torch.tensor([1, 2, 3, 4]), torch.tensor([2, 3])) == -0.5
    assert str(similarity.edit_similarity([5, 6], [5, 6])) == "0.0"
    assert similarity.edit_similarity([], []) == 0


# -- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"kind": "ches"}, Ches()), ({"kind": "ches", "normalised": True}, Ches(normalised=True)),
        ({"kind": "hidden"}, Hidden()), ({"kind": "edit"}, Edit()), ({"kind": "length"}, Length()),
    ],
)  # fmt: skip
def test_a_kind_is_found_by_its_name(table, kind):
    assert Similarity.parse(table, "similarities.it") == kind


def test_a_kind_of_somebody_s_own_is_named_by_its_place(tmp_path, monkeypatch):
    lines = ["from rmpipe.similarity import Similarity", "class Shared(Similarity):", "    kind: str = 'shared'"]
    (tmp_path / "alike.py").write_text("\n".join([*lines, "    def of(self, pairs):", "        return 7"]))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    own = Similarity.parse({"kind": "alike:Shared"}, "similarities.it")
    assert own.of(None) == 7
    assert own.dump()["kind"] == "alike:Shared"


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(StudyError, match=r"similarities.it.kind: no kind 'chess'; did you mean ches\?"):
        Similarity.parse({"kind": "chess"}, "similarities.it")


def test_the_end_of_sequence_that_both_responses_share_counts_for_no_edit():
    pairs = some([[5, 6, 2], [5, 2], [2], [5, 6]], [[5, 7, 2], [5, 2], [9, 2], [5, 7]])
    assert Edit().of(pairs).tolist() == [-0.5, 0, -1, -0.5]


def test_the_length_is_that_by_which_the_rejected_response_is_longer():
    assert Length().of(some([[5, 6, 2], [2]], [[2], [5, 6, 2]])).tolist() == [-2, 2]


# -- states of a model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(base: Path) -> LanguageModel:
    return policy.load(base, device="cpu")


@pytest.fixture(scope="module")
def pairs(model: LanguageModel) -> list[similarity.Triple]:
    told = [[parted(model.tokenizer, prompt, response) for response in responses] for prompt, *responses in TEXTS]
    return [(chosen[0], chosen[1], rejected[1]) for chosen, rejected in told]


def gathered(model: LanguageModel, pairs: list[similarity.Triple], **told: Any) -> dict[str, np.ndarray]:
    """All that `states` yields, in the order of the pairs."""
    found: dict[int, tuple[Any, ...]] = {}
    for indices, states, *logprobs in similarity.states(model, pairs, **told):
        arrays = (states.chosen_sum, states.rejected_sum, states.chosen_last, states.rejected_last, *logprobs)
        assert [list(ids) for ids in states.chosen_ids] == [pairs[index][1] for index in indices]
        assert [list(ids) for ids in states.rejected_ids] == [pairs[index][2] for index in indices]
        found |= zip(
            indices, zip(*arrays, Ches().of(states), Ches(normalised=True).of(states), strict=True), strict=True
        )
    assert sorted(found) == list(range(len(pairs)))
    names = ("chosen_sum", "rejected_sum", "chosen_last", "rejected_last", "chosen", "rejected", "ches", "normalised")
    columns = zip(*(found[index] for index in range(len(pairs))), strict=True)
    return {name: np.stack(column) for name, column in zip(names, columns, strict=True)}


def plainly(model: LanguageModel, prompt_ids: list[int], ids: list[int]) -> torch.Tensor:
    """The states that predict a response, (tokens, width), by a forward pass of the text alone."""
    with torch.no_grad():
        hidden = model.model(torch.tensor([[*prompt_ids, *ids]]), output_hidden_states=True).hidden_states[-1][0]
    return hidden[len(prompt_ids) - 1 : -1].double()


def test_the_similarities_are_those_of_plain_forward_passes_of_each_text(model, pairs):
    found = gathered(model, pairs)
    for row, (prompt_ids, *responses) in enumerate(pairs):
        plus, minus = (plainly(model, prompt_ids, ids) for ids in responses)
        ahead, behind = plus.sum(0), minus.sum(0)
        assert found["chosen_sum"][row] == pytest.approx(ahead.numpy(), abs=1e-5)
        assert found["rejected_last"][row] == pytest.approx(minus[-1].numpy(), abs=1e-5)
        assert found["ches"][row] == pytest.approx((ahead @ behind - ahead @ ahead).item(), abs=1e-3)
        expected = plus.mean(0) @ minus.mean(0) - plus.mean(0) @ plus.mean(0)
        assert found["normalised"][row] == pytest.approx(expected.item(), abs=1e-4)


def test_the_hidden_similarity_is_of_the_states_that_have_read_the_whole_response(model, pairs):
    ((_, states, *_),) = similarity.states(model, pairs[:1])
    last = []
    for ids in pairs[0][1:]:
        with torch.no_grad():
            text = torch.tensor([[*pairs[0][0], *ids[:-1]]])  # as published: no end of sequence is written
            last.append(model.model(text, output_hidden_states=True).hidden_states[-1][0, -1])
    assert Hidden().of(states) == pytest.approx([(last[0] @ last[1]).item()], abs=1e-4)


def test_log_probabilities_are_those_of_the_policy(model, pairs):
    found = gathered(model, pairs)
    for place, side in ((1, "chosen"), (2, "rejected")):
        expected = policy.likelihoods(model, [(pair[0], pair[place]) for pair in pairs]).numpy()
        assert found[side].dtype == np.float64
        assert found[side] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_neither_the_batch_nor_the_tokenizer_s_side_of_padding_changes_a_thing(
    model, pairs, batch_size, side, monkeypatch
):
    together = gathered(model, pairs, batch_size=len(pairs))
    monkeypatch.setattr(model.tokenizer, "padding_side", side)
    alone = gathered(model, pairs, batch_size=batch_size)
    for name, values in together.items():
        assert alone[name] == pytest.approx(values, abs=1e-4)


def test_a_batch_is_read_whole_its_logits_some_places_at_a_time_and_equal_texts_once(model, pairs, monkeypatch):
    asked: list[Any] = []
    hook = model.model.register_forward_hook(lambda _, told, out: asked.append(tuple(out.logits.shape[:2])))
    whole = gathered(model, pairs)
    longest = max(len(ids) for _, *responses in pairs for ids in responses)
    assert asked == [(7, longest + 1)]  # eight texts, of which two are equal
    asked.clear()
    monkeypatch.setattr(policy, "LOGITS", 2 * 7 * model.model.config.vocab_size)
    parts = gathered(model, pairs)
    assert asked == [(7, 1)]  # the model's own are of the last place; the others are made of its states
    asked.clear()
    monkeypatch.undo()
    gathered(model, pairs, batch_size=3)
    hook.remove()
    assert max(rows for rows, _ in asked) == 3
    for name, values in whole.items():
        assert parts[name] == pytest.approx(values, abs=1e-4), name


def test_a_model_that_shares_its_embeddings_is_read_where_its_unembedding_reads(model, pairs):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    told = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
    tied = LanguageModel(GPT2LMHeadModel(GPT2Config(vocab_size=400, **told)).eval(), model.tokenizer)
    found = gathered(tied, pairs)
    for row, (prompt_ids, _, rejected) in enumerate(pairs):
        hidden = plainly(tied, prompt_ids, rejected)
        assert found["rejected_sum"][row] == pytest.approx(hidden.sum(0).numpy(), abs=1e-5)
        spread = (hidden.float() @ tied.model.transformer.wte.weight.T).log_softmax(-1)
        expected = spread.gather(1, torch.tensor(rejected)[:, None]).sum().item()
        assert found["rejected"][row] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (([1] * 100, [5], [5] * 40), "row 1: prompt and rejected response have 140 tokens, but the model holds 128"),
        (([], [5], [5]), "row 1: the prompt is empty"),
        (([1], [], [5]), "row 1: the chosen response has no token; leave out"),
    ],
)
def test_what_cannot_be_read_is_named_before_anything_is(model, pairs, pair, said):
    with pytest.raises(StudyError, match=said):
        next(similarity.states(model, [pairs[0], pair], batch_size=1))


def test_broken_weights_are_named_by_the_row(base, pairs):
    broken = policy.load(base, device="cpu")
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[pairs[2][2][-2]] = torch.nan  # a word of the third pair alone
    with pytest.raises(StudyError, match="row 2: the model's states are no numbers"):
        list(similarity.states(broken, pairs))


def test_no_pairs_have_no_states(model):
    assert list(similarity.states(model, [])) == []
