"""What tests of several stages ask for: a small language model of random weights, some pairs, and a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tasks.execution import Log

WORDS = ("the", "kettle", "is", "fine", "lovely", "red", "oh", "you", "can", "love", "it")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights: a folder that is never written to."""
    from rmpipe import world

    folder = tmp_path_factory.mktemp("base")
    world.new_model(3, hidden=32, layers=1, heads=2).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    return SimpleNamespace(model=folder, dtype="float32")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """With a scratch folder of its own, and what was told of progress in `log.told`."""
    (tmp_path / "scratch").mkdir()
    told: list[Any] = []
    log = Log("stage/0", tmp_path / "scratch", lambda kind, address, what: told.append(what))
    log.told = told  # type: ignore[attr-defined]
    return log


def response(length: int, salt: int) -> str:
    """So many words, which ones the salt says."""
    return "".join(f" {WORDS[(salt * 7 + place * (salt % 3 + 1)) % len(WORDS)]}" for place in range(length))


@pytest.fixture(scope="session")
def pairs() -> Callable[..., Any]:
    """Preferences of so many pairs to learn from and held out: `pairs(12, 4)`."""

    def make(count: int, held_out: int = 0, key: Callable[[int], Any] = "p{}".format) -> Any:
        rows = [
            {"id": key(n), "prompt": f"tell me of the {WORDS[n % 5]}", "chosen": response(1 + n % 5, n),
             "rejected": response(1 + (3 * n) % 7, n + 1), "split": "reward" if n < count else "test"}
            for n in range(count + held_out)
        ]  # fmt: skip
        return preferences(pd.DataFrame(rows))

    return make


def preferences(table: pd.DataFrame) -> Any:
    """As `rmpipe.artifact.Preferences` is asked."""

    def split(name: str) -> pd.DataFrame:
        return table[table["split"] == name].reset_index(drop=True)

    def prompts(name: str) -> tuple[list[str], list[Any]]:
        mine = split(name).drop_duplicates("prompt")
        return mine["id"].astype(str).to_list(), mine["prompt"].to_list()

    return SimpleNamespace(table=lambda: table, split=split, prompts=prompts)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for an artifact."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"
