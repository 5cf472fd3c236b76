"""A stand-in for vLLM 0.33.0's offline API over transformers: what `rmpipe.offline` may say of it, and nothing else.

How it looks: the arguments of `LLM`, `LLM.generate` and `SamplingParams`, and the fields of what comes out, are named
as there, with the same defaults; of `EngineArgs`, to which `LLM` hands on what it does not name itself, the few below.
As there, sample k is drawn by the seed and k, a stop token ends a sample and is one of its tokens, and its likelihood
is that before temperature, top-k and top-p.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

ENGINE_ARGUMENTS = {"max_model_len": None, "generation_config": "auto", "logprobs_mode": "raw_logprobs"}


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    watermarking: bool | None = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        assert 0 <= self.temperature <= 2
        assert 0 < self.top_p <= 1
        assert self.top_k >= -1
        assert self.seed is None or -(2**63) <= self.seed < 2**63 - self.n


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Any]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: list[Any] | None
    outputs: list[CompletionOutput]
    finished: bool
    kv_transfer_params: dict[str, Any] | None = field(default=None)


class LLM:
    def __init__(
        self, model: str, *, runner: str = "auto", convert: str = "auto", tokenizer: str | None = None,
        tokenizer_mode: str = "auto", skip_tokenizer_init: bool = False, trust_remote_code: bool = False,
        tensor_parallel_size: int = 1, dtype: str = "auto", quantization: str | None = None,
        revision: str | None = None, tokenizer_revision: str | None = None, seed: int = 0,
        gpu_memory_utilization: float = 0.92, enforce_eager: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert kwargs.keys() <= ENGINE_ARGUMENTS.keys(), kwargs
        told = ENGINE_ARGUMENTS | kwargs
        assert told["logprobs_mode"] == "raw_logprobs"
        assert dtype != "auto", "which is float16 for a model in float32"
        self.skips, self.longest = skip_tokenizer_init, told["max_model_len"]
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()

    def generate(
        self, prompts: list[dict[str, Any]], sampling_params: list[SamplingParams] | None = None, *,
        use_tqdm: bool = True, lora_request: Any = None, priority: Any = None,
        tokenization_kwargs: dict[str, Any] | None = None, mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:  # fmt: skip
        assert sampling_params is not None
        answers = []
        for number, (prompt, how) in enumerate(zip(prompts, sampling_params, strict=True)):
            assert set(prompt) == {"prompt_token_ids"}, "no text, since no tokenizer is there"
            assert not (self.skips and how.detokenize)
            outputs = [self._one(prompt["prompt_token_ids"], how, index) for index in range(how.n)]
            answers.append(RequestOutput(str(number), None, prompt["prompt_token_ids"], None, outputs, True))
        return answers

    @torch.inference_mode()
    def _one(self, prompt: list[int], how: SamplingParams, index: int) -> CompletionOutput:
        warpers = LogitsProcessorList([TemperatureLogitsWarper(float(how.temperature))])
        warpers += [TopKLogitsWarper(how.top_k)] if how.top_k > 0 else []
        warpers += [TopPLogitsWarper(how.top_p)] if how.top_p < 1 else []
        random, ids, total, ended = torch.Generator().manual_seed((how.seed or 0) + index), [], 0.0, False
        while not ended and len(ids) < how.max_tokens and len(prompt) + len(ids) < self.longest:
            logits = self.model(torch.tensor([prompt + ids])).logits[:, -1].float()
            token = int(torch.multinomial(warpers(None, logits).softmax(-1), 1, generator=random))
            total += float(logits.log_softmax(-1)[0, token])
            ids, ended = [*ids, token], token in (how.stop_token_ids or ())
        known = None if how.logprobs is None else total
        return CompletionOutput(index, "", ids, known, None, "stop" if ended else "length", ids[-1] if ended else None)
