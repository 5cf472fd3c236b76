"""Training through TRL: supervised finetuning, and what all trainings share.

Texts are turned into ids by `rmpipe.text` before a trainer sees them, so that what a reward model was trained on is to
the token what it scores later. Trainers keep checkpoints in the stage's scratch folder; a run that was killed goes on
from the last whole one and ends in the same weights.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from rmpipe.adapter import Lora, adapted, merged
from rmpipe.config import Config, Neutral, Runtime, StudyError
from rmpipe.pair import SIDES
from rmpipe.text import encode, padding_id, parted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

R = TypeVar("R")

LOOKS = "looks"
"""The folder of the weights that are kept while they are trained, a folder a step."""

OPTIMISERS = {"adamw": "adamw_torch", "sgd": "sgd", "rmsprop": "rmsprop"}


class Log(Protocol):
    """What training tells while it works; see `tasks.execution.Log`."""

    scratch: Path

    def metrics(self, values: dict[str, float], step: int | None = None) -> None: ...

    def progress(self, done: int, total: int) -> None: ...


class Optimiser(Config):
    """An optimiser. Under plain SGD the reward's scale is felt; AdamW and clipping undo it."""

    name: Literal["adamw", "sgd", "rmsprop"] = "adamw"
    learning_rate: float = Field(gt=0)
    clip: float = Field(1.0, ge=0)
    """Largest gradient norm; 0 for no clipping."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)

    @property
    def scheduler(self) -> str:
        """What transformers calls the schedule: its constant one knows no warm-up."""
        warms = self.schedule == "constant" and self.warmup_steps > 0
        return "constant_with_warmup" if warms else self.schedule


class Training(Config):
    """What every training has."""

    steps: int = Field(ge=1)
    optimiser: Optimiser
    precision: Annotated[Literal["float32", "mixed", "bfloat16"], Neutral("float32")] = "float32"
    """`mixed`: weights in float32, and most of what is computed with them in bfloat16; `bfloat16`: the weights too."""
    adapter: Annotated[Lora | None, Neutral(None)] = None
    """Train an adapter rather than the weights: `adapter = {}`. What is saved is the model with it."""
    checkpoint_seconds: Annotated[float, Runtime] = Field(60.0, ge=0)
    """How much work a kill may cost."""
    micro_batch: Annotated[int | None, Runtime] = Field(None, ge=1)
    """Rows, pairs, or of RLHF responses, that a process takes at a time, a divisor of its share of a step; None for all
    of them. Of reward models and of DPO, where a pass over the pairs ends in a shorter step, its parts count alike."""
    processes: Annotated[int, Neutral(1)] = Field(1, ge=1)
    """Processes that share a step, a device each. Their number decides a little of what comes out: of RLHF, where each
    draws responses by random numbers of its own, and where a pass over the rows ends in a shorter step, which several
    fill up with the first rows of the pass."""
    checkpointing: Annotated[bool, Runtime] = False
    """Compute the activations again on the way back rather than keep them: less memory, about a third slower."""

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """What the weights are in, while they are trained and as they are saved."""
        return "bfloat16" if self.precision == "bfloat16" else "float32"


class Batched(Training):
    """What every training on rows has."""

    batch_size: int = Field(32, ge=1)
    """Rows, or pairs, a step."""
    max_length: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _in_whole_parts(self) -> Batched:
        check_parts(self.batch_size, "batch_size", self.micro_batch, self.processes)
        return self


class Finetuning(Batched):
    """Next-token loss: on completions where rows have a prompt, on whole texts where they have not."""


class PairTraining(Batched):
    """What every training on preference pairs has."""

    looks: Annotated[int, Neutral(1)] = Field(1, ge=1)
    """How often the weights are kept while they are trained, evenly spaced, the end included: what is learnt when can
    then be measured. Each costs a copy of the weights on the disk."""

    fixed: Annotated[bool, Neutral(False)] = False
    """Keep the hidden representations as they are: the head alone is trained, or of a language model the unembedding.
    It is the setting of 2507.07981's Theorem 2."""

    @model_validator(mode="after")
    def _fixes_what_it_trains(self) -> PairTraining:
        if self.fixed and self.adapter is not None:
            raise ValueError("fixed with an adapter, which moves the hidden representations; leave one of them out")
        return self

    def kept(self) -> list[int]:
        """The steps before the last at which the weights are kept."""
        return sorted({round(self.steps * index / self.looks) for index in range(1, self.looks)} - {0, self.steps})


