"""What somebody's models are, looked at before a study is written about them.

No weights are loaded, and no code but transformers' is run: a model is told by its configuration, its tokenizer and the
headers of its weights. What lies on a hub that does not answer is not refused; it says itself that it was not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError, first_line
from rmpipe.folder import (
    LANGUAGE,
    SCORES,
    base_of,
    cached,
    check_adapter,
    check_base,
    check_folder,
    check_scorer,
    heads_of,
    is_adapter,
    needed_code,
    tokenizer_of,
)
from rmpipe.probe import HUB, PATIENCE, asked
from rmpipe.source import UnreachableError, check_place, reaching
from rmpipe.text import held

WIDTHS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Model:
    """A model, as far as it was seen.

    Attributes:
        place: folder or hub id.
        writes: whether it is given as a language model, and not as a reward model.
        settings: its config.json, of an adapter that of its base; empty where it was not seen.
        parameters: how many numbers its weights have; 0 where that is not known.
        dtype: what they are kept in.
        config: the same as transformers reads it; None where it cannot.
        tokenizer: as transformers reads it; None where it cannot.
        adapts: the base of an adapter; empty for a whole model.
        unseen: why it, or a part of it, could not be looked at; empty where all was.
    """

    place: str
    writes: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    dtype: str = ""
    config: Any = None
    tokenizer: Any = None
    adapts: str = ""
    unseen: str = ""

    @property
    def architecture(self) -> str:
        """The class that its weights are of."""
        return ", ".join(self.settings.get("architectures") or [])

    @property
    def context(self) -> int | None:
        """The most tokens that it holds; None where that is not known."""
        known = self.config is not None and self.tokenizer is not None
        return held(self.config, self.tokenizer) if known else None

    @property
    def template(self) -> bool:
        """Whether its tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def code(self) -> list[str]:
        """The files of Python that it brings."""
        references = [str(name) for name in self.settings.get("auto_map", {}).values()]
        return sorted({f"{name.rpartition('--')[2].partition('.')[0]}.py" for name in references})

    @property
    def needs_code(self) -> bool:
        """Whether it cannot be read without running code that it brings."""
        return needed_code(self.settings, SCORES) is not None

    @cached_property
    def outputs(self) -> list[str]:
        """What a reward model's outputs are called, in order."""
        if self.adapts and (shapes := heads_of(Path(self.place))):
            return [f"LABEL_{index}" for index in range(next(iter(shapes.values()))[0])]
        if self.config is not None:
            return [str(self.config.id2label.get(index, index)) for index in range(self.config.num_labels)]
        labels = self.settings.get("id2label") or {}
        return [str(labels[key]) for key in sorted(labels, key=int)]

    def told(self) -> str:
        """One line for a person."""
        parts = [f"an adapter over {self.adapts}" if self.adapts else "", self.architecture]
        parts += [f"{self.parameters / 1e6:,.2f} M parameters" if self.parameters else "", self.dtype]
        if self.settings and not self.writes:
            parts.append("1 output" if len(self.outputs) == 1 else f"{len(self.outputs)} outputs")
        parts.append("" if self.context is None else f"holds {self.context} tokens")
        if self.tokenizer is not None:
            parts.append("a chat template" if self.template else "no chat template")
        parts += [f"code of its own ({', '.join(self.code)})" if self.code else "", self.unseen]
        return ", ".join(part for part in parts if part)


def language_model(place: str, field: str) -> Model:
    """A language model that may be taught.

    Args:
        field: what messages call it: `--policy`.

    Raises:
        StudyError: it is none, or needs code of its own, which no policy may run; says what to give instead.
    """
    model = replace(_model(place, field, [check_folder]), writes=True)
    if model.architecture and not _of_language(model):
        raise StudyError(f"{field}: {place}: {model.architecture} writes no text; give a causal language model")
    if model.needs_code:
        told = f"it is read by code of its own ({', '.join(model.code)}), which no policy may run"
        raise StudyError(f"{field}: {place}: {told}; give a model that transformers has a class for")
    return model


