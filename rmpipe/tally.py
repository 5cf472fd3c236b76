"""What each stage of a plan does with models, counted before it runs: one function a stage, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from rmpipe.artifact import Artifact
from rmpipe.estimate import Use, Work
from rmpipe.recipe import FOLDS, HELD
from rmpipe.stock import Model
from rmpipe.text import encode
from rmpipe.workload import (
    BATCH_TOKENS,
    CHARACTERS,
    SAMPLE,
    VERIFICATION,
    Texts,
    Told,
    UnknownError,
    Workload,
    lengths_of,
    reading,
)  # fmt: skip

SAMPLED = ("sample", "grade")
"""Stages that give a policy's own responses."""
EXAMINED = 16
"""How often an audit has its texts scored, about: as they are, in other batches and orders, cut, repeated, emptied."""


def tally(load: Workload, address: str) -> Work:
    """What a stage of a plan does; with the reason, where that is not known."""
    stage, told = load.calls[address]
    if stage not in COUNTED:
        return Work(stage) if stage in PLAIN else Work(stage, unknown="a stage whose work is not counted")
    try:
        return COUNTED[stage](load, told)
    except UnknownError as error:
        return Work(stage, unknown=str(error))


# -- what is done with a model ----------------------------------------------------------------------------------------


def _drawing(model: Model, how: Any, prompts: float, samples: int, prompt: float, response: float) -> list[Use]:
    """So many responses to each of some prompts, each read once; a batch goes on until its longest has ended."""
    length = min(response, how.max_new_tokens)
    longest = min(how.max_new_tokens, 2 * length)
    batches = ceil(prompts / getattr(how, "batch_size", prompts or 1))
    return [
        reading(model, prompts, prompt),
        Use(model.name, "drawn", batches * longest, prompts * samples * length),
    ]


def _training(model: Model, training: Any, texts: int, tokens: float) -> Use:
    """So many texts of so many tokens a row, or a pair, of each step's batch."""
    rows = training.batch_size
    passes = training.steps * ceil(rows / min(training.micro_batch or rows, rows))
    tokens = min(tokens, training.max_length or tokens)
    return Use(model.name, "trained", passes, training.steps * rows * texts * tokens)


def _rewarding(load: Workload, reward_model: Artifact, texts: float, tokens: float) -> list[Use]:
    return [use for reader in load.readers(reward_model) for use in reader.uses(texts, tokens)]


def _held(load: Workload, reward_model: Artifact) -> float:
    """Bytes of the models of a reward model, and of one batch."""
    models = [reader.model for reader in load.readers(reward_model)]
    batch = max((_size(model).read(BATCH_TOKENS, model.dtype, logits=False) for model in models), default=0.0)
    return sum(_size(model).weights(model.dtype) for model in models) + batch


def _size(model: Model) -> Any:
    if model.size is None:
        raise UnknownError(f"{model.name} is not on this machine, or does not say how large it is")
    return model.size


def _drawn_bytes(model: Model, rows: float, tokens: float) -> float:
    """Of a batch that is drawn: keys and values, and the logits that are drawn from."""
    size = _size(model)
    return 2 * rows * tokens * size.layers * size.hidden * 4 + 12 * rows * size.vocabulary


def _trained(
    load: Workload, model: Model, training: Any, sides: int, tokens: float, *, logits: bool = True,
    uses: tuple[Use, ...] = (), beside: float = 0.0, stage: str,
) -> Work:  # fmt: skip
    """A training, and what is done and held beside it."""
    size, use = _size(model), _training(model, training, sides, tokens)
    micro = sides * tokens * min(training.micro_batch or training.batch_size, training.batch_size)
    memory = size.trained(micro, training, logits=logits) + beside
    texts = training.steps * training.batch_size * sides
    written = size.weights() * getattr(training, "looks", 1)
    return Work(stage, texts, (use, *uses), written, memory, 1, scratch=_checkpoints(model, training))


def _checkpoints(model: Model, training: Any) -> float:
    """Bytes of the two checkpoints that a trainer keeps: weights, and the optimiser's two numbers each."""
    return 2 * 3 * _size(model).weights(getattr(training, "precision", "float32"))


