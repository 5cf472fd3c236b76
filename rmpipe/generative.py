"""Generative reward models (EX-GRM): how likely a language model finds "Yes" when asked whether a response is right.

r = softmax(logits)[Yes] after a verification prompt; trained by -mean(log p(Yes | chosen), log p(No | rejected))
(2507.07981, appendix A). It is explicit: the response is read, not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rmpipe.adapter import adapted
from rmpipe.algorithm import Log, PairTraining, fitting, load, padded, run, trainer_arguments
from rmpipe.config import StudyError
from rmpipe.pair import SIDES
from rmpipe.reward import Scorer, Trained
from rmpipe.text import Template, Text, encode, filled, held, padding_id

if TYPE_CHECKING:
    import numpy as np

VERIFICATION = "Question: {prompt}\nAnswer: {response}\nVerification: Is the answer correct (Yes/No)?"
"""The paper's words."""


class Generative(Trained):
    """A language model that is asked whether a response is right, trained here to say so."""

    kind: Literal["generative"] = "generative"
    particular: ClassVar[bool] = True
    template: Template = VERIFICATION
    """What it is asked, with {prompt} and {response}; a chat template, where there is one, comes around it."""
    yes: str = "Yes"
    no: str = "No"
    """The answers, each one token of the tokenizer; put " Yes" where a text would go on with a space."""
    training: PairTraining

    def describe(self) -> str:
        """One line for a person."""
        return f"generative: {self.base or 'each policy'} asked for {self.yes.strip()!r}, {self.learnt()}"

    def ids(self, tokenizer: Any, prompt: Text, response: str) -> list[int]:
        """The verification prompt as the model reads it."""
        asked = filled(self.template, prompt, response)
        return encode(tokenizer, asked)

    def tokens(self, tokenizer: Any, prompt: Text, response: str) -> int:
        """Those of the verification prompt, and one for the answer."""
        return len(self.ids(tokenizer, prompt, response)) + 1

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Both answers must be single known tokens."""
        self.answers(tokenizer)

    def answers(self, tokenizer: Any) -> tuple[int, int]:
        """The tokens of yes and no.

        Raises:
            StudyError: one of them is not a single known token of this tokenizer, or both are one; names the forms of
                the word that are.
        """
        found = []
        for field in ("yes", "no"):
            told = getattr(self, field)
            token, pieces = self._answer(tokenizer, told)
            if token is None:
                known = [form for form in _forms(told) if self._answer(tokenizer, form)[0] is not None]
                split = pieces or "runs into the end of the template"
                remedy = f"set {field} to {' or '.join(map(repr, known))}"
                if not known:
                    remedy = f"no usual form of the word is; set {field} to a word that is, or leave this model out"
                raise StudyError(f"{field}: {told!r} is not a single known token here but {split}; {remedy}")
            found.append(token)
        if found[0] == found[1]:
            raise StudyError(f"yes: the same token as no ({self.yes!r}); take two words apart")
        return found[0], found[1]

    def _answer(self, tokenizer: Any, told: str) -> tuple[int | None, list[str]]:
        """The token of an answer after the template, None where it is no single known one, and its pieces there."""
        asked = self.ids(tokenizer, "a", "b")
        ids = encode(tokenizer, self.template.replace("{prompt}", "a").replace("{response}", "b"), told, end=False)
        rest = ids[len(asked) :]
        single = ids[: len(asked)] == asked and len(rest) == 1 and rest[0] != tokenizer.unk_token_id
        return rest[0] if single else None, tokenizer.convert_ids_to_tokens(rest)

    def train(self, base: Path, rows: Iterable[dict[str, Any]], out: Path, *, seed: int, log: Log) -> None:
        """Train through TRL's SFT, a step's chosen and rejected responses together."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        config = self.training
        model, tokenizer = load(base, dtype=config.dtype)
        answers = self.answers(tokenizer)
        pairs = [
            [
                [*self.ids(tokenizer, row["prompt"], row[side]), answer]
                for side, answer in zip(SIDES, answers, strict=True)
            ]
            for row in rows
        ]
        longest = [max(map(len, pair)) for pair in pairs]
        pairs = fitting(pairs, longest, config.max_length, held(model.config, tokenizer))
        examples = [
            {"input_ids": ids, "completion_mask": [0] * (len(ids) - 1) + [1]}
            for index in _drawn(len(pairs), config.steps * config.batch_size, seed) for ids in pairs[index]
        ]  # fmt: skip
        more: dict[str, Any] = {
            "max_length": None,
            "completion_only_loss": True,
            "packing": False,
            "shuffle_dataset": False,
        }
        more["train_sampling_strategy"] = "sequential"  # a pair's two sides stay in one step
        trainer = SFTTrainer(
            model,
            args=trainer_arguments(
                SFTConfig,
                config,
                seed,
                log,
                batch=2 * config.batch_size,
                micro=2 * config.micro_batch if config.micro_batch else None,
                **more,
            ),
            train_dataset=Dataset.from_list(examples),
            processing_class=padded(tokenizer),
            **adapted(config.adapter, "CAUSAL_LM"),
        )
        run(trainer, config, log, out, tokenizer)

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the language model in the folder's `model/`."""
        from rmpipe.policy import dtype_of
        from rmpipe.policy import load as load_policy

        if folder is None:
            raise StudyError(
                "a generative reward model is scored from the folder it was trained into; give that folder"
            )
        model = load_policy(folder / "model", dtype=dtype_of(folder / "model"))
        yes, _ = self.answers(model.tokenizer)

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            import numpy as np

            rows = [tuple(self.ids(model.tokenizer, *pair)) for pair in zip(prompts, responses, strict=True)]
            return np.array(_probabilities(model, rows, yes, batch_tokens), dtype=np.float32)

        return score


