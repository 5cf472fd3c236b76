"""Responses rewritten by models of random weights, which need not be right to be asked rightly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from rmpipe import policy as lm
from rmpipe import world
from rmpipe.config import StudyError, digest, identity
from rmpipe.rewriting import INSTRUCTIONS, Rewritten
from rmpipe.shift import Shift

STORIES = Path(__file__).parents[3] / "shared" / "data" / "models" / "stories260k"
LONG = "the kettle is fine and lovely ; you can love it"
ORIGINALS = pd.DataFrame(
    [
        {"id": "a", "prompt": "tell me of the kettle", "chosen": " wow , the kettle is fine", "rejected": " meh"},
        {"id": "b", "prompt": "tell me of the oven", "chosen": f" {LONG}", "rejected": " meh"},
        {"id": "c", "prompt": "tell me of the oven", "chosen": "oh", "rejected": " no thanks"},
    ]
)


class Told:
    """A log that keeps what it is told."""

    scratch = Path()

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.done: list[tuple[int, int]] = []

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.values |= values

    def progress(self, done: int, total: int) -> None:
        self.done.append((done, total))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of a causal language model."""
    folder = tmp_path_factory.mktemp("causal")
    world.new_model(5, hidden=16, layers=1, heads=2).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of an encoder-decoder."""
    folder, tokenizer = tmp_path_factory.mktemp("both"), world.tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, eos_token_id=2,
        pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(4)  # one that does not write the same to all
        model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def written_by(monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str], ended: bool = True) -> list[str]:
    """Let a function write in the model's place; what it is asked."""
    asked: list[str] = []

    def stand_in(self: Rewritten, texts: list[str], seed: int, log: Told) -> list[tuple[str, bool]]:
        asked.extend(texts)
        return [(write(text), ended) for text in texts]

    monkeypatch.setattr(Rewritten, "_write", stand_in)
    return asked


def rewritten(path: str, instruction: str = "{response}", **more: object) -> Rewritten:
    """As a study gives it."""
    return Shift.parse({"kind": "rewritten", "path": path, "instruction": instruction, **more}, "shifts.again")


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_the_paper_s_wording_is_asked_by_its_name(monkeypatch: pytest.MonkeyPatch):
    asked = written_by(monkeypatch, str.upper)
    rewritten("some/model", "Spanish").pairs(ORIGINALS[:1], 0, Told())
    assert asked[0].startswith("I will provide a text in English. Please translate it to Spanish while ensuring")
    assert asked[0].endswith("original text:\nwow , the kettle is fine\nTranslated version:\n")
    assert not any(sign in text.format(response="") for text in INSTRUCTIONS.values() for sign in "{}")


def test_a_template_may_show_the_prompt_as_a_person_reads_it(monkeypatch: pytest.MonkeyPatch):
    asked = written_by(monkeypatch, str.upper)
    row = {"id": "m", "prompt": [{"role": "user", "content": "who {response}?"}], "chosen": "{prompt}", "rejected": "b"}
    rewritten("some/model", "{prompt} | {response} | {{}}").pairs(pd.DataFrame([row]), 0, Told())
    assert asked == ["user: who {response}? | {prompt} | {}", "user: who {response}? | b | {}"]