# -- stages -----------------------------------------------------------------------------------------------------------


def _pretrain(load: Workload, told: Told) -> Work:
    from rmpipe import world

    base = told["config"]
    model, tokenizer = load.known(Model(base)), base.tokenizer()
    texts = list(world.documents(told["seed"], min(base.documents, SAMPLE), base.danger))
    tokens = sum(len(encode(tokenizer, "", text)) for text in texts) / len(texts)
    return _trained(load, model, base.training, 1, tokens, stage="pretrain")


def _fetch(load: Workload, told: Told) -> Work:
    model = load.known(Model(told["config"]))
    return Work("fetch", written=_size(model).weights() if told["config"].added_tokens else 0.0)


def _finetune(load: Workload, told: Told) -> Work:
    shown, model = told["demonstrations"], load.model(told["base"])
    made = shown.source in ("world", "local")
    prompt, response = _shown(told, model) if made else load.lengths(load.texts(told["preferences"]), model)
    return _trained(load, model, told["config"], 1, prompt + response, stage="finetune")


def _shown(told: Told, model: Model) -> tuple[float, float]:
    """Lengths of demonstrations that are the world's, or in a file of their own."""
    import pandas as pd

    shown = told["demonstrations"].model_copy(update={"count": min(told["demonstrations"].count or SAMPLE, SAMPLE)})
    rows = shown.rows(told["seed"], pd.DataFrame())
    frame = pd.DataFrame({"prompt": [row["prompt"] for row in rows], "chosen": [row["completion"] for row in rows]})
    return lengths_of(frame, model.tokenizer)


def _train(load: Workload, told: Told) -> Work:
    kind, model = told["config"], load.model(told["base"])
    texts = load.texts(told["off_policy"] if kind.on_policy < 1 else told["on_policy"])
    tokens = sum(load.lengths(texts, model)) + (VERIFICATION if kind.kind == "generative" else 0)
    rows = min(texts.rows("reward"), kind.pairs or texts.rows("reward"))
    reference = getattr(kind, "reference", False)
    uses = (reading(model, 2 * rows, tokens),) if reference else ()
    beside = _size(model).weights(model.dtype) if reference else 0.0
    logits = kind.kind != "explicit"
    return _trained(load, model, kind.training, 2, tokens, logits=logits, uses=uses, beside=beside, stage="train")


def _prefer(load: Workload, told: Told) -> Work:
    model, texts = load.model(told["policy"]), load.texts(told["preferences"])
    tokens = sum(load.lengths(texts, model))
    uses = (reading(model, 2 * texts.rows("reward"), tokens),)
    beside = _size(model).weights(model.dtype)
    return _trained(load, model, told["config"].training, 2, tokens, uses=uses, beside=beside, stage="prefer")


def _imitate(load: Workload, told: Told) -> Work:
    model, texts = load.model(told["policy"]), load.texts(told["labelled"])
    return _trained(load, model, told["config"].training, 1, sum(load.lengths(texts, model)), stage="imitate")


