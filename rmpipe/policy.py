"""A policy: a causal language model that is loaded, sampled, and asked how likely it finds what was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError
from rmpipe.drawing import Batch, Sampled, left_padded, noise_of, positions_of, warp_of
from rmpipe.folder import check_folder
from rmpipe.text import Text, encode, held, padding_id, parted

if TYPE_CHECKING:
    import torch

Pair = tuple[list[int], list[int]]  # tokens of a prompt, and of a response to it

LOGITS = 2**25  # logits of a batch that a CPU holds at a time when likelihoods are asked for: 128 MiB in float32
SHARE = 32  # bytes of a GPU's free memory for each: they are held some four times, and half is left for the model
TOKENS = 2**14  # most tokens of a batch then, its padding among them


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def context(self) -> int:
        """The most tokens it can hold."""
        return held(self.model.config, self.tokenizer)


# -- loading --------------------------------------------------------------------------------------------------------


def load(
    path: Path | str, dtype: str = "float32", *, revision: str | None = None, trust_remote_code: bool = False,
    device: str | None = None,
) -> LanguageModel:  # fmt: skip
    """Load a causal language model in evaluation mode, safetensors only.

    Args:
        path: a folder, or a hub id.
        dtype: what it computes in. Likelihoods are taken of its logits in float32 whatever that is.
        device: by default the GPU when there is one.

    Raises:
        StudyError: the folder is not there or lacks something; names it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_folder(path)
    told = {"revision": revision, "trust_remote_code": trust_remote_code}
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, **told)
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return LanguageModel(model, AutoTokenizer.from_pretrained(path, **told))


def dtype_of(folder: Path) -> str:
    """What the weights in a folder were saved in, as its configuration says; float32 where it does not."""
    file = folder / "config.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    return str(told.get("dtype") or "float32")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout and gradients; a model that is in training goes on training afterwards."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


# -- sampling -------------------------------------------------------------------------------------------------------


def options(sampling: Any, *, samples: int | None = None, batch_size: int | None = None) -> dict[str, Any]:
    """The keyword arguments of `sample` that a `Sampling` says."""
    return {
        "samples": samples or sampling.responses, "temperature": sampling.temperature, "top_k": sampling.top_k,
        "top_p": sampling.top_p, "max_new_tokens": sampling.max_new_tokens,
        "batch_size": batch_size or sampling.batch_size,
    }  # fmt: skip


def sample(
    language_model: LanguageModel, prompts: Sequence[Text], *, samples: int, max_new_tokens: int, seed: int,
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sampled]:  # fmt: skip
    """Draw K responses to each prompt.

    Random numbers come from the seed and the prompt alone, so that neither the batch size nor the other prompts change
    what a prompt is answered with; a prompt that is asked twice is answered twice the same.

    Args:
        samples: K.
        temperature: of the distribution drawn from; 0 takes the likeliest token, for one sample only.
        top_k: 0 for the whole vocabulary.
        top_p: 1 for the whole vocabulary.
        batch_size: prompts at a time; speed only.
        progress: called with prompts done and prompts in all.

    Returns:
        one `Sampled` a prompt, in the order of the prompts.

    Raises:
        StudyError: a prompt leaves no room for `max_new_tokens` in the model's context, or K samples at temperature 0.
    """
    import torch

    if temperature == 0 and samples > 1:
        raise StudyError(f"temperature: at 0 all {samples} samples of a prompt are the same; take 1 sample, or warm it")
    ids = [encode(language_model.tokenizer, prompt) for prompt in prompts]
    check_room(ids, max_new_tokens, language_model.context)
    warp = warp_of(temperature, top_k, top_p)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))  # little padding
    drawn: dict[int, Sampled] = {}
    with evaluating(language_model.model):
        for start in range(0, len(order), batch_size):
            part = [ids[index] for index in order[start : start + batch_size]]
            noise = torch.stack([noise_of(seed, prompt_ids, samples, max_new_tokens) for prompt_ids in part])
            batch = Batch(language_model.model, language_model.tokenizer, part, samples, max_new_tokens)
            drawn |= zip(order[start : start + batch_size], batch.draw(noise, warp), strict=True)
            if progress is not None:
                progress(len(drawn), len(order))
    return [drawn[index] for index in range(len(ids))]


def check_room(ids: list[list[int]], max_new_tokens: int, context: int) -> None:
    """Refuse prompts that leave no room for a response.

    Args:
        ids: of the prompts.
        context: the most tokens that the model holds.

    Raises:
        StudyError: names the prompt, and the remedy.
    """
    for index, prompt_ids in enumerate(ids):
        if not prompt_ids:
            raise StudyError(f"prompt {index} is empty, and the tokenizer begins no text by itself; give it a text")
        if len(prompt_ids) + max_new_tokens > context:
            told = f"prompt {index} has {len(prompt_ids)} tokens and {max_new_tokens} are to be drawn"
            raise StudyError(f"{told}, but the model holds {context}; lower max_new_tokens or leave out long prompts")


