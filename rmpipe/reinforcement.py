"""Reinforcement: RLHF through TRL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from rmpipe import adapter
from rmpipe.algorithm import Log, Training, check_parts, load, padded, run, trainer_arguments
from rmpipe.config import Neutral, Registry, StudyError
from rmpipe.text import Text, render, response_text

R = TypeVar("R")


class Algorithm(Registry, Training, key="kind", group="rmpipe.algorithms"):
    """An RLHF algorithm: one frozen class, found by its `kind`."""

    kind: str
    prompts_per_step: int = Field(24, ge=1)
    samples_per_prompt: int = Field(4, ge=2)
    kl_coefficient: float = Field(0.05, ge=0)
    """Reward units a nat: under RLOO of a response's divergence summed over its tokens, under GRPO of each token's."""
    kl_target: Annotated[float | None, Neutral(None)] = Field(None, gt=0)
    """Nats a token. After each step `kl_coefficient` is raised where the step's own divergence was above this, and
    lowered where it was below, as `adapted` says; None leaves it as it is."""
    entropy_bonus: Annotated[float, Neutral(0.0)] = Field(0.0, ge=0)
    """Reward units a nat: the policy's mean entropy a token on its own samples, at the temperature they are drawn at
    and over the whole vocabulary, is added to what is maximised, times this. RLOO's reward is that of a whole response,
    so that against it the same bonus weighs less than under GRPO, which has means a token as 2310.20703's PPO."""
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(64, ge=1)
    evaluations: int = Field(5, ge=2)
    """How often held-out prompts are looked at, the beginning and the end included."""

    def looks(self) -> list[int]:
        """The steps at which held-out prompts are looked at."""
        return sorted({round(self.steps * index / (self.evaluations - 1)) for index in range(self.evaluations)})

    def trainer(self) -> tuple[type, type, dict[str, Any]]:
        """TRL's trainer, its arguments' class, and the arguments that only it has."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _measures_what_it_adapts_to(self) -> Algorithm:
        if self.kl_target is not None and self.kl_coefficient == 0:
            told = f"kl_target = {self.kl_target} with kl_coefficient = 0, which nothing raises from 0"
            raise ValueError(f"{told}; set a kl_coefficient to begin with, or leave kl_target out")
        return self

    @model_validator(mode="after")
    def _in_whole_parts(self) -> Algorithm:
        called = "prompts_per_step x samples_per_prompt"
        check_parts(self.responses_per_step, called, self.micro_batch, self.processes)
        return self

    @property
    def responses_per_step(self) -> int:
        """Of all prompts and processes together."""
        return self.prompts_per_step * self.samples_per_prompt


class Rloo(Algorithm):
    """REINFORCE with the mean of a prompt's other samples as baseline (Ahmadian et al. 2024; 2503.15477, F.1)."""

    kind: Literal["rloo"] = "rloo"
    normalise_advantages: bool = False

    def trainer(self) -> tuple[type, type, dict[str, Any]]:
        """TRL's RLOO."""
        from trl import RLOOConfig, RLOOTrainer

        return RLOOTrainer, RLOOConfig, {"normalize_advantages": self.normalise_advantages}


class Grpo(Algorithm):
    """Group relative policy optimisation. Scaling by the group's std, its default, undoes what variance does."""

    kind: Literal["grpo"] = "grpo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"

    @model_validator(mode="after")
    def _means_over_the_step(self) -> Grpo:
        asked = [name for name in ("entropy_bonus", "kl_target") if getattr(self, name)]
        if asked and self.micro_batch and self.micro_batch * self.processes < self.responses_per_step:
            told = f"micro_batch with {' and '.join(asked)}, of which TRL's GRPO takes means micro batch by micro batch"
            raise ValueError(f"{told}; leave one out, or take rloo")
        return self

    def trainer(self) -> tuple[type, type, dict[str, Any]]:
        """TRL's GRPO."""
        from trl import GRPOConfig, GRPOTrainer

        more = {"scale_rewards": self.scale_rewards, "loss_type": self.loss, "entropy_coef": self.entropy_bonus}
        return GRPOTrainer, GRPOConfig, more


def adapted(coefficient: float, kl: float, target: float | None) -> float:
    """The KL coefficient after a step: a little higher where the policy strayed too far, a little lower where not.

    c (1 + 0.1 clip((kl - target) / target, -0.2, 0.2)), so by 2 % at most: the controller of 2310.20703's runs.

    Args:
        coefficient: reward units a nat.
        kl: the step's own, nats a token, the mean over all tokens that were drawn: of log pi - log pi_ref under RLOO,
            as in these runs, which may be negative; of e^-d + d - 1 with d that difference under GRPO, which never is.
        target: nats a token; None for a coefficient that stays.
    """
    return coefficient if target is None else coefficient * (1 + 0.1 * min(max((kl - target) / target, -0.2), 0.2))


