"""Folders of models before anything is loaded: what is refused, with which words, and that nothing is run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from rmpipe.config import StudyError
from rmpipe.folder import SCORES, check_code, check_folder, check_scorer, heads_of, is_pinned, tokenizer_of


def test_weights_that_were_cut_are_refused_by_the_name_of_their_file(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "cut")
    check_folder(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(StudyError, match=f"{file}: no whole safetensors file .*copy or save the model again"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("kinds", "refused"),
    [
        (["LlamaForCausalLM"], True),
        (["GPT2LMHeadModel"], True),
        (["T5ForConditionalGeneration"], True),
        (["LlamaForSequenceClassification"], False),
        (["LlamaForRewardModel", "LlamaForCausalLM"], False),
        ([], False),
        (None, False),
    ],
)
def test_a_language_model_is_no_scorer_and_what_says_something_else_or_nothing_may_be(tmp_path, kinds, refused):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": kinds}))
    if not refused:
        return check_scorer(tmp_path)
    told = f"{tmp_path}: {kinds[0]} is a language model and scores nothing; give a reward model, or a sequence"
    with pytest.raises(StudyError, match=told):
        check_scorer(tmp_path)


def test_a_hub_id_is_not_looked_into_for_what_it_scores():
    check_scorer("owner/name")


def test_an_adapter_is_no_language_model(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "adapted")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(StudyError, match=f"{folder}: an adapter and no whole model; merge it into its base"):
        check_folder(folder)


def test_the_head_of_an_adapter_is_what_it_has_whole_and_neither_embedding_nor_lone_bias(tmp_path):
    from safetensors.numpy import save_file

    names = ["score.weight", "score.bias", "model.embed_tokens.weight", "lm_head.weight", "layers.0.q_proj.bias"]
    low = ["layers.0.q_proj.lora_A.weight", "layers.0.q_proj.lora_magnitude_vector"]
    weights = {f"base_model.model.{name}": np.zeros((2, 3), dtype=np.float32) for name in names + low}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    assert heads_of(tmp_path) == {"score.weight": [2, 3], "score.bias": [2, 3]}


def test_a_tokenizer_is_the_adapter_s_own_or_its_base_s(tmp_path):
    told = {"base_model_name_or_path": "some/base", "revision": "v1"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    assert tokenizer_of(tmp_path) == ("some/base", "v1")
    assert tokenizer_of(tmp_path, "other/base") == ("other/base", None)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tokenizer_of(tmp_path) == (str(tmp_path), None)


@pytest.mark.parametrize(
    ("config", "trusted", "told"),
    [
        ({"auto_map": {"AutoModelForSequenceClassification": "own.Model"}}, False, r"own.Model\), which is not run"),
        ({"auto_map": {"AutoConfig": "own.Config"}, "model_type": "own"}, False, r"own.Config\), which is not run"),
        ({"auto_map": {"AutoConfig": "own.Config"}, "model_type": "llama"}, False, None),
        ({"auto_map": {"AutoModelForCausalLM": "own.Model"}, "model_type": "llama"}, False, None),
        ({"auto_map": {"AutoModelForSequenceClassification": "own.Model"}}, True, None),
        (
            {"auto_map": {"AutoModelForSequenceClassification": "a/b--own.Model"}},
            True,
            r"another place \(a/b, own.Model",
        ),
        ({}, False, None),
    ],
)
def test_code_is_looked_at_and_refused_unless_it_is_trusted_and_the_model_s(tmp_path, config, trusted, told):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if told is None:
        return check_code(tmp_path, trusted=trusted, always=SCORES)
    with pytest.raises(StudyError, match=rf"^trust_remote_code: .*{told}"):
        check_code(tmp_path, trusted=trusted, always=SCORES)


def test_a_tokenizer_s_code_of_another_place_is_not_trusted_either(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    told = {"auto_map": {"AutoTokenizer": ["a/b--own.Slow", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    check_code(tmp_path, trusted=False)
    with pytest.raises(StudyError, match=r"another place \(a/b, own.Slow"):
        check_code(tmp_path, trusted=True)


def test_a_folder_and_a_commit_pin_what_is_read_and_a_name_that_may_move_does_not(tmp_path):
    assert is_pinned(str(tmp_path))
    assert is_pinned("some/model", "0123456789abcdef0123456789abcdef01234567")
    assert not is_pinned("some/model", "v2")
    assert not is_pinned("some/model")