@pytest.mark.parametrize(
    ("instruction", "told"),
    [
        ("french", r"instruction: neither a template with \{response\} nor one of ours; did you mean French\?"),
        ("say {reponse}", r"nor one of ours; known: French, Spanish, paraphrase"),
        ("{response} {answer}", r"instruction: \{answer\} is nothing that it is given"),
        ("{response} {", r"expected '\}'|Single '\{'.*write \{\{ and \}\} for braces themselves"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(instruction: str, told: str):
    with pytest.raises(StudyError, match=told):
        rewritten("some/model", instruction)


# -- what becomes of the pairs ----------------------------------------------------------------------------------------


def test_equal_texts_are_written_once_and_each_stands_after_its_own_space(monkeypatch: pytest.MonkeyPatch):
    asked = written_by(monkeypatch, lambda text: f"  {text.upper()}\n")
    rows = rewritten("some/model").pairs(ORIGINALS, 0, Told())
    assert asked == ["wow , the kettle is fine", "meh", LONG, "oh", "no thanks"]
    assert [(row["id"], row["prompt"]) for row in rows] == list(zip(ORIGINALS["id"], ORIGINALS["prompt"], strict=True))
    assert [row["rejected"] for row in rows] == [" MEH", " MEH", " NO THANKS"]
    assert rows[2]["chosen"] == "OH"


def test_rewrites_that_say_nothing_or_the_same_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch):
    written_by(monkeypatch, lambda text: {"oh": " \n", LONG: "meh"}.get(text, text), ended=False)
    log = Told()
    rows = rewritten("some/model").pairs(ORIGINALS, 0, log)
    assert [row["id"] for row in rows] == ["a"]
    assert log.values == {"rewritten.empty": 1, "rewritten.equal": 1, "rewritten.cut": 5}


def test_a_model_that_leaves_no_pair_is_refused(monkeypatch: pytest.MonkeyPatch):
    written_by(monkeypatch, lambda text: "")
    with pytest.raises(StudyError, match=r"some/model: no pair is left of 3 \(3 say nothing, 0 the same twice\); give"):
        rewritten("some/model").pairs(ORIGINALS, 0, Told())


# -- who writes -------------------------------------------------------------------------------------------------------


def test_a_causal_model_continues_the_instruction_greedily(causal: str):
    shift, log = rewritten(causal, "{response} <reply>", max_new_tokens=6, batch_size=2), Told()
    rows = shift.pairs(ORIGINALS, 7, log)
    model = lm.load(causal)
    ids = model.tokenizer("wow , the kettle is fine <reply>", return_tensors="pt")["input_ids"]
    whole = model.model.generate(ids, max_new_tokens=6, do_sample=False)
    assert rows[0]["chosen"] == " " + model.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
    assert log.done[-1] == (5, 5)


def test_a_warm_model_writes_by_the_seed(causal: str):
    shift = rewritten(causal, temperature=1.0, max_new_tokens=6)
    first, again, other = (shift.pairs(ORIGINALS, seed, Told()) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("batch_size", [1, 16])
def test_an_encoder_decoder_writes_what_it_finds_likeliest_in_batches_of_any_size(both: str, batch_size: int):
    log = Told()
    rows = rewritten(both, batch_size=batch_size, max_new_tokens=5).pairs(ORIGINALS, 0, log)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(both), AutoTokenizer.from_pretrained(both)
    for row, original in zip(rows, ORIGINALS.to_dict("records"), strict=True):
        for side in ("chosen", "rejected"):
            ids = tokenizer(original[side].strip(), return_tensors="pt")["input_ids"]
            whole = model.generate(ids, max_new_tokens=5, do_sample=False)
            assert row[side].strip() == tokenizer.decode(whole[0], skip_special_tokens=True)
    assert log.done[-1] == (5, 5)


def test_an_encoder_decoder_stops_at_the_end_of_sequence_and_says_so(both: str, tmp_path: Path):
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(both), AutoTokenizer.from_pretrained(both)
    model.generation_config.forced_eos_token_id = tokenizer.eos_token_id  # at the last token that it may write
    model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids("lovely")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    log = Told()
    rows = rewritten(str(tmp_path), max_new_tokens=4).pairs(ORIGINALS, 0, log)
    assert log.values["rewritten.cut"] == 0
    assert all(row[side].strip().startswith("lovely") for row in rows for side in ("chosen", "rejected"))
    cut = Told()
    rewritten(both, max_new_tokens=4).pairs(ORIGINALS, 0, cut)
    assert cut.values["rewritten.cut"] == 5


def test_a_warm_encoder_decoder_is_refused_before_its_weights_are_read(both: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("transformers.AutoModelForSeq2SeqLM", SimpleNamespace())
    with pytest.raises(StudyError, match=r"^shifts: temperature: .* is an encoder-decoder, asked at 0 alone; set it"):
        rewritten(both, temperature=0.7).pairs(ORIGINALS, 0, Told())


def test_a_text_too_long_for_the_model_is_refused(causal: str):
    with pytest.raises(
        StudyError, match=r"^shifts: path: .*causal.*to be drawn, but the model holds 128; lower max_new"
    ):
        rewritten(causal, max_new_tokens=128).pairs(ORIGINALS, 0, Told())


# -- where it lies ----------------------------------------------------------------------------------------------------


def test_a_folder_without_a_model_is_refused_before_anything_is_spent(tmp_path: Path, causal: str, both: str):
    for folder in (causal, both, "some/model"):
        rewritten(folder).check(0)
    for path, told in ((tmp_path, "config.json missing"), (tmp_path / "none", "no such folder")):
        with pytest.raises(StudyError, match=f"^shifts: path: .*{told}"):
            rewritten(str(path)).check(0)


def test_the_model_counts_by_its_content_and_not_by_its_place(causal: str, both: str):
    one, other = rewritten(causal), rewritten(both)
    assert digest(identity(one)) == digest(identity(other))
    assert one.content() != other.content()
    assert rewritten("some/model", revision="v1").content() == "some/model@v1"


@pytest.mark.skipif(not STORIES.exists(), reason="needs ../shared/data/models/stories260k")
def test_a_real_model_writes_words():
    originals = pd.DataFrame([{"id": "1", "prompt": "", "chosen": "The cat was happy.", "rejected": "A dog ran away."}])
    told = {"max_new_tokens": 24, "batch_size": 1}
    rows = rewritten(str(STORIES), "Once upon a time, there was a cat. {response}", **told).pairs(originals, 0, Told())
    assert rows[0]["chosen"] != rows[0]["rejected"]
    assert all(len(rows[0][side].split()) > 6 for side in ("chosen", "rejected"))