def align(
    policy: Path, prompts: list[Text], reward: Callable[[list[Text], list[str]], Any], out: Path,
    *, config: Algorithm, seed: int, log: Log, evaluate: Callable[[Any, Any, int], dict[str, float]] | None = None,
    later: Sequence[Text] = (),
) -> None:  # fmt: skip
    """Train a policy by RLHF and save it with its tokenizer.

    Args:
        policy: the initial policy's folder, which is also the reference that KL is measured from.
        prompts: what it is asked while it learns.
        reward: prompts and responses to (n,) rewards, as they shall be felt.
        evaluate: called with model, tokenizer and step at `config.looks()`; the training's random numbers are kept.
        later: prompts that come after all others in each pass over them. A training that has fewer steps than the
            others fill never reaches them.

    Raises:
        StudyError: fewer distinct prompts than one step takes; the trainer would do no step at all, silently.
    """
    from datasets import Dataset

    trainer_class, arguments_class, special = config.trainer()
    _, tokenizer = load(policy, model=False)
    first = {render(tokenizer, prompt): prompt for prompt in prompts}
    deferred = {text: prompt for prompt in later if (text := render(tokenizer, prompt)) not in first}
    rendered = first | deferred
    if len(rendered) < config.prompts_per_step:
        told = f"{config.prompts_per_step} prompts a step, and the policy split has {len(rendered)} distinct ones"
        raise StudyError(f"algorithms: prompts_per_step: {told}; lower it, or raise dataset.policy_fraction")
    more: dict[str, Any] = {
        "beta": config.kl_coefficient, "num_generations": config.samples_per_prompt, "temperature": config.temperature,
        "top_k": config.top_k, "top_p": config.top_p, "max_completion_length": config.max_new_tokens,
        "disable_dropout": True, "model_init_kwargs": {"dtype": config.dtype},
    }  # fmt: skip
    batch, asked = config.responses_per_step, [*rendered]
    if deferred:
        more["shuffle_dataset"] = False
        asked = in_passes([*first], [*deferred], config.prompts_per_step, config.steps, seed)
    if config.entropy_bonus and "entropy_coef" not in special:  # which TRL's RLOO lacks
        trainer_class = _encouraged(trainer_class, config.entropy_bonus)
    trainer = trainer_class(
        str(policy),
        reward_funcs=_felt(reward, rendered, tokenizer),
        args=trainer_arguments(
            arguments_class, config, seed, log, batch=batch, micro=config.micro_batch, **more, **special
        ),
        train_dataset=Dataset.from_list([{"prompt": text} for text in asked]),
        processing_class=padded(tokenizer, side="left"),
        **adapter.adapted(config.adapter, "CAUSAL_LM"),
    )
    if config.kl_target is not None:
        trainer.add_callback(_adapting(trainer, config.kl_target))
    if evaluate is not None:
        trainer.add_callback(_looking(evaluate, config.looks(), tokenizer))
    run(trainer, config, log, out, tokenizer)


def in_passes(first: Sequence[R], later: Sequence[R], size: int, steps: int, seed: int) -> list[R]:
    """What so many steps take, in order: in each pass all of the first and then the later ones, either part shuffled.

    The last of a pass that do not fill a step are left out of that pass, as TRL leaves them out.

    Args:
        size: how many a step takes, of both no fewer.

    Returns:
        size x steps of them.
    """
    import numpy as np

    taken: list[R] = []
    draws = np.random.default_rng([seed, *b"passes"])
    while len(taken) < size * steps:
        once = [part[index] for part in (first, later) for index in draws.permutation(len(part))]
        taken += once[: len(once) // size * size]
    return taken[: size * steps]


def _encouraged(kind: Any, bonus: float) -> type:
    """A trainer that maximises the mean entropy a token as well; TRL's own pass over the samples has its gradient."""
    if not hasattr(kind, "_get_per_token_logps_and_entropies"):
        told = f"{kind.__name__} tells no entropy while it is trained"
        raise StudyError(f"algorithms: entropy_bonus: {told}; leave it out")

    class Encouraged(kind):
        def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
            told = super()._get_per_token_logps_and_entropies(*args, **options)
            self._entropies = told[1]
            return told

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            loss, mask = super()._compute_loss(model, inputs), inputs["completion_mask"]
            entropies, self._entropies = self._entropies, None
            parts = self._buffered_inputs  # the step's micro batches, whose losses are divided by how many they are
            tokens = sum(part["completion_mask"].sum() for part in parts).clamp(min=1)
            return loss - bonus * (entropies * mask).sum() * len(parts) / tokens

    return Encouraged


def _felt(
    reward: Callable[[list[Text], list[str]], Any], rendered: dict[str, Text], tokenizer: Any
) -> Callable[..., list[float]]:
    """The reward as TRL calls it, with texts decoded behind their prompts so that no leading space is lost."""

    def rewarded(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        heads = {text: list(tokenizer(text)["input_ids"]) for text in dict.fromkeys(prompts)}
        pairs = zip(prompts, completion_ids, strict=True)
        texts = [response_text(tokenizer, heads[text], list(map(int, ids))) for text, ids in pairs]
        return [float(value) for value in reward([rendered[text] for text in prompts], texts)]

    return rewarded


def _adapting(trainer: Any, target: float) -> Any:
    """The KL coefficient adapted after each step, told with the curves, and kept in checkpoints."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import ExportableState

    class AdaptiveKl(TrainerCallback, ExportableState):
        def state(self) -> dict[str, Any]:
            return {"args": {}, "attributes": {"coefficient": trainer.beta}}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.beta = state.stateful_callbacks["AdaptiveKl"]["attributes"]["coefficient"]

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            numbers = trainer._metrics["train"]
            numbers["kl_coefficient"].append(trainer.beta)
            trainer.beta = adapted(trainer.beta, numbers["kl"][-1], target)

    return AdaptiveKl()


def _looking(evaluate: Callable[[Any, Any, int], dict[str, float]], looks: list[int], tokenizer: Any) -> Any:
    """Evaluation at some steps, with the training's random numbers put back as they were."""
    from transformers import TrainerCallback

    class Looking(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 0:
                self._look(model, 0)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step in looks:
                self._look(model, state.global_step)

        def _look(self, model: Any, step: int) -> None:
            import torch

            training = model.training
            model.eval()
            with torch.random.fork_rng(), torch.no_grad():
                evaluate(model, tokenizer, step)
            model.train(training)

    return Looking()