# -- how likely -----------------------------------------------------------------------------------------------------


def log_probabilities(
    language_model: LanguageModel, prompts: Sequence[Text], responses: Sequence[str], *,
    finished: Sequence[bool] | None = None, batch_size: int = 64,
) -> torch.Tensor:  # fmt: skip
    """How likely a model finds responses to prompts: log pi(y | x), summed over tokens.

    Args:
        finished: whether the end of sequence is a token of the response; by default of all.
        batch_size: pairs at a time, at most; speed only.

    Returns:
        (n,) float64 on the CPU, nats.
    """
    told = zip(prompts, responses, finished or [True] * len(prompts), strict=True)
    pairs = [parted(language_model.tokenizer, prompt, response, end=ended) for prompt, response, ended in told]
    return likelihoods(language_model, pairs, batch_size=batch_size)


def likelihoods(language_model: LanguageModel, pairs: Sequence[Pair], *, batch_size: int = 64) -> torch.Tensor:
    """As `log_probabilities`, of ids; equal pairs are asked about once."""
    import torch

    places: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    rows = [places.setdefault((tuple(prompt_ids), tuple(ids)), len(places)) for prompt_ids, ids in pairs]
    distinct = [(list(prompt_ids), list(ids)) for prompt_ids, ids in places]
    sums = torch.zeros(len(distinct), dtype=torch.float64)
    for index, logprobs, _ in token_log_probabilities(language_model, distinct, batch_size=batch_size):
        sums[index] = logprobs.double().sum()
    return sums[rows]


