"""Similarity: how alike the two responses of a preference pair are to a model, before it is trained on them.

2410.08847 holds that pairs which look alike to the model push the preferred response away, and measures it by CHES, the
centered hidden embedding similarity (Definition 2): <S+, S-> - |S+|^2, where S sums the states that predict a
response. By Theorem 3 a step on the pair changes log pi(y+) by what is the smaller the larger such a term is, in which
each inner product has a weight; CHES has them all at 1. All kinds point one way: a higher value is said to displace
more.

CHES sums over tokens, so that it knows lengths: a rejected response that is longer than the chosen one raises it by
that alone. Hence the kind `length`, which is nothing else: the control to be shown beside every other.

A kind of your own is one class in one file beside the study, `kind = "my_module:MyClass"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rmpipe import policy
from rmpipe.config import Config, Registry, StudyError
from rmpipe.drawing import left_padded
from rmpipe.pair import SIDES
from rmpipe.text import padding_id
from rmpipe.variance import matrix

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

Ids = Sequence[int]
Triple = tuple[list[int], list[int], list[int]]  # tokens of a prompt, of the chosen and of the rejected response


@dataclass(frozen=True)
class States:
    """What a model's states and tokens say of some pairs.

    Summed are exactly the states that predict a token of the response: from that at the last token of the prompt to
    that at the token before the last. The end of sequence is predicted, and its own state takes no part. So as many are
    summed as the response has tokens, its end included.
    """

    chosen_sum: NDArray[np.float64]
    """S+, (n, width): the states are those that the unembedding reads, after the final norm."""
    rejected_sum: NDArray[np.float64]
    """S-, (n, width)."""
    chosen_last: NDArray[np.float64]
    """The last of the states summed, (n, width): it has read the whole response, and predicts its end."""
    rejected_last: NDArray[np.float64]
    """(n, width)."""
    chosen_ids: list[list[int]]
    """Tokens of the response, the end of sequence included."""
    rejected_ids: list[list[int]]


# -- kinds ----------------------------------------------------------------------------------------------------------


class Similarity(Registry, Config, key="kind", group="rmpipe.similarities"):
    """A similarity as a study describes it."""

    kind: str

    def of(self, pairs: States) -> NDArray[np.float64]:
        """The similarity of each pair, (n,); a higher one is said to displace more."""
        raise NotImplementedError


class Ches(Similarity):
    """The centered hidden embedding similarity (2410.08847, Definition 2)."""

    kind: Literal["ches"] = "ches"
    normalised: bool = False
    """Of mean states rather than sums: where almost all inner products are positive, sums tell lengths above all."""

    def of(self, pairs: States) -> NDArray[np.float64]:
        """`ches`, or `normalised_ches`."""
        if self.normalised:
            lengths = (_lengths(pairs.chosen_ids), _lengths(pairs.rejected_ids))
            return normalised_ches(pairs.chosen_sum, pairs.rejected_sum, *lengths)
        return ches(pairs.chosen_sum, pairs.rejected_sum)


class Hidden(Similarity):
    """The inner product of the last hidden embeddings, which the paper finds not to be indicative."""

    kind: Literal["hidden"] = "hidden"

    def of(self, pairs: States) -> NDArray[np.float64]:
        """<h+, h->, of the states that have read the whole response."""
        return (pairs.chosen_last * pairs.rejected_last).sum(axis=-1)


class Edit(Similarity):
    """Minus the normalised edit distance of the tokens, which the paper finds not to be indicative."""

    kind: Literal["edit"] = "edit"

    def of(self, pairs: States) -> NDArray[np.float64]:
        """`edit_similarity`; a last token that both share, as the end of sequence is, is left out as published."""
        told = zip(pairs.chosen_ids, pairs.rejected_ids, strict=True)
        return np.array([edit_similarity(*_without_end(*ids)) for ids in told], dtype=np.float64)


class Length(Similarity):
    """How many tokens longer the rejected response is: the control, which knows neither model nor content."""

    kind: Literal["length"] = "length"

    def of(self, pairs: States) -> NDArray[np.float64]:
        """Tokens of the rejected less those of the chosen response."""
        return _lengths(pairs.rejected_ids) - _lengths(pairs.chosen_ids)


def _lengths(rows: list[list[int]]) -> NDArray[np.float64]:
    return np.array([len(ids) for ids in rows], dtype=np.float64)


def _without_end(a_ids: Ids, b_ids: Ids) -> tuple[Ids, Ids]:
    return (a_ids[:-1], b_ids[:-1]) if a_ids[-1:] == b_ids[-1:] else (a_ids, b_ids)


# -- formulas -------------------------------------------------------------------------------------------------------


def ches(chosen_sum: ArrayLike, rejected_sum: ArrayLike) -> NDArray[np.float64]:
    """<S+, S-> - |S+|^2 (2410.08847, Definition 2), (n,), squared units of the states.

    Args:
        chosen_sum: S+, (n, width).
        rejected_sum: S-, (n, width).
    """
    chosen, rejected = matrix(chosen_sum, samples=1), matrix(rejected_sum, samples=1)
    return (chosen * (rejected - chosen)).sum(axis=-1)


def normalised_ches(
    chosen_sum: ArrayLike, rejected_sum: ArrayLike, chosen_tokens: ArrayLike, rejected_tokens: ArrayLike
) -> NDArray[np.float64]:
    """<S+, S-> / (n+ n-) - |S+|^2 / n+^2 (2410.08847, section 6): the same of mean states.

    Args:
        chosen_sum: S+, (n, width).
        rejected_sum: S-, (n, width).
        chosen_tokens: n+, (n,), the states summed.
        rejected_tokens: n-, (n,).
    """
    chosen, rejected = matrix(chosen_sum, samples=1), matrix(rejected_sum, samples=1)
    return ches(chosen / np.asarray(chosen_tokens)[:, None], rejected / np.asarray(rejected_tokens)[:, None])


def edit_similarity(a_ids: Ids, b_ids: Ids) -> float:
    """Minus the Levenshtein distance of tokens over the longer length (2410.08847, section 5), from -1 to 0: equal."""
    from rapidfuzz.distance import Levenshtein

    distance = Levenshtein.normalized_distance(*(np.asarray(ids).tolist() for ids in (a_ids, b_ids)))
    return 0.0 - distance  # and not -distance, which of equal texts is -0.0


def predicting(mask: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Where a state predicts a token of the response, (n, tokens), whichever side the padding is on.

    Args:
        mask: (n, tokens), 1 where attended; a text ends with its response.
        counts: (n,), tokens of the response.
    """
    ahead = mask.sum(-1, keepdim=True) - mask.cumsum(-1)  # tokens of the text that come after this one
    return (mask == 1) & (ahead >= 1) & (ahead <= counts[:, None])


