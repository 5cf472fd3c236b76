"""Training on one pair alone, again and again from the same weights: the setting of 2410.08847's theory and Table 1.

A loop of our own and not a trainer: a step on two short responses takes milliseconds, a trainer seconds to set up, and
there are hundreds of pairs. Optimisers, schedules, decay and clipping are those that the trainers use, with the same
settings, and there is no dropout, as in TRL's DPO: a pair ends where `rmpipe.direct` ends with that pair as its data.

What is followed costs nothing more: the likelihoods before a step come out of the forward pass of that step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from rmpipe.algorithm import Log, Optimiser, paired_ids
from rmpipe.config import StudyError
from rmpipe.direct import Objective
from rmpipe.displacement import gain_ranks, gainers, largest_decrease, unembedding_geometry
from rmpipe.pair import SIDES
from rmpipe.policy import LanguageModel
from rmpipe.text import padding_id

if TYPE_CHECKING:
    import torch

Ids = dict[str, list[int]]

DONE = "pairs.jsonl"
"""The pairs done so far, in the scratch folder: [index, what `train_each` returns of it] a line."""

RANKED = {"prob": "by its probability", "logprob": "by its logarithm"}
"""How tokens are ranked by what they gained."""
UNEMBEDDED = ("chosen_norm", "rejected_norm", "inner", "projection", "excess", "orthogonal")
"""What is told of two unembeddings, `rmpipe.displacement.unembedding_geometry`."""


class Single(Objective):
    """Training on each pair alone: what is minimised, how, and what is looked at on the way."""

    pairs: int = Field(ge=1)
    """How many, drawn by the seed."""
    steps: int = Field(ge=1)
    optimiser: Optimiser
    first_token: bool = False
    """Only the first token of each response is trained and followed, without its end of sequence: the Persona study."""
    looks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10, 25, 50, 100)
    """The steps after which the next-token distribution is looked at; those beyond the last one are passed over."""
    top: int = Field(3, ge=1)
    """How many of the tokens that gained most are told at each."""


def train_each(
    language_model: LanguageModel, rows: Sequence[dict[str, Any]], *, config: Single, log: Log
) -> list[dict[str, Any]]:
    """Train on each pair alone, from the weights that the model comes with and leaves with.

    Pairs that are done are kept in the scratch folder, so that a run that was killed goes on from them.

    Args:
        language_model: in float32; it is trained in place, with a copy of its weights beside it.
        rows: {"id", "prompt", "chosen", "rejected"}.

    Returns:
        of each row, in JSON's types:

        - `id`
        - `chosen`, `rejected`: log pi of both responses, nats, before the first step and after each: steps + 1 numbers.
        - `loss`: likewise.
        - `gained`: at each look {"step", "tokens", "probs"}: the tokens whose probability to come first in the response
          has grown most since the start, as the tokenizer has them, and by how much.
        - `ranks`: at each look {"step", "prob", "logprob"}: how many tokens gained more than the one that the chosen
          response begins with.
        - `unembedding`: norms and inner product of the two tokens' unembeddings before training, if each response is
          one token; else None.

    Raises:
        StudyError: a pair is too long, has no prompt, or has two equal responses, before any is trained; or a
            likelihood is no longer finite.
    """
    model, file = language_model.model, log.scratch / DONE
    examples = [_example(language_model, row, config.first_token) for row in rows]
    done = _done(file)
    weights = list(model.parameters())
    start = [weight.detach().clone() for weight in weights]
    training = model.training
    model.eval()
    try:
        for index, (row, ids) in enumerate(zip(rows, examples, strict=True)):
            if index not in done:
                done[index] = {"id": row["id"], **_train(language_model, ids, config, str(row["id"]))}
                with file.open("a") as opened:  # a line begins anew, whatever a kill left of the one before
                    opened.write(f"\n{json.dumps([index, done[index]])}")
                _put_back(weights, start)
            log.progress(index + 1, len(rows))
    finally:
        _put_back(weights, start)
        model.train(training)
    return [done[index] for index in range(len(rows))]


def _example(language_model: LanguageModel, row: dict[str, Any], first_token: bool) -> Ids:
    """A pair as ids, checked."""
    tokenizer, where = language_model.tokenizer, f"pair {row['id']}"
    (ids,) = paired_ids(tokenizer, [row], None, 1 << 60)
    if not ids["prompt_ids"]:
        raise StudyError(f"{where}: its prompt is empty, and the tokenizer begins no text by itself; give it a text")
    if first_token:
        ids |= {f"{side}_ids": ids[f"{side}_ids"][:1] for side in SIDES}
    if ids["chosen_ids"] == ids["rejected_ids"]:
        what, remedy = ("begin with the same token", ", or single.first_token") if first_token else ("are the same", "")
        raise StudyError(f"{where}: its responses {what}, so that nothing is preferred; leave it out{remedy}")
    longest = len(ids["prompt_ids"]) + max(len(ids[f"{side}_ids"]) for side in SIDES)
    if longest > language_model.context:
        told = f"it has {longest} tokens, but the model holds {language_model.context}"
        raise StudyError(f"{where}: {told}; leave it out")
    return ids


def _done(file: Path) -> dict[int, dict[str, Any]]:
    found = {}
    with suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            with suppress(ValueError):  # the last line of a process that was killed while it wrote
                index, run = json.loads(line)
                found[index] = run
    return found


def _put_back(weights: list[Any], start: list[Any]) -> None:
    import torch

    with torch.no_grad():
        for weight, was in zip(weights, start, strict=True):
            weight.copy_(was)
            weight.grad = None


# -- one pair -------------------------------------------------------------------------------------------------------


def _train(language_model: LanguageModel, ids: Ids, config: Single, where: str) -> dict[str, Any]:
    """What `train_each` tells of one pair; the weights are left as trained."""
    import torch

    model, batch = language_model.model, _batch(language_model, ids)
    geometry = _geometry(language_model, ids)
    step_on = _stepping(model, config)
    likelihoods, losses, spreads = [], [], {}
    for step in range(config.steps + 1):
        with torch.set_grad_enabled(step < config.steps):
            now, spread = _forward(model, *batch)
            likelihoods.append(now.detach())
            loss = config.of(now[:1], now[1:], likelihoods[0][:1], likelihoods[0][1:])
        losses.append(loss.detach())
        if step == 0 or step in config.looks:
            spreads[step] = spread.double().log_softmax(-1).cpu().numpy()
        if step < config.steps:
            step_on(loss)
    chosen, rejected = torch.stack(likelihoods, 1).tolist()
    if not np.isfinite([chosen, rejected]).all():
        raise StudyError(f"pair {where}: its likelihoods are no longer finite; lower single.optimiser.learning_rate")
    curves = {"chosen": chosen, "rejected": rejected, "loss": torch.stack(losses).tolist()}
    return curves | _gains(language_model.tokenizer, spreads, ids["chosen_ids"][0], config.top) | geometry


def _batch(language_model: LanguageModel, ids: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides padded on the right, and what comes next at each place from the prompt's last on, -100 for nothing.

    To the right of all that is asked, padding is seen by nothing, and needs no mask.
    """
    import torch

    prompt, sides = ids["prompt_ids"], [ids[f"{side}_ids"] for side in SIDES]
    longest = max(map(len, sides))
    padding, device = padding_id(language_model.tokenizer), language_model.model.device
    rows = [prompt + side + [padding] * (longest - len(side)) for side in sides]
    following = [side + [-100] * (longest + 1 - len(side)) for side in sides]
    return torch.tensor(rows, device=device), torch.tensor(following, device=device)


