"""Studies: read from TOML, extended, changed, and refused with file, key and remedy before any compute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmpipe.config import StudyError, digest, identity
from rmpipe.dataset import LocalSource, WorldSource
from rmpipe.reinforcement import Grpo, Rloo
from rmpipe.reward import Scaled
from rmpipe.study import PretrainedBase, Study, WorldBase
from rmpipe.teaching import Cell

STUDY = """
name = "small"
seeds = [1, 2]
ground_truth = "gold"

[dataset]
source = "world"
pairs = 50

[bases.tiny]
kind = "world"
training = { steps = 3, optimiser = { learning_rate = 0.1 } }

[policies.plain]
base = "tiny"
[policies.tuned]
base = "tiny"
demonstrations = { source = "world", count = 10 }
finetuning = { steps = 2, optimiser = { learning_rate = 0.1 } }

[reward_models.gold]
kind = "truth"
function = "world"
[reward_models.low]
kind = "scaled"
of = "gold"
factor = 0.5

[algorithms.rloo]
kind = "rloo"
steps = 2
prompts_per_step = 4
optimiser = { name = "sgd", learning_rate = 0.1 }
"""
LOCAL = STUDY.replace('source = "world"\npairs = 50', 'source = "local"\npath = "pairs.jsonl"')


def written(folder: Path, text: str = STUDY, name: str = "study.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def refused(folder: Path, *changes: str, more: str = "") -> str:
    """What is said of the small study once changed or with more at its end, without the file's name."""
    file = written(folder, STUDY + more)
    with pytest.raises(StudyError) as caught:
        Study.read(file, changes)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return "\n".join(line.removeprefix(f"{file}: ") for line in lines)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_an_adapter_is_refused_before_anything_is_computed_where_peft_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study = Study.read(written(tmp_path), ["algorithms.rloo.adapter.rank=4"])
    study.check_sources()
    monkeypatch.setattr("rmpipe.adapter.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"^algorithms\.rloo\.adapter: peft is not installed; pip install 'rmpipe"):
        study.check_sources()
    Study.read(written(tmp_path)).check_sources()


def test_a_study_is_read_into_the_kinds_that_it_names(tmp_path: Path):
    study = Study.read(written(tmp_path))
    assert (study.name, study.seeds, study.ground_truth) == ("small", (1, 2), "gold")
    assert study.dataset == WorldSource(pairs=50)
    assert isinstance(study.bases["tiny"], WorldBase)
    assert study.reward_models["low"] == Scaled(of="gold", factor=0.5)
    assert isinstance(study.algorithms["rloo"], Rloo)
    assert study.algorithms["rloo"].optimiser.name == "sgd"
    assert study.sampling.responses == 16


def test_the_embedded_study_is_read_by_its_path():
    study = Study.read(Path(__file__).parents[2] / "flows" / "studies" / "pocket.toml")
    assert study.name == "pocket"
    assert {"weak", "strong"} <= set(study.policies)


def test_paths_are_read_from_the_folder_of_the_study_and_hub_ids_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pairs.jsonl").write_text("")
    for name in ("elsewhere", "near", "models/one"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    more = """
    [bases.near]
    kind = "pretrained"
    path = "./near"
    [bases.hub]
    kind = "pretrained"
    path = "somebody/model"
    [bases.set]
    kind = "pretrained"
    path = "$MODELS/one"
    """
    study = Study.read(written(tmp_path, LOCAL + more))
    assert study.dataset == LocalSource(path=str(tmp_path / "pairs.jsonl"))
    paths = {name: base.path for name, base in study.bases.items() if isinstance(base, PretrainedBase)}
    assert paths == {"near": str(tmp_path / "near"), "hub": "somebody/model", "set": str(tmp_path / "models/one")}


def test_names_speed_and_places_are_outside_what_is_hashed(tmp_path: Path):
    one = Study.read(written(tmp_path))
    other = Study.read(written(tmp_path), ["sampling.batch_size=1", "scoring.batch_tokens=10"])
    warmer = Study.read(written(tmp_path), ["sampling.temperature=0.7"])
    assert digest(identity(one)) == digest(identity(other)) != digest(identity(warmer))


# -- extending and setting --------------------------------------------------------------------------------------------


def test_extends_changes_only_what_is_said(tmp_path: Path):
    written(tmp_path)
    child = written(
        tmp_path,
        'extends = "study"\nname = "child"\n[dataset]\npairs = 20\n[algorithms.rloo.optimiser]\nlearning_rate = 0.5\n',
        "child.toml",
    )
    study, parent = Study.read(child), Study.read(tmp_path / "study.toml")
    assert (study.name, study.dataset.pairs) == ("child", 20)
    assert (study.algorithms["rloo"].optimiser.name, study.algorithms["rloo"].optimiser.learning_rate) == ("sgd", 0.5)
    assert study.reward_models == parent.reward_models
    assert (parent.name, parent.dataset.pairs) == ("small", 50)


def test_extends_reaches_through_studies_and_knows_those_of_the_package(tmp_path: Path):
    written(
        tmp_path, 'extends = "pocket"\nname = "pocket mine"\nseeds = [9]\n', "pocket.toml"
    )  # the name of its parent
    file = written(tmp_path, 'extends = "pocket.toml"\nquestion = "Why?"\n', "more.toml")
    study = Study.read(file)
    assert (study.name, study.seeds, study.question) == ("pocket mine", (9,), "Why?")
    assert "weak" in study.policies


def test_a_parents_path_is_read_from_the_parents_folder(tmp_path: Path):
    (tmp_path / "above").mkdir()
    (tmp_path / "below").mkdir()
    (tmp_path / "above" / "pairs.jsonl").write_text("")
    written(tmp_path / "above", LOCAL, "up.toml")
    file = written(tmp_path / "below", 'extends = "../above/up"\n', "down.toml")
    assert Study.read(file).dataset.path == str(tmp_path / "above" / "pairs.jsonl")


@pytest.mark.parametrize(
    ("parent", "told"),
    [
        ('"poket"', "extends: no study 'poket'; did you mean pocket?"),
        ("3", "extends: expected the name of a study, got 3"),
        ('"child"', "extends: 'child' extends itself by way of this file; name another"),
    ],
)
def test_a_parent_that_is_not_there_is_told_with_the_file(tmp_path: Path, parent: str, told: str):
    file = written(tmp_path, f"extends = {parent}\n", "child.toml")
    with pytest.raises(StudyError) as caught:
        Study.read(file)
    assert str(caught.value) == f"{file}: {told}"


def test_studies_that_extend_one_another_are_refused(tmp_path: Path):
    one = written(tmp_path, 'extends = "other"\n', "one.toml")
    other = written(tmp_path, 'extends = "one"\n', "other.toml")
    with pytest.raises(StudyError, match=f"^{other}: extends: 'one' extends itself"):
        Study.read(one)


def test_what_another_study_has_is_taken_away_by_false_and_no_ground_truth_by_an_empty_name(tmp_path: Path):
    written(tmp_path)
    text = 'extends = "study"\nground_truth = ""\n[reward_models]\nlow = false\n[policies.tuned]\nfinetuning = false\n'
    child = Study.read(written(tmp_path, f"{text}demonstrations = false\n", "child.toml"))
    assert child.ground_truth is None
    assert list(child.reward_models) == ["gold"]
    assert (child.policies["tuned"].finetuning, child.policies["tuned"].demonstrations) == (None, None)
    again = '[reward_models.low]\nkind = "noisy"\nof = "gold"\nstd = 1\n'
    heir = Study.read(written(tmp_path, f'extends = "child"\n{again}', "heir.toml"))
    assert [kind.kind for kind in heir.reward_models.values()] == ["truth", "noisy"]
    told = Study.read(tmp_path / "study.toml", ["ground_truth=", "reward_models.low=false"])
    assert (told.ground_truth, list(told.reward_models)) == (None, ["gold"])


def test_what_is_not_there_cannot_be_taken_away_and_what_is_needed_is_told(tmp_path: Path):
    for section, told in (("reward_models.lo", "did you mean low?"), ("policies.plane", "did you mean plain?")):
        assert refused(tmp_path, f"{section}=false") == f"{section}: false, and there is none to take away; {told}"
    assert refused(tmp_path, "reward_models.gold=false") == "ground_truth: no 'gold' there; known: low"


def test_set_takes_values_as_toml_writes_them_or_plain_text(tmp_path: Path):
    changes = [
        "name=other study", "seeds=[7]", "sampling.temperature=0.5", "sampling.prompts=3",
        'question="What = this?"', "reward_models.low.factor=2", "algorithms.grpo.kind=grpo",
        "algorithms.grpo.steps=4", "algorithms.grpo.optimiser={ learning_rate = 0.2 }",
    ]  # fmt: skip
    study = Study.read(written(tmp_path), changes)
    assert (study.name, study.seeds, study.question) == ("other study", (7,), "What = this?")
    assert (study.sampling.temperature, study.sampling.prompts, study.sampling.responses) == (0.5, 3, 16)
    assert study.reward_models["low"] == Scaled(of="gold", factor=2.0)
    assert isinstance(study.algorithms["grpo"], Grpo)
    assert study.algorithms["grpo"].steps == 4


def test_set_reads_a_path_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.jsonl").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    study = Study.read(written(tmp_path, LOCAL), ["dataset.path=mine.jsonl"])
    assert study.dataset.path == str(tmp_path / "here" / "mine.jsonl")


def test_a_change_that_cannot_be_made_is_told(tmp_path: Path):
    with pytest.raises(StudyError, match=r"^--set seeds: expected a\.b=value$"):
        Study.read(written(tmp_path), ["seeds"])
    with pytest.raises(StudyError, match=r"^--set name\.first=x: name is not a section$"):
        Study.read(written(tmp_path), ["name.first=x"])


# -- refusing ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_or_not_toml_is_told(tmp_path: Path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(StudyError, match=f"^{path}: no such study file$"):
            Study.read(path)
    file = written(tmp_path, "name = \n")
    with pytest.raises(StudyError, match=f"^{file}: not TOML: Invalid value .*line 1"):
        Study.read(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("sampling.temprature=1", "sampling.temprature: unknown key; did you mean temperature?"),
        ("sedes=[1]", "sedes: unknown key; did you mean seeds?"),
        ("dataset.pirs=1", "dataset.pirs: unknown key; did you mean pairs?"),
        ("reward_models.low.factr=1", "reward_models.low.factr: unknown key; did you mean factor?"),
        ("algorithms.rloo.stps=1", "algorithms.rloo.stps: unknown key; did you mean steps?"),
        (
            "policies.tuned.finetuning.optimiser.lerning_rate=1",
            "policies.tuned.finetuning.optimiser.lerning_rate: unknown key; did you mean learning_rate?",
        ),
        ("reward_models.low.kind=scald", "reward_models.low.kind: no kind 'scald'; did you mean scaled?"),
        ("algorithms.rloo.kind=ppo", "algorithms.rloo.kind: no kind 'ppo'; known: grpo, rloo"),
        ("dataset.source=lokal", "dataset.source: no source 'lokal'; did you mean local?"),
        ("reward_models.low=1", "reward_models.low: expected a section, got 1"),
        ("sampling.responses=1", "sampling.responses: Input should be greater than or equal to 2, got 1"),
        ("ground_truth=golt", "ground_truth: no 'golt' there; did you mean gold?"),
        ("policies.plain.base=tinny", "policies.plain.base: no 'tinny' there; did you mean tiny?"),
        ("reward_models.low.of=golden", "reward_models.low.of: no 'golden' there; did you mean gold?"),
        ('grid=[{ policies = ["plane"] }]', "grid.0.policies: no 'plane' there; did you mean plain?"),
        ('grid=[{ policy = ["plain"] }]', "grid.0.policy: unknown key; did you mean policies?"),
        ('grid=[{}, { reward_models = ["lo"] }]', "grid.1.reward_models: no 'lo' there; did you mean low?"),
    ],
)
def test_what_is_unknown_is_told_with_its_place_and_the_nearest(tmp_path: Path, change: str, told: str):
    assert refused(tmp_path, change) == told


def test_a_missing_section_is_told(tmp_path: Path):
    file = written(tmp_path, 'name = "x"\n')
    with pytest.raises(StudyError) as caught:
        Study.read(file)
    sections = ("dataset", "bases", "policies", "reward_models", "algorithms")
    assert str(caught.value).splitlines() == [f"{file}: {section}: missing; add it" for section in sections]


def test_every_fault_of_the_sections_is_told_at_once(tmp_path: Path):
    told = refused(tmp_path, "sedes=[1]", "reward_models.low.kind=scald", "algorithms.rloo.steps=0")
    assert told.splitlines() == [
        "reward_models.low.kind: no kind 'scald'; did you mean scaled?",
        "algorithms.rloo.steps: Input should be greater than or equal to 1, got 0",
        "sedes: unknown key; did you mean seeds?",
    ]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ('base = "plan"', "reward_models.off.base: no 'plan' there; did you mean plain?"),
        (
            'base = "plain"\non_policy = 0.5\non_policy_of = "tined"',
            "reward_models.off.on_policy_of: no 'tined' there; did you mean tuned?",
        ),
    ],
)
def test_a_trained_reward_model_names_policies_that_are_there(tmp_path: Path, section: str, told: str):
    training = "training = { steps = 1, optimiser = { learning_rate = 0.1 } }"
    assert refused(tmp_path, more=f'[reward_models.off]\nkind = "explicit"\n{section}\n{training}\n') == told


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ('higher = "gold"\nlower = "lo"', "claims.0.lower: no 'lo' there; did you mean low?"),
        (
            'reward_model = "low"\npolicy_higher = "plain"\npolicy_lower = "tunde"',
            "claims.0.policy_lower: no 'tunde' there; did you mean tuned?",
        ),
        ('ladder = ["low", "golt"]', "claims.0.ladder: no 'golt' there; did you mean gold?"),
        (
            'higher = "gold"\nlower = "low"\nalgorithm = "rlo"',
            "claims.0.algorithm: no 'rlo' there; did you mean rloo?",
        ),
    ],
)
def test_a_claim_names_what_is_there(tmp_path: Path, claim: str, told: str):
    assert refused(tmp_path, more=f'[[claims]]\nname = "a"\nclaim = "it is so"\n{claim}\n') == told


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("pairs = 50", 'path = "./none"', "dataset"),
        (
            '{ source = "world", count = 10 }',
            '{ source = "local", path = "./none" }',
            "policies.tuned.demonstrations",
        ),
        ('kind = "truth"\nfunction = "world"', 'kind = "pretrained"\npath = "./none"', "reward_models.gold"),
        ("[policies.plain]", '[bases.big]\nkind = "pretrained"\npath = "./none"\n[policies.plain]', "bases.big"),
    ],
)
def test_a_path_with_nothing_at_it_is_told(tmp_path: Path, old: str, new: str, where: str):
    text = STUDY.replace('source = "world"', 'source = "local"', 1) if where == "dataset" else STUDY
    file = written(tmp_path, text.replace(old, new, 1))
    with pytest.raises(StudyError) as caught:
        Study.read(file)
    what = "a file, a folder or a hub id" if "pretrained" in new else "a file or a folder that is"
    told = f"{where}.path: {tmp_path / 'none'}: nothing there; give {what}"
    assert str(caught.value) == f"{file}: {told}"


