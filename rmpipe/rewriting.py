"""Responses said again by a language model: paraphrases and translations (2507.07981, section 5.2).

The label of a pair carries over, since both responses are rewritten alike. What a rewriter writes is taken as it is: it
is counted where it says nothing, says the same twice, or was cut off, and read where the numbers look odd.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from rmpipe import policy as lm
from rmpipe.config import Runtime, StudyError, nearest
from rmpipe.preference import records
from rmpipe.shift import Moved, Shift
from rmpipe.source import fingerprint_path, reaching
from rmpipe.table import Row
from rmpipe.text import readable, render

if TYPE_CHECKING:
    import pandas as pd

    from rmpipe.algorithm import Log

_TRANSLATE = (
    "I will provide a text in English. Please translate it to {language} while ensuring that the meaning remains the "
    "same. Output only the translated text and nothing else.\n"
    "Here is the original text:\n{{response}}\nTranslated version:\n"
)
INSTRUCTIONS = {
    "paraphrase": (
        "I will provide a text. Please rewrite it so that the meaning remains the same, but the wording overlaps with "
        "the original text as little as possible. Aim to minimize word and phrase overlap while preserving all key "
        "information and nuance. Output only the rewritten text and nothing else.\n"
        "Here is the original text:\n{response}\nRewritten version:\n"
    ),
    "French": _TRANSLATE.format(language="French"),
    "Spanish": _TRANSLATE.format(language="Spanish"),
}
"""The paper's own wording, by name."""

SIDES = ("chosen", "rejected")


class Rewritten(Shift):
    """Both responses of each pair rewritten by a causal language model or an encoder-decoder, from a folder or the hub.

    A pair is left out when a rewrite says nothing, or both say the same, since a label of equal responses means
    nothing. How many were, and how many rewrites were cut off, is among the metrics.
    """

    kind: Literal["rewritten"] = "rewritten"
    shift: Moved = "token"
    path: Annotated[str, Runtime]
    """Folder of save_pretrained, with a tokenizer and safetensors, or hub id. Its content is in the address."""
    revision: Annotated[str | None, Runtime] = None
    instruction: str
    """`paraphrase`, `French` or `Spanish` in the paper's wording, or a template with {response}, and {prompt} if it
    needs it. What a translation model reads as it is asks for no more than `{response}`."""
    temperature: float = Field(0.0, ge=0)
    """0 for the likeliest token each time, which is all that an encoder-decoder is asked for."""
    max_new_tokens: int = Field(512, ge=1)
    batch_size: Annotated[int, Runtime] = Field(16, ge=1)

    @field_validator("instruction")
    @classmethod
    def _with_a_response(cls, text: str) -> str:
        if text in INSTRUCTIONS:
            return text
        try:
            named = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces themselves") from None
        if "response" not in named:
            known = nearest(text, list(INSTRUCTIONS))
            raise ValueError(f"neither a template with {{response}} nor one of ours; {known}")
        if others := sorted(named - {"response", "prompt"}):
            raise ValueError(f"{{{others[0]}}} is nothing that it is given; write {{response}} and {{prompt}} alone")
        return text

    def content(self) -> str:
        """What the model's folder holds."""
        return fingerprint_path(self)

    def check(self, seed: int) -> None:
        """Look at the model's folder; a hub id passes."""
        try:
            lm.check_folder(self.path)
        except StudyError as error:
            raise StudyError(f"shifts: path: {error}") from error

    def pairs(self, originals: pd.DataFrame, seed: int, log: Log) -> list[Row]:
        """The pairs rewritten; what is asked twice is written once.

        Raises:
            StudyError: a text is too long for the model, or no pair is left.
        """
        rows = records(originals, ("id", "prompt", *SIDES))
        asked = list(dict.fromkeys(self._request(row, side) for row in rows for side in SIDES))
        written = dict(zip(asked, self._write(asked, seed, log), strict=True))
        counts = Counter({"empty": 0, "equal": 0, "cut": sum(not ended for _, ended in written.values())})
        kept = []
        for row in rows:
            told = {side: _placed(row[side], written[self._request(row, side)][0]) for side in SIDES}
            if not all(text.strip() for text in told.values()):
                counts["empty"] += 1
            elif told["chosen"] == told["rejected"]:
                counts["equal"] += 1
            else:
                kept.append(row | told)
        log.metrics({f"rewritten.{name}": float(number) for name, number in counts.items()})
        if not kept:
            lost = f"{counts['empty']} say nothing, {counts['equal']} the same twice"
            raise StudyError(f"shifts: path: {self.path}: no pair is left of {len(rows)} ({lost}); give another model")
        return kept

    def _request(self, row: Row, side: str) -> str:
        template = INSTRUCTIONS.get(self.instruction, self.instruction)
        return template.format(response=row[side].strip(), prompt=readable(row["prompt"]))

    def _write(self, asked: list[str], seed: int, log: Log) -> list[tuple[str, bool]]:
        """What the model makes of each request, and whether it came to its end."""
        both = self._has_an_encoder()
        with reaching(self.path, "shifts: path", "give a language model with tokenizer and safetensors"):
            model = _encoder_decoder(self.path, self.revision) if both else lm.load(self.path, revision=self.revision)
        told: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}
        try:
            if both:
                return _greedily(model, asked, log, **told)
            told |= {"samples": 1, "temperature": self.temperature, "seed": seed, "progress": log.progress}
            return [(one.responses[0], one.finished[0]) for one in lm.sample(model, asked, **told)]
        except StudyError as error:
            raise StudyError(f"shifts: path: {self.path}: {error}") from error

    def _has_an_encoder(self) -> bool:
        from transformers import AutoConfig

        with reaching(self.path, "shifts: path", "give a folder of save_pretrained, or a hub id"):
            config = AutoConfig.from_pretrained(self.path, revision=self.revision, trust_remote_code=False)
        if config.is_encoder_decoder and self.temperature > 0:
            raise StudyError(f"shifts: temperature: {self.path} is an encoder-decoder, asked at 0 alone; set it to 0")
        return bool(config.is_encoder_decoder)


