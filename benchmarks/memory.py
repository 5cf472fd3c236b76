"""Peak memory of likelihoods, of a step of finetuning and of one of RLHF, against four times as many rows.

    python benchmarks/memory.py [--rows 32] [--micro 8] [--words 152000]

The model is narrow, 64 numbers in 2 layers, but its vocabulary is as large as those of today's models, so that what
there is of memory goes to logits: 608 kB for each token in float32. With the micro batch held still, more rows shall
cost next to nothing. A line has the peaks with `--rows` rows, or responses, and with four times as many, and how many
times as high the second is, above what is held when all is loaded and in all. Each is of a process of its own: of a CPU
the resident set, of a GPU what PyTorch had of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOAL = 1.2
TIMES = 4
PROMPT, RESPONSE = 32, 32
"""Tokens of each text."""


@dataclass
class Quiet:
    """A log that keeps nothing."""

    scratch: Path

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Forget points of a curve."""

    def progress(self, done: int, total: int) -> None:
        """Forget how far it is."""


def new_base(folder: Path, words: int) -> None:
    """A narrow language model of random weights, with a tokenizer that has a token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0} | {f"w{n}": n for n in range(1, words)}, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="w1").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=words, **shape, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)


def text(salt: int, count: int) -> str:
    """So many words, which ones the salt says."""
    return " ".join(f"w{1 + (salt * 7919 + place * 104729) % 99991}" for place in range(count))


# -- what is measured -----------------------------------------------------------------------------------------------


def likelihoods(base: Path, rows: int, micro: int) -> None:
    """Log-likelihoods of responses, as many at a time as a micro batch has."""
    from rmpipe import policy

    model = policy.load(base)
    pairs = [(list(range(1, PROMPT)), list(range(n, n + RESPONSE))) for n in range(1, rows + 1)]
    begin()
    for _ in policy.token_log_probabilities(model, pairs, batch_size=micro):
        pass


def finetuning(base: Path, rows: int, micro: int) -> None:
    """A step on as many rows."""
    from rmpipe.algorithm import Finetuning, Optimiser, finetune

    examples = [{"prompt": text(n, PROMPT), "completion": f" {text(-n, RESPONSE)}"} for n in range(rows)]
    config = Finetuning(steps=1, batch_size=rows, micro_batch=micro, optimiser=Optimiser(learning_rate=1e-3))
    begin()
    finetune(base, examples, base.parent / "out", config=config, seed=1, log=Quiet(base.parent))


def rlhf(base: Path, rows: int, micro: int) -> None:
    """A step of RLOO on as many responses, four to each prompt."""
    from rmpipe.algorithm import Optimiser
    from rmpipe.reinforcement import Rloo, align

    config = Rloo(
        steps=1, prompts_per_step=rows // 4, samples_per_prompt=4, micro_batch=micro, max_new_tokens=RESPONSE,
        optimiser=Optimiser(learning_rate=1e-3),
    )  # fmt: skip
    prompts = [text(n, PROMPT) for n in range(rows // 4)]
    told: dict[str, Any] = {"config": config, "seed": 1, "log": Quiet(base.parent)}
    begin()
    align(base, prompts, lambda _, texts: list(map(len, texts)), base.parent / "out", **told)


MEASURED = {"likelihoods": likelihoods, "finetuning": finetuning, "rlhf": rlhf}


# -- a process each -------------------------------------------------------------------------------------------------


def peak() -> float:
    """The most memory so far, MiB."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def begin() -> None:
    """Print what is held when all is loaded."""
    import trl  # noqa: F401
    from transformers import Trainer  # noqa: F401

    print(json.dumps(peak()), flush=True)


def child(name: str, base: Path, rows: int, micro: int) -> None:
    """Do it, and print the peaks before and after."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    MEASURED[name](base, rows, micro)
    print(json.dumps(peak()), flush=True)


def measured(name: str, base: Path, rows: int, micro: int) -> tuple[float, float]:
    """The peaks of one process, before and after."""
    told = ["--child", name, "--base", str(base), "--rows", str(rows), "--micro", str(micro)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, __file__, *told], check=True, capture_output=True, text=True, env=offline)
    before, after = (float(line) for line in done.stdout.split()[-2:])
    return before, after


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description="peak memory against the number of rows")
    parser.add_argument("--rows", type=int, default=32, help="rows, or responses, of the smaller step")
    parser.add_argument("--micro", type=int, default=8, help="rows at a time")
    parser.add_argument("--words", type=int, default=152_000)
    parser.add_argument("--child", choices=list(MEASURED), help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        child(told.child, told.base, told.rows, told.micro)
        return
    print(f"{told.words} words, {told.micro} rows at a time, {PROMPT} + {RESPONSE} tokens; peaks in MiB")
    rows = f"{told.rows:4} rows  {TIMES * told.rows:4} rows"
    print(f"             loaded  {rows}   ratio (goal: {GOAL} at most)  above loaded")
    with tempfile.TemporaryDirectory() as name:
        for what in MEASURED:
            peaks = []
            for times in (1, TIMES):
                folder = Path(name) / f"{what}-{times}"
                new_base(folder / "base", told.words)
                peaks.append(measured(what, folder / "base", times * told.rows, told.micro))
            (loaded, few), (_, many) = peaks
            above = (many - loaded) / max(few - loaded, 1)
            print(f"{what:11} {loaded:7.0f}  {few:9.0f}  {many:9.0f}  {many / few:6.2f} x  {above:28.2f} x", flush=True)


if __name__ == "__main__":
    main()
