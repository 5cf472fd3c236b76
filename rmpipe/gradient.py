"""Gradient: how steeply the expected reward of a prompt can be climbed, and what bounds that by the reward's spread.

Of a policy pi and a reward r, V(x) = E r(x, y) over the responses y that pi gives to x. Its gradient by the weights is
E[(r - V) grad log pi(y | x)]: it vanishes where the policy's own responses are rewarded alike, however low that reward
is (2310.20703). An estimate from a few samples is noise in good part, and that noise goes with the rewards' standard
deviation too; hence two halves of the samples, whose noise is independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe import policy
from rmpipe.config import StudyError
from rmpipe.interval import Estimate, bootstrap
from rmpipe.text import Text, padding_id, parted
from rmpipe.variance import matrix, rloo_advantages

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

    Slope = list[torch.Tensor | None]  # a gradient, a tensor a parameter; None where it is 0

Progress = Callable[[int, int], None]
Weighed = list[tuple[policy.Pair, float]]  # texts, and how often the log-likelihood of each counts

TOKENS = 2**11  # most tokens of a batch, its padding among them: what each layer makes of them is kept for the way back
DOTTED = 2**22  # most numbers of a gradient that are turned into float64 at a time
POWERS = np.linspace(-1, 8, 361)  # of the std, those that are tried; none at an end is told
EXHAUSTED = 1e-6  # a direction is one that was looked at before, if no more than this share of it is new


@dataclass(frozen=True)
class Gradients:
    """Gradients of the expected reward at n prompts, estimated from K samples each."""

    norm: NDArray[np.float64]
    """Length of the estimate, (n,), reward units per unit of weight. Noise adds to it; `squared` knows none."""
    squared: NDArray[np.float64]
    """Inner product of the two halves' estimates, (n,): on average the gradient's squared norm. May be negative."""
    parameters: float
    """Norm of all weights that are trained, by which the papers divide `norm`."""


@dataclass(frozen=True)
class Exact:
    """Expected rewards at n prompts and their gradients, where all answers are known."""

    mean: NDArray[np.float64]
    """Expected reward, (n,)."""
    std: NDArray[np.float64]
    """Population standard deviation of the reward under the policy, (n,)."""
    norm: NDArray[np.float64]
    """Length of the gradient, (n,), reward units per unit of weight."""
    parameters: float
    """Norm of all weights that are trained, as in `Gradients`."""


# -- gradients of a prompt ------------------------------------------------------------------------------------------


def policy_gradients(
    language_model: policy.LanguageModel, prompts: Sequence[Text], responses: Sequence[Sequence[str]],
    rewards: ArrayLike, *, finished: ArrayLike | None = None, batch_size: int = 64, progress: Progress | None = None,
) -> Gradients:  # fmt: skip
    """The gradient of each prompt's expected reward by all trainable weights, estimated from samples of the policy.

    Each half of a prompt's samples is averaged by itself: (r - mean of the half's other rewards) grad log pi(y | x). So
    both are unbiased and independent. Samples are to be drawn at temperature 1 from the whole vocabulary, and are
    tokenised anew, as in `log_probabilities`.

    Args:
        prompts: n of them.
        responses: K to each prompt, the first K // 2 of which are a half.
        rewards: (n, K), reward units.
        finished: (n, K), whether the end of sequence is a token of the response; by default of all.
        batch_size: texts at a time, at most; speed only.
        progress: called with prompts done and prompts in all.

    Returns:
        0 exactly where all rewards of a prompt are equal; such a prompt costs no pass.

    Raises:
        ValueError: fewer than four samples a prompt, or other responses than rewards.
        StudyError: a text is longer than the model's context, or has no prompt, before any pass; the model is broken.
    """
    array = matrix(rewards, samples=4)
    if len(prompts) != len(array) or [len(row) for row in responses] != [array.shape[1]] * len(array):
        raise ValueError(f"expected as many prompts and responses as rewards, {array.shape}")
    ended = np.ones(array.shape, dtype=bool) if finished is None else np.asarray(finished, dtype=bool)
    asked = []
    for half in (slice(array.shape[1] // 2), slice(array.shape[1] // 2, None)):
        said = [row[half] for row in responses]
        asked.append(_weighed(language_model, prompts, said, ended[:, half], _shares(array[:, half])))
    norm, squared = np.zeros((2, len(array)))
    with differentiable(language_model.model) as weights:
        for index, halves in enumerate(zip(*asked, strict=True)):
            if any(halves):
                left, squared[index], right = _products(language_model, weights, halves, batch_size)
                norm[index] = _root((left + 2 * squared[index] + right) / 4, index)
            if progress is not None:
                progress(index + 1, len(array))
        return Gradients(norm, squared, parameters=math.sqrt(_dot(weights, weights)))


def exact_gradients(
    language_model: policy.LanguageModel, prompts: Sequence[Text], answers: Sequence[str], rewards: ArrayLike, *,
    finished: bool = True, batch_size: int = 64, progress: Progress | None = None,
) -> Exact:  # fmt: skip
    """The expected reward of each prompt, its standard deviation and gradient, over all that can be answered.

    The policy is restricted to the answers: pi(y | x) over the sum of those of all answers.

    Args:
        prompts: n of them.
        answers: all texts that can be an answer, each once.
        rewards: (n, answers), reward units.
        finished: whether the end of sequence is a token of an answer.
        batch_size: as in `policy_gradients`.
        progress: likewise.

    Raises:
        ValueError: fewer than two answers, the same one twice, or other answers than rewards.
        StudyError: as in `policy_gradients`.
    """
    array = matrix(rewards)
    if array.shape != (len(prompts), len(answers)) or len(set(answers)) < len(answers):
        raise ValueError(f"expected prompts and unlike answers of rewards {array.shape}, got {len(set(answers))}")
    said, ended = [list(answers)] * len(prompts), np.full(array.shape, finished)
    texts = [pair for row in _weighed(language_model, prompts, said, ended, np.ones(array.shape)) for pair, _ in row]
    likelihoods = policy.likelihoods(language_model, texts, batch_size=batch_size).reshape(array.shape)
    chances = likelihoods.softmax(-1).numpy()
    centred = array - array[:, :1]  # of equal rewards 0 exactly
    centred -= (chances * centred).sum(axis=1, keepdims=True)
    std, norm = np.sqrt((chances * centred**2).sum(axis=1)), np.zeros(len(array))
    with differentiable(language_model.model) as weights:
        for index, row in enumerate(_weighed(language_model, prompts, said, ended, chances * centred)):
            slope = _slope(language_model, weights, row, batch_size)
            norm[index] = _root(_dot(slope, slope), index)
            if progress is not None:
                progress(index + 1, len(array))
        size = math.sqrt(_dot(weights, weights))
    return Exact((chances * array).sum(axis=1), std, norm, size)


def _shares(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often the log-likelihood of each sample counts in the estimate; 0 exactly where all rewards are equal."""
    return rloo_advantages(rewards - rewards[:, :1]) / rewards.shape[1]


