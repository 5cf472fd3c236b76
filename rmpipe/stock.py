"""The language models and reward models that a study names, as far as they are at hand: how large, and loaded.

Nothing is fetched. A hub id counts as at hand where its files are in the hub's cache.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rmpipe.estimate import Pace, Size, probe
from rmpipe.folder import cached

NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "vocabulary": ("vocab_size",),
}
"""What configurations call a number."""


@dataclass(frozen=True)
class Model:
    """A model by what a study says of it.

    Args:
        config: a base, or a kind of reward model or judge with a `path`.
        scores: whether it has a head with rewards, and is no language model.
    """

    config: Any
    scores: bool = False

    @property
    def name(self) -> str:
        """What its pace is known under."""
        if self.config.kind == "world":
            return f"world {self.config.hidden} x {self.config.layers}"
        other = "" if self.dtype == "float32" else f" in {self.dtype}"
        return f"{self.config.path}{other}"

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(getattr(self.config, "dtype", "float32"))

    @cached_property
    def folder(self) -> Path | None:
        """Where its files are, None where they are not here."""
        return None if self.config.kind == "world" else here(self.config.path, getattr(self.config, "revision", None))

    @cached_property
    def size(self) -> Size | None:
        """How large it is, None where that is not known without fetching anything."""
        if self.config.kind == "world":
            model = self._new()
            shape = (self.config.hidden, self.config.layers, model.config.vocab_size)
            return Size(model.num_parameters(), *shape)
        return None if self.folder is None else size_of(self.folder)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, None where it is not here or needs code of its own."""
        if self.config.kind == "world":
            return self.config.tokenizer()
        if self.folder is None or getattr(self.config, "trust_remote_code", False):
            return None
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    def pace(self, *, tokens: float, trains: bool) -> Pace | None:
        """How fast it is on this machine; None where it is not here, or code of its own would have to be run.

        Args:
            tokens: of the texts that it reads, about.
            trains: whether it is to be trained, and this machine holds that.
        """
        if self.config.kind == "world":
            return probe(self._new(), tokens=tokens, trains=trains)
        if self.folder is None or getattr(self.config, "trust_remote_code", False):
            return None
        return probe(self._loaded(), tokens=tokens, trains=trains, draws=not self.scores)

    def _new(self) -> Any:
        """The world's model of this shape, of random weights: its pace is that of any."""
        from rmpipe import world

        shape = {"hidden": self.config.hidden, "layers": self.config.layers, "heads": self.config.heads}
        return world.new_model(1, **shape, dangerous=self.config.danger > 0)

    def _loaded(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        kind: Any = AutoModelForSequenceClassification if self.scores else AutoModelForCausalLM
        dtype = self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
        model = kind.from_pretrained(self.folder, dtype=dtype, use_safetensors=True)
        return model.to("cuda" if torch.cuda.is_available() else "cpu")


def here(place: str, revision: str | None = None) -> Path | None:
    """The folder of a model, by itself or in the hub's cache with its weights; None where it is not here."""
    if Path(place).is_dir():
        return Path(place)
    folder = cached(place, "config.json", revision)
    return folder if folder and any(folder.glob("*.safetensors")) else None


def size_of(folder: Path) -> Size | None:
    """How large the model in a folder is; None where its files do not say."""
    from huggingface_hub import get_local_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        told = json.loads((folder / "config.json").read_text())
        told |= told.get("text_config") or {}
        shape = {name: next(int(told[key]) for key in keys if key in told) for name, keys in NAMES.items()}
        return Size(sum(get_local_safetensors_metadata(folder).parameter_count.values()), **shape)
    except (OSError, ValueError, StopIteration, NotASafetensorsRepoError, SafetensorsParsingError):
        return None
