"""Training a reward model with `rmpipe.explicit.train_reward_model` against a bare torch loop, in one run.

    python benchmarks/train.py [--threads 1] [--steps 60] [--pairs 550] [--repeats 7]

The model is the embedded world's; steps, batch size, optimiser, schedule and number of pairs are those of `off` in the
shipped study `pocket`. `train_reward_model` goes through TRL's RewardTrainer. The bare loop does the same by hand: the
same weights and tokens, in the same batches, padded on the right to the longest of each, chosen and rejected in one
forward, the same loss with its centring, clipping, AdamW and schedule; no gradient checkpointing, no evaluation, no
curves; weights and tokenizer saved at the end.

Both begin with a folder and texts, and load and tokenise by the same calls. That part is timed in the bare loop's turn
and taken off both, so that the ratio is of the training alone: from a model and tokens in memory to saved weights. The
making of the trainer counts, imports do not. The ratio is the median over repeats, each with both in turn. One thread
is what a stage has when as many run as there are cores; with more threads than idle cores both take many times longer.

Both must end alike. After the figures the script fails if the saved weights, or loss and accuracy on the training
pairs, are further apart than sums in another order explain: then one of the two did less work, or other work.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOAL = 1.3
SEED = 1
SIDES = ("chosen", "rejected")
LARGEST = {"weights": 1e-5, "loss": 1e-3, "accuracy": 0.01}
"""How far apart the two may end. On a CPU they are equal to the last bit; one step less moves a weight by 2e-5."""


@dataclass
class Quiet:
    """A log that keeps nothing."""

    scratch: Path

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Forget points of a curve."""

    def progress(self, done: int, total: int) -> None:
        """Forget how far it is."""


def silence() -> None:
    """Neither bars nor warnings: they are the libraries' and would break up the table."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def new_base(folder: Path) -> None:
    """The embedded world's language model of random weights, with its tokenizer, as a stage saves it."""
    from rmpipe import world

    world.new_model(SEED).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)


def training(steps: int) -> Any:
    """How the shipped study trains its reward model `off`, with this many steps."""
    from flows.inquiry import find_study
    from rmpipe.study import Study

    return Study.read(find_study("pocket")).reward_models["off"].training.model_copy(update={"steps": steps})


# -- ours -----------------------------------------------------------------------------------------------------------


def ours(base: Path, pairs: list[dict[str, str]], out: Path, config: Any) -> float:
    """Seconds that `train_reward_model` takes, from a folder and texts to saved weights."""
    from rmpipe.explicit import train_reward_model

    log = Quiet(out.with_suffix(".scratch"))
    shutil.rmtree(log.scratch, ignore_errors=True)  # from a checkpoint of the last repeat it would go on
    gc.collect()  # neither pays for what the other left
    begun = time.perf_counter()
    train_reward_model(base, pairs, out, config=config, seed=SEED, log=log)
    return time.perf_counter() - begun


# -- the bare loop --------------------------------------------------------------------------------------------------


def bare(base: Path, pairs: list[dict[str, str]], out: Path, config: Any) -> tuple[float, float]:
    """Seconds that the rival takes to load and tokenise, and seconds to train and save."""
    gc.collect()
    begun = time.perf_counter()
    model, tokenizer, tokens = loaded(base, pairs)
    between = time.perf_counter()
    loop(model, tokens, config)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return between - begun, time.perf_counter() - between


def loaded(base: Path, pairs: list[dict[str, str]]) -> tuple[Any, Any, list[list[list[int]]]]:
    """Model, tokenizer, and tokens of each pair's sides, by the calls that `train_reward_model` makes for them."""
    import torch
    from transformers import AutoTokenizer

    from rmpipe.text import encode, padding_id

    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(SEED)
    model = opened(base)
    model.config.pad_token_id = padding_id(tokenizer)
    torch.nn.init.zeros_(model.score.weight)
    return model, tokenizer, [[encode(tokenizer, pair["prompt"], pair[side]) for side in SIDES] for pair in pairs]


def opened(folder: Path) -> Any:
    """A model with a head of one output."""
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, use_safetensors=True
    )


def loop(model: Any, tokens: list[list[list[int]]], config: Any) -> None:
    """The steps, with nothing around them."""
    import torch
    from transformers import get_scheduler

    told = config.optimiser
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=told.learning_rate, weight_decay=told.weight_decay)
    schedule = get_scheduler(told.schedule, optimiser, told.warmup_steps, config.steps)
    for indices in batches(len(tokens), config.batch_size, config.steps):
        chosen, rejected = rewards(model, [tokens[index] for index in indices])
        bradley_terry(chosen, rejected, config.center_rewards_coefficient).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), told.clip)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()


