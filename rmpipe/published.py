"""Reward models that others have published: a folder, an id on the hub, or an adapter and its base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from rmpipe.config import Neutral, Runtime, StudyError
from rmpipe.folder import (
    SCORES,
    base_of,
    cached_base,
    check_adapter,
    check_base,
    check_code,
    check_commit,
    check_folder,
    check_scorer,
    is_adapter,
    is_pinned,
    naming,
    tokenizer_of,
)
from rmpipe.reward import Kind, Scorer
from rmpipe.source import fingerprint_files, fingerprint_place, reaching
from rmpipe.text import Text, held


class Published(Kind):
    """Somebody's model, from a folder or the hub."""

    path: Annotated[str, Runtime]
    """Folder or hub id; its content, or the id with its revision, is what the address hashes."""
    revision: Annotated[str | None, Runtime] = None
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    @property
    def pinned(self) -> bool:
        """Whether what it names cannot become another unseen: a folder, or a commit of the hub."""
        return is_pinned(self.path, self.revision)

    def describe(self) -> str:
        """One line for a person."""
        loose = "" if is_pinned(self.path, self.revision) else ", which no revision pins"
        return f"{self.kind}: {self.path}{f' at {self.revision}' if self.revision else loose}"

    def check(self) -> None:
        """Refuse a folder that lacks something, and code that is not trusted or may become other code."""
        with naming("path"):
            check_folder(self.path)
        if Path(self.path).is_dir():
            check_code(self.path, trusted=self.trust_remote_code)
        elif self.trust_remote_code:
            check_commit("revision", self.path, self.revision, "set it to a commit that you have read")

    def read_by(self) -> tuple[str, str]:
        """Where its tokenizer and its configuration are."""
        return self.path, self.path

    def tokenizer(self) -> Any:
        """That of a local folder; None of another, or where code of its own would have to be run."""
        if self.trust_remote_code or not all(Path(place).is_dir() for place in self.read_by()):
            return None
        from transformers import AutoTokenizer

        with reaching(self.path, "path", "give a model with its tokenizer"):
            return AutoTokenizer.from_pretrained(self.read_by()[0], trust_remote_code=False)

    def context(self) -> int | None:
        """The most tokens that it holds, where its tokenizer is known; else None."""
        if (tokenizer := self.tokenizer()) is None:
            return None
        from transformers import AutoConfig

        with reaching(self.path, "path", "give a model with its configuration"):
            return held(AutoConfig.from_pretrained(self.read_by()[1], trust_remote_code=False), tokenizer)

    def tokens(self, tokenizer: Any, prompt: Text, response: str) -> int:
        """How many tokens there are where a prompt with a response is read."""
        raise NotImplementedError


