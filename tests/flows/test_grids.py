"""The grids of 2503.15477 that are shipped: planned without a network, and run on stand-ins by `--set` alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.inquiry import STUDIES
from flows.teach import teach
from rmpipe.store import Store
from rmpipe.study import Study
from tasks.stage import planning

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
MIXES = {"on0": 0.0, "on25": 0.25, "on50": 0.5, "on75": 0.75, "on100": 1.0}


def planned(home: Path, name: str, *changes: str) -> Counter[str]:
    """How many stages of each kind a study comes to."""
    with planning(Store(home)) as plan:
        teach(Study.read(STUDIES / f"{name}.toml", changes))
    return Counter(step.call.stage.name for step in plan.steps.values())


def test_section_4_1_trains_five_mixes_and_aligns_with_seven_rewards_three_times(tmp_path: Path):
    counts = planned(tmp_path, "mixes")
    once = ("prepare", "relabel", "label", "fetch", "finetune", "collect", "sample")
    per_seed = dict.fromkeys(once, 1) | {"train": 5, "align": 7, "audit": 7}
    assert {stage: counts[stage] for stage in per_seed} == {stage: 3 * count for stage, count in per_seed.items()} | {
        "fetch": 1  # without a seed
    }


def test_section_4_2_aligns_three_policies_with_four_public_reward_models_three_times(tmp_path: Path):
    counts = planned(tmp_path, "public")
    assert (counts["finetune"], counts["train"], counts["align"]) == (3 * 2, 0, 3 * 3 * 4)


def test_hyperparameters_are_the_published_ones():
    study: Any = Study.read(STUDIES / "mixes.toml")
    assert {name: study.reward_models[name].on_policy for name in MIXES} == MIXES
    training = study.reward_models["on50"].training
    rate, centre = training.optimiser.learning_rate, training.center_rewards_coefficient
    assert (training.steps * training.batch_size, rate, centre) == (33_120, 5e-7, 0.01)
    low = study.reward_models["low_variance"]
    assert (low.factor, low.fraction, low.seed) == (0.001, 0.5, 8122)
    finetuning, rloo = study.policies["sft"].finetuning, study.algorithms["rloo"]
    assert (finetuning.optimiser.learning_rate, finetuning.batch_size) == (1e-6, 32)
    assert (rloo.samples_per_prompt, rloo.kl_coefficient, rloo.optimiser.learning_rate) == (2, 0.05, 1e-7)
    responses = rloo.prompts_per_step * rloo.samples_per_prompt
    assert rloo.steps * responses == pytest.approx(6 * 8284, abs=responses)
    drawn = (study.sampling, study.evaluation)
    assert {(one.prompts, one.responses) for one in drawn} == {(500, 10)}
    assert study.sampling.max_new_tokens == study.collecting.max_new_tokens == rloo.max_new_tokens == 512
    other: Any = Study.read(STUDIES / "public.toml")
    assert other.algorithms["rloo"].steps * responses == pytest.approx(2 * 8284, abs=responses)


# -- on stand-ins -----------------------------------------------------------------------------------------------------


def said(prompt: str, text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, a reward model, and both data sets, each in a folder of the hub's form."""
    from transformers import AutoModelForSequenceClassification

    from rmpipe import world

    folder = tmp_path_factory.mktemp("grids")
    world.new_model(3, hidden=32, layers=1, heads=2).save_pretrained(folder / "lm")
    world.tokenizer().save_pretrained(folder / "lm")
    for seed in (1, 2):
        import torch

        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(folder / "lm", num_labels=1)
        model.config.pad_token_id = world.tokenizer().pad_token_id
        torch.nn.init.normal_(model.score.weight)
        model.save_pretrained(folder / f"rm{seed}")
        world.tokenizer().save_pretrained(folder / f"rm{seed}")
    rows = list(world.preferences(1, 120))
    (folder / "uf").mkdir()
    for part, some in {"train_prefs": rows[:90], "test_prefs": rows[90:]}.items():
        told = [{"prompt": row["prompt"], "prompt_id": f"{part}{n}", "score_chosen": 8.0, "score_rejected": 5.0}
                | {side: said(row["prompt"], row[side]) for side in ("chosen", "rejected")}
                for n, row in enumerate(some)]  # fmt: skip
        (folder / "uf" / f"{part}.jsonl").write_text("\n".join(map(json.dumps, told)))
    files = "\n".join(f"  - split: {part}\n    path: {part}.jsonl" for part in ("train_prefs", "test_prefs"))
    (folder / "uf" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n")
    (folder / "alpaca").mkdir()
    shown = [{"instruction": row["prompt"], "input": "", "output": row["chosen"]} for row in rows]
    (folder / "alpaca" / "sft.json").write_text(json.dumps(shown))
    return folder


def small(place: Path, *more: str) -> list[str]:
    """The changes that bring either grid to stand-ins, and down to seconds."""
    return [
        f"dataset.path={place / 'uf'}", f"dataset.tokenizer={place / 'lm'}", "seeds=[1]", "sampling.prompts=6",
        "sampling.responses=2", "sampling.max_new_tokens=8", "collecting.max_new_tokens=8", "evaluation.prompts=4",
        "evaluation.responses=1", "algorithms.rloo.steps=1", "algorithms.rloo.prompts_per_step=4",
        "algorithms.rloo.max_new_tokens=8", "algorithms.rloo.evaluations=2", "measuring.draws=100",
        f"reward_models.armorm.path={place / 'rm1'}", "reward_models.armorm.trust_remote_code=false", *more,
    ]  # fmt: skip


def answered(place: Path, name: str, changes: list[str]) -> dict[str, Any]:
    """The answer of a study that is run."""
    where = os.environ | {"RMPIPE_HOME": str(place / f"home {name}"), "PYTHONPATH": str(REPOSITORY)}
    called = [sys.executable, "-m", "flows.cli", "run", name, "--jobs", "2", "--json", "--allow-unsound"]
    called += [f"--set={change}" for change in changes]  # random heads need not agree with the labels
    done = subprocess.run(called, cwd=place, env=where, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_section_4_1_runs_on_stand_ins_with_no_other_edit(place: Path):
    changes = [f"bases.pythia.path={place / 'lm'}", f"policies.sft.demonstrations.labels.path={place / 'alpaca'}",
               "policies.sft.finetuning.steps=1"]  # fmt: skip
    changes += [f"reward_models.{name}.training.steps=1" for name in MIXES]
    rows = answered(place, "mixes", small(place, *changes))["rows"]
    assert {row["reward_model"] for row in rows} == {*MIXES, "low_variance", "armorm"}
    assert all(row["truth_gain"] for row in rows)
    accuracies = {row["reward_model"]: row["accuracy_on"]["value"] for row in rows}
    assert accuracies["low_variance"] == accuracies["armorm"] == 1


def test_section_4_2_runs_on_stand_ins_with_no_other_edit(place: Path):
    bases, public = ("pythia1b", "llama1b", "llama1b_instruct"), ("grm_gemma2b", "grm_llama3b", "tulu8b", "gemma2b")
    changes = [f"bases.{name}.path={place / 'lm'}" for name in bases]
    changes += [f"policies.{name}.finetuning.steps={steps}" for steps, name in enumerate(("pythia", "llama"), 1)]
    changes += [f"reward_models.{name}.path={place / 'rm2'}" for name in public]
    rows = answered(place, "public", small(place, *changes, "reward_models.gemma2b.max_length=60"))["rows"]
    assert {(row["policy"], row["reward_model"]) for row in rows} == {
        (policy, name) for policy in ("pythia", "llama", "instruct") for name in public
    }