def test_a_local_file_is_no_hub_id(tmp_path: Path):
    told = "dataset.path: pairs.csv: nothing there; give a file or a folder that is"
    assert refused(tmp_path, 'dataset={ source = "local", path = "pairs.csv" }') == told
    told = "policies.tuned.demonstrations.path: rows/all: nothing there; give a file or a folder that is"
    assert refused(tmp_path, 'policies.tuned.demonstrations={ source = "local", path = "rows/all" }') == told
    hub = Study.read(written(tmp_path), ['dataset={ source = "hub", path = "some/pairs" }'])
    assert hub.dataset.path == "some/pairs"


def test_sources_are_looked_into_before_anything_is_spent(tmp_path: Path):
    Study.read(written(tmp_path)).check_sources()
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": ""}\n')
    with pytest.raises(StudyError, match=r"pairs.jsonl: row 1: rejected: empty; remove the row$"):
        Study.read(written(tmp_path, LOCAL)).check_sources()


@pytest.mark.parametrize(
    ("half", "told"),
    [
        ("finetuning = { steps = 2, optimiser = { learning_rate = 0.1 } }", "demonstrations: missing, so there is"),
        ('demonstrations = { source = "chosen" }', "finetuning: missing, so the demonstrations would not be learnt; "),
    ],
)
def test_half_of_a_finetuning_is_refused(tmp_path: Path, half: str, told: str):
    said = refused(tmp_path, more=f'[policies.half]\nbase = "tiny"\n{half}\n')
    assert said.startswith(f"policies.half.{told}")
    assert "leave " in said


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ('source = "local"', 'source = "local" needs path, a file of prompts and completions'),
        ('source = "chosen"\npath = "rows.jsonl"', "path is for source = \"local\", not for 'chosen'; leave one"),
        ('source = "chosen"\nquality = "weak"', "quality is for source = \"world\", not for 'chosen'; leave"),
        ("count = 0", "count: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_demonstrations_that_do_not_fit_their_source_are_refused(tmp_path: Path, section: str, told: str):
    tuning = "finetuning = { steps = 2, optimiser = { learning_rate = 0.1 } }"
    more = f'[policies.some]\nbase = "tiny"\n{tuning}\n[policies.some.demonstrations]\n{section}\n'
    said = refused(tmp_path, more=more)
    assert said.startswith("policies.some.demonstrations")
    assert told in said


OWN = """
[reward_models.own]
kind = "explicit"
base = "plain"
training = { steps = 1, optimiser = { learning_rate = 0.1 } }
"""


def test_pairs_of_a_policy_need_a_ground_truth_that_labels_them(tmp_path: Path):
    file = written(
        tmp_path, STUDY.replace('ground_truth = "gold"', "") + OWN + 'on_policy_of = "plain"\non_policy = 0.5'
    )
    with pytest.raises(
        StudyError, match=r"reward_models\.own\.on_policy: .* the study has none; name a ground_truth, or"
    ):
        Study.read(file)
    assert Study.read(file, ["reward_models.own.on_policy=0"]).ground_truth is None


def test_pairs_are_drawn_from_somebody_and_in_some_share(tmp_path: Path):
    told = "reward_models.own: on_policy > 0 needs on_policy_of, the policy that the pairs are drawn from"
    assert refused(tmp_path, more=f"{OWN}on_policy = 0.5\n") == told
    told = "reward_models.own.on_policy_of: no share of the pairs is drawn from 'plain', since on_policy is not said"
    assert refused(tmp_path, more=f'{OWN}on_policy_of = "plain"\n').startswith(told)
    series = f'{OWN}on_policy_of = "plain"\non_policy = 0.0\n'  # one end of a series of shares
    assert Study.read(written(tmp_path, STUDY + series)).reward_models["own"].on_policy == 0


def test_collecting_takes_what_moves_what_is_collected_and_no_more(tmp_path: Path):
    one = Study.read(written(tmp_path))
    assert refused(tmp_path, "collecting.responses=4").startswith("collecting.responses: unknown key")
    fewer = Study.read(written(tmp_path), ["collecting.prompts=3", "collecting.batch_size=1"]).collecting
    assert fewer.prompts == 3
    assert digest(identity(fewer)) != digest(identity(one.collecting))
    faster = Study.read(written(tmp_path), ["collecting.batch_size=1"]).collecting
    assert digest(identity(faster)) == digest(identity(one.collecting))


def test_a_tokenizer_is_read_from_the_folder_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("tokenizer", "elsewhere/mine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pairs.jsonl").write_text("")
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = written(tmp_path, LOCAL.replace('path = "pairs.jsonl"', 'path = "pairs.jsonl"\ntokenizer = "tokenizer"'))
    assert Study.read(file).dataset.tokenizer == str(tmp_path / "tokenizer")
    assert Study.read(file, ["dataset.tokenizer=mine"]).dataset.tokenizer == str(tmp_path / "elsewhere" / "mine")
    assert Study.read(file, ["dataset.tokenizer=some/hub-id"]).dataset.tokenizer == "some/hub-id"
    with pytest.raises(StudyError, match=r"dataset\.tokenizer: .*none: nothing there"):
        Study.read(file, ["dataset.tokenizer=./none"])


def test_labels_are_read_from_the_folder_of_the_study_and_looked_into_before_anything_is_spent(tmp_path: Path):
    rows = [{"policy": name, "prompt": "p", "responses": ["a", "b"], "labels": [0, 1]} for name in ("plain", "tuned")]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labelled = '[foresight]\nlabels = "labels.jsonl"\n'
    study = Study.read(written(tmp_path, STUDY + labelled))
    assert study.foresight.labels.path == str(tmp_path / "labels.jsonl")
    study.check_sources()
    (tmp_path / "labels.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(
        StudyError, match=r"^foresight\.labels: .*labels\.jsonl: policy: no row is of 'tuned'; known: plain"
    ):
        study.check_sources()
    Study.read(tmp_path / "study.toml", ['grid=[{policies=["plain"]}]']).check_sources()
    section = '[foresight.labels]\npath = "labels.jsonl"\npolicy = "plain"\n'
    assert Study.read(written(tmp_path, STUDY + section)).foresight.labels.path == str(tmp_path / "labels.jsonl")
    assert "foresight.labels: none.jsonl: nothing there; give a file of prompts" in refused(
        tmp_path, "foresight.labels=none.jsonl"
    )


def test_a_tokenizer_that_is_none_is_refused_before_anything_is_spent(tmp_path: Path):
    (tmp_path / "none").mkdir()
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = Study.read(written(tmp_path, LOCAL), [f"dataset.tokenizer={tmp_path / 'none'}"])
    with pytest.raises(StudyError, match=r"^dataset\.tokenizer: .*none cannot be loaded"):
        study.check_sources()


def test_demonstrations_are_looked_into_before_anything_is_spent(tmp_path: Path):
    file = tmp_path / "shown.jsonl"
    text = STUDY.replace('{ source = "world", count = 10 }', '{ source = "local", path = "shown.jsonl" }')
    for row, told in (
        ("{", "row 1: not JSON ("),
        ('{"prompt": "p"}', "row 1: completion: missing; every row needs prompt and completion"),
        ('{"prompt": " ", "completion": "c"}', "row 1: prompt: empty; remove the row"),
    ):
        file.write_text(f"{row}\n")
        with pytest.raises(StudyError) as caught:
            Study.read(written(tmp_path, text)).check_sources()
        assert str(caught.value).startswith(f"policies.tuned.demonstrations.path: {file}: {told}")


def test_a_study_that_is_not_utf8_is_told(tmp_path: Path):
    file = tmp_path / "study.toml"
    file.write_bytes(b'name = "caf\xe9"\n')
    with pytest.raises(StudyError, match=f"^{file}: not TOML: .*utf-8"):
        Study.read(file)


def test_reward_models_made_of_themselves_are_refused(tmp_path: Path):
    ring = """
    [reward_models.one]
    kind = "squashed"
    of = "two"
    [reward_models.two]
    kind = "ensemble"
    of = ["gold", "one"]
    """
    assert refused(tmp_path, more=ring) == "reward_models.one.of: made of itself (one -> two -> one); name another"
    itself = refused(tmp_path, "reward_models.low.of=low")
    assert itself == "reward_models.low.of: made of itself (low -> low); name another"


def test_reward_models_may_share_a_part_without_being_a_ring(tmp_path: Path):
    more = '[reward_models.mean]\nkind = "ensemble"\nof = ["gold", "low", "gold"]\n'
    assert Study.read(written(tmp_path, STUDY + more)).reward_models["mean"].components == ("gold", "low", "gold")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seeds=[1, 1]", "seeds: 1 more than once; name each seed once"),
        ("seeds=[-1]", "seeds.0: Input should be greater than or equal to 0, got -1"),
        ("seeds=[1, 4294967296]", "seeds.1: Input should be less than 4294967296, got 4294967296"),
        ("grid=[]", "grid: empty, so no cell is left; leave it out for all cells"),
        ("bases={}", "bases: empty, so no cell is left; name one at least"),
        ("policies={}", "policies: empty, so no cell is left; name one at least"),
        ("reward_models={}", "reward_models: empty, so no cell is left; name one at least"),
        ("algorithms={}", "algorithms: empty, so no cell is left; name one at least"),
        (
            "grid=[{}, { policies = [] }]",
            "grid.1.policies: empty, so no cell is left; name one at least, or leave it out for all",
        ),
        (
            "grid=[{ seeds = [2, 5] }]",
            "grid.0.seeds: 5 not among the study's seeds (1, 2); add it there, or leave it out here",
        ),
        (
            'foresight.calibrate=["gold", "low", "gold"]',
            "foresight.calibrate: a name stands there more than once; name it once",
        ),
    ],
)
def test_a_study_without_a_cell_or_with_a_seed_that_is_none_is_refused(tmp_path: Path, change: str, told: str):
    assert refused(tmp_path, change) == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            'grid=[{ reward_models = ["low"] }]',
            ".0: the grid teaches nobody with 'gold', so that it calibrates nothing; "
            "add it to a grid's reward_models, or leave it out here",
        ),
        ("ground_truth=", ": no ground_truth measures what RLHF gains; name one, or leave this out"),
        (
            "foresight.labels=labels.jsonl",
            ": nothing measures what RLHF gains by labels in a file, so that it calibrates nothing; "
            "leave one of both out",
        ),
    ],
)
def test_what_could_calibrate_nothing_is_refused(tmp_path: Path, change: str, told: str):
    assert refused(tmp_path, 'foresight.calibrate=["gold"]', change) == f"foresight.calibrate{told}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("sampling.temperature=inf", "sampling.temperature: Input should be a finite number, got inf"),
        ("measuring.threshold=nan", "measuring.threshold: Input should be a finite number, got nan"),
        ("sampling.batch_size=0", "sampling.batch_size: Input should be greater than or equal to 1, got 0"),
        ("collecting.batch_size=-4", "collecting.batch_size: Input should be greater than or equal to 1, got -4"),
        ("scoring.batch_tokens=0", "scoring.batch_tokens: Input should be greater than or equal to 1, got 0"),
        ("evaluation.batch_size=0", "evaluation.batch_size: Input should be greater than or equal to 1, got 0"),
        ("algorithms.rloo.top_p=2", "algorithms.rloo.top_p: Input should be less than or equal to 1, got 2"),
        ("bases.tiny.documents=0", "bases.tiny.documents: Input should be greater than or equal to 1, got 0"),
        ("bases.tiny.layers=0", "bases.tiny.layers: Input should be greater than or equal to 1, got 0"),
        (
            "bases.tiny.hidden=12",
            "bases.tiny: hidden = 12 is no even number for each of heads = 4; take a multiple of 8 as hidden, or other"
            " heads",
        ),
        (
            "policies.tuned.finetuning.micro_batch=5",
            "policies.tuned.finetuning: micro_batch = 5 does not divide batch_size = 32; take a divisor",
        ),
    ],
)
def test_numbers_that_would_fail_only_once_something_was_spent_are_refused(tmp_path: Path, change: str, told: str):
    assert refused(tmp_path, change) == told