def _forward(model: Any, ids: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi of both responses, (2,), nats, and the logits of their first token, (vocabulary,), without gradient."""
    from torch.nn.functional import cross_entropy

    logits = model(ids, logits_to_keep=following.shape[1], use_cache=False).logits.float()
    surprise = cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")  # 0 where nothing follows
    return -surprise.double().view_as(following).sum(1), logits[0, 0].detach()


def _stepping(model: Any, config: Single) -> Any:
    """A function that takes a loss one step down, with the trainers' optimiser, clipping, decay and schedule."""
    import torch
    from transformers import get_scheduler

    told, weights = config.optimiser, list(model.parameters())
    kinds: dict[str, Any] = {
        "adamw": partial(torch.optim.AdamW, fused=True),
        "sgd": partial(torch.optim.SGD, fused=True),
        "rmsprop": torch.optim.RMSprop,
    }
    optimiser = kinds[told.name](_groups(model, told.weight_decay), lr=told.learning_rate)
    schedule = get_scheduler(told.scheduler, optimiser, told.warmup_steps, config.steps)

    def step_on(loss: torch.Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        if told.clip:
            torch.nn.utils.clip_grad_norm_(weights, told.clip)
        optimiser.step()
        schedule.step()

    return step_on


def _groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """Weights that decay and weights that do not, biases and norms, as the trainers part them."""
    if not decay:
        return [{"params": list(model.parameters()), "weight_decay": 0.0}]
    from transformers import Trainer

    decaying = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]  # it asks it nothing
    parts: dict[bool, list[Any]] = {True: [], False: []}
    for name, weight in model.named_parameters():
        parts[name in decaying].append(weight)
    return [{"params": parts[True], "weight_decay": decay}, {"params": parts[False], "weight_decay": 0.0}]


# -- what is told of it ---------------------------------------------------------------------------------------------


def _gains(tokenizer: Any, spreads: dict[int, np.ndarray], preferred: int, top: int) -> dict[str, Any]:
    """`gained` and `ranks`, from the distribution of the response's first token at each step looked at."""
    gained, ranks, before = [], [], spreads.pop(0)
    for step, after in spreads.items():
        tokens = gainers(before, after, top)
        probs = (np.exp(after) - np.exp(before))[tokens].tolist()
        gained.append({"step": step, "tokens": tokenizer.convert_ids_to_tokens(tokens), "probs": probs})
        places = gain_ranks(before[None], after[None], [preferred])
        ranks.append({"step": step} | {by: int(rank[0]) for by, rank in places.items()})
    return {"gained": gained, "ranks": ranks}


def _geometry(language_model: LanguageModel, ids: Ids) -> dict[str, Any]:
    """`unembedding`, of pairs whose responses are one token each, an end of sequence aside."""
    end = language_model.tokenizer.eos_token_id
    sides = [[token for token in ids[f"{side}_ids"] if token != end] for side in SIDES]
    if any(len(side) != 1 for side in sides):
        return {"unembedding": None}
    unembedding = language_model.model.get_output_embeddings().weight.detach()
    chosen, rejected = (unembedding[side[0]].double().cpu().numpy() for side in sides)
    found = {name: float(value) for name, value in unembedding_geometry(chosen, rejected).items()}
    return {"unembedding": {name: value if np.isfinite(value) else None for name, value in found.items()}}


def followed(run: dict[str, Any]) -> dict[str, Any]:
    """What became of a pair that was trained on alone.

    Args:
        run: of `train_each`.

    Returns:
        - `start`, `end`: pi(y+) where its largest fall on the way begins and ends (2410.08847, Table 1).
        - `prob.STEP`, `logprob.STEP`: how many tokens gained more than the preferred one, at each look.
        - of pairs of one token each, `UNEMBEDDED`.
    """
    probabilities = np.exp(run["chosen"])
    (start,), (end,), _ = largest_decrease(probabilities[None])
    ranks = {f"{by}.{look['step']}": look[by] for look in run["ranks"] for by in RANKED}
    return {"start": float(probabilities[start]), "end": float(probabilities[end])} | ranks | (run["unembedding"] or {})
