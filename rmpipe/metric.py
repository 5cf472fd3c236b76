"""Text metrics as rewards: how alike a response and the references of its prompt are, by libraries that others keep.

The references are those of the artifact that the reward model is derived from, and lie beside it (`references.json`),
so that they are no part of its configuration. `rmpipe.scoring` has what classifiers say of a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ValidationInfo, field_validator

from rmpipe.config import StudyError
from rmpipe.reward import Kind, Scorer, prompt_digest
from rmpipe.source import fingerprint_files
from rmpipe.text import Text, readable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

REFERENCES = "references.json"
TITLES = {
    "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF", "ter": "1 - TER",
    "meteor": "METEOR",
}  # fmt: skip
REMEMBERED = 1 << 16
"""Words, texts and rewards that are kept, since policies repeat themselves."""

Likeness = Callable[[str, Sequence[str]], float]


class Metric(Kind):
    """How alike a response and its references are: 0 for an empty response, 1 for a reference itself.

    All lie between 0 and 1, but for TER: it is an error rate, so that the reward is 1 - TER, which is negative where a
    response needs more edits than the reference has words. A reference itself has less than 1 in METEOR (0.5 of one
    word, 0.9995 of ten) and 0 in ROUGE-2 if it is one word.

    - ROUGE: the F measure of rouge_score, of stemmed words as RL4LMs, and so 2310.20703, has it. It reads the letters a
      to z and digits alone.
    - BLEU, chrF, TER: a sentence's in sacreBLEU, BLEU with the effective order, so that short responses count.
    - METEOR: nltk's, of words and punctuation apart (`wordpunct_tokenize`) in small letters.

    96 responses of 20 words take 5 to 25 ms, but in TER, whose search for shifts is slow, several tenths of a second.
    """

    kind: Literal["metric"] = "metric"
    constructed: ClassVar[bool] = True
    referenced: ClassVar[bool] = True
    name: Literal["rouge1", "rouge2", "rougeL", "bleu", "chrf", "ter", "meteor"]
    over: Literal["max", "mean"] = "max"
    """Of several references. `max`: as each library takes several at once, which for ROUGE, chrF and METEOR is the best
    of them; BLEU counts what is in any, and TER divides the fewest edits by their mean length. `mean`: over each alone.
    """
    synonyms: bool = False
    """Whether METEOR counts synonyms as alike, by WordNet; else words alike are the same, or have the same stem."""

    @field_validator("synonyms")
    @classmethod
    def _at_hand(cls, asked: bool, info: ValidationInfo) -> bool:
        if asked and info.data.get("name", "meteor") != "meteor":
            raise ValueError(f"{info.data['name']} knows no synonyms; leave it out, or take name = meteor")
        if asked:
            wordnet()
        return asked

    def describe(self) -> str:
        """One line for a person."""
        mean = ", the mean over them" if self.over == "mean" else ""
        return f"metric: {TITLES[self.name]} against references{mean}{', with synonyms' if self.synonyms else ''}"

    def content(self) -> str:
        """SHA-256 of WordNet's files where synonyms count."""
        return fingerprint_files(wordnet()) if self.synonyms else ""

    def likeness(self) -> Likeness:
        """The function from (response, references) to what it says of them."""
        if self.name == "meteor":
            alike = _meteor(self.synonyms)
        else:
            alike = _rouge(self.name) if self.name.startswith("rouge") else _sacrebleu(self.name)
        return _mean(alike) if self.over == "mean" else alike

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores against the references in its folder, and refuses a prompt that has none there."""
        references, alike = read_references(folder or Path()), self.likeness()

        @lru_cache(maxsize=REMEMBERED)
        def reward(prompt: str, response: str) -> float:
            return alike(response, references[prompt]) if response.strip() else 0.0

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            import numpy as np

            known = [_known(prompt, references) for prompt in prompts]
            return np.array([reward(*row) for row in zip(known, responses, strict=True)], dtype=np.float32)

        return score


# -- references -------------------------------------------------------------------------------------------------------


def write_references(table: pd.DataFrame, out: Path) -> None:
    """Write down by digest what responses to each prompt are compared with, each text once.

    Args:
        table: all splits of `Labelled`, of which the references count, or of `Preferences`, of which the chosen
            responses do.
        out: the reward model's folder.
    """
    told: dict[str, dict[str, None]] = {}
    column = "references" if "references" in table else "chosen"
    for prompt, texts in zip(table["prompt"], table[column], strict=True):
        given = [texts] if isinstance(texts, str) else texts
        told.setdefault(prompt_digest(prompt), {}).update(dict.fromkeys(given))
    out.mkdir(parents=True, exist_ok=True)
    (out / REFERENCES).write_text(json.dumps({prompt: list(texts) for prompt, texts in told.items()}))


def read_references(folder: Path) -> dict[str, list[str]]:
    """The references of each prompt, by its digest.

    Raises:
        StudyError: there are none in this folder.
    """
    if not (file := folder / REFERENCES).exists():
        raise StudyError(f"{file}: missing; call write_references with the table of a data set first")
    references: dict[str, list[str]] = json.loads(file.read_text())
    return references


def _known(prompt: Text, references: dict[str, list[str]]) -> str:
    """The digest of a prompt that has references."""
    if references.get(key := prompt_digest(prompt)):
        return key
    text = " ".join(readable(prompt).split())
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    remedy = "add a row with it to the data set, or score responses to the data set's own prompts alone"
    raise StudyError(f"no reference for the prompt {shown!r}, and a metric compares with references; {remedy}")


# -- metrics ----------------------------------------------------------------------------------------------------------


def wordnet() -> Path:
    """Where nltk finds WordNet on this machine.

    Raises:
        ValueError: nowhere; names the remedy.
    """
    from nltk.data import find

    for place in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            return Path(str(find(place)))
        except LookupError:
            continue
    remedy = "run `python -m nltk.downloader wordnet`, or set synonyms = false"
    raise ValueError(f"nltk finds no WordNet on this machine; {remedy}")


def _mean(alike: Likeness) -> Likeness:
    return lambda response, references: sum(alike(response, [one]) for one in references) / len(references)


def _rouge(name: str) -> Likeness:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenize import tokenize

    words = lru_cache(maxsize=REMEMBERED)(lambda text: tokenize(text, _stemmer()))
    scorer = RougeScorer([name], tokenizer=SimpleNamespace(tokenize=words))
    return lambda response, references: float(scorer.score_multi(references, response)[name].fmeasure)


def _sacrebleu(name: str) -> Likeness:
    from sacrebleu.metrics import BLEU, CHRF, TER

    if name == "ter":
        ter = TER()
        return lambda response, references: 1 - ter.sentence_score(response, references).score / 100
    metric = BLEU(effective_order=True) if name == "bleu" else CHRF()
    return lambda response, references: metric.sentence_score(response, references).score / 100


def _meteor(synonyms: bool) -> Likeness:
    from nltk.corpus import wordnet as known
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import meteor_score

    words = lru_cache(maxsize=REMEMBERED)(wordpunct_tokenize)
    told = {"stemmer": _stemmer(), "wordnet": known if synonyms else SimpleNamespace(synsets=lambda word: [])}
    return lambda response, references: float(meteor_score([words(one) for one in references], words(response), **told))


@cache
def _stemmer() -> SimpleNamespace:
    """Porter's, which is slow, so that each word is stemmed once."""
    from nltk.stem.porter import PorterStemmer

    return SimpleNamespace(stem=lru_cache(maxsize=REMEMBERED)(PorterStemmer().stem))