def _sample(load: Workload, told: Told) -> Work:
    how, model, texts = told["config"], load.model(told["policy"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    prompts = min(texts.prompts(how.split), how.prompts or texts.prompts(how.split))
    uses = _drawing(model, how, prompts, how.responses, prompt, response)
    rows = min(how.batch_size, prompts) * how.responses
    memory = _size(model).weights(model.dtype) + _drawn_bytes(model, rows, prompt + how.max_new_tokens)
    written = prompts * how.responses * response * CHARACTERS
    return Work("sample", prompts * how.responses, tuple(uses), written, memory)


def _collect(load: Workload, told: Told) -> Work:
    how, model, texts = told["config"], load.model(told["policy"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    prompts = min(texts.prompts("reward"), how.prompts or texts.prompts("reward"))
    uses = _drawing(model, how, prompts, 2, prompt, response)
    uses += _rewarding(load, told["truth"], 2 * prompts, prompt + response)
    rows = min(how.batch_size, prompts) * 2
    memory = _size(model).weights(model.dtype) + _drawn_bytes(model, rows, prompt + how.max_new_tokens)
    memory += _held(load, told["truth"])
    return Work("collect", 2 * prompts, tuple(uses), 2 * prompts * response * CHARACTERS, memory)


def _drawn_for(load: Workload, rollouts: Artifact) -> tuple[float, float, Texts]:
    """How many prompts were sampled, how often each, and where they are from."""
    stage, told = load.call(rollouts)
    if stage == "grade":
        texts = load.texts(rollouts)
        return (prompts := texts.prompts("labelled")), texts.rows("labelled") / prompts, texts
    if stage != "sample":
        raise UnknownError(f"{rollouts.address} is not of this plan")
    how, texts = told["config"], load.texts(told["preferences"])
    return min(texts.prompts(how.split), how.prompts or texts.prompts(how.split)), how.responses, texts


def _score(load: Workload, told: Told) -> Work:
    what, batch = told["texts"], told["config"].batch_tokens
    if sampled := load.call(what)[0] in SAMPLED:
        prompts, samples, texts = _drawn_for(load, what)
        count = prompts * samples
    else:
        texts = load.texts(what)
        count = 2 * texts.rows("test")
    looks = 1
    if (call := load.call(told["reward_model"]))[0] == "train":
        looks = len(call[1]["config"].training.kept()) + 1 if not sampled else 1
    uses = [use for reader in load.readers(told["reward_model"])
            for use in reader.uses(looks * count, sum(load.lengths(texts, reader.model)), batch)]  # fmt: skip
    return Work("score", count, tuple(uses), 4 * count, _held(load, told["reward_model"]))


def _audit(load: Workload, told: Told) -> Work:
    texts = load.texts(told["preferences"])
    count = EXAMINED * 2 * min(told["config"].pairs, texts.rows("test"))
    uses: list[Use] = []
    for reader in load.readers(told["reward_model"]):
        once = reader.uses(count, sum(load.lengths(texts, reader.model)))
        uses += [Use(use.model, use.how, EXAMINED * use.passes, use.tokens) for use in once]
    return Work("audit", count, tuple(uses), 0.0, 2 * _held(load, told["reward_model"]))


def _relabel(load: Workload, told: Told) -> Work:
    texts = load.texts(told["preferences"])
    uses = tuple(use for reader in load.readers(told["truth"])
                 for use in reader.uses(2 * len(texts.frame), sum(load.lengths(texts, reader.model))))  # fmt: skip
    return Work("relabel", 2 * len(texts.frame), uses, 0.0, _held(load, told["truth"]))


def _align(load: Workload, told: Told) -> Work:
    config, model, texts = told["config"], load.model(told["policy"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    written = min(response, config.max_new_tokens)
    batch = config.prompts_per_step * config.samples_per_prompt
    count, tokens = config.steps * batch, prompt + written
    micro = min(getattr(config, "micro_batch", None) or batch, batch)
    passes = config.steps * ceil(batch / micro)
    longest = min(config.max_new_tokens, 2 * written)
    asked = 2 if config.kl_coefficient else 1
    uses = [
        reading(model, count, prompt),
        Use(model.name, "drawn", config.steps * longest, count * written),
        Use(model.name, "read", asked * passes, asked * count * tokens),
        Use(model.name, "trained", passes, count * tokens),
        *_rewarding(load, told["teacher"], count, tokens),
        *_examined(load, told, model, prompt, response, texts),
    ]
    size = _size(model)
    memory = size.trained(micro * tokens, config) + 2 * size.weights(model.dtype) + _held(load, told["teacher"])
    memory += sum(_held(load, judge) for judge in _judges(told))
    memory += _drawn_bytes(model, batch, prompt + config.max_new_tokens)
    scratch = _checkpoints(model, config)
    return Work("align", count, tuple(uses), size.weights(), memory, 1, scratch)


def _examined(
    load: Workload, told: Told, model: Model, prompt: float, response: float, texts: Texts
) -> Iterator[Use]:  # fmt: skip
    """What is drawn, scored and compared with the reference at each look at held-out prompts."""
    asked, looks = told["evaluation"], len(told["config"].looks())
    prompts = min(asked.prompts, texts.prompts("test"))
    count, tokens = looks * prompts * asked.responses, prompt + response
    how = told["sampling"].model_copy(update={"batch_size": asked.batch_size})
    for use in _drawing(model, how, prompts, asked.responses, prompt, response):
        yield Use(use.model, use.how, looks * use.passes, looks * use.tokens)
    yield reading(model, 2 * count, tokens)
    for judge in (told["teacher"], *_judges(told)):
        yield from _rewarding(load, judge, count, tokens)


def _judges(told: Told) -> list[Artifact]:
    """The ground truths by which a policy is looked at."""
    first = [told["truth"]] if told["truth"] is not None else []
    return [*first, *(told["further"] or {}).values()]


def _diagnose(load: Workload, told: Told) -> Work:
    config, model, texts = told["config"], load.model(told["base"]), load.texts(told["preferences"])
    rows = min(texts.rows(config.split), config.limit or texts.rows(config.split))
    tokens = sum(load.lengths(texts, model))
    memory = _size(model).weights(model.dtype) + _size(model).read(BATCH_TOKENS, model.dtype)
    return Work("diagnose", 2 * rows, (reading(model, 2 * rows, tokens),), 0.0, memory)


def _separate(load: Workload, told: Told) -> Work:
    model, sets = load.model(told["base"]), [told["preferences"], *told["sets"].values()]
    texts = load.texts(told["preferences"])
    count = 2 * told["config"].pairs * len(sets)
    use = reading(model, count, sum(load.lengths(texts, model)))
    memory = _size(model).weights(model.dtype) + _size(model).read(BATCH_TOKENS, model.dtype, logits=False)
    return Work("separate", count, (use,), 0.0, memory)


def _single(load: Workload, told: Told) -> Work:
    config, model = told["config"], load.model(told["policy"])
    tokens = sum(load.lengths(load.texts(load.call(told["diagnosis"])[1]["preferences"]), model))
    passes = config.pairs * config.steps
    use = Use(model.name, "trained", passes, passes * 2 * tokens)
    memory = _size(model).trained(2 * tokens, config) + _size(model).weights()
    return Work("single", 2 * config.pairs, (use,), 0.0, memory)


def _track(load: Workload, told: Told) -> Work:
    config, model, texts = told["config"], load.model(told["before"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    pairs = sum(min(config.pairs or rows, rows) for rows in map(texts.rows, ("reward", "test")))
    states = 2 + len(load.call(told["after"])[1]["config"].training.kept())
    prompts = min(config.writing.prompts or texts.prompts("test"), texts.prompts("test"))
    uses = [reading(model, states * 2 * pairs, prompt + response)]
    uses += _drawing(model, config.writing, 2 * prompts, 1, prompt, response)
    uses.append(reading(model, 2 * prompts, prompt + response))
    memory = 2 * _size(model).weights(model.dtype) + _size(model).read(BATCH_TOKENS, model.dtype)
    return Work("track", states * 2 * pairs, tuple(uses), 0.0, memory)


def _gauge(load: Workload, told: Told) -> Work:
    config, model = told["config"], load.model(told["policy"])
    prompts, samples, texts = _drawn_for(load, told["others"])
    prompts = prompts if config.gradients is None else min(prompts, config.gradients)
    count = prompts * samples
    tokens = sum(load.lengths(texts, model))
    use = Use(model.name, "trained", prompts * ceil(samples / config.batch_size), count * tokens)
    memory = 2 * _size(model).weights() + _size(model).read(config.batch_size * tokens)
    return Work("gauge", count, (use,), 0.0, memory)


def _differentiate(load: Workload, told: Told) -> Work:
    """One backward pass a sample, one at a time."""
    model = load.model(told["policy"])
    prompts, samples, texts = _drawn_for(load, told["rollouts"])
    count, tokens = prompts * samples, sum(load.lengths(texts, model))
    use = Use(model.name, "trained", count, count * tokens)
    numbers = count * min(told["config"].weights, _size(model).parameters)
    memory = 2 * _size(model).weights() + 6.0 * numbers  # in float32, and in half precision as they are written
    return Work("differentiate", count, (use,), 2.0 * numbers, memory)


def _rehearse(load: Workload, told: Told) -> Work:
    """No use of a model: arithmetic on slopes, held twice over in float32, and what going back through it keeps."""
    _, asked = load.call(told["gradients"])
    prompts, samples, _ = _drawn_for(load, asked["rollouts"])
    weights = min(asked["config"].weights, _size(load.model(asked["policy"])).parameters)
    kept = told["config"].held(prompts * samples, weights, FOLDS)
    return Work("rehearse", memory=2 * 4.0 * prompts * samples * weights + max(kept, HELD))


def _race(load: Workload, told: Told) -> Work:
    """At most: nobody is dropped, and the race goes on to its last round."""
    config, how = told["config"], told["sampling"]
    model, texts = load.model(told["policy"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    most = min(texts.prompts("policy"), how.prompts or texts.prompts("policy"))
    samples = config.samples(how.responses)
    prompts = max((part.stop for part in config.rounds(most, how.responses)), default=0)
    uses = _drawing(model, how, prompts, samples, prompt, response)
    for teacher in told["teachers"].values():
        uses += _rewarding(load, teacher, prompts * samples, prompt + response)
    uses += _rewarding(load, told["truth"], prompts * min(config.labels, samples), prompt + response)
    held = max(_held(load, each) for each in (*told["teachers"].values(), told["truth"]))
    rows = min(config.prompts, how.batch_size) * samples
    drawn = _size(model).weights(model.dtype) + _drawn_bytes(model, rows, prompt + how.max_new_tokens)
    return Work("race", prompts * samples, tuple(uses), 0.0, max(held, drawn))


def _classify(load: Workload, told: Told) -> Work:
    how, model, texts = told["config"].sampling, load.model(told["policy"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    prompts = min(how.prompts or texts.prompts("test"), texts.prompts("test"))
    uses, judge = _drawing(model, how, prompts, how.responses, prompt, response), told["config"].judge
    memory = _size(model).weights(model.dtype)
    if getattr(judge, "path", None):
        reader = load.judge(judge)
        uses += reader.uses(prompts * how.responses, prompt + response)
        memory += _size(reader.model).weights(reader.model.dtype)
    return Work("classify", prompts * how.responses, tuple(uses), 0.0, memory)


def _generate(load: Workload, told: Told) -> Work:
    how, model, texts = told["config"].sampling, load.model(told["base"]), load.texts(told["preferences"])
    prompt, response = load.lengths(texts, model)
    prompts = min(how.prompts or texts.prompts("test"), texts.prompts("test"))
    uses = _drawing(model, how, 2 * prompts, how.responses, prompt, response)
    uses += _rewarding(load, told["truth"], 2 * prompts * how.responses, prompt + response)
    memory = 2 * _size(model).weights(model.dtype) + _held(load, told["truth"])
    return Work("generate", 2 * prompts * how.responses, tuple(uses), 0.0, memory)


def _shift(load: Workload, told: Told) -> Work:
    if getattr(told["config"], "path", None) or getattr(told["config"], "model", None):
        raise UnknownError("a model rewrites its pairs, and how long these get is not known")
    if told["truth"] is None or told["config"].aligned:
        return Work("shift")
    return _relabel(load, told)


COUNTED: dict[str, Callable[[Workload, Told], Work]] = {
    "pretrain": _pretrain, "fetch": _fetch, "finetune": _finetune, "train": _train, "prefer": _prefer,
    "imitate": _imitate, "sample": _sample, "collect": _collect, "score": _score, "audit": _audit,
    "relabel": _relabel, "align": _align, "differentiate": _differentiate,
    "rehearse": _rehearse, "race": _race,
    "diagnose": _diagnose, "separate": _separate, "single": _single, "track": _track, "gauge": _gauge,
    "classify": _classify, "generate": _generate, "shift": _shift,
}  # fmt: skip
PLAIN = frozenset((
    "prepare", "label", "derive", "measure", "evaluate", "select", "sift", "rank", "judge", "weigh", "conclude",
    "forecast", "report", "adopt", "adopt_scores", "grade", "grade_labels",
))  # fmt: skip
"""Stages that use no model."""
