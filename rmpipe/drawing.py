"""Drawing responses from a causal language model, all K of a prompt at once.

A prompt is read once for all its samples, and their keys and values are written into one buffer that is allocated at
the start (`rmpipe.attention`). Rows whose response has ended are dropped. A token takes one random number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError
from rmpipe.text import padding_id, response_text

if TYPE_CHECKING:
    import torch

Warp = Callable[["torch.Tensor"], "torch.Tensor"]

LIVE_SHARE = 0.8  # rows are dropped once fewer than this share go on: dropping copies what the others wrote


@dataclass(frozen=True)
class Sampled:
    """K responses to one prompt."""

    responses: list[str]
    tokens: list[int]
    """Length of each in tokens, the end of sequence included."""
    finished: list[bool]
    """Whether the end of sequence was reached."""
    logprobs: list[float]
    """Log-probability of each under the model at temperature 1, nats, summed over its tokens."""
    ids: list[list[int]]
    """Its tokens, the end of sequence included."""


def noise_of(seed: int, prompt_ids: list[int], samples: int, length: int) -> torch.Tensor:
    """Uniform numbers of one prompt, (samples, length)."""
    import torch

    number = int.from_bytes(hashlib.sha256(f"{seed} {prompt_ids}".encode()).digest()[:7], "big")
    return torch.rand(samples, length, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def warp_of(temperature: float, top_k: int, top_p: float) -> Warp | None:
    """Logits to the logits drawn from, by transformers' own warpers; None when they are the same."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers: Any = LogitsProcessorList()
    if temperature == 0:
        warpers.append(TopKLogitsWarper(1))
    elif temperature != 1:
        warpers.append(TemperatureLogitsWarper(temperature))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return (lambda logits: warpers(None, logits)) if warpers else None


def draw_tokens(chances: torch.Tensor, uniform: torch.Tensor, *, block: int = 64) -> torch.Tensor:
    """The token at which the cumulated probability passes a uniform number: first its block, then it.

    Two levels keep the running sums short, which is quicker, and exact enough for any vocabulary. A token of
    probability 0 is never drawn.

    Args:
        chances: (rows, vocabulary), of any positive sum.
        uniform: (rows,), in [0, 1), float64.

    Returns:
        (rows,).

    Raises:
        StudyError: the probabilities are no numbers.
    """
    import torch

    chances = torch.nn.functional.pad(chances, (0, -chances.shape[-1] % block))
    blocks = chances.view(len(chances), -1, block)
    masses = blocks.sum(-1)
    if not masses.isfinite().all():
        told = "the model's probabilities are no numbers: its weights are broken, as after a training that diverged"
        raise StudyError(f"{told}; lower the learning rate")
    which, within = _pass(masses, uniform)
    inside, _ = _pass(blocks[torch.arange(len(chances), device=chances.device), which], within)
    return which * block + inside


