"""What a plan costs before any of it runs: counts of passes and tokens times the pace of this machine, and no more.

A pass over some texts takes a + b x tokens seconds. `probe` measures a and b of a model by two batches each of reading,
drawing and training; everything else is arithmetic. It is an estimate: lengths are means, caches and other processes
are not known, and what a policy will write is taken to be as long as what the data have.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

How = Literal["read", "drawn", "trained"]

START = 10.0
"""Seconds until the first stage begins: Prefect, MLflow, and the workers' imports."""
STAGE = 0.5
"""Seconds of a stage beside its models: its inputs, its record and MLflow's."""
TRAINER = 1.0
"""Seconds until a trainer is set up, and its model saved."""
PROCESS = 700 << 20
"""Bytes of a worker before it loads a model: torch, transformers and TRL."""
BUDGET = 4.0
"""Seconds that the probe of one model may take, at most, but for a single pass that takes longer."""
REPEATS = 8
"""How often a pass is timed at most, of which the best counts."""
ROWS, DRAWN = (2, 16), 4
"""What is probed: texts of the small and of the large batch, and how many tokens are drawn after each."""
SHORT, LONG = 16, 512
"""The fewest and the most tokens of a text that is probed."""
STATES = {"adamw": 2, "sgd": 0, "rmsprop": 1}
"""Numbers that an optimiser keeps for each weight that it trains."""
WIDTH = {"float32": 4, "mixed": 4, "auto": 2, "bfloat16": 2, "float16": 2}
"""Bytes of a weight."""


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: how many numbers.
        hidden: width of its states.
        layers: how many.
        vocabulary: logits a token.
    """

    parameters: int
    hidden: int
    layers: int
    vocabulary: int

    def weights(self, dtype: str = "float32") -> float:
        """Bytes that its weights take."""
        return float(self.parameters * WIDTH.get(dtype, 4))

    def read(self, tokens: float, dtype: str = "float32", *, logits: bool = True) -> float:
        """Bytes that one pass over so many tokens takes beside the weights, about.

        Args:
            logits: whether it makes those of every token.
        """
        states = 12.0 * self.hidden * tokens * WIDTH.get(dtype, 4)
        return states + (8.0 * self.vocabulary * tokens if logits else 0.0)

    def trained(self, tokens: float, training: Any, *, logits: bool = True) -> float:
        """Bytes that a training takes, weights, gradients, the optimiser's numbers and activations, about.

        Args:
            tokens: of one micro-batch.
            training: an `rmpipe.algorithm.Training`.
            logits: whether the loss is of every token's logits.
        """
        precision = getattr(training, "precision", "float32")
        width, adapter = WIDTH[precision], getattr(training, "adapter", None)
        moved = self._learnt(adapter) if adapter is not None else self.parameters
        if getattr(training, "fixed", False):
            moved = self.hidden * (self.vocabulary if logits else 1)
        held = self.weights(precision) + moved * width * (1 + STATES.get(training.optimiser.name, 2))
        kept = 2 if getattr(training, "checkpointing", False) else 16
        active = kept * self.layers * self.hidden * tokens * (4 if precision == "float32" else 2)
        return held + active + (12.0 * self.vocabulary * tokens if logits else 0.0)

    def _learnt(self, adapter: Any) -> int:
        """Weights of an adapter: two thin matrices at each of about six places of a layer."""
        return int(6 * 2 * getattr(adapter, "rank", 16) * self.hidden * self.layers)


@dataclass(frozen=True)
class Use:
    """What a stage does with one model.

    Attributes:
        model: which, by the name that its pace is known under.
        how: read forward, drawn token by token, or trained on, forward and backward.
        passes: how many batches, of what is drawn how many steps of a batch.
        tokens: how many in all, padding left out.
    """

    model: str
    how: How
    passes: float
    tokens: float


@dataclass(frozen=True)
class Work:
    """What one stage does.

    Attributes:
        stage: its name.
        texts: how many it reads, draws or trains on.
        uses: of models.
        written: bytes that it leaves.
        memory: bytes that it holds at once, beside its process's.
        trainers: how many trainings it sets up.
        scratch: bytes of the checkpoints that it keeps while it works.
        unknown: why it cannot be told; "" where it can.
    """

    stage: str
    texts: float = 0.0
    uses: tuple[Use, ...] = ()
    written: float = 0.0
    memory: float = 0.0
    trainers: int = 0
    scratch: float = 0.0
    unknown: str = ""

    def tokens(self, how: How | None = None) -> float:
        """Tokens that it takes in one way, or in all."""
        return sum(use.tokens for use in self.uses if how in (None, use.how))

    def passes(self, how: How | None = None) -> float:
        """Passes that it makes in one way, or in all."""
        return sum(use.passes for use in self.uses if how in (None, use.how))


@dataclass(frozen=True)
class Pace:
    """How fast a model is here: (seconds a pass, seconds a token) of each way to use it."""

    read: tuple[float, float]
    drawn: tuple[float, float]
    trained: tuple[float, float]

    def seconds(self, use: Use) -> float:
        """How long a use takes."""
        each, token = getattr(self, use.how)
        return float(use.passes * each + use.tokens * token)


@dataclass(frozen=True)
class Cost:
    """What a plan costs.

    Attributes:
        seconds: of each stage by address, alone; None where it cannot be told.
        total: until the last stage is done, so many at a time, the start included; stages that are unknown left out.
        peak: the most bytes that are held at one moment.
        written: bytes that it leaves.
        jobs: how many stages at a time.
    """

    seconds: Mapping[str, float | None]
    total: float
    peak: float
    written: float
    jobs: int
    unknown: Mapping[str, str] = field(default_factory=dict)


def seconds(work: Work, paces: Mapping[str, Pace]) -> float | None:
    """How long a stage takes; None where its counts or the pace of a model of it are not known."""
    if work.unknown or any(use.model not in paces for use in work.uses):
        return None
    return STAGE + TRAINER * work.trainers + sum(paces[use.model].seconds(use) for use in work.uses)


def cost(
    works: Mapping[str, Work], needs: Mapping[str, Sequence[str]], paces: Mapping[str, Pace], jobs: int
) -> Cost:  # fmt: skip
    """What stages cost together.

    Args:
        works: by address, in an order in which none comes before what it needs.
        needs: addresses that must be made before, by address; those that are there already are passed over.
        paces: of models by name.
        jobs: how many stages at a time.
    """
    each = {address: seconds(work, paces) for address, work in works.items()}
    total, peak = laid_out({address: value or 0.0 for address, value in each.items()},
                           {address: work.memory for address, work in works.items()}, needs, jobs)  # fmt: skip
    absent = [address for address, value in each.items() if value is None]
    untold = {address: works[address].unknown or "a model that is not here" for address in absent}
    start = START if works else 0.0
    return Cost(each, start + total, peak, sum(work.written for work in works.values()), jobs, untold)


def laid_out(
    lasting: Mapping[str, float], holding: Mapping[str, float], needs: Mapping[str, Sequence[str]], jobs: int
) -> tuple[float, float]:
    """When the last of some stages is done, so many at a time, each as soon as what it needs is; in their order.

    Args:
        lasting: seconds, by address.
        holding: bytes, by address.
        needs: what must be done before, by address.

    Returns:
        seconds, and the most bytes that are held at one moment.
    """
    waiting = {address: {need for need in needs.get(address, ()) if need in lasting} for address in lasting}
    under_way: list[tuple[float, str]] = []
    now = peak = 0.0
    while waiting or under_way:
        ready = [address for address, left in waiting.items() if not left][: jobs - len(under_way)]
        for address in ready:
            heapq.heappush(under_way, (now + lasting[address], address))
            del waiting[address]
        if not under_way:
            raise ValueError(f"{', '.join(waiting)} wait for one another")
        peak = max(peak, sum(holding[address] for _, address in under_way))
        now, done = heapq.heappop(under_way)
        for left in waiting.values():
            left.discard(done)
    return now, peak


# -- the probe --------------------------------------------------------------------------------------------------------


def probe(model: Any, *, tokens: float = 48, trains: bool = True, draws: bool = True) -> Pace:
    """Time a model: two batches of random tokens read, drawn from and trained on, each once it has been warmed.

    The model is left with other weights where it was trained on.

    Args:
        model: a causal language model or a sequence classifier, on the device that it is to be used on.
        tokens: of a text, about; attention takes longer at each token of a longer one.
        trains: whether it is trained; else training is told as three times reading.
        draws: whether it can draw.
    """
    begun, length = time.monotonic(), int(min(max(tokens, SHORT), LONG))
    model.eval()
    read = _paced(lambda rows: _read(model, rows, length), length, begun)
    drawn = read
    if draws:
        model.config.use_cache = True
        each, token = _paced(lambda rows: _draw(model, rows, length), DRAWN, begun)  # its prompts are read first
        drawn = (max(0.0, each - read[0]) / DRAWN, max(0.0, token - read[1] * length / DRAWN))
    trained = (3 * read[0], 3 * read[1])
    if trains:
        trained = _paced(_trainer(model, length), length, begun)
    return Pace(read, drawn, trained)


def _paced(once: Callable[[int], None], tokens: int, begun: float) -> tuple[float, float]:
    """Seconds a pass and a token, by the line through a small and a large batch; by the small one alone if it is slow.

    Args:
        once: makes a pass over so many rows.
        tokens: of each row.
    """
    small, large = ROWS
    once(small)  # what is set up once is no part of the pace
    first = _timed(once, small)
    if time.monotonic() - begun > BUDGET or first * large / small > BUDGET:
        return 0.0, first / (small * tokens)
    return line(small * tokens, first, large * tokens, _timed(once, large))


def line(few: float, first: float, many: float, second: float) -> tuple[float, float]:
    """Seconds a pass and a token, neither below 0, of a pass over few tokens and one over many."""
    token = max(0.0, (second - first) / (many - few))
    if token == 0:
        return second, 0.0
    return max(0.0, first - token * few), min(token, second / many)


def _timed(once: Callable[[int], None], rows: int) -> float:
    """The best of some, fewer where each takes long; of a core, the time that it gave us and not to others."""
    import torch

    found, gpu, since = list[float](), torch.cuda.is_available(), time.monotonic()
    while not found or (len(found) < REPEATS and time.monotonic() - since < BUDGET / 8):
        begun, busy = time.perf_counter(), time.process_time()
        once(rows)
        whole = time.perf_counter() - begun
        found.append(whole if gpu else min(whole, time.process_time() - busy))
    return min(found)


def _ids(model: Any, rows: int, length: int) -> Any:
    import torch

    most = model.config.get_text_config().vocab_size
    drawn = torch.randint(0, most, (rows, length), generator=torch.Generator().manual_seed(rows))
    return drawn.to(model.device)


def _read(model: Any, rows: int, length: int) -> None:
    import torch

    ids = _ids(model, rows, length)
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().item()


def _draw(model: Any, rows: int, length: int) -> None:
    import torch

    ids = _ids(model, rows, length)
    told = {"min_new_tokens": DRAWN, "max_new_tokens": DRAWN, "do_sample": True, "pad_token_id": 0}
    with torch.inference_mode():
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **told)


def _trainer(model: Any, length: int) -> Callable[[int], None]:
    """A step of AdamW on the mean square of the logits: no loss is cheaper, and the passes are those of any."""
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-9)

    def step(rows: int) -> None:
        ids = _ids(model, rows, length)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
        logits.log_softmax(-1).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        next(model.parameters()).sum().item()  # a GPU has done it by then

    return step