def test_a_step_takes_no_more_prompts_than_the_policy_split_has(tmp_path: Path):
    rows = [{"prompt": f"p{index}", "chosen": "a", "rejected": "b"} for index in range(20)]
    rows += [{**row, "chosen": "c"} for row in rows]  # two pairs a prompt
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file, more = written(tmp_path, LOCAL), "algorithms.unused={ kind = 'grpo', steps = 1, optimiser.learning_rate = 1 }"
    grid = "grid=[{ algorithms = ['rloo'] }]"
    Study.read(file, ["algorithms.rloo.prompts_per_step=6", more, grid]).check_sources()  # 0.3 of 20
    study = Study.read(file, ["algorithms.rloo.prompts_per_step=7"])
    with pytest.raises(StudyError) as caught:
        study.check_sources()
    assert str(caught.value) == (
        "algorithms.rloo.prompts_per_step: 7 prompts a step, and the policy split of seed 1 has 6 distinct ones;"
        " lower it to 6, or raise dataset.policy_fraction or the number of pairs"
    )


def test_pairs_are_prepared_once_when_looked_into_and_not_at_all_when_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, whole = [], WorldSource.rows
    monkeypatch.setattr(WorldSource, "rows", lambda self, seed: (asked.append(seed), whole(self, seed))[1])
    Study.read(written(tmp_path)).check_sources()
    assert asked == [1]
    Study.read(written(tmp_path), ['dataset={ source = "hub", path = "some/pairs" }']).check_sources()


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("", "this one names none of them"),
        ('higher = "gold"', "this one names higher"),
        ('reward_model = "low"\npolicy_higher = "plain"', "this one names reward_model, policy_higher"),
        ('higher = "gold"\nlower = "low"\nladder = ["gold", "low"]', "this one names higher, lower, ladder"),
        ("ladder = []", "this one names none of them"),
        ('ladder = ["gold", "low"]\nassuming = ["less accurate"]', "assuming is for two sides, and a ladder has none"),
        (
            'policy = "plain"\nreward_model = "low"\npolicy_higher = "plain"\npolicy_lower = "tuned"',
            "policy says nothing beside policy_higher and policy_lower; leave it out",
        ),
    ],
)
def test_a_claim_of_no_form_or_of_two_is_refused(tmp_path: Path, claim: str, told: str):
    said = refused(tmp_path, more=f'[[claims]]\nname = "a"\nclaim = "it is so"\n{claim}\n')
    assert said.startswith("claims.0: ")
    assert told in said