def _weighed(
    language_model: policy.LanguageModel, prompts: Sequence[Text], responses: Sequence[Sequence[str]],
    finished: NDArray[np.bool_], shares: NDArray[np.float64],
) -> list[Weighed]:  # fmt: skip
    """The texts of each prompt, equal ones as one, those left out that count for nothing."""
    found = []
    for index, (prompt, *row) in enumerate(zip(prompts, responses, finished.tolist(), shares.tolist(), strict=True)):
        sums: dict[tuple[str, bool], float] = {}
        for response, ended, share in zip(*row, strict=True):
            sums[response, ended] = sums.get((response, ended), 0.0) + share
        counted = [(*said, share) for said, share in sums.items() if share]
        texts = [(parted(language_model.tokenizer, prompt, text, end=end), share) for text, end, share in counted]
        for (prompt_ids, ids), _ in texts:
            check_length(index, prompt_ids, ids, language_model.context)
        found.append(texts)
    return found


def check_length(index: int, prompt_ids: list[int], ids: list[int], context: int) -> None:
    """Refuse a text that the model cannot hold, or that has no prompt.

    Raises:
        StudyError: names the prompt, and the remedy.
    """
    if not prompt_ids:
        raise StudyError(f"prompt {index} is empty, and the tokenizer begins no text by itself; give it a text")
    if len(prompt_ids) + len(ids) > context:
        told = f"prompt {index} and a response have {len(prompt_ids) + len(ids)} tokens, but the model holds {context}"
        raise StudyError(f"{told}; leave out long texts")


