"""The world's other register as an evaluation set: other words, the same worth."""

from __future__ import annotations

import pandas as pd

from rmpipe import world
from rmpipe.shift import Shift


def test_both_responses_are_said_in_other_words_that_are_worth_the_same():
    originals = pd.DataFrame(world.preferences(3, 40))
    rows = pd.DataFrame(Shift.parse({"kind": "register"}, "shifts.other").pairs(originals, 0, None))
    assert rows[["id", "prompt"]].equals(originals[["id", "prompt"]])
    for side in ("chosen", "rejected"):
        before, after = originals[side].str.split(), rows[side].str.split()
        assert (before != after).all()
        assert (before.str.len() == after.str.len()).all()
        assert list(world.truth(originals["prompt"], originals[side])) == list(world.truth(rows["prompt"], rows[side]))
