"""Kinds of reward models: one frozen class each, found by its `kind`, behind one `Scorer`.

A kind of your own is one class in one file: `kind = "my_module:MyClass"` finds it beside the study, and a package adds
it under its own literal through the entry point group `rmpipe.reward_models`. Names of other things in the study (`of`,
`base`) are outside a kind's identity, since what they stand for is an input whose own address counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from rmpipe import truth
from rmpipe.algorithm import Log, PairTraining
from rmpipe.config import Config, Registry, Runtime, StudyError, canonical_json, digest
from rmpipe.source import fingerprint_path
from rmpipe.text import Text, length

if TYPE_CHECKING:
    import numpy as np

SCALED_PROMPTS = "scaled_prompts.json"


class Scorer(Protocol):
    """Rewards of responses to prompts."""

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
        """Rewards, (n,) float32, reward units; aligned with prompts and responses, both of length n."""
        ...


Change = Callable[["np.ndarray", Sequence[Text], Sequence[str]], "np.ndarray"]


class Kind(
    Registry, Config, key="kind", group="rmpipe.reward_models",
    ours=("rmpipe.explicit", "rmpipe.implicit", "rmpipe.generative", "rmpipe.metric", "rmpipe.refusal",
          "rmpipe.mending", "rmpipe.published", "rmpipe.asked", "rmpipe.served"),
):  # fmt: skip
    """A reward model as a study describes it.

    Attributes:
        constructed: made from the ground truth or out of other reward models, not trained on data by anybody; reports
            tell these apart.
        referenced: whether it compares responses with references.
    """

    kind: str
    constructed: ClassVar[bool] = False
    referenced: ClassVar[bool] = False

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the reward models it is made of, in the order in which `scorer` wants them."""
        return ()

    @property
    def pool(self) -> tuple[str, str] | None:
        """A policy, and a reward model whose rewards over that policy's samples `learn` wants; None where none."""
        return None

    def describe(self) -> str:
        """One line for a person."""
        raise NotImplementedError

    def content(self) -> str:
        """A text that moves when what lies outside the store does: a model's files, a function's source."""
        return fingerprint_path(self)

    def check(self) -> None:
        """Look into whatever it reads, before anything is spent; hub ids pass.

        Raises:
            StudyError: names the field, what is wrong and the remedy.
        """

    def prepare(self, out: Path, prompts_by_split: dict[str, list[Text]]) -> None:
        """Write into its folder what its scorer needs to know about the study's prompts; most kinds need nothing."""

    def learn(self, out: Path, prompts: Sequence[Text], rewards: np.ndarray) -> None:
        """Write into its folder what its scorer needs to know of a policy's samples; asked of kinds with a `pool`.

        Args:
            prompts: of the samples.
            rewards: (prompts, samples), reward units.
        """

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """The function that gives rewards.

        Args:
            folder: where it was trained or prepared.
            components: scorers of `self.components`.
            base: the folder of the language model that it was trained from, for kinds that were.
            batch_tokens: tokens in a batch, for kinds with a model; speed only.
        """
        raise NotImplementedError


# -- models ---------------------------------------------------------------------------------------------------------


class Trained(Kind):
    """A reward model that is trained here on preference pairs, from a language model of the study.

    Attributes:
        particular: not every tokenizer will do, and `check_tokenizer` says which.
    """

    particular: ClassVar[bool] = False
    base: Annotated[str | None, Runtime] = None
    """The policy it starts from; None, where the question allows it, for each policy of the study in turn."""
    on_policy: float = Field(0.0, ge=0, le=1)
    """Share of pairs whose responses were drawn from `on_policy_of`."""
    on_policy_of: Annotated[str | None, Runtime] = None
    pairs: int | None = Field(None, ge=1)
    """How many pairs, None for all."""
    training: PairTraining

    @model_validator(mode="after")
    def _drawn_from_someone(self) -> Trained:
        if self.on_policy > 0 and self.on_policy_of is None:
            raise ValueError("on_policy > 0 needs on_policy_of, the policy that the pairs are drawn from")
        return self

    def learnt(self) -> str:
        """How long it was trained, and on what, for a person."""
        origin = f", {self.on_policy:.0%} of them on-policy" if self.on_policy else ""
        pairs = f"{self.pairs} pairs" if self.pairs else "all pairs"
        return f"{self.training.steps} steps on {pairs}{origin}"

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a tokenizer that will not do.

        Raises:
            StudyError: names the field, what is wrong and the remedy.
        """

    def tokens(self, tokenizer: Any, prompt: Text, response: str) -> int:
        """How many tokens a prompt with a response is read as, in training and in scoring."""
        return length(tokenizer, prompt, response)

    def train(self, base: Path, rows: Iterable[dict[str, Any]], out: Path, *, seed: int, log: Log) -> None:
        """Train, and save the model with its tokenizer.

        Args:
            base: the folder of the language model that it starts from.
            rows: {"prompt", "chosen", "rejected"}.
            out: where to: the folder `model` of the artifact.
        """
        raise NotImplementedError


class Truth(Kind):
    """A function of prompts and responses, registered in `rmpipe.truth` or named as `package.module:function`."""

    kind: Literal["truth"] = "truth"
    constructed: ClassVar[bool] = True
    function: str

    @field_validator("function")
    @classmethod
    def _there(cls, name: str) -> str:
        truth.find(name)
        return name

    def describe(self) -> str:
        """One line for a person."""
        return f"truth: the function {self.function}"

    def content(self) -> str:
        """SHA-256 of the file of a function that is not ours."""
        return truth.fingerprint(self.function)

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the function, and refuses what is not one number a response."""
        function = truth.find(self.function)

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            return _rewards(function(prompts, responses), len(responses), f"truth {self.function}")

        return score