def _root(square: float, index: int) -> float:
    if not math.isfinite(square):
        raise StudyError(f"the gradient at prompt {index} is no number: the model's weights are broken; train it anew")
    return math.sqrt(max(square, 0.0))  # rounding may take two halves that cancel below


# -- passes ---------------------------------------------------------------------------------------------------------


@contextmanager
def differentiable(model: Any) -> Iterator[list[torch.Tensor]]:
    """The trainable weights of a model, without dropout; afterwards its mode and what gradients it had are as before.

    Raises:
        StudyError: no weight is trainable.
    """
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise StudyError("the model has no trainable weight, and so no gradient; thaw some with requires_grad_")
    training, before = model.training, [weight.grad for weight in weights]
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield weights
    finally:
        model.train(training)
        for weight, was in zip(weights, before, strict=True):
            weight.grad = was


def _products(
    language_model: policy.LanguageModel, weights: list[torch.Tensor], halves: Sequence[Weighed], batch_size: int
) -> tuple[float, float, float]:
    """Of the gradients of two halves: the squared norm of the first, their inner product, that of the second."""
    left, right = (_slope(language_model, weights, half, batch_size) for half in halves)
    return _dot(left, left), _dot(left, right), _dot(right, right)


def _slope(language_model: policy.LanguageModel, weights: list[torch.Tensor], told: Weighed, batch_size: int) -> Slope:
    """The gradient of the weighed sum of log-likelihoods."""
    import torch

    for weight in weights:
        weight.grad = None
    for part in _batches(language_model.model, [each for each in told if each[0][1]], batch_size):
        found = likelihoods(language_model, [pair for pair, _ in part])
        (found @ torch.tensor([share for _, share in part], device=found.device)).backward()
    return [weight.grad for weight in weights]