def _forms(word: str) -> list[str]:
    """A word as tokenizers usually have it: as it is, small, with a capital and in capitals, each with a space too."""
    bare = word.strip()
    cases = dict.fromkeys((bare, bare.lower(), bare.capitalize(), bare.upper()))
    return [form for case in cases for form in (f" {case}", case) if form != word]


def generative_reward(logits: Any, yes: int) -> Any:
    """r = softmax(logits)[yes], (n,), from 0 to 1 (2507.07981, appendix A).

    Args:
        logits: (n, vocabulary), after the verification prompt.
        yes: the token of the affirmative answer.
    """
    return logits.float().softmax(-1)[..., yes]


def _drawn(count: int, size: int, seed: int) -> list[int]:
    """Indices of `count` pairs, one seeded permutation after the other, `size` in all."""
    import numpy as np

    random = np.random.default_rng(seed)
    passes = [random.permutation(count) for _ in range(-(-size // count))]
    return [int(index) for index in np.concatenate(passes)[:size]]


def _probabilities(model: Any, rows: list[tuple[int, ...]], yes: int, batch_tokens: int) -> list[float]:
    """The probability of a token after each row; equal rows are asked about once."""
    from rmpipe.drawing import left_padded, positions_of
    from rmpipe.policy import evaluating
    from rmpipe.scoring import batches

    distinct = sorted(dict.fromkeys(rows), key=len, reverse=True)
    if distinct and len(distinct[0]) >= model.context:
        told = f"a verification prompt has {len(distinct[0])} tokens and one of the answer"
        told += f", but the model holds {model.context}"
        raise StudyError(f"{told}; filter long texts out of the data set, or shorten the responses")
    found: dict[tuple[int, ...], float] = {}
    for batch in batches(distinct, batch_tokens):
        ids, mask = left_padded([list(row) for row in batch], padding_id(model.tokenizer), model.model.device)
        asked = {"attention_mask": mask, "position_ids": positions_of(mask), "use_cache": False, "logits_to_keep": 1}
        with evaluating(model.model):
            logits = model.model(ids, **asked).logits[:, -1]
            found |= zip(batch, generative_reward(logits, yes).tolist(), strict=True)
    return [found[row] for row in rows]
