"""Training on pairs without a reward model: how many were trained on is told as it was."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from rmpipe.config import StudyError
from rmpipe.direct import Direct
from rmpipe.text import length
from tasks.prefer import prefer


def test_pairs_that_are_too_long_are_not_said_to_be_trained_on(base, pairs, out, log):
    from rmpipe import policy

    data, tokenizer = pairs(9), policy.load(base.model).tokenizer
    lengths = [max(length(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected"))
               for row in data.split("reward").to_dict("records")]  # fmt: skip
    longest = sorted(lengths)[4]
    kept = sum(count <= longest for count in lengths)
    training = {"steps": 1, "batch_size": 2, "max_length": longest, "optimiser": {"learning_rate": 1e-3}}
    draft = prefer.function(Direct(training=training), base, data, 1, out=out, log=log)
    assert 0 < kept < 9
    assert draft.summary == f"dpo on {kept} pairs, {9 - kept} are too long"
    assert draft.metrics == {"pairs": kept}


def test_a_training_that_diverges_is_refused_and_leaves_no_weights(base, pairs, out, log):
    training = {"steps": 3, "batch_size": 2, "optimiser": {"name": "sgd", "learning_rate": 1e30, "clip": 0}}
    with pytest.raises(StudyError, match=r"no longer finite; lower the training's optimiser\.learning_rate"):
        prefer.function(Direct(training=training), base, pairs(4), 1, out=out, log=log)
    assert not (out / "model").exists()
