"""Diagnosing pairs against one bare forward pass of each response, in one run.

    python benchmarks/diagnose.py MODEL PAIRS.jsonl [--pairs 200] [--longest 512] [--repeats 3]

MODEL is a folder of a causal language model, PAIRS.jsonl has prompt, chosen and rejected; pairs longer than `--longest`
tokens are left out. The rival does no more than to run the model over prompt and response of every side, sorted by
length in batches of 32, without logits. Ours gives both likelihoods and the states of every similarity. The ratio is
the median over repeats, each with both in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any


def bare(model: Any, texts: list[list[int]], size: int = 32) -> None:
    """The rival: one pass of each text through the layers, and nothing kept."""
    import torch

    ordered = sorted(texts, key=len, reverse=True)
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        longest = len(part[0])
        ids = torch.tensor([[0] * (longest - len(text)) + text for text in part], device=model.device)
        mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in part], device=model.device)
        with torch.inference_mode():
            model.base_model(ids, attention_mask=mask, use_cache=False)


def main() -> None:
    """Print a line."""
    from rmpipe import policy, similarity
    from rmpipe.algorithm import paired_ids

    parser = argparse.ArgumentParser(description="diagnosing pairs against one bare pass of each response")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--longest", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    told = parser.parse_args()
    model = policy.load(told.model)
    rows = paired_ids(model.tokenizer, map(json.loads, told.data.open()), told.longest)[: told.pairs]
    pairs = [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in rows]
    texts = [prompt + response for prompt, *responses in pairs for response in responses]
    bare(model.model, texts)  # warm
    times = []
    for _ in range(told.repeats):
        begun = time.perf_counter()
        bare(model.model, texts)
        between = time.perf_counter()
        for _ in similarity.states(model, pairs):
            pass
        times.append((between - begun, time.perf_counter() - between))
    theirs, ours = (statistics.median(each) for each in zip(*times, strict=True))
    ratio = statistics.median(mine / other for other, mine in times)
    print(f"{len(pairs)} pairs: bare passes {theirs:.2f} s, diagnosed {ours:.2f} s: {ratio:.2f} x (goal: 1.5)")


if __name__ == "__main__":
    main()
