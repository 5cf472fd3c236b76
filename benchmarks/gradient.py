"""Gradients of the expected reward at prompts against one bare pass there and back of the same texts, in one run.

    OMP_NUM_THREADS=1 python benchmarks/gradient.py [--prompts 64] [--samples 32] [--tokens 22] [--repeats 3]
    python benchmarks/gradient.py --hidden 1024 --layers 24 --heads 16 --vocabulary 152000 --tokens 128 --prompts 8

A Llama of random weights, by default the embedded world's; the responses are words of that world drawn at random. The
rival does no more than to run the model over each half of a prompt's texts, without logits at the prompt, to
differentiate the sum of log-likelihoods, and to drop what came out: it knows all ids beforehand. Ours tokenises,
weighs, and multiplies both halves' gradients. The ratio is the median over repeats, each with both in turn. On a GPU,
if there is one, with the most of its memory that ours took.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import numpy as np

Pair = tuple[list[int], list[int]]


def bare(model: Any, halves: list[list[Pair]], at_once: int) -> None:
    """The rival: a pass forward and a pass back of each half of a prompt's texts, `at_once` of them at a time."""
    import torch
    from torch.nn.functional import cross_entropy

    for half in halves:
        for start in range(0, len(half), at_once):
            pairs = half[start : start + at_once]
            longest, begin = max(len(a) + len(b) for a, b in pairs), len(pairs[0][0])
            ids = torch.tensor([a + b + [0] * (longest - len(a) - len(b)) for a, b in pairs], device=model.device)
            following = torch.tensor([b + [-100] * (longest - begin - len(b)) for _, b in pairs], device=model.device)
            logits = model(ids, logits_to_keep=longest - begin + 1, use_cache=False).logits[:, :-1]
            cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="sum").backward()
        model.zero_grad()


def made(told: argparse.Namespace) -> Any:
    """A model of random weights, with the world's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rmpipe import policy, world

    tokenizer = world.tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=told.vocabulary or len(tokenizer), hidden_size=told.hidden, intermediate_size=2 * told.hidden,
        num_hidden_layers=told.layers, num_attention_heads=told.heads, num_key_value_heads=told.heads,
        max_position_embeddings=1024, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    tokenizer.model_max_length = 1024
    model = LlamaForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")
    return policy.LanguageModel(model.eval(), tokenizer)


def main() -> None:
    """Print a line."""
    import torch

    from rmpipe import gradient, world
    from rmpipe.text import parted
    from rmpipe.world.words import SLOTS

    parser = argparse.ArgumentParser(description="gradients at prompts against bare passes there and back")
    sizes = {"prompts": 64, "samples": 32, "tokens": 22, "repeats": 3, "hidden": 64, "layers": 2, "heads": 4}
    for name, size in {**sizes, "vocabulary": 0, "batch": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    told = parser.parse_args()
    model, prompts, drawn = made(told), world.prompts(0, told.prompts), random.Random(0)
    words = [word for slot in SLOTS.values() for word in slot.split()]
    texts = [[" " + " ".join(drawn.choices(words, k=told.tokens - 1)) for _ in range(told.samples)] for _ in prompts]
    rewards = np.random.default_rng(0).normal(size=(told.prompts, told.samples))
    halves = []
    for prompt, mine in zip(prompts, texts, strict=True):
        pairs = [parted(model.tokenizer, prompt, text) for text in mine]
        halves += [pairs[: told.samples // 2], pairs[told.samples // 2 :]]
    cuda = torch.cuda.is_available()

    def timed(work: Any) -> float:
        begun = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    at_once = max(1, min(told.batch, gradient.TOKENS // (told.tokens + 16)))  # as ours has it
    bare(model.model, halves[:4], at_once)  # warm
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = [
        (timed(lambda: bare(model.model, halves, at_once)),
         timed(lambda: gradient.policy_gradients(model, prompts, texts, rewards, batch_size=told.batch)))
        for _ in range(told.repeats)
    ]  # fmt: skip
    theirs, ours = (1000 * statistics.median(each) / told.prompts for each in zip(*times, strict=True))
    ratio = statistics.median(mine / other for other, mine in times)
    count = sum(weight.numel() for weight in model.model.parameters()) / 1e6
    where = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} thread(s)"
    memory = f", at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else ""
    print(
        f"{count:.1f} M parameters, {told.prompts} prompts x {told.samples} samples of {told.tokens} tokens, {where}: "
        f"bare passes {theirs:.1f} ms a prompt, gradients {ours:.1f} ms: {ratio:.2f} x (goal: 2){memory}"
    )


if __name__ == "__main__":
    main()
