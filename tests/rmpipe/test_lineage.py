"""What MLflow remembers of a finished study, asked through its own client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rmpipe import card
from rmpipe.artifact import Report
from rmpipe.journal import Execution
from rmpipe.lineage import Ledger, model_path

POLICIES, MODELS = ("weak", "strong"), ("truth", "offset", "off")


@pytest.fixture(scope="module")
def client(tiny):
    """A client of the finished store's database."""
    return Ledger(tiny.home).client


@pytest.fixture(scope="module")
def runs(client):
    """Every run, by the address of what it made; the study's own by its name."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, max_results=1000)
    by_address = {run.data.tags.get("rmpipe.address", run.data.tags["rmpipe.study"]): run for run in found}
    assert len(by_address) == len(found)
    return by_address


def read_models(client, run):
    """Address -> logged model, of the models that a run read."""
    models = [client.get_logged_model(item.model_id) for item in run.inputs.model_inputs]
    return {model.tags["rmpipe.address"]: model for model in models}


def sets(run, context):
    """Addresses of the data sets that a run has read or made."""
    found = set()
    for item in run.inputs.dataset_inputs:
        if {tag.key: tag.value for tag in item.tags}["mlflow.data.context"] == context:
            found.add(f"{item.dataset.name.split()[0]}/{item.dataset.digest}")
    return found


def maker(client, model):
    """The run that made a model, which must say so itself."""
    run = client.get_run(model.source_run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    return run


# -- executions -----------------------------------------------------------------------------------------------------


def test_every_execution_is_a_finished_run_below_the_run_of_its_study(tiny, runs):
    parent = runs["tiny"].info.run_id
    records = tiny.records()
    assert set(runs) == {"tiny", *records}
    for address, record in records.items():
        run = runs[address]
        assert run.info.run_id == record["run_id"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent
    assert "mlflow.parentRunId" not in runs["tiny"].data.tags


def test_a_run_carries_its_configuration_its_labels_and_its_numbers(tiny, runs):
    address = tiny.address("align", policy="weak", reward_model="off", algorithm="rloo")
    run, record = runs[address], tiny.records()[address]
    assert run.data.params["kl_coefficient"] == "0.05"
    assert run.data.params["optimiser.learning_rate"] == "0.004"
    assert run.data.params["runtime.checkpoint_seconds"] == "60.0"
    assert run.data.tags["rmpipe.policy"] == "weak"
    assert run.data.tags["rmpipe.input.teacher"] == tiny.address("train", reward_model="off")
    for name, value in record["metrics"].items():
        assert run.data.metrics[name] == pytest.approx(value)


def test_a_training_has_a_curve(tiny, client, runs):
    run = runs[tiny.address("align", policy="strong", reward_model="truth", algorithm="rloo")]
    looks = client.get_metric_history(run.info.run_id, "proxy")
    assert [point.step for point in looks] == [0, 3]


def test_texts_are_on_the_page_of_the_run_that_made_them(tiny, runs):
    def shown(address):
        folder = Path(runs[address].info.artifact_uri.removeprefix("file://"))
        told = json.loads((folder / "texts.json").read_text())
        return told["columns"], told["data"]

    columns, pairs = shown(tiny.address("prepare"))
    assert columns == ["id", "split", "prompt", "chosen", "rejected"]
    assert len(pairs) == 50
    columns, responses = shown(tiny.address("sample", policy="weak"))
    assert columns == ["prompt", "response", "tokens"]
    assert len(responses) == 8 * 4
    assert all(isinstance(prompt, str) and 1 <= tokens <= 12 for prompt, _, tokens in responses)


def test_the_studys_run_lists_every_address_and_keeps_the_report_and_the_ranking(tiny, runs):
    parent = runs["tiny"]
    assert parent.info.status == "FINISHED"
    assert {name: parent.data.metrics[f"stages.{name}"] for name in ("made", "hit", "failed")} == {
        "made": 41,
        "hit": 0,
        "failed": 0,
    }
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    listed = json.loads((folder / "addresses.json").read_text())
    assert {row[listed["columns"].index("address")] for row in listed["data"]} == set(tiny.records())
    (report,) = tiny.home.glob("store/report/*/report.html")
    assert (folder / "report.html").read_bytes() == report.read_bytes()
    ranking = json.loads((folder / "ranking.json").read_text())
    assert len(ranking["data"]) == 6
    assert ranking["columns"][:5] == ["rank", "reward_model", "policy", "algorithm", "truth_gain"]
    assert {"variance", "variance.low", "variance.high", "truth_gain.low"} <= set(ranking["columns"])


def test_the_studys_run_says_the_answer_and_leads_to_all_it_came_from(tiny, runs, client):
    parent = runs["tiny"]
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    (rank,) = tiny.home.glob("store/rank/*/answer.json")
    answer, note = json.loads(rank.read_text()), parent.data.tags[card.NOTE]
    assert note.startswith(answer["question"])
    assert answer["sentences"][0] in note
    page = f"#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}/artifacts"
    for name in re.findall(re.escape(page) + r"/([^)]+)", note):
        assert (folder / name).exists()
    assert f"[the report]({page}/report.html)" in note
    for name in re.findall(r"get-artifact\?path=([^&]+)&", note):
        assert (folder / name).read_text().startswith("<svg width=")
    stages, ranking = (folder / "stages.md").read_text(), (folder / "ranking.md").read_text()
    records = tiny.records()
    made = {address: record["run_id"] for address, record in records.items()}
    assert all(f"[{record['title']}](#/runs/{record['run_id']})" in stages for record in records.values())
    cells = {run for address, run in made.items() if address.split("/")[0] in ("derive", "train", "measure", "align")}
    assert set(re.findall(r"#/runs/(\w+)", ranking)) == cells
    (report,) = tiny.records("report")
    assert Ledger(tiny.home).report_of(parent.info.run_id) == report
    assert Ledger(tiny.home).report_of(records[report]["run_id"]) is None
    assert parent.info.run_name == "tiny · 41 of 41 made"


# -- from a policy back to where it came from -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("teacher", MODELS)
def test_from_a_trained_policy_one_goes_back_to_its_teacher_its_preferences_and_its_base(tiny, client, policy, teacher):
    version = client.get_model_version_by_alias(f"tiny-aligned-{policy}-{teacher}-rloo", "seed-1")
    run = client.get_run(version.run_id)
    read = read_models(client, run)
    stage = "train" if teacher == "off" else "derive"
    initial, taught = tiny.address("finetune", policy=policy), tiny.address(stage, reward_model=teacher)
    assert set(read) == {initial, taught, tiny.address("derive", reward_model="truth")}
    assert {read[initial].model_type, read[taught].model_type} == {"policy", "reward-model"}

    back = read_models(client, maker(client, read[initial]))
    assert set(back) == {tiny.address("pretrain", base="world")}

    made_from = maker(client, read[taught])
    assert sets(made_from, "read") == {tiny.address("relabel") if teacher == "off" else tiny.address("prepare")}
    expected = {"off": {tiny.address("finetune", policy="weak")}, "truth": set()}
    assert set(read_models(client, made_from)) == expected.get(teacher, {tiny.address("derive", reward_model="truth")})


def test_the_page_of_a_trained_policy_leads_through_its_teacher_to_its_preferences_and_its_base(tiny, runs):
    def linked(address):
        return re.findall(r"\(#/runs/(\w+)\)", runs[address].data.tags[card.NOTE])

    def run(stage, **labels):
        return tiny.records()[tiny.address(stage, **labels)]["run_id"]

    told = linked(tiny.address("align", policy="weak", reward_model="off", algorithm="rloo"))
    teacher = linked(tiny.address("train", reward_model="off"))
    assert run("train", reward_model="off") in told
    assert {run("relabel"), run("prepare"), run("finetune", policy="weak"), run("pretrain", base="world")} <= {*told}
    assert {run("relabel"), run("prepare"), run("finetune", policy="weak"), run("pretrain", base="world")} <= {*teacher}
    assert runs["tiny"].info.run_id in told


def test_from_preferences_one_goes_back_to_the_run_that_made_them(tiny, runs):
    labelled = tiny.address("relabel")
    makers = {address for address, run in runs.items() if labelled in sets(run, "made")}
    assert makers == {labelled}
    assert sets(runs[labelled], "read") == {tiny.address("prepare")}
    readers = {address.split("/")[0] for address, run in runs.items() if labelled in sets(run, "read")}
    assert readers == {"train", "score", "audit"}


def test_from_scores_one_goes_back_to_the_rollouts_and_the_reward_model(tiny, client, runs):
    run = client.get_run(runs[tiny.address("score", policy="weak", reward_model="off")].info.run_id)
    assert sets(run, "read") == {tiny.address("sample", policy="weak")}
    assert set(read_models(client, run)) == {tiny.address("train", reward_model="off")}


def test_the_numbers_about_a_reward_model_stand_with_it_for_each_policy(tiny, client):
    told = json.loads(tiny.started[0].output.read_text())["rows"]
    for row in told:
        stage = "train" if row["reward_model"] == "off" else "derive"
        record = tiny.records()[tiny.address(stage, reward_model=row["reward_model"])]
        metrics = {item.key: item.value for item in client.get_logged_model(record["model_id"]).metrics}
        for name in ("variance", "accuracy_on", "accuracy_off"):
            assert metrics[f"{row['policy']}.{name}"] == pytest.approx(row[name]["value"], abs=1e-6)
        for name in ("proxy_gain", "truth_gain"):
            assert metrics[f"{row['policy']}.rloo.{name}"] == pytest.approx(row[name]["value"], abs=1e-6)


def test_the_card_of_a_reward_model_shows_them_on_its_run_its_model_and_its_version(tiny, client, runs):
    address = tiny.address("train", reward_model="off")
    record = tiny.records()[address]
    version = client.get_model_version_by_alias("tiny-reward-model-off", "seed-1")
    note = client.get_logged_model(record["model_id"]).tags[card.NOTE]
    assert note == runs[address].data.tags[card.NOTE]
    assert version.description == f"{note}\n\nFiles: `{tiny.home / 'store' / address}`"
    assert note.startswith(f"train off · seed 1: {record['summary']}")
    for policy in POLICIES:
        measured = tiny.records()[tiny.address("measure", policy=policy, reward_model="off")]
        aligned = tiny.records()[tiny.address("align", policy=policy, reward_model="off", algorithm="rloo")]
        lines = [line.replace("&nbsp;", "") for line in note.splitlines() if line.startswith(f"| [{policy}")]
        numbers = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
        assert numbers[0][0] == f"[{policy}](#/runs/{measured['run_id']})"
        assert numbers[0][1] == f"{measured['metrics']['variance']:.2f}"
        assert numbers[0][2] == f"{measured['metrics']['accuracy_on']:.2f}"
        assert numbers[1][0] == f"[{policy}.rloo](#/runs/{aligned['run_id']})"
        assert numbers[1][1] == f"{aligned['metrics']['truth_gain']:.2f}"
    shown = json.loads(client.get_logged_model(record["model_id"]).tags["mlflow.modelVersions"])
    assert shown == [{"name": "tiny-reward-model-off", "version": str(version.version)}]


# -- registered models ----------------------------------------------------------------------------------------------


def test_every_model_is_registered_once_with_a_card_and_points_into_the_store(tiny, client):
    versions = client.search_model_versions("")
    models = {a for a, record in tiny.records().items() if record["kind"] in ("Weights", "Policy", "RewardModel")}
    assert Counter(version.tags["rmpipe.address"] for version in versions) == Counter(models)
    for version in versions:
        address = version.tags["rmpipe.address"]
        assert version.source.removeprefix("file://").startswith(str(tiny.home / "store" / address))
        assert address in version.description
        assert version.status == "READY"


def test_a_registered_policy_loads_into_transformers_and_writes(tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = model_path("models:/tiny-aligned-weak-off-rloo@seed-1", tiny.home)
    address = tiny.address("align", policy="weak", reward_model="off", algorithm="rloo")
    assert path == tiny.home / "store" / address / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    ids = tokenizer("tell me", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], model.config.vocab_size)


LOAD = """
import sys
import mlflow
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from rmpipe.lineage import model_path