# -- states of a model ----------------------------------------------------------------------------------------------


def states(
    language_model: policy.LanguageModel, pairs: Sequence[Triple], *, batch_size: int = 32,
    keys: Sequence[Any] | None = None,
) -> Iterator[tuple[list[int], States, NDArray[np.float64], NDArray[np.float64]]]:  # fmt: skip
    """States of both responses of each pair and how likely they are, out of one pass of each response.

    Pairs come in batches, the longest first; equal texts of a batch are read once, as `policy.read` does.

    Args:
        pairs: ids; a response's end of sequence is among its own.
        batch_size: pairs that are yielded together, and texts that are read together, at most; speed only.
        keys: what errors call the pairs; None for their rows.

    Yields:
        indices of the pairs of a batch; their `States`; log pi(y+ | x) and log pi(y- | x), (n,), nats.

    Raises:
        StudyError: a text is longer than the model's context, or has no prompt or no response; the model's states are
            no numbers. Names the pair. Before anything is read, but for the last.
    """
    names = [f"row {row}" for row in range(len(pairs))] if keys is None else [f"pair {key}" for key in keys]
    _check(pairs, names, language_model.context)
    lengths = [len(prompt_ids) + max(map(len, responses)) for prompt_ids, *responses in pairs]
    order = sorted(range(len(pairs)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        texts = [(tuple(pairs[index][0]), tuple(pairs[index][side])) for side in (1, 2) for index in part]
        read = _read(language_model, list(dict.fromkeys(texts)), batch_size)
        sums, last, logprobs = (np.stack(values) for values in zip(*(read[text] for text in texts), strict=True))
        known = np.isfinite(sums).all(axis=-1) & np.isfinite(logprobs)
        if not known.all():
            row = part[int(np.flatnonzero(~known)[0]) % len(part)]
            raise StudyError(f"{names[row]}: the model's states are no numbers; its weights are broken, take another")
        count = len(part)
        chosen_ids, rejected_ids = ([pairs[index][side] for index in part] for side in (1, 2))
        found = States(sums[:count], sums[count:], last[:count], last[count:], chosen_ids, rejected_ids)
        yield part, found, logprobs[:count], logprobs[count:]


def _check(pairs: Sequence[Triple], names: Sequence[str], context: int) -> None:
    for name, (prompt_ids, *responses) in zip(names, pairs, strict=True):
        if not prompt_ids:
            told = "the prompt is empty, and the tokenizer begins no text by itself"
            raise StudyError(f"{name}: {told}; give it a text")
        for side, ids in zip(SIDES, responses, strict=True):
            if not ids:
                raise StudyError(f"{name}: the {side} response has no token; leave out empty responses")
            if len(prompt_ids) + len(ids) > context:
                told = f"prompt and {side} response have {len(prompt_ids) + len(ids)} tokens"
                raise StudyError(f"{name}: {told}, but the model holds {context}; leave out long texts")


def _read(language_model: policy.LanguageModel, texts: list[Any], batch_size: int) -> dict[Any, Any]:
    """Sum of states, last state and log-probability of each text, through batches that `policy.TOKENS` allows."""
    texts = sorted(texts, key=lambda text: -len(text[0]) - len(text[1]))
    size = policy.at_once(batch_size, len(texts[0][0]) + len(texts[0][1]))
    found: dict[Any, Any] = {}
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        with policy.evaluating(language_model.model):
            found |= zip(part, zip(*_pass(language_model, part), strict=True), strict=True)
    return found


def _pass(language_model: policy.LanguageModel, texts: list[Any]) -> list[NDArray[np.float64]]:
    """Out of one forward pass."""
    model = language_model.model
    whole = [[*prompt, *response] for prompt, response in texts]
    ids, mask = left_padded(whole, padding_id(language_model.tokenizer), model.device)
    counts = [len(response) for _, response in texts]
    known, logprobs, _ = policy.read(model, ids, mask, counts)
    rows = predicting(mask[:, -max(counts) - 1 :], ids.new_tensor(counts))[:, :-1]
    hidden = known.double().masked_fill(~rows[..., None], 0)
    sums = (hidden.sum(1), hidden[:, -1], logprobs.double().masked_fill(~rows, 0).sum(1))
    return [values.cpu().numpy() for values in sums]