def test_a_base_that_reads_of_no_danger_is_where_it_was_before_there_was_any(tmp_path: Path):
    before, told, more = (
        Study.read(written(tmp_path), [f"bases.tiny.danger={share}"] if share else []).bases["tiny"]
        for share in ("", "0", "0.1")
    )
    assert "danger" not in identity(before)
    assert digest(identity(before)) == digest(identity(told)) != digest(identity(more))
    assert len(before.tokenizer()) == len(told.tokenizer()) < len(more.tokenizer())


def test_dangerous_prompts_are_refused_where_a_base_has_no_tokens_for_them(tmp_path: Path):
    topics = 'dataset.topics=["vault", "kitchen"]'
    said = refused(tmp_path, topics)
    assert said.startswith("bases.tiny.danger: 0, so that the base has no tokens for dataset.topics = ['vault']; set ")
    assert Study.read(written(tmp_path), [topics, "bases.tiny.danger=0.1"]).bases["tiny"].danger == 0.1
    assert Study.read(written(tmp_path), ['dataset.topics=["kitchen"]'])


def test_a_module_of_the_users_that_fails_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "failing_gold.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = refused(tmp_path, "reward_models.gold.function=failing_gold:f")
    told = "cannot import 'failing_gold' (ZeroDivisionError: division by zero); mend it"
    assert said == f"reward_models.gold.function: {told}"


