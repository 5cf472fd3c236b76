"""The command line from outside: what it prints, its exit codes, what it refuses, and what it does not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.cli import main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "mlflow", "prefect", "transformers")
NUMBERS = ("variance", "accuracy_on", "accuracy_off", "proxy_gain", "truth_gain")


@pytest.fixture
def say(tiny, monkeypatch, capsys):
    """Run a command in this process on the finished store: its exit code, its JSON if asked for, and its words."""

    def run(*arguments, place=tiny):
        monkeypatch.setenv("RMPIPE_HOME", str(place.home))
        monkeypatch.chdir(place.folder)
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if "--json" in arguments else printed.out, printed.err

    return run


# -- what it prints -------------------------------------------------------------------------------------------------


def test_a_run_prints_one_document_and_its_progress_goes_elsewhere(tiny):
    told = json.loads(tiny.started[0].output.read_text())
    assert len(told["rows"]) == 6
    assert Path(told["report"]).read_text().lstrip().startswith("<!")
    lines = tiny.started[0].said().splitlines()
    assert len([line for line in lines if "/41  " in line]) == 41


def test_a_run_writes_nothing_into_the_home_folder_and_nothing_beside_its_own(tiny):
    assert list(tiny.user.iterdir()) == []
    left = {path.name for path in tiny.folder.iterdir() if path.suffix not in (".err", ".out")}  # what it said
    assert left == {"user", "state", "tiny.toml"}


def test_a_finished_run_leaves_no_lock_no_scratch_and_nothing_half_made(tiny):
    assert tiny.leftovers() == []
    assert list((tiny.home / "scratch").iterdir()) == []
    assert tiny.processes() == []


def test_plan_says_of_each_stage_that_it_is_a_hit(say):
    code, told, _ = say("plan", "tiny.toml", "--json")
    assert code == 0
    assert set(told) == {"stages", "to_run"}
    assert told["to_run"] == 0
    assert {stage["status"] for stage in told["stages"]} == {"hit"}
    assert len({stage["address"] for stage in told["stages"]}) == len(told["stages"]) == 41


def test_plan_says_which_stages_a_change_moves_and_why_and_makes_nothing(say, tiny):
    before = tiny.contents()
    code, told, _ = say("plan", "tiny.toml", "--json", "--set", "evaluation.prompts=5")
    moved = {stage["stage"] for stage in told["stages"] if stage["status"] == "run"}
    assert code == 0
    assert moved == {"align", "rank", "report"}
    assert told["to_run"] == 6 + 1 + 1
    whys = [stage["why"] for stage in told["stages"] if stage["stage"] == "align"]
    assert whys == [["evaluation.prompts: 6 -> 5"]] * 6
    assert all(stage["address"].startswith(f"{stage['stage']}/") for stage in told["stages"])
    assert tiny.contents() == before


def test_plan_of_a_study_that_was_never_made_runs_everything(say, places):
    place = places()
    code, told, _ = say("plan", "tiny.toml", "--json", place=place)
    assert code == 0
    assert told["to_run"] == len(told["stages"]) == 41
    assert {tuple(stage["why"]) for stage in told["stages"]} == {("never made before",)}
    assert not place.home.exists()


def test_plan_stops_after_the_stages_named_by_only(say):
    _, told, _ = say("plan", "tiny.toml", "--json", "--only", "finetune")
    assert {stage["stage"] for stage in told["stages"]} == {"prepare", "pretrain", "finetune"}


def test_plan_runs_again_what_refresh_names(say):
    _, told, _ = say("plan", "tiny.toml", "--json", "--refresh", "measure")
    again = [stage for stage in told["stages"] if stage["status"] == "run"]
    assert [stage["stage"] for stage in again] == ["measure"] * 6
    assert {tuple(stage["why"]) for stage in again} == {("refresh asked for",)}


def test_how_it_is_run_moves_no_address(say):
    changes = ("sampling.batch_size=3", "scoring.batch_tokens=99", "algorithms.rloo.checkpoint_seconds=0")
    sets = [word for change in changes for word in ("--set", change)]
    assert say("plan", "tiny.toml", "--json", *sets)[1]["to_run"] == 0


def test_plan_for_a_person_has_one_line_a_stage_and_a_total(say):
    code, text, _ = say("plan", "tiny.toml", "--set", "sampling.temperature=0.5")
    lines = text.splitlines()
    assert code == 0
    assert len(lines) == 37 + 1
    assert lines[-1].endswith(" of 37 stages to run")
    assert any(line.startswith("  sample") and line.endswith("temperature: 1.0 -> 0.5") for line in lines)


def test_rank_gives_every_number_with_its_bounds(say):
    code, told, _ = say("rank", "tiny.toml", "--json")
    assert code == 0
    cells = {(row["policy"], row["reward_model"]) for row in told["rows"]}
    assert cells == {(policy, model) for policy in ("weak", "strong") for model in ("truth", "offset", "off")}
    for row in told["rows"]:
        for name in NUMBERS:
            number = row[name]
            assert number["low"] <= number["value"] <= number["high"], (row["reward_model"], name)
    assert all({"property", "gain"} <= set(item) for item in told["correlations"])


def test_rank_prints_what_the_run_printed(say, tiny):
    told = json.loads(tiny.started[0].output.read_text())
    ranked = say("rank", "tiny.toml", "--json")[1]
    assert ranked == {name: told[name] for name in ranked}


def test_rank_for_a_person_is_a_table_and_names_the_report(say):
    code, text, _ = say("rank", "tiny.toml")
    assert code == 0
    assert "offset" in text
    assert text.splitlines()[-1].endswith("report.html")


def test_rank_of_what_was_not_made_fails_and_says_what_to_run(say):
    code, text, said = say("rank", "tiny.toml", "--set", "evaluation.prompts=5")
    assert code == 1
    assert text == ""
    assert "first: rmpipe run tiny.toml" in said


def test_why_gives_the_record_the_parents_and_the_nearest_sibling(say, tiny):
    address = tiny.address("align", policy="weak", reward_model="off", algorithm="rloo")
    code, told, _ = say("why", address, "--json")
    assert code == 0
    assert told["address"] == address
    assert told["record"]["inputs"]["teacher"] == tiny.address("train", reward_model="off")
    assert told["nearest"].startswith("align/")
    assert told["nearest"] != address
    sibling = tiny.records()[told["nearest"]]["inputs"]["teacher"]
    assert f"teacher: {sibling} -> {tiny.address('train', reward_model='off')}" in told["differs"]


def test_why_for_a_person_names_the_run_and_what_it_was_made_from(say, tiny):
    address = tiny.address("finetune", policy="weak")
    code, text, _ = say("why", address)
    assert code == 0
    assert tiny.records()[address]["run_id"] in text
    assert f"from base: <Weights {tiny.address('pretrain', base='world')}" in text


def test_show_lists_the_files_and_numbers_of_an_artifact(say, tiny):
    address = tiny.address("sample", policy="weak")
    code, told, _ = say("show", address, "--json")
    assert code == 0
    assert told["kind"] == "Rollouts"
    assert told["summary"] == "8 prompts x 4"
    assert list(told["files"]) == ["rollouts.parquet"]
    assert told["metrics"].keys() == {"length", "finished"}
    text = say("show", address.replace("sample/", ""))[1]
    assert "rollouts.parquet" in text
    assert "responses" in text  # the head of its table


def test_the_beginning_of_an_address_will_do(say, tiny):
    address = tiny.address("sample", policy="weak")
    assert say("show", address[:-4], "--json")[1]["address"] == address


def test_verify_of_a_whole_store_finds_nothing_altered(say):
    code, told, _ = say("verify", "--json")
    assert code == 0
    assert told == {"checked": 41, "altered": {}}


def test_verify_names_what_was_altered_and_the_next_plan_makes_it_again(say, another):
    address = another.address("score", policy="weak", reward_model="off")
    file = another.home / "store" / address / "rollouts.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, told, _ = say("verify", "--json", place=another)
    assert code == 1
    assert told == {"checked": 41, "altered": {address: ["rollouts.npy"]}}
    stages = say("plan", "tiny.toml", "--json", place=another)[1]["stages"]
    assert [(s["address"], s["why"]) for s in stages if s["status"] == "run"] == [(address, ["altered: rollouts.npy"])]


def test_an_address_that_is_not_there_is_bad_input(say):
    for command in ("why", "show", "verify"):
        code, text, said = say(command, "align/000000000000")
        assert (code, text) == (2, "")
        assert "align/000000000000: no such address" in said


# -- what it refuses ------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(places, monkeypatch, capsys):
    """Run a command that must be refused without a trace, in a folder with no store; what it said."""

    def run(*arguments, command="run", extra="", **replaced):
        place = places()
        text = place.file.read_text() + textwrap.dedent(extra)
        for old, new in replaced.items():
            text = text.replace(old, new)
        place.file.write_text(text)
        monkeypatch.delenv("RMPIPE_HOME", raising=False)
        monkeypatch.chdir(place.folder)
        before = sorted(place.folder.rglob("*"))
        code = main([command, *(arguments or ["tiny.toml"])])
        printed = capsys.readouterr()
        assert code == 2, printed.err
        assert printed.out == ""
        assert sorted(place.folder.rglob("*")) == before
        return printed.err

    return run


def test_an_unknown_study_is_refused_with_the_nearest(refused):
    assert "pockt: no such study; did you mean pocket?" in refused("pockt")
    assert "absent.toml: no such study file" in refused("absent.toml")


def test_what_is_not_toml_is_refused(refused):
    assert "tiny.toml: not TOML" in refused(extra="[[[")


def test_an_unknown_key_is_refused_with_the_nearest(refused):
    said = refused(**{"max_new_tokens = 12\n\n[evaluation]": "max_new_token = 12\n\n[evaluation]"})
    assert "tiny.toml: sampling.max_new_token: unknown key; did you mean max_new_tokens?" in said
    said = refused("tiny.toml", "--set", "algorithms.rloo.kl_coeficient=1")
    assert "tiny.toml: algorithms.rloo.kl_coeficient: unknown key; did you mean kl_coefficient?" in said


def test_every_fault_is_named_not_the_first_alone(refused):
    said = refused(extra='[reward_models.odd]\nkind = "offse"\n[algorithms.odd]\nkind = "rlo"\n')
    assert "reward_models.odd.kind: no kind 'offse'; did you mean offset?" in said
    assert "algorithms.odd.kind: no kind 'rlo'; did you mean rloo?" in said


def test_a_wrong_value_is_refused_with_what_is_right(refused):
    said = refused("tiny.toml", "--set", "sampling.responses=1")
    assert "tiny.toml: sampling.responses:" in said
    assert "greater than or equal to 2, got 1" in said


def test_an_unknown_reward_model_in_a_claim_is_refused(refused):
    claim = '[[claims]]\nname = "a"\nclaim = "one teaches more"\nhigher = "ofset"\nlower = "off"\n'
    assert "tiny.toml: claims.0.higher: no 'ofset' there; did you mean offset?" in refused(extra=claim)


def test_an_unknown_reward_model_in_the_grid_is_refused(refused):
    grid = '[[grid]]\nreward_models = ["off", "truht"]\n'
    assert "tiny.toml: grid.0.reward_models: no 'truht' there; did you mean truth?" in refused(extra=grid)


def test_an_unknown_policy_and_base_and_ground_truth_are_refused(refused):
    assert "policies.weak.base: no 'word' there; did you mean world?" in refused(
        "tiny.toml", "--set", "policies.weak.base=word"
    )
    assert "reward_models.off.base: no 'week' there; did you mean weak?" in refused(
        "tiny.toml", "--set", "reward_models.off.base=week"
    )
    assert "ground_truth: no 'trut' there; did you mean truth?" in refused("tiny.toml", "--set", "ground_truth=trut")


def test_a_folder_of_a_base_that_is_not_there_is_refused_before_any_compute(refused):
    said = refused(extra='[bases.mine]\nkind = "pretrained"\npath = "./absent"\n[policies.mine]\nbase = "mine"\n')
    assert "absent" in said
    assert "bases.mine.path" in said
    assert "hub id" in said


def test_a_folder_that_is_no_model_is_refused_before_any_compute(refused):
    extra = '[bases.mine]\nkind = "pretrained"\npath = "./user"\n[policies.mine]\nbase = "mine"\n'
    assert "config.json missing; save a model there" in refused(extra=extra)
    extra = '[reward_models.mine]\nkind = "pretrained"\npath = "./user"\n'
    assert "config.json missing; save a model there" in refused(extra=extra)


def test_a_folder_of_a_reward_model_that_is_not_there_is_refused_before_any_compute(refused):
    said = refused(extra='[reward_models.mine]\nkind = "pretrained"\npath = "./absent"\n')
    assert "absent" in said
    assert "reward_models.mine.path" in said
    assert "hub id" in said


def test_a_data_file_that_is_not_there_is_refused_before_any_compute(refused):
    said = refused(**{'source = "world"\npairs = 80': 'source = "local"\npath = "pairs.jsonl"'})
    assert "pairs.jsonl" in said
    assert "dataset.path" in said


def test_demonstrations_that_are_not_there_are_refused_before_any_compute(refused):
    said = refused("tiny.toml", "--set", 'policies.weak.demonstrations={source="local",path="./absent.jsonl"}')
    assert "absent.jsonl" in said
    assert "policies.weak.demonstrations.path" in said


def test_rows_that_cannot_be_used_are_refused_before_any_compute(refused, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": "b"}\n')
    said = refused(**{'source = "world"\npairs = 80': f'source = "local"\npath = "{file}"'})
    assert f"{file}: row 2: rejected" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seeds", "--set seeds: expected a.b=value"),
        ("name.x=1", "--set name.x=1: name is not a section"),
        ("samplin.responses=4", "tiny.toml: samplin: unknown key; did you mean sampling?"),
        ("seeds=many", "tiny.toml: seeds:"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(refused, change, words):
    assert words in refused("tiny.toml", "--set", change)
    assert words in refused("tiny.toml", "--set", change, command="plan")


def test_an_unknown_stage_is_refused_with_the_nearest(refused):
    assert "--only finetun: no such stage here; did you mean finetune?" in refused("tiny.toml", "--only", "finetun")
    assert "--refresh alig: no such stage here; did you mean align?" in refused("tiny.toml", "--refresh", "alig")


def test_a_command_that_is_not_there_is_bad_input(capsys):
    for arguments in (["rn"], ["run"], ["run", "pocket", "--jobs", "0"], []):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert "expected a whole number above 0, got '0'" in capsys.readouterr().err


# -- what it imports ------------------------------------------------------------------------------------------------

IMPORTED = """
import sys
from flows.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as ended:
    code = ended.code