def check_parts(batch: int, called: str, micro: int | None, processes: int) -> None:
    """Refuse a step that processes, or the parts that they take at a time, do not divide.

    Raises:
        ValueError: names the field, and the remedy.
    """
    share = batch // processes
    if batch % processes:
        raise ValueError(f"processes = {processes} does not divide {called} = {batch}; take a divisor")
    if share % min(micro or share, share):
        among = f" over processes = {processes}" if processes > 1 else ""
        raise ValueError(f"micro_batch = {micro} does not divide {called} = {batch}{among}; take a divisor")


# -- the trainings -----------------------------------------------------------------------------------------------


def finetune(
    base: Path | tuple[PreTrainedModel, PreTrainedTokenizerBase], rows: Iterable[dict[str, Any]], out: Path,
    *, config: Finetuning, seed: int, log: Log,
) -> None:  # fmt: skip
    """Finetune a causal language model and save it with its tokenizer.

    Args:
        base: a folder, or a model and its tokenizer.
        rows: {"prompt", "completion"}, or {"text"}; an end of sequence is learnt after each.
        out: where to.

    Raises:
        StudyError: every row is longer than `max_length`.
    """
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load(base, dtype=config.dtype) if isinstance(base, Path) else base
    examples = [row for row in (_example(tokenizer, row) for row in rows) if _fits(row["input_ids"], config.max_length)]
    if not examples:
        raise StudyError(f"finetuning.max_length: no row has as few as {config.max_length} tokens; raise it")
    more = {"max_length": None, "completion_only_loss": True, "packing": False, "shuffle_dataset": False}
    arguments = trainer_arguments(
        SFTConfig, config, seed, log, batch=config.batch_size, micro=config.micro_batch, **more
    )
    trainer = SFTTrainer(
        model.to(getattr(torch, config.dtype)),
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=padded(tokenizer),
        **adapted(config.adapter, "CAUSAL_LM"),
    )
    run(trainer, config, log, out, tokenizer)


