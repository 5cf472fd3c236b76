"""The studies of `vanish` that are shipped: the seven data sets on stand-ins, what is tried, data of one's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.inquiry import STUDIES
from flows.vanish import vanish
from rmpipe import labels
from rmpipe.config import StudyError
from rmpipe.metric import write_references
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
MODEL, STORIES = SHARED / "models" / "stories260k", SHARED / "tinystories" / "stories.jsonl"
SEVEN = ("narrative_qa", "totto", "common_gen", "iwslt2017", "cnn_dailymail", "daily_dialog", "imdb")


def study(name: str, *changes: str) -> Any:
    return Study.read(STUDIES / f"{name}.toml", changes)


def planned(home: Path, name: str, *changes: str) -> dict[str, set[str]]:
    """The addresses that a study comes to, by stage."""
    with planning(Store(home)) as plan:
        vanish(study(name, *changes))
    found: dict[str, set[str]] = {}
    for address, step in plan.steps.items():
        found.setdefault(step.call.stage.name, set()).add(address)
    return found


def answered(place: Path, name: str, changes: list[str]) -> dict[str, Any]:
    """The answer of a study that is run."""
    where = os.environ | {"RMPIPE_HOME": str(place / "home"), "PYTHONPATH": str(REPOSITORY)}
    called = [sys.executable, "-m", "flows.cli", "run", name, "--jobs", "2", "--json"]
    called += [f"--set={change}" for change in changes]
    done = subprocess.run(called, cwd=place, env=where, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# -- the paper's seven data sets --------------------------------------------------------------------------------------

PUBLISHED: dict[str, dict[str, Any]] = {
    "narrative_qa": {"reward": "rougeL", "sft": (5, 32_747, 64, 1e-5, 0.01), "drawn": (50, 50),
                     "rft": (100, 2e-6, 0.001, 1.0), "after": (100, 5e-7, 0.001, 0.2, 50)},
    "totto": {"reward": "bleu", "sft": (5, 121_153, 8, 1e-4, 0.1), "drawn": (0, 50),
              "rft": (100, 2e-6, 0.001, 2.0), "after": (100, 5e-7, 0.01, 0.2, 50)},
    "common_gen": {"reward": "meteor", "sft": (4, 67_389, 8, 1e-5, 0.01), "drawn": (0, 20),
                   "rft": (100, 2e-6, 0.001, 2.0), "after": (100, 2e-6, 0.01, 1.0, 50)},
    "iwslt2017": {"reward": "bleu", "sft": (5, 206_112, 64, 1e-5, 0.1), "drawn": (10, 128),
                  "rft": (50, 1e-6, 0.001, 0.2), "after": (50, 5e-7, 0.001, 0.2, 5)},
    "cnn_dailymail": {"reward": "meteor", "sft": (2, 287_113, 16, 1e-4, 0.1), "drawn": (50, 100),
                      "rft": (100, 2e-6, 0.001, 0.2), "after": (50, 2e-6, 0.01, 0.2, 100)},
    "daily_dialog": {"reward": "meteor", "sft": (20, 35_000, 32, 1e-5, 0), "drawn": (20, 20),
                     "rft": (50, 1e-6, 0.2, 0.5), "after": (50, 1e-6, 0.2, 0.05, 20)},
    "imdb": {"reward": "lvwerra/distilbert-imdb", "sft": (10, 10_000, 16, 1e-5, 0), "drawn": (0, 48),
             "rft": (50, 1e-6, 0.1, 0.1), "after": (50, 1e-6, 0.1, 0.1, 0)},
}  # fmt: skip
"""Of 2310.20703's configurations. SFT: epochs, inputs, batch, rate, decay. Drawing: top_k, new tokens. RFT: iterations,
rate, KL coefficient and target; after SFT with its own top_k."""


@pytest.mark.parametrize("name", SEVEN)
def test_each_data_set_is_planned_without_a_network(tmp_path, name):
    stages = Counter({stage: len(found) for stage, found in planned(tmp_path, name, "seeds=[1]").items()})
    assert stages == Counter(
        fetch=1, label=1, derive=1, sample=2 + 5, score=2 + 5, gauge=1, imitate=2, align=3, conclude=1, report=1
    )


@pytest.mark.parametrize("name", SEVEN)
def test_what_the_paper_did_is_what_the_study_says(name):
    asked, paper = study(name), PUBLISHED[name]
    (reward,) = asked.reward_models.values()
    assert (getattr(reward, "name", None) or reward.path) == paper["reward"]
    assert (asked.sampling.prompts, asked.gauging.responses, asked.sampling.split) == (5000, 10, "policy")
    assert (asked.sampling.top_k, asked.sampling.max_new_tokens) == paper["drawn"]

    epochs, inputs, batch, rate, decay = paper["sft"]
    whole, few = asked.finetunings["whole"], asked.finetunings["few"]
    assert whole.training.steps == pytest.approx(epochs * inputs / batch, rel=0.02)
    assert (whole.training.batch_size, whole.training.optimiser.learning_rate) == (batch, rate)
    assert whole.training.optimiser.weight_decay == decay
    assert (whole.share, few.share, few.training.steps) == (1, 0.01, round(0.4 * whole.training.steps))
    assert few.training.model_copy(update={"steps": whole.training.steps}) == whole.training

    first, after = asked.algorithms["rloo"], asked.algorithms["rloo_after"]
    for algorithm, (iterations, slow, coefficient, target) in ((first, paper["rft"]), (after, paper["after"][:4])):
        assert (algorithm.steps, algorithm.optimiser.learning_rate) == (10 * iterations, pytest.approx(10 * slow))
        assert (algorithm.kl_coefficient, algorithm.kl_target) == (coefficient, target)
        assert algorithm.max_new_tokens == paper["drawn"][1]
    assert (first.top_k, after.top_k) == (paper["drawn"][0], paper["after"][4])
    assert (first.entropy_bonus > 0) == (name == "common_gen")


def test_models_of_the_paper_that_are_no_encoder_decoders_are_its_own():
    paths = {name: study(name).bases["gpt2"].path for name in SEVEN}
    assert paths == dict.fromkeys(SEVEN, "openai-community/gpt2") | {"imdb": "lvwerra/gpt2-imdb"}


# -- on stand-ins: any small models, and data of the hub's form -------------------------------------------------------


def rows(name: str, part: str, count: int) -> list[dict[str, Any]]:
    """Rows of a part as the hub has them."""
    made = []
    for n in range(count):
        text, key = f"The {part} dog has {n} bones and a bowl.", f"{part}-{n}"
        summary = {"text": text, "tokens": text.split(), "url": "", "title": "T"}
        words = [{"text": f"{n}", "tokens": [f"{n}"]}, {"text": f"{n} bones", "tokens": [f"{n}", "bones"]}]
        made.append({
            "narrative_qa": {"document": {"id": key, "kind": "movie", "summary": summary, "text": "a whole book"},
                             "question": {"text": "How many?", "tokens": []}, "answers": words},
            "totto": {"gem_id": key, "linearized_input": f"<table> <cell> {n} {part} </cell> </table>",
                      "target": text, "references": [] if part == "train" else [text, f"{n}."]},
            "common_gen": {"concept_set_idx": n, "concepts": [part[:1], f"n{n}"], "target": text},
            "iwslt2017": {"translation": {"en": text, "de": f"Der Hund hat {n} Knochen."}},
            "cnn_dailymail": {"id": key, "article": f"{text} It is so .", "highlights": "One .\nTwo ."},
            "daily_dialog": {"dialog": [f" {part} {n} turn {turn} ." for turn in range(7)], "act": [], "emotion": []},
            "imdb": {"text": " ".join([text] * 12), "label": n % 2},
        }[name])  # fmt: skip
    return made


def copied(folder: Path, name: str) -> Path:
    """A small copy of a data set: for what is a script on the hub, the files that it has made of it."""
    from datasets import Dataset

    held = "validation" if name in ("totto", "common_gen") else "test"
    subset = {"totto": "totto", "iwslt2017": "iwslt2017-de-en", "daily_dialog": "default"}.get(name)
    names = {part: f"{subset}/{part}/0000.parquet" if subset else f"{part}.parquet" for part in ("train", held)}
    for part, file in names.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows(name, part, 40 if part == "train" else 12)).to_parquet(folder / file)
    config = "3.0.0" if name == "cnn_dailymail" else "default"
    files = "\n".join(f"  - split: {part}\n    path: {file}" for part, file in names.items())
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}\n---\n")
    return folder


def tokenizer(folder: Path, **special: str) -> int:
    """Save a tokenizer of bytes; how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: at for at, token in enumerate([*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    rules = Tokenizer(models.BPE(ids, []))
    rules.pre_tokenizer, rules.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if "cls_token" in special:
        marks = [(special[name], ids[special[name]]) for name in ("cls_token", "sep_token")]
        rules.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    PreTrainedTokenizerFast(tokenizer_object=rules, model_max_length=1024, **special).save_pretrained(folder)
    return len(ids)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of random weights, small, whose tokens are bytes."""
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    folder = tmp_path_factory.mktemp("gpt2")
    size = tokenizer(folder, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    set_seed(1)
    marks = {"bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(
        GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=1024, **marks)
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT of random weights with two labels."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, set_seed

    folder = tmp_path_factory.mktemp("classifier")
    size = tokenizer(folder, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    set_seed(1)
    small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 1024}
    config = DistilBertConfig(vocab_size=size, num_labels=2, pad_token_id=0, initializer_range=1.0, **small)
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def standing_in(name: str, folder: Path, gpt2: Path, classifier: Path) -> list[str]:
    """What is said to take a study to stand-ins."""
    changes = [f"dataset.path={copied(folder, name)}", f"bases.gpt2.path={gpt2}"]
    if name == "imdb":
        return [*changes, f"reward_models.sentiment.path={classifier}"]
    return [*changes, f"dataset.tokenizer={gpt2}"]


SMALL = (
    "seeds=[1]", "gauging.responses=4", "sampling.prompts=10", "sampling.responses=4", "sampling.max_new_tokens=6",
    "evaluation.prompts=4", "evaluation.responses=1", "finetunings.whole.training.steps=2",
    "finetunings.whole.training.batch_size=4", "finetunings.whole.training.micro_batch=4",
    "finetunings.few.training.steps=1", "finetunings.few.training.batch_size=4",
    "finetunings.few.training.micro_batch=4",
)  # fmt: skip


def smaller(*algorithms: str) -> list[str]:
    """So few steps that a study ends at once."""
    told = ("steps=2", "prompts_per_step=4", "samples_per_prompt=2", "max_new_tokens=6", "evaluations=2")
    return [*SMALL, *(f"algorithms.{name}.{change}" for name in algorithms for change in told)]


@pytest.mark.parametrize("name", SEVEN)
def test_its_inputs_are_labelled_and_rewarded_from_a_copy(tmp_path, monkeypatch, gpt2, classifier, name):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    changes = standing_in(name, tmp_path / name, gpt2, classifier)
    asked = study(name, *changes, *smaller("rloo", "rloo_after"))
    asked.check_sources()
    frame, summary = labels.prepare(asked.dataset, 1)
    inputs = {"daily_dialog": (80, 24), "imdb": (20, 12)}.get(name, (40, 12))  # turns, and positive reviews
    assert summary["kept"] == dict(zip(("policy", "test"), inputs, strict=True))
    assert frame["references"].map(len).max() == (2 if name in ("narrative_qa", "totto") else 1)
    (reward,) = asked.reward_models.values()
    if reward.referenced:
        write_references(frame, tmp_path)
    score = reward.scorer(tmp_path)
    prompts, right = list(frame["prompt"]), [texts[0] for texts in frame["references"]]
    rewards = score(prompts, right)
    assert ((rewards >= 0) & (rewards <= 1)).all()
    if name != "imdb":
        assert (rewards > score(prompts, [" something else"] * len(prompts))).all()


def test_a_data_set_is_gone_through_to_the_end_on_stand_ins(tmp_path, gpt2, classifier):
    changes = standing_in("imdb", tmp_path / "data", gpt2, classifier) + smaller("rloo", "rloo_after")
    answer = answered(tmp_path, "imdb", changes)
    assert [item["name"] for item in answer["contrasts"]] == ["std", "std, unlike SFT", "SFT first", "few labels"]
    assert {(row["policy"], row["reward"]) for row in answer["rows"]} == {("gpt2", "sentiment")}
    assert {row["arm"]: row["labels"] and row["labels"]["value"] for row in answer["rows"]} == {
        "rft": None, "sft": 10, "sft_rft": 10, "few": 1, "few_rft": 1,
    }  # fmt: skip


# -- what is tried against it -----------------------------------------------------------------------------------------


def test_cures_make_nothing_again_that_vanish_made(tmp_path):
    first, more = (planned(tmp_path, name, "seeds=[1]") for name in ("vanish", "cures"))
    assert {stage: found - more[stage] for stage, found in first.items() if not found <= more[stage]}.keys() == {
        "conclude", "report",
    }  # fmt: skip
    assert len(more["imitate"] - first["imitate"]) == 5
    assert len(more["align"] - first["align"]) == 4 + 1 + 5  # four labellings, those of low-std prompts, five alone
    assert len(more["sift"]) == 1


def test_each_cure_differs_from_what_it_is_compared_with_in_one_thing(tmp_path):
    cures = study("cures")
    learnt, taught = cures.finetunings, cures.algorithms
    ladder = {name: learnt[name].share for name in ("one", "five", "twenty", "whole")}
    assert list(ladder.values()) == [0.01, 0.05, 0.2, 1.0]
    assert all(learnt[name].training == learnt["whole"].training for name in ladder)
    short = learnt["five_short"]
    assert short.training.steps == 0.4 * learnt["five"].training.steps
    assert short.training.model_copy(update={"steps": learnt["five"].training.steps}) == learnt["five"].training
    assert learnt["lowest"].model_copy(update={"of": "all"}) == learnt["few"]

    changed = partial(taught["rloo"].model_copy)
    faster = taught["rloo"].optimiser.model_copy(update={"learning_rate": taught["fast"].optimiser.learning_rate})
    assert faster.learning_rate > taught["rloo"].optimiser.learning_rate
    assert taught["fast"] == changed(update={"optimiser": faster})
    assert taught["hot"] == changed(update={"temperature": 1.5})
    assert taught["entropy"] == changed(update={"entropy_bonus": taught["entropy"].entropy_bonus})
    assert taught["adaptive"] == changed(update={"kl_target": taught["adaptive"].kl_target})


# -- data of one's own ------------------------------------------------------------------------------------------------


def blocks() -> tuple[str, str]:
    """The file that docs/extending.md shows for labelled inputs, and what it says of it in a study."""
    text = (REPOSITORY / "docs" / "extending.md").read_text().partition("## Labelled inputs")[2].partition("\n## ")[0]
    (code,), (said,) = (re.findall(rf"```{form}\n(.*?)```", text, re.DOTALL) for form in ("python", "toml"))
    return code, said


def test_labelled_inputs_of_ones_own_are_one_class_in_one_file(tmp_path, gpt2):
    code, said = blocks()
    (tmp_path / "sums.py").write_text(code)
    (tmp_path / "mine.toml").write_text(f'extends = "completions"\nname = "mine"\n{said}')
    answer = answered(tmp_path, "mine.toml", [f"bases.mine.path={gpt2}", *smaller("rloo")])
    assert {row["arm"] for row in answer["rows"]} == {"rft", "sft", "sft_rft", "few", "few_rft"}
    assert next(row for row in answer["rows"] if row["arm"] == "sft")["labels"]["value"] == round(0.85 * 13**2) - 10
    assert {(row["policy"], row["reward"]) for row in answer["vanished"]} == {("mine", "chrf")}


def test_completions_of_ones_own_that_a_real_model_cannot_hold_are_left_out_or_refused():
    if not (MODEL.is_dir() and STORIES.is_file()):
        pytest.skip("needs the real model and stories of the folder shared/data beside the project")
    mine = (f"bases.mine.path={MODEL}", f"dataset.path={STORIES}")
    with pytest.raises(StudyError, match=r"finetunings\.whole: dataset .*: row .* but bases\.mine holds 512"):
        study("completions", *mine).check_sources()
    study("completions", *mine, f"dataset.tokenizer={MODEL}", "dataset.max_response_tokens=300").check_sources()