def _placed(original: str, text: str) -> str:
    """A rewrite in the original's place, after the space that it began with, if any."""
    return original[: len(original) - len(original.lstrip())] + text.strip()


def _encoder_decoder(path: str, revision: str | None) -> lm.LanguageModel:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    told = {"revision": revision, "trust_remote_code": False}
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True, **told)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return lm.LanguageModel(model, AutoTokenizer.from_pretrained(path, **told))


def _greedily(
    model: lm.LanguageModel, asked: Sequence[str], log: Log, *, max_new_tokens: int, batch_size: int
) -> list[tuple[str, bool]]:
    """What an encoder-decoder finds likeliest, token by token, in length-sorted batches.

    What its generation_config says of forced tokens holds: a translator of many languages takes its target from there.
    """
    tokenizer, device = model.tokenizer, model.model.device
    ids = [tokenizer(render(tokenizer, text))["input_ids"] for text in asked]
    if (longest := max(map(len, ids))) > model.context:
        told = f"a text to rewrite has {longest} tokens, but the model reads {model.context}"
        raise StudyError(f"{told}; lower dataset.max_response_tokens, or give another model")
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))  # little padding
    written: dict[int, tuple[str, bool]] = {}
    with lm.evaluating(model.model):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [ids[index] for index in part]}, return_tensors="pt").to(device)
            drawn = model.model.generate(**batch, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
            texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
            ended = (drawn[:, 1:] == tokenizer.eos_token_id).any(1).tolist()  # some begin with the end of sequence
            written |= zip(part, zip(texts, ended, strict=True), strict=True)
            log.progress(len(written), len(order))
    return [written[index] for index in range(len(ids))]