class Pretrained(Published):
    """Somebody's reward model, with its own tokenizer and chat template; an adapter is merged into its base."""

    kind: Literal["pretrained"] = "pretrained"
    form: Literal["conversation", "continuation"] = "conversation"
    """`continuation` for reward models that were trained as ours are; see `rmpipe.scoring`."""
    output: int | None = Field(None, ge=0)
    """Which output is the reward, for models with several; not of one that says its `score` itself."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    max_length: int | None = Field(None, ge=1)
    truncate: bool = False
    activation: Annotated[Literal["none", "softmax", "sigmoid"], Neutral("none")] = "none"
    """What a classifier's output goes through; `softmax`: the reward is the probability of the label `output`."""
    chat_template: Annotated[str | None, Runtime] = None
    """A file with a jinja template that is used instead of the tokenizer's own; its content is what counts."""
    base_path: Annotated[str | None, Runtime] = None
    """Of an adapter: folder or hub id of its base, where it is not what the adapter names; its content is what counts.
    """

    @field_validator("activation")
    @classmethod
    def _of_a_label(cls, activation: str, info: ValidationInfo) -> str:
        if activation == "softmax" and info.data.get("output", 0) is None:
            raise ValueError("softmax needs a label; say whose probability is the reward, such as output = 1")
        return activation

    @property
    def pinned(self) -> bool:
        """Whether neither it nor its base can become another unseen, as far as it is known to have one."""
        base = self._known_base()
        return super().pinned and (base is None or is_pinned(*base))

    def describe(self) -> str:
        """One line for a person; of an adapter with its base, where nothing pins that."""
        base = self._known_base()
        loose = base is not None and not is_pinned(*base)
        return super().describe() + (f", on {base[0]}, which no revision pins" if base and loose else "")

    def content(self) -> str:
        """That of the model, of an adapter's base, and of the template."""
        base, template = self._base(), self._template()
        told = [super().content(), *([fingerprint_place(*base)] if base else [])]
        return " ".join([*told, *([fingerprint_files(template)] if template else [])])

    def check(self) -> None:
        """Refuse a folder of no reward model, code that is not trusted, and a template that cannot be used."""
        if is_adapter(self.path):
            with naming("path"):
                check_adapter(Path(self.path))
            check_base(Path(self.path), self.base_path)
        else:
            super().check()
            if Path(self.path).is_dir() and self.base_path is not None:
                raise StudyError(f"base_path: {self.path} is a whole model and no adapter; leave base_path out")
            with naming("path"):
                check_scorer(self.path)
        if Path(place := self.read_by()[1]).is_dir():
            check_code(place, trusted=self.trust_remote_code, always=SCORES)
            if place == self.path:
                self._check_output()
        elif self.trust_remote_code and (base := self._known_base()) is not None:
            check_commit("base_path", *base, "give a folder with the code that you have read")
        if self._template() and (tokenizer := self.tokenizer()) is not None:
            with reaching(str(self.chat_template), "chat_template", "mend the template"):
                self.tokens(tokenizer, "a", "b")

    def _check_output(self) -> None:
        """Refuse an output that a local folder's model has not, and to choose one of several."""
        from transformers import AutoConfig

        from rmpipe.classifier import check_output

        if Path(self.path).is_dir() and not self.trust_remote_code:
            check_output(self.path, int(AutoConfig.from_pretrained(self.path).num_labels), self.output)

    def _base(self) -> tuple[str, str | None] | None:
        """Place and revision of the base of an adapter, as far as they can be told without the hub."""
        if is_adapter(self.path):
            return base_of(Path(self.path), self.base_path)
        return (self.base_path, None) if self.base_path is not None else None

    def _known_base(self) -> tuple[str, str | None] | None:
        """The same, and that of an adapter in the hub's cache, whose address does not count it."""
        base = self._base()
        return base if base is not None or Path(self.path).exists() else cached_base(self.path, self.revision)

    def _template(self) -> Path | None:
        if self.chat_template is None:
            return None
        if not (file := Path(self.chat_template)).is_file():
            raise StudyError(f"chat_template: {file}: no such file; give one with a template in jinja")
        return file

    def read_by(self) -> tuple[str, str]:
        """Of an adapter with its base, where it has them not itself."""
        base = self._base()
        return tokenizer_of(self.path, self.base_path)[0], base[0] if base else self.path

    def tokenizer(self) -> Any:
        """That of a local folder, with the template; None of another, or where code of its own would have to be run."""
        tokenizer, template = super().tokenizer(), self._template()
        if tokenizer is not None and template is not None:
            tokenizer.chat_template = template.read_text()
        return tokenizer

    def context(self) -> int | None:
        """The most tokens that it holds, or is said to be given, where its tokenizer is known; else None."""
        fits = super().context()
        return fits and min(self.max_length or fits, fits)

    def tokens(self, tokenizer: Any, prompt: Text, response: str) -> int:
        """How many tokens a prompt with a response is read as."""
        from rmpipe.scoring import encoded

        return len(encoded(tokenizer, self.form, prompt, response))

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the model at `path`."""
        from rmpipe.scoring import SequenceScorer

        told = self.model_dump(exclude={"kind", "path", "base_path"})
        return SequenceScorer(self.path, **told, base=self.base_path, batch_tokens=batch_tokens)
