"""Slopes and rehearsals against bare passes there and back of the same texts, and peak memory against more texts.

    OMP_NUM_THREADS=1 python benchmarks/foresight.py [--prompts 32] [--samples 16] [--tokens 32] [--repeats 3]
    python benchmarks/foresight.py --hidden 1024 --layers 24 --heads 16 --vocabulary 152000 --tokens 128 --prompts 8

A Llama of random weights, by default the embedded world's; the responses are words of that world drawn at random. The
rival runs the model over each prompt's texts, batch by batch and without logits at the prompt, differentiates the sum
of log-likelihoods, and drops what came out; slopes are of each text by itself, by `--weights` weights. A rehearsal is
of `--rewards` rewards over `--steps` steps of Adam with clipping. Ratios are medians over repeats, each with all in
turn. Peaks are of a process each: of a CPU the resident set, less what slopes return, of a GPU what PyTorch had of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # `made` and `bare` are those of gradient.py
TIMES = 4
GOAL = 1.2


def texts_of(told: argparse.Namespace, prompts: int) -> tuple[list[str], list[list[str]]]:
    """Prompts and responses."""
    from rmpipe import world
    from rmpipe.world.words import SLOTS

    words, drawn = [word for slot in SLOTS.values() for word in slot.split()], random.Random(0)
    asked = world.prompts(0, prompts)
    return asked, [
        [" " + " ".join(drawn.choices(words, k=told.tokens - 1)) for _ in range(told.samples)] for _ in asked
    ]


def peak() -> float:
    """The most memory so far, MiB."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def child(told: argparse.Namespace) -> None:
    """Print the peaks before and after, and what was returned, MiB."""
    import torch
    from gradient import bare, made

    from rmpipe.slopes import slopes
    from rmpipe.text import parted

    model, (prompts, said) = made(told), texts_of(told, told.child)
    bare(model.model, [[parted(model.tokenizer, prompts[0], said[0][0])]], 1)
    before = peak()
    found = slopes(model, prompts, said, weights=told.weights)
    print(json.dumps([before, peak(), 0.0 if torch.cuda.is_available() else found.values.nbytes / 2**20]))


def peaks(told: argparse.Namespace, prompts: int) -> tuple[float, float]:
    """Of a process of its own, less what it returns: the peaks before and after, MiB."""
    sizes = [f"--{name}={value}" for name, value in vars(told).items() if name != "child"]
    run = [sys.executable, __file__, *sizes, f"--child={prompts}"]
    done = subprocess.run(run, check=True, capture_output=True, text=True, env=os.environ)
    before, after, returned = json.loads(done.stdout.splitlines()[-1])
    return before, after - returned


def timed(work: Any) -> float:
    """Seconds."""
    import torch

    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def cost(told: argparse.Namespace) -> str:
    """What a sample costs, beside the rival, and what a rehearsal does."""
    import torch
    from gradient import bare, made

    from rmpipe import gradient
    from rmpipe.recipe import Recipe
    from rmpipe.rehearsal import rehearse
    from rmpipe.slopes import slopes
    from rmpipe.text import parted

    model, (prompts, said) = made(told), texts_of(told, told.prompts)
    pairs = [[parted(model.tokenizer, a, text) for text in mine] for a, mine in zip(prompts, said, strict=True)]
    at_once = max(1, min(told.batch, gradient.TOKENS // (told.tokens + 16)))
    bare(model.model, pairs[:2], at_once)  # warm
    found = slopes(model, prompts, said, weights=told.weights)
    rewards = np.random.default_rng(0).normal(size=(told.rewards, *found.values.shape[:2]))
    how = Recipe(rates=(1e-4,) * told.steps, adaptive=True, clip=1.0, kl=0.02, prompts=12, samples=4)
    times = [
        (timed(lambda: bare(model.model, pairs, at_once)),
         timed(lambda: slopes(model, prompts, said, weights=told.weights)),
         timed(lambda: rehearse(found, rewards, {"g": rewards[0]}, how)),
         timed(lambda: rehearse(found, rewards[:1], {"g": rewards[0]}, how)))
        for _ in range(told.repeats)
    ]  # fmt: skip
    theirs, ours, many, one = map(statistics.median, zip(*times, strict=True))
    ratio, more = (statistics.median(a[x] / a[y] for a in times) for x, y in ((1, 0), (2, 3)))
    count, texts = sum(weight.numel() for weight in model.model.parameters()) / 1e6, told.prompts * told.samples
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} thread(s)"
    return (
        f"{count:.1f} M parameters, {told.prompts} prompts x {told.samples} samples of {told.tokens} tokens, {where}: "
        f"bare passes {1000 * theirs / texts:.2f} ms a sample, slopes by {found.values.shape[2]} weights "
        f"{1000 * ours / texts:.2f} ms: {ratio:.2f} x\n"
        f"a rehearsal of {told.steps} steps: one reward {one:.2f} s, {told.rewards} rewards {many:.2f} s: {more:.2f} x"
    )


def main() -> None:
    """Print three lines."""
    parser = argparse.ArgumentParser(description="slopes and rehearsals against bare passes, memory against more texts")
    sizes = {"prompts": 32, "samples": 16, "tokens": 32, "repeats": 3, "hidden": 64, "layers": 2, "heads": 4}
    for name, size in {**sizes, "vocabulary": 0, "batch": 64, "weights": 4096, "rewards": 20, "steps": 50}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        child(told)
        return
    (loaded, few), (_, many) = (peaks(told, times * told.prompts) for times in (1, TIMES))
    print(
        f"peaks less what is returned: loaded {loaded:.0f} MiB, {told.prompts} prompts {few:.0f}, "
        f"{TIMES * told.prompts} prompts {many:.0f}: {many / few:.2f} x (goal: {GOAL} at most)",
        flush=True,
    )
    print(cost(told))  # last, for what this process holds by then would be in its children's peaks


if __name__ == "__main__":
    main()