heavy = sorted(name for name in sys.argv[1].split() if name in sys.modules)
print(code, heavy, file=sys.stderr)
"""


def imported(place, names, *arguments):
    command = [sys.executable, "-c", IMPORTED, " ".join(names), *arguments]
    done = subprocess.run(command, cwd=place.folder, env=place.environment(), capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


def test_help_imports_nothing_heavy(tiny):
    names = (*HEAVY, "pandas", "pydantic", "numpy")
    assert imported(tiny, names, "--help") == "0 []"
    assert imported(tiny, names, "run", "--help") == "0 []"


def test_a_run_whose_every_stage_is_a_hit_imports_nothing_heavy_and_starts_no_run(another):
    before = another.contents()
    assert imported(another, HEAVY, "run", "tiny.toml") == "0 []"
    assert another.contents() == before


def test_a_plan_and_a_ranking_import_nothing_heavy(tiny):
    assert imported(tiny, HEAVY, "plan", "tiny.toml") == "0 []"
    assert imported(tiny, HEAVY, "rank", "tiny.toml") == "0 []"


def test_a_reader_that_goes_away_is_no_failure(tiny):
    command = f"set -o pipefail; {sys.executable} -m flows.cli plan tiny.toml --json | head -c 10"
    run = subprocess.run(
        ["bash", "-c", command], cwd=tiny.folder, env=tiny.environment(), capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_function_beside_the_study_may_be_its_ground_truth(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RMPIPE_HOME", str(tmp_path / "home"))
    (tmp_path / "taste_of_ours.py").write_text("def score(prompts, responses):\n    return [1.0] * len(responses)\n")
    (tmp_path / "mine.toml").write_text(
        'extends = "pocket"\n[reward_models.truth]\nkind = "truth"\nfunction = "taste_of_ours:score"\n'
    )
    assert main(["plan", str(tmp_path / "mine.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to_run"] > 0


def test_a_run_whose_messages_nobody_reads_goes_on_to_its_end(another):
    another.remove(another.address("sample", policy="weak"))
    command = f"{sys.executable} -m flows.cli run tiny.toml --only sample 2>&1 | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], cwd=another.folder, env=another.environment(), timeout=240)
    assert run.returncode == 0
    assert another.address("sample", policy="weak")


def test_why_still_tells_of_an_artifact_whose_parent_is_gone(another):
    gone = another.address("pretrain", base="world")
    another.remove(gone)
    text = another.rmpipe("why", another.address("finetune", policy="weak")).output.read_text()
    assert f"from base: {gone}" in text


@pytest.mark.parametrize(("told", "words"), [("--version", "rmpipe "), ("--print-completion=bash", "complete -o")])
def test_what_is_asked_of_rmpipe_itself_is_printed_where_a_shell_reads_it(capsys, told, words):
    with pytest.raises(SystemExit) as ended:
        main([told])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert words in out


def test_a_dry_run_is_a_plan(say):
    assert say("run", "tiny.toml", "-n", "--json") == say("plan", "tiny.toml", "--json")


@pytest.mark.parametrize(("typed", "offered"), [("rmpipe run po", "pocket"), ("rmpipe com", "compare")])
def test_a_shell_completes_commands_and_studies(tmp_path, typed, offered):
    words = typed.split()
    program = f"""
eval "$({sys.executable} -m flows.cli --print-completion bash)"
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _shtab_rmpipe 2> /dev/null; echo "${{COMPREPLY[@]}}"
"""
    run = subprocess.run(
        ["bash", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == [offered]
