"""What tests of several nouns ask for: a page opened from disk, a small language model, and what a training leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"


@pytest.fixture
def look(chromium: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page from disk, on a screen of some width, in a scheme of colours."""
    opened = []

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        seen = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened.append(seen)
        seen.asked = []
        seen.on("request", lambda request: seen.asked.append(request.url))
        seen.goto(file.as_uri())
        seen.evaluate(OPEN)
        return seen

    yield open_page
    for seen in opened:
        seen.close()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never written to."""
    return untrained(tmp_path_factory.mktemp("base"), 3, 32)


@pytest.fixture(scope="session")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small as they come, and never written to."""
    return untrained(tmp_path_factory.mktemp("smallest"), 0, 16)


def untrained(folder: Path, seed: int, hidden: int) -> Path:
    """A language model of the world with random weights."""
    from rmpipe import world

    world.new_model(seed, hidden=hidden, layers=1, heads=2).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads only wait for one another on models as small as these."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Log:
    """Remembers what training told, and raises at a step as a kill would."""

    scratch: Path
    stop: int | None = None
    done: list[tuple[int, int]] = field(default_factory=list)
    points: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.points.append((step, values))

    def progress(self, done: int, total: int) -> None:
        if done == self.stop:
            raise KeyboardInterrupt
        self.done.append((done, total))

    def loss(self) -> float:
        """Of the first step, before any weight has moved."""
        return self.points[0][1]["loss"]


def new_log(folder: Path, name: str = "scratch", stop: int | None = None) -> Log:
    (folder / name).mkdir(exist_ok=True)
    return Log(folder / name, stop)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    import torch

    before, after = weights(one), weights(other)
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def train_any(kind: str, base: Path, out: Path, log: Log, *, seed: int = 1, **told: Any) -> Any:
    """Train in one of all ways, on a few rows of the world, and give the reward model that came of it, if one did.

    Args:
        kind: finetune, explicit, mean, implicit, generative, rloo or grpo.
        told: what the training is told.
    """
    from rmpipe import world
    from rmpipe.algorithm import Finetuning, Optimiser, PairTraining, finetune
    from rmpipe.explicit import Explicit, RewardTraining
    from rmpipe.generative import Generative
    from rmpipe.implicit import Implicit
    from rmpipe.reinforcement import Algorithm, align

    told = {"steps": 2, "optimiser": Optimiser(learning_rate=0.02), **told}
    if kind == "finetune":
        rows = world.demonstrations("weak", 0, 40)
        return finetune(base, rows, out, config=Finetuning(**{"batch_size": 4, **told}), seed=seed, log=log)
    if kind in ("rloo", "grpo"):
        short: Any = {"prompts_per_step": 4, "samples_per_prompt": 3, "max_new_tokens": 6, **told}

        def varied(prompts: list[Any], responses: list[str]) -> list[float]:
            return [float(len({word[0] for word in response.split()})) for response in responses]

        config: Any = Algorithm.family[kind](**short)
        return align(base, world.prompts(0, 20), varied, out, config=config, seed=seed, log=log)
    pairs: Any = {"batch_size": 4, **told}
    answers = {"template": "{prompt}{response} <react>", "yes": " liked", "no": " disliked"}
    models: dict[str, Any] = {
        "explicit": lambda: Explicit(training=RewardTraining(**pairs)),
        "mean": lambda: Explicit(read="mean", training=RewardTraining(**pairs)),
        "implicit": lambda: Implicit(training=PairTraining(**pairs)),
        "generative": lambda: Generative(training=PairTraining(**pairs), **answers),
    }
    model = models[kind]()
    model.train(base, world.preferences(0, 40), out, seed=seed, log=log)
    return model


def check_seed_and_kill(train: Callable[..., None], folder: Path) -> None:
    """A seed decides the weights, and a killed run ends in the same.

    Args:
        train: called with a folder for the model, a log, and maybe `seed` (of itself 1) and `checkpoint_seconds`; it
            does four steps.
    """
    import torch

    whole = new_log(folder, "whole")
    train(folder / "one", whole)
    assert whole.done == [(1, 4), (2, 4), (3, 4), (4, 4)]

    torch.manual_seed(99)
    train(folder / "other", new_log(folder, "other scratch"), seed=2)
    assert not same(folder / "one", folder / "other")

    killed = new_log(folder, "killed", stop=3)
    with pytest.raises(KeyboardInterrupt):
        train(folder / "again", killed, checkpoint_seconds=0)
    assert not (folder / "again").exists()
    torch.manual_seed(99)
    resumed = Log(killed.scratch)
    train(folder / "again", resumed, checkpoint_seconds=0)
    assert resumed.done == [(3, 4), (4, 4)]
    assert resumed.points[0] == (2, {"resumed_from": 2})
    assert same(folder / "one", folder / "again")