def _pass(chances: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the cumulated sum passes a uniform number, (rows,), and how far into that place it lies, in [0, 1)."""
    import torch

    sums = chances.double().cumsum(-1)
    total = sums[:, -1:]
    point = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(sums, point, right=True)
    mass = chances.double().gather(1, place)
    return place[:, 0], ((point - sums.gather(1, place) + mass) / mass).clamp_(0, 1)[:, 0]


def _choose(logits: torch.Tensor, uniform: torch.Tensor, warp: Warp | None) -> tuple[torch.Tensor, torch.Tensor]:
    """A token a row, and its log-probability at temperature 1, nats, both (rows,)."""
    logits = logits.float()
    chances = (logits if warp is None else warp(logits)).softmax(-1)
    token = draw_tokens(chances, uniform)
    if warp is None:
        return token, chances.gather(1, token[:, None])[:, 0].log()
    return token, logits.log_softmax(-1).gather(1, token[:, None])[:, 0]


class Batch:
    """Some prompts and the K samples of each, drawn together; row r begins as sample r % K of prompt r // K."""

    def __init__(self, model: Any, tokenizer: Any, ids: list[list[int]], samples: int, room: int):
        self.model, self.tokenizer = model, tokenizer
        self.prompt_ids, self.samples, self.room = ids, samples, room
        self.end = -1 if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id
        self.cache: Any = None
        self.input, self.mask = left_padded(ids, padding_id(self.tokenizer), self.model.device)
        self.lengths = self.mask.sum(-1)

    def draw(self, noise: torch.Tensor, warp: Warp | None) -> list[Sampled]:
        """Draw until every response has ended or the room is used.

        Args:
            noise: uniform numbers, (prompts, samples, room).
            warp: logits to the logits drawn from.
        """
        import torch

        noise = noise.reshape(-1, self.room).to(self.model.device)
        drawn = torch.full(noise.shape, -1, device=self.model.device)
        logprobs = torch.zeros_like(noise)
        rows = torch.arange(len(noise), device=self.model.device)
        live = torch.ones_like(rows, dtype=torch.bool)
        logits = self._read()
        for step in range(self.room):
            token, logprob = _choose(logits, noise[rows, step], warp)
            drawn[rows, step], logprobs[rows, step] = token, logprob.double()
            live &= token != self.end
            count = int(live.sum())
            if count == 0 or step + 1 == self.room:
                break
            if count < LIVE_SHARE * len(rows):
                kept = live.nonzero()[:, 0]
                rows, token, live = rows[kept], token[kept], live[kept]
                self.cache.reorder_cache(kept)
            logits = self._step(token, rows, step)
        return self._gathered(drawn.tolist(), logprobs.tolist())

    def _read(self) -> torch.Tensor:
        """Read the prompts once, and give the logits of the first tokens, (rows, vocabulary)."""
        import torch
        from transformers import DynamicCache

        from rmpipe.attention import SharedPromptCache, can_share

        mask = self.mask
        told = {"attention_mask": None if mask.all() else mask, "position_ids": positions_of(mask)}
        cache = DynamicCache(config=self.model.config)
        out = self.model(self.input, past_key_values=cache, use_cache=True, logits_to_keep=1, **told)
        if getattr(out, "past_key_values", None) is None:
            raise StudyError(f"{type(self.model).__name__}: keeps no keys and values; take a model with attention")
        self.shared = can_share(self.model, cache)
        if self.shared:
            self.cache = SharedPromptCache(cache.layers, told["attention_mask"], self.samples, self.room)
        else:
            self.cache = cache
            self.cache.reorder_cache(torch.arange(len(mask), device=mask.device).repeat_interleave(self.samples))
        return out.logits[:, -1].repeat_interleave(self.samples, 0)

    def _step(self, token: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Logits of the next tokens of some rows, (rows, vocabulary)."""
        import torch

        from rmpipe.attention import shared_prompts

        prompt = rows // self.samples
        told: dict[str, Any] = {"position_ids": self.lengths[prompt, None] + step, "past_key_values": self.cache}
        if self.shared:
            with shared_prompts(self.model):
                return self.model(token[:, None], use_cache=True, shared=self.cache, **told).logits[:, -1]
        mask = self.mask[prompt]
        told["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), step + 1)], 1)
        return self.model(token[:, None], use_cache=True, **told).logits[:, -1]

    def _gathered(self, drawn: list[list[int]], logprobs: list[list[float]]) -> list[Sampled]:
        results = []
        for index, prompt_ids in enumerate(self.prompt_ids):
            mine = slice(index * self.samples, (index + 1) * self.samples)
            ids = [self._cut(row) for row in drawn[mine]]
            results.append(
                Sampled(
                    responses=[response_text(self.tokenizer, prompt_ids, row) for row in ids],
                    tokens=[len(row) for row in ids],
                    finished=[row[-1] == self.end for row in ids],
                    logprobs=[sum(values[: len(row)]) for values, row in zip(logprobs[mine], ids, strict=True)],
                    ids=ids,
                )
            )
        return results

    def _cut(self, row: list[int]) -> list[int]:
        return row[: row.index(self.end) + 1] if self.end in row else row


def left_padded(rows: list[list[int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on the left, so that all end at one place, and the attention mask, both (rows, longest)."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(width, device=device) >= width - lengths[:, None]).long()


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp_(min=0)
