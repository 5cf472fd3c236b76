"""Scoring in length-sorted, token-budget batches against unsorted batches of one size, in one run.

    python benchmarks/score.py [--texts 96] [--longest 1024] [--layers 2]

Texts are as long as those of Anthropic's HH-RLHF harmless pairs (prompt and response, stories260k tokenizer), in random
order, without the longest 4 %, which would slow the rival most; the model is a small random Llama. The rival tokenises,
pads and scores a batch of 16 or 32 at a time, as most scripts do. Both give the same rewards; the ratio is the median
over repeats, each with both in turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

# Token lengths at these quantiles, of 2,322 texts (1,161 pairs); mean 389.
QUANTILES = {
    0.0: 31, 0.05: 71, 0.1: 91, 0.15: 113, 0.2: 133, 0.25: 155, 0.3: 183, 0.35: 218, 0.4: 248, 0.45: 277, 0.5: 309,
    0.55: 341, 0.6: 377, 0.65: 416, 0.7: 458, 0.75: 509, 0.8: 585, 0.85: 672, 0.9: 805, 0.95: 978, 1.0: 2513,
}  # fmt: skip
WORDS = [f"w{index}" for index in range(508)]


def lengths(count: int, longest: int, rng: np.random.Generator) -> list[int]:
    """Token lengths of texts, in random order; `count` before those above `longest` are left out."""
    places = rng.permutation((np.arange(count) + 0.5) / count)
    values = np.interp(places, list(QUANTILES), list(QUANTILES.values()))
    return [int(value) for value in values if value <= longest]


def reward_model(folder: Path, hidden: int, layers: int) -> None:
    """A random Llama with a reward head, and a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(special + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=4096, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=hidden, intermediate_size=round(2.7 * hidden), num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4096, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder)


def unsorted(model: Any, tokenizer: Any, texts: list[str], size: int) -> np.ndarray:
    """The rival: batches of one size in the order given."""
    import torch

    rewards = []
    for start in range(0, len(texts), size):
        batch = tokenizer([text + " <eos>" for text in texts[start : start + size]], padding=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            rewards.append(model(**batch.to(model.device)).logits[:, 0].float().cpu().numpy())
    return np.concatenate(rewards)


def compare(folder: Path, texts: list[str], repeats: int) -> dict[int, tuple[float, float, float]]:
    """Rival's batch size -> (ratio of times, the rival's seconds, ours), medians over paired repeats."""
    from rmpipe.scoring import SequenceScorer

    scorer = SequenceScorer(folder)
    prompts, responses = [text[: len(text) // 2] for text in texts], [text[len(text) // 2 :] for text in texts]
    unsorted(scorer.model, scorer.tokenizer, texts[:16], 16)  # warm
    times: dict[int, list[tuple[float, float]]] = {16: [], 32: []}
    for _ in range(repeats):
        for size, seconds in times.items():
            begun = time.perf_counter()
            theirs = unsorted(scorer.model, scorer.tokenizer, texts, size)
            between = time.perf_counter()
            ours = scorer(prompts, responses)
            seconds.append((between - begun, time.perf_counter() - between))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    median = statistics.median
    return {
        size: (median(a / b for a, b in pairs), median(a for a, _ in pairs), median(b for _, b in pairs))
        for size, pairs in times.items()
    }


def main() -> None:
    """Print a line a rival."""
    import torch

    parser = argparse.ArgumentParser(description="scoring against unsorted batches of one size")
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--longest", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    told = parser.parse_args()
    rng = np.random.default_rng(0)
    counts = lengths(told.texts, told.longest, rng)
    texts = [" ".join(rng.choice(WORDS, count - 2)) for count in counts]  # and a beginning and an end
    with tempfile.TemporaryDirectory() as folder:
        reward_model(Path(folder), told.hidden, told.layers)
        print(f"{len(texts)} texts of {np.mean(counts):.0f} tokens on average, {torch.get_num_threads()} thread(s)")
        for size, (ratio, theirs, ours) in compare(Path(folder), texts, told.repeats).items():
            print(f"  unsorted batches of {size}: {theirs:.2f} s, ours {ours:.2f} s: {ratio:.2f} x (goal: 2)")


if __name__ == "__main__":
    main()