# -- cells ------------------------------------------------------------------------------------------------------------


def test_cells_are_all_combinations_unless_a_grid_says_which(tmp_path: Path):
    cells = list(Study.read(written(tmp_path)).cells())
    assert len(cells) == len(set(cells)) == 2 * 2 * 2
    assert cells[:3] == [
        Cell(1, "plain", "gold", "rloo"),
        Cell(1, "plain", "low", "rloo"),
        Cell(1, "tuned", "gold", "rloo"),
    ]


def test_grids_are_added_up_and_no_cell_comes_twice(tmp_path: Path):
    grid = 'grid=[{ policies = ["plain"], reward_models = ["low"] }, { policies = ["plain"], seeds = [2] }]'
    assert list(Study.read(written(tmp_path), [grid]).cells()) == [
        Cell(1, "plain", "low", "rloo"),
        Cell(2, "plain", "low", "rloo"),
        Cell(2, "plain", "gold", "rloo"),
    ]


def test_a_study_that_names_another_source_takes_nothing_of_the_old_one(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    file = tmp_path / "mine.toml"
    file.write_text('extends = "pocket"\n[dataset]\nsource = "local"\npath = "pairs.jsonl"\n')
    assert Study.read(file).dataset.path == str(tmp_path / "pairs.jsonl")  # pocket's says `pairs = 1000`


def test_a_study_without_a_seed_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('extends = "pocket"\nseeds = []\n')
    with pytest.raises(StudyError, match="seeds: empty, so no cell is left; name one at least"):
        Study.read(file)


@pytest.fixture(scope="module")
def scorer(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with a head that scores."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("scorer")
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


# -- texts that are longer than a model holds -------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "changes", "told"), [
    (3, [], True), (3, ["diagnosing.split=test"], False), (3, ["diagnosing={limit=1}"], False), (None, [], False),
])  # fmt: skip
def test_pairs_to_be_diagnosed_are_read_by_the_bases_whatever_the_question(tmp_path, place, changes, told):
    rows = [{"id": str(n), "split": "test" if n > 15 else "train", "prompt": f"tell me {n}", "chosen": " oh",
             "rejected": " a" * (150 if n == place else 1)} for n in range(20)]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = LOCAL.replace('path = "pairs.jsonl"', f'path = "{tmp_path}/pairs.jsonl"\npolicy_fraction = 0.3')
    study = Study.read(written(tmp_path, text), ["diagnosing={}", *changes])
    if not told:
        return study.check_sources()
    with pytest.raises(StudyError, match=r"^diagnosing: dataset \(.*\): row 3 has \d+ tokens, but bases\.tiny holds"):
        study.check_sources()
    Study.read(written(tmp_path, text)).check_sources()