# -- transforms -----------------------------------------------------------------------------------------------------


class Transform(Kind):
    """Another reward model's rewards, changed."""

    constructed: ClassVar[bool] = True
    of: Annotated[str, Runtime]
    """Name of the reward model in the study."""

    @property
    def components(self) -> tuple[str, ...]:
        """The one it changes."""
        return (self.of,)

    def change(self, folder: Path | None) -> Change:
        """The function from (rewards (n,) float64, prompts, responses) to rewards (n,)."""
        raise NotImplementedError

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the other model, and changes what it says."""
        import numpy as np

        (inner,), change = components, self.change(folder)

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            rewards = inner(prompts, responses).astype("float64")
            changed = change(rewards, prompts, responses)
            return _rewards(changed, len(responses), self.describe(), untold=np.isnan(rewards))

        return score


class Scaled(Transform):
    """Rewards with their spread scaled: accuracy untouched, variance moved.

    With `factor = 0.001` and `fraction = 0.5` of the truth it is the paper's perfectly accurate reward model of low
    variance (2503.15477, Appendix F.1). The prompts are drawn per split as there: the first `int(n x fraction)` of
    `RandomState(seed).permutation(n)`. A prompt that was in no split is scaled with probability `fraction`, by a seeded
    hash of its text.
    """

    kind: Literal["scaled"] = "scaled"
    factor: float = Field(0.1, gt=0)
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the prompts whose rewards are scaled."""
    seed: int = Field(8122, ge=0, lt=2**32)

    def describe(self) -> str:
        """One line for a person."""
        share = f" on {self.fraction:.0%} of the prompts" if self.fraction < 1 else ""
        return f"scaled: {self.of} times {self.factor:g}{share}"

    def prepare(self, out: Path, prompts_by_split: dict[str, list[Text]]) -> None:
        """Write down, by digest, which prompts of each split are scaled and which are not."""
        if self.fraction == 1:
            return
        chosen: dict[str, bool] = {}
        for split in sorted(prompts_by_split):
            marks = scaled_prompts(len(prompts_by_split[split]), self.fraction, self.seed)
            for prompt, mark in zip(prompts_by_split[split], marks, strict=True):
                chosen.setdefault(prompt_digest(prompt), bool(mark))
        out.mkdir(parents=True, exist_ok=True)
        (out / SCALED_PROMPTS).write_text(json.dumps(chosen))

    def change(self, folder: Path | None) -> Change:
        """Times the factor, on all prompts or on those drawn."""
        if self.fraction == 1:
            return lambda rewards, prompts, responses: rewards * self.factor
        file = (folder or Path()) / SCALED_PROMPTS
        if not file.exists():
            raise StudyError(f"{file}: missing; call prepare with the prompts of each split first")
        chosen: dict[str, bool] = json.loads(file.read_text())

        def change(rewards: np.ndarray, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            import numpy as np

            return rewards * np.array([self.factor if self._scales(prompt, chosen) else 1.0 for prompt in prompts])

        return change

    def _scales(self, prompt: Text, chosen: dict[str, bool]) -> bool:
        known = chosen.get(prompt_digest(prompt))
        return _uniform(self.seed, _plain(prompt)) < self.fraction if known is None else known


class Squashed(Transform):
    """A rising function of the rewards: order kept, spread moved or lost (ties may come where float32 saturates).

    `tanh(s (r - c))`; `convex`: `exp(s (r - c))`; `concave`: `-exp(-s (r - c))`.
    """

    kind: Literal["squashed"] = "squashed"
    strength: float = Field(1.0, gt=0)
    """s, per reward unit."""
    centre: float = 0.0
    """c, reward units."""
    shape: Literal["tanh", "convex", "concave"] = "tanh"

    def describe(self) -> str:
        """One line for a person."""
        return f"squashed: {self.shape} of {self.of}, strength {self.strength:g} around {self.centre:g}"

    def change(self, folder: Path | None) -> Change:
        """Through the function, in double precision so that as little order as possible is lost."""
        import numpy as np

        shapes: dict[str, Callable[[np.ndarray], np.ndarray]]
        shapes = {"tanh": np.tanh, "convex": np.exp, "concave": lambda values: -np.exp(-values)}

        def change(rewards: np.ndarray, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            with np.errstate(over="ignore"):  # what is not finite is refused by name later
                return shapes[self.shape](self.strength * (rewards - self.centre))

        return change


class Offset(Transform):
    """A constant a prompt: accuracy and raw variance untouched, whitened variance eaten."""

    kind: Literal["offset"] = "offset"
    std: float = Field(gt=0)
    """Of the constants over prompts, reward units."""
    seed: int = 0

    def describe(self) -> str:
        """One line for a person."""
        return f"offset: {self.of} plus a constant a prompt, std {self.std:g}"

    def change(self, folder: Path | None) -> Change:
        """Plus std times a standard normal number from a hash of the prompt."""

        def change(rewards: np.ndarray, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            return rewards + self.std * _normal(self.seed, [_plain(prompt) for prompt in prompts])

        return change


class Noisy(Transform):
    """Noise that is the same whenever the same text is scored: accuracy falls, variance grows."""

    kind: Literal["noisy"] = "noisy"
    std: float = Field(gt=0)
    """Of the noise over texts, reward units."""
    seed: int = 0

    def describe(self) -> str:
        """One line for a person."""
        return f"noisy: {self.of} plus noise, std {self.std:g}"

    def change(self, folder: Path | None) -> Change:
        """Plus std times a standard normal number from a hash of prompt and response."""

        def change(rewards: np.ndarray, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            texts = [[_plain(prompt), response] for prompt, response in zip(prompts, responses, strict=True)]
            return rewards + self.std * _normal(self.seed, texts)

        return change


class Ensemble(Kind):
    """The mean of other reward models' rewards, each in its own units, weighted if weights are given."""

    kind: Literal["ensemble"] = "ensemble"
    constructed: ClassVar[bool] = True
    of: Annotated[tuple[str, ...], Runtime] = Field(min_length=1)
    """Names of the reward models in the study."""
    weights: tuple[float, ...] | None = None
    """One each; divided by their sum."""

    @model_validator(mode="after")
    def _weighed(self) -> Ensemble:
        if self.weights is not None and (len(self.weights) != len(self.of) or sum(self.weights) <= 0):
            raise ValueError(f"weights: {len(self.of)} numbers of a positive sum are needed, one for each of `of`")
        return self

    @property
    def components(self) -> tuple[str, ...]:
        """Those it is the mean of."""
        return self.of

    def describe(self) -> str:
        """One line for a person."""
        weighted = f", weights {', '.join(f'{weight:g}' for weight in self.weights)}" if self.weights else ""
        return f"ensemble: mean of {', '.join(self.of)}{weighted}"

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with each, and takes the mean."""
        import numpy as np

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            each = [np.asarray(inner(prompts, responses), dtype=np.float64) for inner in components]
            mean, untold = np.average(each, axis=0, weights=self.weights), np.isnan(each).any(axis=0)
            return _rewards(mean, len(responses), self.describe(), untold=untold)

        return score


# -- chance, the same each time ---------------------------------------------------------------------------------------


def scaled_prompts(count: int, fraction: float, seed: int) -> np.ndarray:
    """Which of `count` prompts are scaled, (count,) bool, as 2503.15477's code draws them (`should_scale_reward`)."""
    import numpy as np

    marks = np.zeros(count, dtype=bool)
    marks[np.random.RandomState(seed).permutation(count)[: int(count * fraction)]] = True
    return marks


def _plain(text: Any) -> Any:
    """A text as canonical JSON takes it: tables give back messages as arrays of dictionaries."""
    return text if isinstance(text, str) else [{"role": turn["role"], "content": turn["content"]} for turn in text]


def prompt_digest(prompt: Any) -> str:
    """16 hexadecimal digits that are the same for equal prompts, whether a study or a table gives them."""
    return digest(_plain(prompt), 16)


def _uniform(seed: int, value: Any) -> float:
    """A number between 0 and 1, both left out, from a hash: the same in any order, batch, process and machine."""
    whole = hashlib.sha256(canonical_json([seed, value]).encode()).digest()
    return ((int.from_bytes(whole[:8], "big") >> 11) + 0.5) / 2**53


def _normal(seed: int, values: list[Any]) -> np.ndarray:
    """A standard normal number a value, (n,), from a hash of each."""
    import numpy as np

    return np.array([NormalDist().inv_cdf(_uniform(seed, value)) for value in values])


def _rewards(values: Any, count: int, who: str, untold: Any = False) -> np.ndarray:
    """Rewards as (count,) float32. Raises StudyError for another shape or for what is not finite, and names the row.

    Args:
        untold: where a judge could not tell, so that NaN is what it should be.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        rewards = np.asarray(values, dtype=np.float32)
    if rewards.shape != (count,):
        raise StudyError(f"{who}: gave shape {rewards.shape} for {count} responses; one number each is needed")
    if not (known := np.isfinite(rewards) | untold).all():
        row = int(np.flatnonzero(~known)[0])
        raise StudyError(f"{who}: row {row} has the reward {rewards[row]}; rewards must be finite in float32")
    return rewards
