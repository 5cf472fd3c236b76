"""Training reward models: how many pairs, of which origin, each is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from rmpipe.explicit import Explicit
from tasks.train import train

CHAT = [{"role": "user", "content": "hello"}]


def table(name: str, count: int, prompt: Any = "p") -> pd.DataFrame:
    return pd.DataFrame([{"prompt": prompt, "chosen": f"{name}{i}", "rejected": "b"} for i in range(count)])


def given(
    out: Path, monkeypatch: pytest.MonkeyPatch, off: pd.DataFrame, own: pd.DataFrame | None, **more
) -> list[dict]:
    """The pairs that a reward model is trained on."""
    seen: list[dict] = []
    monkeypatch.setattr("rmpipe.explicit.train_reward_model", lambda base, rows, out, **_: seen.extend(rows))
    config = Explicit(base="a", training={"steps": 1, "optimiser": {"learning_rate": 0.1}}, **more)
    off_policy = SimpleNamespace(split=lambda name: off)
    on_policy = None if own is None else SimpleNamespace(table=lambda: own)
    train.function(config, SimpleNamespace(model=out), off_policy, on_policy, 1, out=out, log=None)
    return seen


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_pairs_bound_every_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float):
    own, about = (table("on", 30), {"on_policy_of": "a"}) if share else (None, {})
    rows = given(tmp_path, monkeypatch, table("off", 90), own, on_policy=share, pairs=20, **about)
    assert len(rows) == 20
    assert sum(row["chosen"].startswith("on") for row in rows) == int(share * 20)


def test_without_a_bound_all_pairs_are_taken_in_a_seeded_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = given(tmp_path, monkeypatch, table("off", 90), None)
    assert sorted(row["chosen"] for row in rows) == sorted(table("off", 90)["chosen"])


def test_messages_are_lists_again_after_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table("off", 2, CHAT).to_parquet(tmp_path / "pairs.parquet")
    rows = given(tmp_path, monkeypatch, pd.read_parquet(tmp_path / "pairs.parquet"), None)
    assert [row["prompt"] for row in rows] == [CHAT, CHAT]
