"""Who read and who made what, of several runs at one moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rmpipe.lineage import Ledger

RACE = """
import sys
from pathlib import Path
from mlflow import entities
from rmpipe.edge import Edges
from rmpipe.lineage import Ledger

ledger = Ledger(Path(sys.argv[1]))
run = ledger.client.create_run(ledger._experiment("score")).info.run_id
edges = Edges(ledger.client, entities, ledger.home, run)
print(run, flush=True)
sys.stdin.readline()
for number in range(40):
    edges._log([(f"sample/{number}", "rollouts", "read")])
"""


def test_runs_that_name_a_new_data_set_at_one_moment_are_both_entered(tmp_path: Path):
    client = Ledger(tmp_path).client
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    runs = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [(racer.communicate()[1][-300:], racer.returncode) for racer in racers] == [("", 0)] * 3
    assert [len(client.get_run(run).inputs.dataset_inputs) for run in runs] == [40] * 3