def token_log_probabilities(
    language_model: LanguageModel, pairs: Sequence[Pair], *, batch_size: int = 64
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Log-probability and entropy at each token of each response, in length-sorted batches.

    Logits are made for responses alone, and for no more tokens at a time than `most_logits` of them take.

    Args:
        pairs: those without a response are left out.

    Yields:
        (index of the pair, log-probabilities (tokens,), entropies (tokens,)), nats.

    Raises:
        StudyError: a pair is longer than the model's context.
    """
    for part in _batches(language_model, pairs, batch_size):
        with evaluating(language_model.model):
            _, *told = read(language_model.model, *_padded(language_model, [pairs[index] for index in part]))
            logprobs, entropies = (values.cpu() for values in told)
        for row, index in enumerate(part):
            count = len(pairs[index][1])
            yield index, logprobs[row, -count:], entropies[row, -count:]


def _batches(language_model: LanguageModel, pairs: Sequence[Pair], batch_size: int) -> Iterator[list[int]]:
    """Pairs of like length, no more at a time than `TOKENS` of them."""
    lengths = [len(prompt_ids) + len(ids) for prompt_ids, ids in pairs]
    order = sorted((index for index, (_, ids) in enumerate(pairs) if ids), key=lambda index: -lengths[index])
    if order and lengths[order[0]] > language_model.context:
        told = f"prompt and response {order[0]} have {lengths[order[0]]} tokens"
        raise StudyError(f"{told}, but the model holds {language_model.context}; leave out long texts")
    size = at_once(batch_size, lengths[order[0]]) if order else 1
    for start in range(0, len(order), size):
        yield order[start : start + size]


def at_once(batch_size: int, longest: int) -> int:
    """How many texts are read together of which the longest has so many tokens."""
    return max(1, min(batch_size, TOKENS // longest))


def most_logits(device: torch.device) -> int:
    """How many logits are held at a time: `LOGITS`, and more where the memory that a GPU has free holds more."""
    import torch

    if device.type != "cuda":
        return LOGITS
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free, though PyTorch has it
    return max(LOGITS, (torch.cuda.mem_get_info(device)[0] + kept) // SHARE)


def _padded(language_model: LanguageModel, pairs: list[Pair]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Ids and mask, and how many tokens each response has."""
    whole, padding = [a + b for a, b in pairs], padding_id(language_model.tokenizer)
    return *left_padded(whole, padding, language_model.model.device), [len(response) for _, response in pairs]


def read(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, counts: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pass of some texts: what the model knew before each token of a response, and how likely it found that token.

    Where `most_logits` are fewer than all, the unembedding makes those of some tokens at a time, after the pass. A
    model that does more to its logits than that (a cap, a scale) makes all of them itself, one text after the other.

    Args:
        ids: (n, tokens), padded on the left.
        mask: (n, tokens), 1 where attended.
        counts: tokens of each response, with which a text ends.

    Returns:
        the states that the unembedding reads, (n, longest response, width); log-probabilities and entropies, (n,
        longest response), nats. Aligned on the right; what comes before a response means nothing.
    """
    import torch

    written, rows = max(counts), most_logits(ids.device) // model.config.get_text_config().vocab_size
    if len(ids) * (written + 1) <= rows:
        return _whole(model, ids, mask, written)
    states, last = _forward(model, ids, mask, written, last=True)
    unembedding = model.get_output_embeddings()
    if not torch.allclose(last.float(), unembedding(states[:, -1:]).float(), rtol=1e-3, atol=1e-3):
        alone = [_whole(model, *row, written) for row in zip(ids.split(1), mask.split(1), strict=True)]
        states, logprobs, entropies = (torch.cat(each) for each in zip(*alone, strict=True))
        return states, logprobs, entropies
    asked = torch.arange(written, device=ids.device) >= written - ids.new_tensor(counts)[:, None]
    parts = [part[asked].split(max(1, rows)) for part in (states[:, :-1], ids[:, -written:])]
    found = [_likelihoods(unembedding(known), said) for known, said in zip(*parts, strict=True)]
    logprobs, entropies = (torch.zeros(asked.shape, device=ids.device) for _ in range(2))
    logprobs[asked], entropies[asked] = (torch.cat(each) for each in zip(*found, strict=True))
    return states[:, :-1], logprobs, entropies


def _whole(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, written: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `read`, all logits at once."""
    states, logits = _forward(model, ids, mask, written)
    return states[:, :-1], *_likelihoods(logits[:, :-1], ids[:, -written:])


def _forward(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, written: int, *, last: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The states that the unembedding reads at the last `written + 1` places; logits there, or at the last alone."""
    caught: list[torch.Tensor] = []

    def catch(_: Any, given: tuple[torch.Tensor, ...]) -> Any:
        caught.append(given[0])
        return (given[0][:, -1:],) if last else None

    hook = model.get_output_embeddings().register_forward_pre_hook(catch)
    told = {"attention_mask": mask, "position_ids": positions_of(mask), "use_cache": False}
    try:
        logits = model(ids, logits_to_keep=written + 1, **told).logits
    finally:
        hook.remove()
    return caught[0], logits


def _likelihoods(logits: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of these tokens, and entropies."""
    spread = logits.float().log_softmax(-1)
    return spread.gather(-1, ids[..., None])[..., 0], -(spread.exp() * spread).sum(-1)


def _spread(language_model: LanguageModel, pairs: list[Pair]) -> torch.Tensor:
    """Log-probabilities of every token at each place of a response, aligned on the right."""
    ids, mask, counts = _padded(language_model, pairs)
    _, logits = _forward(language_model.model, ids, mask, max(counts))
    return logits[:, :-1].float().log_softmax(-1)


def next_tokens(
    language_model: LanguageModel, pairs: Sequence[Pair], *, batch_size: int = 64
) -> Iterator[tuple[int, torch.Tensor]]:
    """Log-probabilities of every token at each place of each response, in batches of as many as `most_logits` holds.

    Yields:
        (index of the pair, (tokens, vocabulary)), nats, on the CPU.
    """
    vocabulary = language_model.model.config.get_text_config().vocab_size
    longest = max((len(ids) for _, ids in pairs), default=0)
    held_at_once = most_logits(language_model.model.device)
    size = max(1, min(batch_size, held_at_once // (vocabulary * (longest + 1))))
    for part in _batches(language_model, pairs, size):
        with evaluating(language_model.model):
            spread = _spread(language_model, [pairs[index] for index in part])
        for row, index in enumerate(part):
            yield index, spread[row, -len(pairs[index][1]) :].cpu()


def divergence(
    policy: LanguageModel, reference: LanguageModel, prompts: Sequence[Text], drawn: Sequence[Sampled], *,
    batch_size: int = 64,
) -> dict[str, float]:  # fmt: skip
    """KL from the reference and entropy of a policy, estimated on its own samples.

    Args:
        drawn: responses of the policy, one item a prompt.

    Returns:
        `kl`: mean over responses of sum_t (log pi - log pi_ref), nats (`objective/kl` in TRL); `entropy`: mean over
        tokens, nats.
    """
    asked = [encode(policy.tokenizer, prompt) for prompt in prompts]
    pairs = [(prompt_ids, ids) for prompt_ids, item in zip(asked, drawn, strict=True) for ids in item.ids]
    kl = entropy = 0.0
    for _, logprobs, entropies in token_log_probabilities(policy, pairs, batch_size=batch_size):
        kl, entropy = kl + logprobs.double().sum().item(), entropy + entropies.double().sum().item()
    for _, logprobs, _ in token_log_probabilities(reference, pairs, batch_size=batch_size):
        kl -= logprobs.double().sum().item()
    return {"kl": kl / max(1, len(pairs)), "entropy": entropy / max(1, sum(len(ids) for _, ids in pairs))}