@pytest.mark.parametrize(
    ("split", "more", "told"),
    [
        (
            "train",
            "",
            "reward_models.mine: {file}: row long has 133 tokens, but bases.own holds 128; leave longer pairs",
        ),
        ("train", "reward_models.mine.training.max_length=128", ""),
        ("train", "reward_models.mine.pairs=1", ""),
        (
            "test",
            "",
            "reward_models.mine: {file}: row long has 133 tokens, but bases.own holds 128; leave longer texts",
        ),
        ("test", "reward_models.mine.truncate=true", "reward_models.theirs: {file}: row long has 133 tokens, but"),
        ("test", "reward_models.theirs.max_length=8", "reward_models.mine: {file}: row long has"),
    ],
)
def test_a_text_that_a_local_model_does_not_hold_is_told_before_anything_is_spent(
    tmp_path: Path, base: Path, scorer: Path, split: str, more: str, told: str
):
    rows = [{"prompt": f"tell me {n}", "chosen": " oh", "rejected": " dull", "split": "train" if n % 2 else "test"}
            for n in range(20)]  # fmt: skip
    rows += [{"id": "long", "prompt": "tell me of", "chosen": " oh", "rejected": " dull" * 128, "split": split}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (
        LOCAL.replace("prompts_per_step = 4", "prompts_per_step = 2")
        + f"""
    [bases.own]
    kind = "pretrained"
    path = "{base}"
    [policies.own]
    base = "own"
    [reward_models.mine]
    kind = "explicit"
    base = "own"
    training = {{ steps = 1, optimiser = {{ learning_rate = 0.1 }} }}
    [reward_models.theirs]
    kind = "pretrained"
    path = "{scorer}"
    """
    )
    study = Study.read(written(tmp_path, text), [more] if more else [])
    if not told:
        study.check_sources()
        return
    with pytest.raises(StudyError) as caught:
        study.check_sources()
    assert str(caught.value).startswith(told.format(file=f"dataset ({tmp_path / 'pairs.jsonl'})"))


def test_a_language_model_that_is_to_score_is_refused_before_anything_is_spent(tmp_path, base, scorer):
    (tmp_path / "pairs.jsonl").write_text("".join(
        json.dumps({"prompt": f"tell me {n}", "chosen": " oh", "rejected": " dull"}) + "\n" for n in range(40)
    ))  # fmt: skip
    for path, refused in ((base, True), (scorer, False)):
        text = LOCAL + f'[reward_models.theirs]\nkind = "pretrained"\npath = "{path}"\n'
        study = Study.read(written(tmp_path, text))
        if not refused:
            study.check_sources()
            continue
        told = rf"^reward_models\.theirs\.path: {path}: LlamaForCausalLM is a language model and scores nothing; give a"
        with pytest.raises(StudyError, match=told):
            study.check_sources()


def test_what_is_sieved_is_refused_where_no_policy_is_sampled():
    from flows.inquiry import STUDIES

    told = r"reward_models\.s\.kind: sieved must know rewards of a policy's samples"
    with pytest.raises(StudyError, match=told):
        Study.read(STUDIES / "shift.toml", ['reward_models.s={kind="sieved",of="explicit"}'])