def reward_model(place: str, field: str) -> Model:
    """A model that scores.

    Raises:
        StudyError: it is a language model, or cannot be used; says what to give instead.
    """
    if is_adapter(place):
        return _model(place, field, [lambda one: check_adapter(Path(one)), lambda one: check_base(Path(one))])
    model = _model(place, field, [check_folder, check_scorer])
    if _of_language(model):
        told = f"{model.architecture} is a language model and scores nothing"
        raise StudyError(f"{field}: {place}: {told}; give a reward model, or a sequence classifier")
    return model


def _of_language(model: Model) -> bool:
    return any(name.endswith(LANGUAGE) for name in model.settings.get("architectures") or [])


def _model(place: str, field: str, checks: list[Callable[[str], None]]) -> Model:
    """What is at a place, once it has passed what is asked of a folder."""
    check_place(place, field)
    if Path(place).is_file():
        raise StudyError(f"{field}: {place}: a file; give the folder that save_pretrained wrote, or a hub id")
    for check in checks if Path(place).is_dir() else ():
        try:
            check(place)
        except StudyError as error:
            raise StudyError(f"{field}: {error}") from error
    whole = base_of(Path(place))[0] if is_adapter(place) else place
    adapts = whole if whole != place else ""
    try:
        settings = _settings(whole, field)
    except UnreachableError as error:
        return Model(place, adapts=adapts, unseen=f"not looked at: {str(error).partition(': ')[2]}")
    config, tokenizer, unseen = _library(whole, tokenizer_of(place)[0])
    parameters, dtype = _weights(whole)
    return Model(place, False, settings, parameters, dtype, config, tokenizer, adapts, unseen)


def _settings(place: str, field: str) -> dict[str, Any]:
    """Its config.json, here or on the hub."""
    file = Path(place) / "config.json"
    if not Path(place).is_dir():
        from huggingface_hub import hf_hub_download

        if not hub_answers() and cached(place, file.name) is None:
            raise UnreachableError(f"{place}: the hub does not answer")
        with reaching(place, field, "give a whole model: a folder of save_pretrained, or a hub id that you may read"):
            file = Path(hf_hub_download(place, file.name, local_files_only=not hub_answers()))
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return told
    except ValueError as error:
        told_wrong = f"config.json is not JSON ({first_line(error)})"
        raise StudyError(f"{field}: {place}: {told_wrong}; save the model again") from None


@cache
def hub_answers() -> bool:
    """Whether the hub can be asked, found out once: its own library tries for half a minute each time."""
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE):
        return False
    with asked(HUB) as hub:
        return not hub.answer(2 * PATIENCE)[1]


def _weights(place: str) -> tuple[int, str]:
    """How many numbers, and what most of them are kept in, by the headers alone; 0 where they cannot be read."""
    import huggingface_hub

    here = Path(place).is_dir()
    look = huggingface_hub.get_local_safetensors_metadata if here else huggingface_hub.get_safetensors_metadata
    try:
        counts = look(place).parameter_count if here or hub_answers() else {}
    except Exception:  # of another form: whoever loads it says what is wrong
        return 0, ""
    most = max(counts, key=counts.__getitem__, default="")
    return sum(counts.values()), WIDTHS.get(most, most.lower())


def _library(place: str, words: str) -> tuple[Any, Any, str]:
    """The configuration and the tokenizer as transformers reads them, None each where it cannot; and why not.

    Args:
        words: where the tokenizer is.
    """
    from transformers import AutoConfig, AutoTokenizer

    found, faults = [], []
    for kind, where, what in ((AutoConfig, place, "configuration"), (AutoTokenizer, words, "tokenizer")):
        offline = not Path(where).is_dir() and not hub_answers()
        try:
            found.append(kind.from_pretrained(where, trust_remote_code=False, local_files_only=offline))
        except Exception as error:  # a class of its own, or a file that is not in the cache
            found.append(None)
            faults.append(f"its {what} cannot be read ({first_line(error)[:80]})")
    return found[0], found[1], "; ".join(faults)
