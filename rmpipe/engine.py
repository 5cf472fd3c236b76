"""Engines that draw a policy's responses: transformers, or vLLM, which is many times as fast on a GPU.

vLLM 0.33 asks for torch 2.14 and fastapi<0.137, and Prefect 3.8.8 for fastapi>=0.139, so that no one environment holds
both. vLLM draws in a process of its own, by the Python that `RMPIPE_VLLM` names, or by this one should it have vLLM;
`rmpipe.offline` is what runs there, and the GPU's memory is free again when it has ended. Tokens go in and tokens come
out: texts become ids, and ids texts, by `rmpipe.text` whichever engine draws.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from rmpipe import offline
from rmpipe.config import StudyError
from rmpipe.drawing import Sampled
from rmpipe.policy import check_room, load, options, sample
from rmpipe.text import Text, encode, held, response_text

if TYPE_CHECKING:
    from rmpipe.artifact import Weights

Engine = Literal["transformers", "vllm"]

PYTHON = "RMPIPE_VLLM"
"""The environment variable that names the Python which has vLLM."""
COOLEST, HOTTEST = 0.01, 2.0  # vLLM makes the one of a lower temperature, silently, and refuses one above the other


def check(where: str, sampling: Any) -> None:
    """Refuse an engine that is not there, or that cannot draw so.

    Args:
        where: what the study calls the sampling.
        sampling: a `rmpipe.study.Sampling`.

    Raises:
        StudyError: names the field, what is wrong and the remedy.
    """
    if sampling.engine == "transformers":
        return
    if not COOLEST <= sampling.temperature <= HOTTEST:
        told = f"{sampling.temperature}, and vLLM draws from {COOLEST} to {HOTTEST}"
        raise StudyError(f'{where}.temperature: {told}; stay within, or set {where}.engine = "transformers"')
    try:
        has = [python(), "-c", "import sys, importlib.util as of; sys.exit(of.find_spec('vllm') is None)"]
        there = subprocess.run(has, check=False).returncode == 0
    except OSError:
        there = False
    if not there:
        told = f"vllm, and {python()} has none"
        make = f"python -m venv vllm && vllm/bin/pip install 'vllm>=0.33', and set {PYTHON}=vllm/bin/python"
        raise StudyError(f'{where}.engine: {told}; make it an environment of its own ({make}), or say "transformers"')


def python() -> str:
    """The Python that runs vLLM."""
    return os.environ.get(PYTHON) or sys.executable


def draw(
    policy: Weights, prompts: Sequence[Text], sampling: Any, *, seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sampled]:  # fmt: skip
    """Draw K responses to each prompt by the engine that a sampling names.

    Random numbers come from the seed and the prompt alone, whichever it is, but no two engines draw the same.

    Args:
        sampling: a `rmpipe.study.Sampling`.
        progress: called with prompts done and prompts in all.

    Returns:
        one `Sampled` a prompt, in the order of the prompts.

    Raises:
        StudyError: a prompt leaves no room for `max_new_tokens` in the model's context, or vLLM ended with an error.
    """
    told = options(sampling)
    if sampling.engine == "transformers":
        return sample(load(policy.model, policy.dtype), prompts, **told, seed=seed, progress=progress)
    drawn = _by_vllm(policy, prompts, told, seed)
    if progress is not None:
        progress(len(drawn), len(drawn))
    return drawn


def _by_vllm(policy: Weights, prompts: Sequence[Text], told: dict[str, Any], seed: int) -> list[Sampled]:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy.model)
    ids = [encode(tokenizer, prompt) for prompt in prompts]
    check_room(ids, told["max_new_tokens"], held(AutoConfig.from_pretrained(policy.model), tokenizer))
    answers = _answered(request(policy, ids, tokenizer.eos_token_id, told, seed))
    return [_sampled(tokenizer, *pair) for pair in zip(ids, answers, strict=True)]


def request(policy: Weights, ids: list[list[int]], end: int | None, told: dict[str, Any], seed: int) -> dict[str, Any]:
    """What `rmpipe.offline` is asked, in vLLM's words.

    Nothing is left to vLLM's defaults that decides what is drawn. It takes float16 for a model in float32, and from a
    model's folder a temperature, and ends of sequence that its tokenizer does not have.

    Args:
        ids: of the prompts.
        end: the end of sequence.
        told: the keyword arguments of `rmpipe.policy.sample`.
    """
    longest = max(map(len, ids)) + told["max_new_tokens"]
    model = {"model": str(policy.model), "dtype": policy.dtype, "max_model_len": longest, "skip_tokenizer_init": True}
    drawing = {
        "n": told["samples"], "temperature": told["temperature"], "top_k": told["top_k"], "top_p": told["top_p"],
        "max_tokens": told["max_new_tokens"], "logprobs": 0, "detokenize": False, "ignore_eos": True,
        "stop_token_ids": [] if end is None else [end],
    }  # fmt: skip
    return {
        "model": model | {"generation_config": "vllm", "logprobs_mode": "raw_logprobs"},
        "drawing": drawing,
        "prompts": [{"prompt_token_ids": each} for each in ids],
        "seeds": [seed_of(seed, each) for each in ids],
    }


def seed_of(seed: int, prompt_ids: list[int]) -> int:
    """The seed of one prompt, of which vLLM gives sample k the k-th after it: far apart for any two prompts."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt_ids}".encode()).digest()[:7], "big")


def _answered(asked: dict[str, Any]) -> list[list[dict[str, Any]]]:
    import torch

    torch.cuda.empty_cache()  # vLLM takes nearly all of a GPU
    with TemporaryDirectory() as folder:
        question, answer = Path(folder) / "asked.json", Path(folder) / "drawn.json"
        question.write_text(json.dumps(asked))
        command = [python(), "-P", offline.__file__, str(question), str(answer)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as run:  # ends when stdin closes
            code = run.wait()
        if code:
            raise RuntimeError(f"vLLM ended with exit code {code}; what it said is in the log")
        return json.loads(answer.read_text())


def _sampled(tokenizer: Any, prompt_ids: list[int], answers: list[dict[str, Any]]) -> Sampled:
    ids = [list(answer["ids"]) for answer in answers]
    return Sampled(
        responses=[response_text(tokenizer, prompt_ids, row) for row in ids],
        tokens=[len(row) for row in ids],
        finished=[row[-1] == tokenizer.eos_token_id for row in ids],
        logprobs=[answer["logprob"] for answer in answers],
        ids=ids,
    )
