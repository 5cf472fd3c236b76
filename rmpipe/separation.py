"""Separation: what the hidden states of an untrained base say of the reward model that will be trained on it.

With representations held fixed, a step of an explicit reward model on the pair (x, y+, y-) changes the reward of any
other response by a positive multiple of <h(x', y'), h(x, y+) - h(x, y-)> (2507.07981, section 4). So whether an unseen
pair comes to be ranked right is seen beforehand in its difference z' = h(x', y'+) - h(x', y'-) and the seen ones' z:

- each <z, z'> > 0 means that learning the seen pair pushes the unseen one the right way (linear head, first step);
- trained to convergence, the head points along u, the separator of largest margin of the seen pairs, to which gradient
  descent on the logistic loss converges in direction. By Theorem 2 the reward model ranks an unseen pair right exactly
  if <u, z'> > 0 (proven for responses of one token, none of them seen, of which an implicit one ranks half right;
  footnote 3 looks at the condition in real models). Without a u the seen pairs are not separable, and it is silent.

Functions take arrays (numpy, or torch tensors on the CPU) of shape `(n, width)` and give numpy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.config import StudyError
from rmpipe.policy import LanguageModel, evaluating
from rmpipe.scoring import batches, padded, rewards_of
from rmpipe.text import Text, encode, padding_id
from rmpipe.variance import matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TOLERANCE = 1e-6  # how far below 1 a margin may lie for rounding alone


def last_hidden(
    language_model: LanguageModel, prompts: Sequence[Text], responses: Sequence[str], *, batch_size: int = 32
) -> NDArray[np.float32]:
    """The state after the final norm at the last token of prompt and response, `(n, width)`: what a head would read.

    Texts become ids, and the last token is found, as in scoring; equal texts are read once.

    Args:
        batch_size: texts at a time, of the longest; speed only.

    Raises:
        StudyError: a text is longer than the model's context; names the row.
    """
    tokenizer = language_model.tokenizer
    pairs = zip(prompts, responses, strict=True)
    rows = [tuple(encode(tokenizer, prompt, response)) for prompt, response in pairs]
    for row, ids in enumerate(rows):
        if len(ids) > language_model.context:
            told = f"row {row} has {len(ids)} tokens, but the model holds {language_model.context}"
            raise StudyError(f"{told}; leave out long texts")
    if not rows:
        raise ValueError("no texts, and so no states; give one or more")
    distinct = sorted(dict.fromkeys(rows), key=len, reverse=True)
    states: dict[tuple[int, ...], Any] = {}
    with evaluating(language_model.model):
        for batch in batches(distinct, batch_size * len(distinct[0])):
            states |= zip(batch, _states(language_model, batch), strict=True)
    return np.stack([states[row] for row in rows])


def _states(language_model: LanguageModel, batch: list[tuple[int, ...]]) -> NDArray[np.float32]:
    """Rewards whose head is the identity, so that no state differs from what a reward model reads."""
    import torch

    model = language_model.model
    ids, mask = padded(batch, padding_id(language_model.tokenizer), model.device)
    padding = model.config.get_text_config().pad_token_id
    states = rewards_of(model.base_model, torch.nn.Identity(), ids, mask, padding=padding)
    found: NDArray[np.float32] = states.float().cpu().numpy()
    return found


def differences(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """z = h(x, y+) - h(x, y-), `(pairs, width)`.

    Raises:
        ValueError: not of the same pairs.
    """
    left, right = matrix(chosen, samples=1), matrix(rejected, samples=1)
    if left.shape != right.shape:
        raise ValueError(f"expected chosen and rejected states of the same pairs, got {left.shape} and {right.shape}")
    return left - right


def similarities(seen: ArrayLike, unseen: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inner products and cosines of every seen difference with every unseen one, both `(seen, unseen)`.

    The cosine with a difference of 0 is 0: two responses of one state are never told apart.
    """
    from sklearn.metrics.pairwise import cosine_similarity

    left, right = matrix(seen, samples=1), matrix(unseen, samples=1)
    return left @ right.T, cosine_similarity(left, right)


def spread(values: ArrayLike) -> dict[str, float]:
    """Mean, least, quartiles, median, largest, and the share above 0.

    As in the published code of 2507.07981 the median of an even number of values is the lower one of the middle two
    (`torch.median`); quartiles are interpolated.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    lower, upper = np.quantile(array, [0.25, 0.75])
    found = {
        "mean": array.mean(), "min": array.min(), "lower_quartile": lower,
        "median": np.quantile(array, 0.5, method="lower"), "upper_quartile": upper, "max": array.max(),
        "positive": (array > 0).mean(),
    }  # fmt: skip
    return {name: float(value) for name, value in found.items()}


def max_margin_separator(seen: ArrayLike) -> NDArray[np.float64] | None:
    """The shortest u with <u, z> >= 1 for every seen difference z: the separator through 0 of the largest margin.

    min 1/2 |u|^2 subject to Z u >= 1, without a bias (2507.07981, Theorem 2). It is solved exactly as least-distance
    programming (Lawson and Hanson, "Solving Least Squares Problems", chapter 23): with E = [Z^T; 1^T] and f the last
    unit vector, y >= 0 minimises |E y - f|, and with r = E y - f, u_j = -r_j / r_(width + 1).

    Args:
        seen: `(pairs, width)`.

    Returns:
        `(width,)`, in units of 1 / z; its margin is 1 / |u|. None where no u separates the pairs, or none by more than
        a millionth of their length, which rounding hides: a finding about the base, not a mistake of the caller.
    """
    from scipy.optimize import nnls

    rows = matrix(seen, samples=1)
    size = np.linalg.norm(rows, axis=1).mean()
    if size == 0:
        return None
    # Scaled to lengths of about 1, so that rounding drowns neither the differences nor the row of ones.
    programme = np.vstack([rows.T / size, np.ones(len(rows))])
    weights, _ = nnls(programme, np.eye(len(programme))[-1], maxiter=30 * len(rows))
    residual = programme @ weights
    residual[-1] -= 1
    if residual[-1] >= 0:
        return None
    separator: NDArray[np.float64] = -residual[:-1] / residual[-1] / size
    return separator if (rows @ separator).min() > 1 - TOLERANCE else None


def separation(seen: ArrayLike, unseen: ArrayLike) -> dict[str, dict[str, float] | None]:
    """Whether learning to rank seen pairs will rank unseen ones, from differences of the untrained base.

    Args:
        seen: z, `(pairs, width)`.
        unseen: z', `(others, width)`.

    Returns:
        the spread of `inner` products and `cosine`s over all seen with all unseen; of `separator_seen` and
        `separator`, the cosines of u with the seen and the unseen differences, None where the seen are not
        separable. `separator["positive"]` is the accuracy on unseen pairs that Theorem 2 foretells, ties wrong.
    """
    inner, cosine = similarities(seen, unseen)
    found: dict[str, dict[str, float] | None] = {"inner": spread(inner), "cosine": spread(cosine)}
    separator = max_margin_separator(seen)
    for name, rows in (("separator_seen", seen), ("separator", unseen)):
        found[name] = None if separator is None else spread(similarities(separator[None], rows)[1])
    return found