def batches(count: int, size: int, steps: int) -> Iterator[list[int]]:
    """Which pairs each step is on, in the trainer's order: a new permutation an epoch, its last batch a short one."""
    import torch

    epochs = -(-steps // -(-count // size))
    starts = [(epoch, start) for epoch in range(epochs) for start in range(0, count, size)]
    for epoch, start in starts[:steps]:
        if start == 0:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED + epoch)).tolist()
        yield order[start : start + size]


def rewards(model: Any, pairs: list[list[list[int]]]) -> Any:
    """The chosen and the rejected ones' rewards, from one forward padded to the longest."""
    import torch

    rows = [pair[side] for side in range(len(SIDES)) for pair in pairs]
    width = max(map(len, rows))
    padding = model.config.pad_token_id
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].chunk(2)


def bradley_terry(chosen: Any, rejected: Any, centring: float) -> Any:
    """The loss of TRL's trainer: -mean log sigmoid(r_chosen - r_rejected) + c mean (r_chosen + r_rejected)^2."""
    import torch

    fit = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    return fit + centring * torch.mean((chosen + rejected) ** 2)


# -- both -----------------------------------------------------------------------------------------------------------


def ends(folder: Path, tokens: list[list[list[int]]], config: Any) -> tuple[float, float]:
    """Loss and accuracy of a saved reward model on the pairs that it was trained on."""
    import torch

    model = opened(folder)
    parts = [tokens[start : start + 64] for start in range(0, len(tokens), 64)]
    with torch.inference_mode():
        chosen, rejected = (torch.cat(side) for side in zip(*(rewards(model, part) for part in parts), strict=True))
        loss = bradley_terry(chosen, rejected, config.center_rewards_coefficient)
    return float(loss), float((chosen > rejected).float().mean())


def apart(one: Path, other: Path) -> float:
    """The largest difference of a weight between two saved models."""
    from safetensors.torch import load_file

    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def compare(folder: Path, pairs: list[dict[str, str]], config: Any, repeats: int) -> list[tuple[float, float, float]]:
    """Seconds of each repeat: of what is shared, of the bare loop, and ours. The last two models stay in `folder`."""
    rows = []
    for _ in range(repeats):
        shared, theirs = bare(folder / "base", pairs, folder / "bare", config)
        rows.append((shared, theirs, ours(folder / "base", pairs, folder / "rmpipe", config) - shared))
    return rows


def check(folder: Path, pairs: list[dict[str, str]], config: Any) -> str:
    """Print how the last two ended; name what they are too far apart in."""
    _, _, tokens = loaded(folder / "base", pairs)
    (loss, accuracy), (my_loss, my_accuracy) = (ends(folder / name, tokens, config) for name in ("bare", "rmpipe"))
    found = {"weights": apart(folder / "bare", folder / "rmpipe")}
    found |= {"loss": abs(my_loss - loss), "accuracy": abs(my_accuracy - accuracy)}
    print(f"loss     {loss:9.4f}  {my_loss:8.4f}    on the training pairs, at the end")
    print(f"accuracy {accuracy:9.3f}  {my_accuracy:8.3f}    weights: {found['weights']:.0e} apart at most", flush=True)
    # Not `value > limit`: a loss that is no number would pass.
    return ", ".join(name for name, value in found.items() if not value <= LARGEST[name])


def main() -> None:
    """Print a line for each number of threads, and how both ended."""
    import torch

    parser = argparse.ArgumentParser(description="reward model training against a bare torch loop")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="no more than idle cores")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=550, help="as many as the study trains on")
    parser.add_argument("--repeats", type=int, default=7)
    told = parser.parse_args()
    from rmpipe import world

    silence()
    pairs, config = world.preferences(SEED, told.pairs), training(told.steps)
    print(f"{told.steps} steps of {config.batch_size} from {len(pairs)} pairs, {told.repeats} repeats")
    print(f"threads  bare loop    rmpipe   ratio (goal: {GOAL} at most)  loading, taken off both")
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new_base(folder / "base")
        for threads in told.threads:
            torch.set_num_threads(threads)
            compare(folder, pairs[:64], training(2), 1)  # warm: imports, and memory that is asked for once
            rows = compare(folder, pairs, config, told.repeats)
            shared, theirs, mine = map(statistics.median, zip(*rows, strict=True))
            ratio = statistics.median(b / a for _, a, b in rows)
            print(f"{threads:7}  {theirs:7.2f} s  {mine:6.2f} s  {ratio:4.2f} x  {shared:29.2f} s", flush=True)
            wrong.append(check(folder, pairs, config))
    if any(wrong):
        sys.exit(f"the two did not end alike: {'; '.join(filter(None, wrong))}")


if __name__ == "__main__":
    main()