def _batches(model: Any, told: Weighed, batch_size: int) -> Iterator[Weighed]:
    """Texts of like length, no more at a time than `TOKENS` of them and `policy.most_logits`."""
    told = sorted(told, key=lambda each: -len(each[0][0]) - len(each[0][1]))
    longest = max((len(prompt_ids) + len(ids) for (prompt_ids, ids), _ in told), default=1)
    written = max((len(ids) for (_, ids), _ in told), default=0)
    logits = (written + 1) * model.config.get_text_config().vocab_size
    size = max(1, min(batch_size, TOKENS // longest, policy.most_logits(model.device) // logits))
    for start in range(0, len(told), size):
        yield told[start : start + size]


def likelihoods(language_model: policy.LanguageModel, pairs: list[policy.Pair]) -> torch.Tensor:
    """log pi(y | x), (n,), nats, to be differentiated.

    Padded on the right, where nothing that is asked for sees it: a place that attends to nothing, as padding on the
    left does, would be a risk on the way back.
    """
    import torch
    from torch.nn.functional import cross_entropy

    longest, begin = max(len(a) + len(b) for a, b in pairs), min(len(a) for a, _ in pairs)
    padding, device = padding_id(language_model.tokenizer), language_model.model.device
    texts = [a + b + [padding] * (longest - len(a) - len(b)) for a, b in pairs]
    said = [[-100] * (len(a) - begin) + b + [-100] * (longest - len(a) - len(b)) for a, b in pairs]
    ids, following = torch.tensor(texts, device=device), torch.tensor(said, device=device)
    logits = language_model.model(ids, logits_to_keep=longest - begin + 1, use_cache=False).logits[:, :-1].float()
    surprise = cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")  # 0 where nothing follows
    return -surprise.view_as(following).sum(1)


def _dot(left: Sequence[torch.Tensor | None], right: Sequence[torch.Tensor | None]) -> float:
    """Inner product, summed in float64."""
    total: Any = 0.0
    for a, b in zip(left, right, strict=True):
        if a is not None and b is not None:
            parts = (each.detach().flatten().split(DOTTED) for each in (a, b))
            total = total + sum(x.double() @ y.double() for x, y in zip(*parts, strict=True))
    return float(total)


# -- the Jacobian of the logits -------------------------------------------------------------------------------------


def jacobian_norm(
    language_model: policy.LanguageModel, prompt: Text, response: str, *, places: int, iterations: int = 8,
    seed: int = 0,
) -> NDArray[np.float64]:  # fmt: skip
    """The largest singular value of the Jacobian of the logits by all trainable weights, at places of a response.

    The gamma(x) of 2310.20703 is the largest of all prefixes that there can be: what is found here is below it, for
    only some prefixes are looked at, and as each value is approached from below (by Lanczos's method, from a random
    direction). `cauchy_schwarz` also holds with a mean over the policy's own responses, which can be estimated.

    Args:
        places: how many, spread evenly from the first token of the response to its end.
        iterations: products with the Jacobian and its transpose at each.
        seed: of the direction to begin from.

    Returns:
        (places,), logits per unit of weight, in the order of the response; of a shorter response all places.

    Raises:
        StudyError: as in `policy_gradients`.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    prompt_ids, ids = parted(language_model.tokenizer, prompt, response)
    check_length(0, prompt_ids, ids, language_model.context)
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(places, len(ids))).round().astype(int))
    generator, found = torch.Generator().manual_seed(seed), []
    with differentiable(language_model.model) as weights, sdpa_kernel(SDPBackend.MATH):  # others differentiate once
        for place in chosen.tolist():
            text = torch.tensor([prompt_ids + ids[:place]], device=language_model.model.device)
            logits = language_model.model(text, logits_to_keep=1, use_cache=False).logits[0, -1].float()
            start = torch.randn(len(logits), generator=generator, dtype=torch.float64)
            found.append(_largest(_gram(logits, weights), start, iterations))
    return np.sqrt(found)


def _gram(logits: torch.Tensor, weights: list[torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """J J^T times a direction of the logits: the gradient of |J^T v|^2 / 2 by v."""
    import torch

    def product(direction: torch.Tensor) -> torch.Tensor:
        v = direction.to(logits).requires_grad_()
        back = torch.autograd.grad(logits, weights, v, create_graph=True, allow_unused=True)
        energy = torch.stack([(each**2).sum() for each in back if each is not None]).sum() / 2
        return torch.autograd.grad(energy, v)[0].to(direction)

    return product


def _largest(product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, iterations: int) -> float:
    """The largest eigenvalue of a symmetric matrix that is known by its products, from below, by Lanczos's method."""
    import torch

    basis, images = [start / start.norm()], []
    for _ in range(iterations):
        images.append(product(basis[-1]))
        rest, known = images[-1], torch.stack(basis)
        for _ in range(2):  # once leaves rounding behind
            rest = rest - (known @ rest) @ known
        if rest.norm() <= EXHAUSTED * images[-1].norm():
            break
        basis.append(rest / rest.norm())
    small = torch.stack(basis[: len(images)]) @ torch.stack(images).T
    return max(0.0, torch.linalg.eigvalsh((small + small.T) / 2)[-1].item())


# -- what bounds a gradient -----------------------------------------------------------------------------------------


def bound(std: ArrayLike, gamma: ArrayLike, length: ArrayLike, half_range: float = 1.0) -> NDArray[np.float64]:
    """What no gradient's norm exceeds, by the reward's spread: 6 L gamma std^(2/3) (2310.20703, Theorem 1).

    The theorem is of rewards in [-1, 1]. Others are shifted, which changes no gradient, and divided by half their range
    c, which divides the gradient and the std: c 6 L gamma (std / c)^(2/3).

    Args:
        std: (n,), reward units, population.
        gamma: (n,), the largest norm of the Jacobian of the logits over all prefixes; with the `jacobian_norm` of some
            of them, what is returned may be below the bound.
        length: L, the most tokens of a response.
        half_range: c, reward units.

    Returns:
        (n,), reward units per unit of weight.
    """
    spread = np.asarray(std, dtype=np.float64) / half_range
    return half_range * 6 * np.asarray(length) * np.asarray(gamma, dtype=np.float64) * spread ** (2 / 3)


def cauchy_schwarz(std: ArrayLike, gamma: ArrayLike, length: ArrayLike) -> NDArray[np.float64]:
    """A bound below that of 2310.20703, linear in the std and without a range of rewards: sqrt(L) gamma std.

    As grad log pi is 0 on average, grad V = E[(r - V) grad log pi], whose norm is at most std sqrt(E|grad log pi|^2) by
    Cauchy and Schwarz. Now grad log pi(y | x) is the sum over tokens of J_l^T (e_l - p_l), where J_l is the Jacobian of
    the logits, p_l their softmax and e_l the token drawn as a unit vector. Given the tokens before, J_l and p_l are
    known and e_l - p_l is 0 on average: terms of unlike places are uncorrelated, their squared norms add up, and each
    is on average at most gamma^2 E|e_l - p_l|^2 = gamma^2 (1 - |p_l|^2) <= gamma^2. There are L of them.

    As no std is above c, half the range, this is at most a sixth of `bound`.

    Args:
        std: (n,), reward units, population.
        gamma: (n,), as in `bound`; the root of the mean of its square over the places of the policy's own responses
            will do, for no more than that mean is used.
        length: L, the mean number of tokens of a response, its end included, or any number above.

    Returns:
        (n,), reward units per unit of weight.
    """
    return np.sqrt(length) * np.asarray(gamma, dtype=np.float64) * np.asarray(std, dtype=np.float64)


def exponent(std: ArrayLike, norm: ArrayLike, seed: int = 0) -> Estimate:
    """The power of the std with which the gradient's norm goes over prompts: the slope of log norm on log std.

    The bound of 2310.20703 allows 2/3 and more, that of Cauchy and Schwarz 1. Of exact norms only: the noise in
    `Gradients.norm` goes with the std itself and draws the slope to 1; `exponent_of_squares` is for estimates.

    Args:
        std: (n,), reward units; prompts where it or the norm is 0 are left out.
        norm: (n,).
        seed: of the bootstrap over prompts.

    Returns:
        without a value where fewer than three prompts are left, or all have one std.

    Raises:
        ValueError: a std or a norm is no number.
    """
    rows = _finite(std, norm)
    logs = np.log(rows[(rows > 0).all(axis=1)])
    return bootstrap(logs, _fitted, seed=seed) if _spread(logs) else Estimate(math.nan)


def exponent_of_squares(std: ArrayLike, squared: ArrayLike, seed: int = 0) -> Estimate:
    """As `exponent`, of `Gradients.squared`, which has no logarithm where noise makes it negative, but no bias either.

    Of squared = a std^(2 b) the power b is fitted by least squares after both sides were divided by std^2, for then the
    noise is alike at all prompts. It is looked for from -1 to 8, and what lies at an end is not told.

    Args:
        std: (n,), reward units; prompts where it is 0 are left out.
        squared: (n,).
        seed: of the bootstrap over prompts.

    Returns:
        as `exponent`; without a value too where no gradient stands out of the noise.

    Raises:
        ValueError: a std or a square is no number.
    """
    rows = _finite(std, squared)
    rows = rows[rows[:, 0] > 0]
    logs = np.log(rows[:, :1])
    if not _spread(logs):
        return Estimate(math.nan)
    powers = np.exp(2 * (logs - logs.mean()) * (POWERS - 1))
    return bootstrap(np.hstack([rows[:, 1:] / rows[:, :1] ** 2, powers]), _best_power, seed=seed)


def _finite(std: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    rows = np.stack([np.asarray(std, dtype=np.float64), np.asarray(values, dtype=np.float64)], axis=1)
    if not np.isfinite(rows).all():
        raise ValueError("a std or a norm is no number; leave out prompts where it was not taken")
    return rows


def _spread(logs: NDArray[np.float64]) -> bool:
    """Whether a slope on the first column can be known."""
    return len(logs) >= 3 and bool(np.ptp(logs[:, 0]) > 0)


def _fitted(points: NDArray[np.float64]) -> float:
    """The slope of the second column on the first, by least squares."""
    x, y = (points - points.mean(axis=0)).T
    return float(x @ y / (x @ x)) if x.any() else math.nan


def _best_power(rows: NDArray[np.float64]) -> float:
    """Which of `POWERS` explains most of the first column; the others are what each foretells, but for a factor."""
    foretold, seen = rows[:, 1:], rows[:, 0]
    along = seen @ foretold
    explained = np.maximum(along, 0) ** 2 / (foretold**2).sum(axis=0)
    place = int(explained.argmax())
    return float(POWERS[place]) if 0 < place < len(POWERS) - 1 and (along > 0).any() else math.nan