def _example(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    prompt, response = (row["prompt"], row["completion"]) if "prompt" in row else ("", row["text"])
    ids = encode(tokenizer, prompt, response)
    asked = len(encode(tokenizer, prompt)) if "prompt" in row else 1
    return {"input_ids": ids, "completion_mask": [0] * asked + [1] * (len(ids) - asked)}


def paired_ids(
    tokenizer: Any, pairs: Iterable[dict[str, Any]], limit: int | None, context: int | None = None
) -> list[dict[str, list[int]]]:
    """Pairs as ids: of what both sides share of the prompt, and of each side's rest with its end of sequence.

    Args:
        pairs: {"prompt", "chosen", "rejected"}.
        limit: the most tokens of prompt and response together; longer pairs are left out.
        context: the most that the model holds, None where it is not to be trained on them.

    Raises:
        StudyError: no pair is left, or one is longer than the context.
    """
    rows, longest = [], []
    for pair in pairs:
        sides = [parted(tokenizer, pair["prompt"], pair[side]) for side in SIDES]
        begin = min(len(asked) for asked, _ in sides)
        whole = {f"{side}_ids": [*asked, *ids] for side, (asked, ids) in zip(SIDES, sides, strict=True)}
        rows.append({name: ids[begin:] for name, ids in whole.items()} | {"prompt_ids": sides[0][0][:begin]})
        longest.append(max(map(len, whole.values())))
    return fitting(rows, longest, limit, context)


def fitting(rows: list[R], longest: Sequence[int], limit: int | None, context: int | None) -> list[R]:
    """The pairs whose longer side has at most `limit` tokens.

    Args:
        longest: tokens of the longer side of each.
        context: the most that the model holds, None for any.

    Raises:
        StudyError: no pair is left, or one is longer than the context.
    """
    kept = [index for index, length in enumerate(longest) if limit is None or length <= limit]
    if not kept:
        raise StudyError(f"training.max_length: no pair has as few as {limit} tokens a side; raise it")
    index = max(kept, key=longest.__getitem__)
    if context is not None and longest[index] > context:
        told = f"pair {index} has {longest[index]} tokens, but the model holds {context}"
        raise StudyError(f"{told}; leave longer pairs out by training.max_length = {context}")
    return [rows[index] for index in kept]


def _fits(ids: list[int], limit: int | None) -> bool:
    return limit is None or len(ids) <= limit


def load(folder: Path, *, model: bool = True, dtype: str = "float32") -> tuple[Any, Any]:
    """A causal language model to train, or None if it is not asked for, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True) if model else None
    return loaded, AutoTokenizer.from_pretrained(folder)


def padded(tokenizer: Any, side: str = "right") -> Any:
    """A copy of the tokenizer that trainers can pad with: the saved one stays as it came."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.padding_side = side
    other.pad_token_id = padding_id(other)
    return other


def trainer_arguments(
    kind: type, config: Training, seed: int, log: Log, *, batch: int, micro: int | None = None, **more: Any
) -> Any:
    """Trainer arguments with everything said that has a default we do not want (bf16 and checkpointing on, for two).

    Args:
        batch: how many of its rows a trainer's step has, of all processes together.
        micro: how many of them a process takes at a time.
    """
    import torch

    world = int(os.environ.get("WORLD_SIZE", 1))
    share = batch // world
    micro = min(micro or share, share)
    if batch % world or share % micro:
        told = f"processes = {world} with micro_batch = {micro} do not divide the batch of {batch}"
        raise StudyError(f"{told}; take divisors")
    cuda, optimiser = torch.cuda.is_available(), config.optimiser
    arguments = kind(
        output_dir=str(log.scratch / "trainer"), max_steps=config.steps, seed=seed, data_seed=seed,
        per_device_train_batch_size=micro, gradient_accumulation_steps=share // micro,
        learning_rate=optimiser.learning_rate, lr_scheduler_type=optimiser.scheduler,
        warmup_steps=optimiser.warmup_steps, weight_decay=optimiser.weight_decay,
        optim=OPTIMISERS[optimiser.name], max_grad_norm=optimiser.clip,
        bf16=config.precision == "mixed", use_cpu=not cuda, activation_checkpointing=config.checkpointing,
        save_strategy="no", save_only_model=False, save_total_limit=2,
        logging_steps=max(1, config.steps // 20), report_to="none", disable_tqdm=True, dataloader_pin_memory=cuda,
        **more,
    )  # fmt: skip
    if arguments.n_gpu > 1:  # else a trainer splits each batch over all that it sees, and makes it as many times larger
        arguments._n_gpu = 1
    return arguments


def run(trainer: Any, config: Training, log: Log, out: Path, tokenizer: Any) -> None:
    """Train to the end, from the last whole checkpoint if a kill has left one, and save the model with its tokenizer.

    Args:
        out: where to; the looks of a `PairTraining` go beside it, into `looks/STEP/` and its own name.

    Raises:
        RuntimeError: the trainer ended before its last step.
        StudyError: the weights that it ended with are not all finite.
    """
    looks = log.scratch / LOOKS
    if isinstance(config, PairTraining) and config.fixed:
        _fix(trainer.model)
    if isinstance(config, PairTraining) and (kept := config.kept()):
        trainer.add_callback(_keeping(looks, out.name, kept, tokenizer))
    trainer.add_callback(_telling(config, log))
    trainer.remove_callback(_printer())
    resumed = _last_whole(log.scratch / "trainer")
    if resumed:
        step = int(Path(resumed).name.split("-")[1])
        log.metrics({"resumed_from": step}, step)
    trainer.train(resume_from_checkpoint=resumed)
    if trainer.state.global_step < config.steps:
        raise RuntimeError(f"the trainer ended after {trainer.state.global_step} of {config.steps} steps")
    if not all(weight.isfinite().all() for weight in trainer.model.parameters()):
        raise StudyError("its weights are no longer finite; lower the training's optimiser.learning_rate")
    _save(merged(trainer.model), tokenizer, out)
    if looks.exists():
        shutil.copytree(looks, out.parent / LOOKS)


def _fix(model: Any) -> None:
    """Let nothing but a model's head be trained."""
    if model.config.get_text_config().tie_word_embeddings and model.get_output_embeddings() is not None:
        told = "its unembedding is its embedding, so that to train it moves the hidden representations"
        raise StudyError(f"training.fixed: {model.config.name_or_path}: {told}; leave fixed out")
    model.base_model.requires_grad_(False)


def _save(model: Any, tokenizer: Any, out: Path) -> None:
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)


def _printer() -> type:
    from transformers import PrinterCallback

    return PrinterCallback


def _last_whole(folder: Path) -> str | None:
    """The last checkpoint that was written to its end: its state is the last file that a trainer writes."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            continue
        return str(checkpoint)
    return None


def _telling(config: Training, log: Log) -> Any:
    """Progress, curves, and a checkpoint whenever as much work is at stake as a kill may cost."""
    from accelerate.utils import broadcast_object_list
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            log.progress(state.global_step, state.max_steps)
            due = time.monotonic() - self.saved >= config.checkpoint_seconds
            due = broadcast_object_list([due])[0]  # the first process's clock: all save at a step, or none does
            if due and state.global_step < state.max_steps:
                control.should_save, self.saved = True, time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, float | int)}
            log.metrics(numbers, state.global_step)

    return Telling()


def _keeping(folder: Path, name: str, steps: list[int], tokenizer: Any) -> Any:
    """The weights at some steps, in the scratch folder, so that a run that goes on after a kill has those of before."""
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step in steps and state.is_world_process_zero:
                _save(merged(model, copied=True), tokenizer, folder / f"{state.global_step:06d}" / name)

    return Keeping()
