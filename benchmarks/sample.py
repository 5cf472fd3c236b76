"""Sampling K responses a prompt against `model.generate(num_return_sequences=K)`, in one run.

    python benchmarks/sample.py [--threads 1 2] [--prompts 32] [--samples 16] [--tokens 64] [--part 8] [--repeats 1]

A random Llama of 6.6M parameters in float32, prompts of 8 to 48 random tokens, no end of sequence for either, so that
both do the same work. Prompts go `--part` at a time, each part to both in turn; the ratio is the median over parts.
More prompts at a time make `generate` slower on a CPU, so that the ratio grows with `--part`; it grows with longer
prompts too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any


class Words:
    """A tokenizer of numbers, without an end of sequence."""

    pad_token_id = 0
    eos_token_id = bos_token_id = unk_token_id = chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        """A text of numbers as tokens."""
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int], **_: Any) -> str:
        """Tokens as a text of numbers."""
        return " ".join(map(str, ids))


def policy() -> Any:
    """A random Llama of 6.6M parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=640, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def prompts_of(count: int, shortest: int, longest: int) -> list[list[int]]:
    """Random tokens; every part has short and long ones."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator)
    return [torch.randint(1, 8192, (int(length),), generator=generator).tolist() for length in lengths]


def generate(model: Any, prompts: list[list[int]], samples: int, tokens: int) -> float:
    """Seconds that the rival takes."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    told = {"attention_mask": mask, "do_sample": True, "top_k": 0, "max_new_tokens": tokens}
    begun = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(ids, num_return_sequences=samples, **told)
    seconds = time.perf_counter() - begun
    assert out.shape == (len(prompts) * samples, width + tokens)
    return seconds


def ours(model: Any, prompts: list[list[int]], samples: int, tokens: int) -> float:
    """Seconds that `rmpipe.policy.sample` takes, texts included."""
    from rmpipe.policy import LanguageModel, sample

    texts = [" ".join(map(str, row)) for row in prompts]
    begun = time.perf_counter()
    drawn = sample(LanguageModel(model, Words()), texts, samples=samples, max_new_tokens=tokens, seed=0)
    seconds = time.perf_counter() - begun
    assert all(item.tokens == [tokens] * samples for item in drawn)
    return seconds


def main() -> None:
    """Print a line for each number of threads."""
    import torch

    parser = argparse.ArgumentParser(description="sampling against model.generate")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--shortest", type=int, default=8, help="tokens of a prompt")
    parser.add_argument("--longest", type=int, default=48, help="tokens of a prompt")
    parser.add_argument("--part", type=int, default=8, help="prompts at a time, for both")
    parser.add_argument("--repeats", type=int, default=1)
    told = parser.parse_args()
    model, prompts = policy(), prompts_of(told.prompts, told.shortest, told.longest)
    size = sum(weights.numel() for weights in model.parameters()) / 1e6
    print(f"{told.prompts} prompts x {told.samples} samples x {told.tokens} tokens, {size:.1f}M parameters")
    print("threads  generate   rmpipe    ratio (goal: 1.5)")
    for threads in told.threads:
        torch.set_num_threads(threads)
        generate(model, prompts[:2], told.samples, 4), ours(model, prompts[:2], told.samples, 4)  # warm
        parts = [prompts[start : start + told.part] for start in range(0, told.prompts, told.part)] * told.repeats
        pairs = [tuple(run(model, part, told.samples, told.tokens) for run in (generate, ours)) for part in parts]
        theirs, mine = (sum(column) / told.repeats for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{threads:7}  {theirs:6.1f} s  {mine:6.1f} s  {ratio:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