for kind, uri in ((AutoModelForCausalLM, sys.argv[1]), (AutoModelForSequenceClassification, sys.argv[2])):
    ours, theirs = model_path(uri), mlflow.artifacts.download_artifacts(uri)
    print(kind.from_pretrained(ours).num_parameters(), kind.from_pretrained(theirs).num_parameters(), ours, theirs)
"""


def test_registered_models_load_by_their_alias_from_the_home_of_the_environment_and_through_mlflow_itself(tiny):
    uris = ["models:/tiny-aligned-weak-off-rloo@seed-1", "models:/tiny-reward-model-off@seed-1"]
    environment = tiny.environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{tiny.home / 'mlflow.db'}"}
    before = sorted(tiny.home.rglob("*.safetensors"))
    command = [sys.executable, "-W", "ignore", "-c", LOAD, *uris]
    done = subprocess.run(command, env=environment, cwd=tiny.folder, capture_output=True, text=True, check=True)
    expected = [
        tiny.address("align", policy="weak", reward_model="off", algorithm="rloo"),
        tiny.address("train", reward_model="off"),
    ]
    for line, address in zip(done.stdout.splitlines(), expected, strict=True):
        one, other, ours, theirs = line.split()
        assert int(one) == int(other) > 0
        assert Path(ours) == Path(theirs) == tiny.home / "store" / address / "model"
    assert sorted(tiny.home.rglob("*.safetensors")) == before


def test_a_registered_reward_model_loads_into_transformers_and_judges(tiny):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = model_path("models:/tiny-reward-model-off@seed-1", tiny.home)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert model(**tokenizer("tell me", return_tensors="pt")).logits.shape == (1, 1)
    trained = tiny.home / "store" / tiny.address("train", reward_model="off") / "model"
    assert path == trained


@pytest.mark.parametrize("policy", POLICIES)
def test_the_best_teacher_of_each_policy_has_an_alias_and_no_other_has(tiny, client, policy):
    rows = [row for row in json.loads(tiny.started[0].output.read_text())["rows"] if row["policy"] == policy]
    best = {row["reward_model"] for row in rows if row["rank"] in ("1", "1=")}
    alias = f"best-teacher-of-{policy}"
    crowned = {name for name in MODELS if alias in client.get_registered_model(f"tiny-reward-model-{name}").aliases}
    assert best
    assert crowned == best
    for name in crowned:
        stage = "train" if name == "off" else "derive"
        address = tiny.address(stage, reward_model=name)
        assert client.get_model_version_by_alias(f"tiny-reward-model-{name}", alias).tags["rmpipe.address"] == address
        assert model_path(f"models:/tiny-reward-model-{name}@{alias}", tiny.home).is_relative_to(
            tiny.home / "store" / address
        )


def test_weights_lie_on_disk_once(tiny):
    weights = sorted(tiny.home.rglob("*.safetensors"))
    models = {a for a, record in tiny.records().items() if record["kind"] in ("Weights", "Policy")}
    holders = {f"{path.relative_to(tiny.home / 'store').parts[0]}/{path.parts[-3]}" for path in weights}
    assert holders == models | {tiny.address("train", reward_model="off")}
    assert len(weights) == len(holders)
    assert not any(path.is_symlink() for path in weights)


# -- a run that had nothing to do -----------------------------------------------------------------------------------


def count_runs(ledger):
    """How many runs there are in all."""
    ids = [experiment.experiment_id for experiment in ledger.client.search_experiments()]
    return len(ledger.client.search_runs(ids, max_results=1000))


def test_a_run_again_enters_nothing_but_its_own_parent(another):
    ledger = Ledger(another.home)
    before, models = count_runs(ledger), len(ledger.client.search_model_versions(""))
    contents = another.contents()
    another.rmpipe("run", "tiny.toml")
    (left,) = another.home.glob("journal/*.json")
    asked = json.loads(left.read_text())["time"]
    ledger.prepare()
    assert count_runs(ledger) == before + 1
    assert len(ledger.client.search_model_versions("")) == models
    assert another.contents() == contents
    study = ledger.client.get_experiment_by_name("study").experiment_id
    last = ledger.client.search_runs([study], order_by=["attributes.start_time DESC"])[0]
    assert last.data.metrics == {"stages.made": 0, "stages.hit": 41, "stages.failed": 0}
    assert last.info.run_name == "tiny · nothing had to run"
    listed = json.loads((Path(last.info.artifact_uri.removeprefix("file://")) / "addresses.json").read_text())
    rows = [dict(zip(listed["columns"], row, strict=True)) for row in listed["data"]]
    made_by = {address: record["run_id"] for address, record in another.records().items()}
    assert {row["address"]: row["run"] for row in rows} == made_by
    assert (last.info.status, last.info.start_time, last.info.end_time) == ("FINISHED", asked, asked)
    ledger.prepare()
    assert count_runs(ledger) == before + 1


@pytest.mark.parametrize("uri", [None, "foo://nowhere"])
def test_a_database_that_mlflow_cannot_use_is_named_with_the_remedy(tmp_path, monkeypatch, uri):
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    else:
        (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(RuntimeError, match=r"MLflow cannot use .*(mlflow\.db|foo:).*; mend MLFLOW_TRACKING_URI"):
        _ = Ledger(tmp_path).client


def test_a_working_folder_with_a_quote_in_its_name_will_do(tmp_path, monkeypatch):
    folder = tmp_path / 'bob\'s "own" földer'
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert [experiment.name for experiment in Ledger(folder / "home").client.search_experiments()] == []
    assert "_MLFLOW_SERVER_ARTIFACT_ROOT" not in os.environ


def test_the_experiment_that_mlflow_makes_unasked_is_left_where_others_use_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    assert [experiment.name for experiment in Ledger(tmp_path).client.search_experiments()] == ["Default"]


# -- what did not end well ------------------------------------------------------------------------------------------


def execution(**more):
    """Of a stage that reads preferences of which nothing is here."""
    return Execution(
        stage="measure", address="measure/12ab", title="measure off", kind="Measurement", params={}, runtime={},
        study="pocket", labels={}, inputs=[("preferences", "prepare/34cd", "Preferences", None)], parent_run=None,
        surroundings={}, **more,
    )  # fmt: skip


def finished(ledger, stage, kind, *, labels=None, metrics=None, subject=None, files=None, **record):
    """An artifact in the store, and its run in MLflow; its record."""
    folder = ledger.home / "store" / stage / "0"
    about = {"stage": stage, "address": f"{stage}/0", "title": stage, "kind": kind, "labels": labels or {}}
    told = {"params": {}, "runtime": {}, "study": "pocket", "inputs": [], "parent_run": None, "surroundings": {}}
    entry = ledger.begin(Execution(**about, **told, subject=subject))
    made = (
        about
        | {"run_id": entry.run_id, "content": stage, "metrics": metrics or {}, "summary": "", "inputs": {}}
        | record
    )
    ledger.dress(entry, made, [])
    folder.mkdir(parents=True)
    for name, text in {"record.json": json.dumps(made), **(files or {})}.items():
        (folder / name).write_text(text)
    ledger.finish(entry)
    return made


def test_what_was_foretold_of_a_reward_model_stands_beside_what_came_true(begun):
    ledger = Ledger(begun)
    teacher = finished(ledger, "train", "RewardModel", labels={"reward_model": "off", "seed": "1"})
    names = {"policy": "weak", "algorithm": "rloo", "reward_model": "off"}
    aligned = finished(ledger, "align", "Policy", labels=names | {"seed": "1"}, metrics={"truth_gain": 0.25},
                       subject=teacher["model_id"], inputs={"teacher": "train/0"})  # fmt: skip
    row = names | {"kind": "explicit", "trained": True, "rank": "1", "refused": None, "gain": {"value": 0.25}}
    foretold = [row | {"truth": truth, "forecast": told} for truth, told in
                (("gold", {"value": 0.75}), ("tone", {"value": 0.5}), ("lost", None))]  # fmt: skip
    answer = {"ground_truth": "gold", "forecast": {"rows": foretold},
              "rows": [names | {"addresses": {"align": ["align/0"], "measure": []}}]}  # fmt: skip
    finished(ledger, "rank", "Ranking", files={"answer.json": json.dumps(answer)})
    run, model = ledger.client.get_run(aligned["run_id"]), ledger.client.get_logged_model(teacher["model_id"])
    assert run.info.status == "FINISHED"
    assert {name: run.data.metrics[name] for name in ("truth_gain", "forecast", "tone_forecast")} == {
        "truth_gain": 0.25, "forecast": 0.75, "tone_forecast": 0.5}  # fmt: skip
    assert {item.key: item.value for item in model.metrics} == {
        "weak.rloo.truth_gain": 0.25, "weak.rloo.forecast": 0.75, "weak.rloo.tone_forecast": 0.5}  # fmt: skip
    line = f"| [weak.rloo](#/runs/{aligned['run_id']}) | 0.25 | 0.75 |"
    assert line in model.tags[card.NOTE].replace("&nbsp;", "")


def test_a_ranking_whose_trainings_were_made_elsewhere_is_entered_all_the_same(begun):
    ledger, row = Ledger(begun), {"policy": "weak", "algorithm": "rloo", "reward_model": "off"}
    answer = {"ground_truth": "gold", "forecast": {"rows": [row | {"truth": "gold", "forecast": {"value": 1.0}}]},
              "rows": [row | {"addresses": {"align": ["align/0"]}}]}  # fmt: skip
    told = finished(ledger, "rank", "Ranking", files={"answer.json": json.dumps(answer)})
    assert ledger.client.get_run(told["run_id"]).info.status == "FINISHED"


def test_a_study_keeps_its_forecast_with_what_came_true_and_how_it_did(begun):
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"truth": "gold", "policy": "weak", "algorithm": "rloo", "reward_model": "off", "rank": "1", "gain": numbers}
    scored = {"algorithm": "rloo", "over": "all", "predictor": "forecast", "spearman": numbers}
    scorecard = {"pooled": [scored], "sentences": ["It did."]}
    told = {"rows": [row | {"forecast": numbers}], "sentences": ["So."], "scorecard": scorecard}
    answer = {"study": "pocket", "question": "Which?", "algorithms": ["rloo"], "rows": [], "sentences": ["Off."],
              "ground_truth": "gold", "forecast": told}  # fmt: skip
    ledger = Ledger(begun)
    finished(ledger, "rank", "Ranking", files={"answer.json": json.dumps(answer)})
    finished(ledger, "report", "Report", files={"report.html": ""}, inputs={"ranking": "rank/0"})
    run = ledger.open_study("pocket", "Which?")
    ledger.close_study(run, [], "FINISHED", Report("report/0", begun))
    folder = Path(ledger.client.get_run(run).info.artifact_uri.removeprefix("file://"))
    kept = json.loads((folder / "forecast.json").read_text())
    found = dict(zip(kept["columns"], kept["data"][0], strict=True))
    assert (found["rank"], found["forecast"], found["forecast.low"], found["gain"]) == ("1", 0.5, 0.4, 0.5)
    kept = json.loads((folder / "scorecard.json").read_text())
    assert kept["columns"][:4] == ["algorithm", "over", "predictor", "spearman"]
    assert (folder / "what-was-foretold.md").read_text() == "So.\n\nIt did."


def test_a_run_that_failed_says_why_on_its_page_and_what_it_was_to_be_made_from(begun):
    ledger = Ledger(begun)
    entry = ledger.begin(execution())
    ledger.fail(entry, "ValueError: no `pairs` at all", killed=False)
    run = ledger.client.get_run(entry.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags[card.NOTE].startswith(
        "**It failed:**\n\n```\nValueError: no `pairs` at all\n```\n\nmeasure off\n"
    )
    assert "- preferences: prepare/34cd (its record is gone)" in run.data.tags[card.NOTE]


def test_a_run_whose_process_died_says_so_on_its_page(begun):
    ledger = Ledger(begun)
    entry = ledger.begin(execution())
    Ledger(begun).prepare()
    run = ledger.client.get_run(entry.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags[card.NOTE].startswith(card.KILLED)


def test_an_experiment_says_what_its_stage_does_and_shows_its_runs_side_by_side(begun):
    ledger = Ledger(begun)
    ledger.begin(execution(purpose="What can be told beforehand."))
    Ledger(begun).begin(execution())
    (found,) = ledger.client.search_experiments()
    link = f"#/experiments/{found.experiment_id}/runs?viewStateShareKey=numbers"
    assert found.tags[card.NOTE] == f"What can be told beforehand. [Side by side]({link})"
    assert json.loads(found.tags["mlflow.sharedViewState.numbers"])["orderByKey"] == "metrics.`variance`"


OPEN = """
import sys
from pathlib import Path
from rmpipe.lineage import Ledger
ledger = Ledger(Path(sys.argv[1]))
print(ledger.open_study("pocket", "teach"), flush=True)
sys.stdin.read()
"""


def test_the_run_of_a_study_that_was_killed_is_closed_and_that_of_one_that_lives_is_not(begun):
    command = [sys.executable, "-W", "ignore", "-c", OPEN, str(begun)]
    ledger = Ledger(begun)
    alive = ledger.open_study("pocket", "teach")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        died = process.stdout.readline().strip()
        process.kill()
    Ledger(begun).prepare()
    closed, running = (ledger.client.get_run(run) for run in (died, alive))
    assert (closed.info.status, closed.info.run_name) == ("KILLED", "pocket · killed")
    assert closed.info.end_time >= closed.info.start_time
    assert closed.data.tags[card.NOTE] == card.KILLED
    assert (running.info.status, running.info.run_name) == ("RUNNING", "pocket")
    ledger.close_study(alive, [], "FAILED")
    assert ledger.client.get_run(alive).info.status == "FAILED"
    assert list((begun / "journal").rglob("*.json")) == []
