"""What MLflow remembers: every execution, data set and model, and who made what from what.

The only importer of mlflow. All calls go through a client with explicit ids: MLflow's own notion of the current run and
experiment is one for the whole process. Weights are never copied: a registered version's source is the store's folder.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rmpipe.artifact import Report

DATA = {"Preferences", "Rollouts", "Scores"}
MODELS = {"Weights": "policy", "Policy": "aligned", "RewardModel": "reward-model"}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


@dataclass(frozen=True)
class Execution:
    """What is known of a stage's execution before it begins."""

    stage: str
    address: str
    title: str
    kind: str
    params: dict[str, Any]
    runtime: dict[str, Any]
    study: str
    labels: dict[str, str]
    inputs: list[tuple[str, str, str, str | None, str | None, str]]
    """(argument, address, kind, run that made it, its model id, digest of its content)"""
    parent_run: str | None
    surroundings: dict[str, Any]
    subject: str | None = None
    """The model id of the reward model that the numbers are about."""


@dataclass
class Entry:
    """An execution under way: its run, and its model once there is one."""

    execution: Execution
    run_id: str
    experiment: str
    model_id: str | None = None


@dataclass
class Ledger:
    """MLflow on a store.

    Args:
        home: the folder with all state; the database is `mlflow.db`, small files go below `mlflow-artifacts/`.
    """

    home: Path
    _experiments: dict[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """MLflow's address of the database, or the server that MLFLOW_TRACKING_URI names."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"

    @cached_property
    def client(self) -> Any:
        """A client of this store's database; the database is made, by one process, when it is not there."""
        warm()
        from mlflow.tracking import MlflowClient

        with _locked(self.home / "mlflow.lock"):  # two first starts would race in migrating the database
            client = MlflowClient(self.uri, registry_uri=self.uri)
            client.search_experiments(max_results=1)
        return client

    def prepare(self) -> None:
        """Make the database if need be, and enter the notes of runs that had nothing to do."""
        _ = self.client
        self.catch_up()

    # -- one execution --------------------------------------------------------------------------------------------

    def begin(self, execution: Execution) -> Entry:
        """Open the run of an execution; a run that a killed process left open for this address is closed as killed."""
        from mlflow.entities import Param

        experiment = self._experiment(execution.stage)
        self._bury(experiment, execution.address)
        tags = {"rmpipe.address": execution.address, "rmpipe.study": execution.study, "rmpipe.kind": execution.kind}
        tags |= {f"rmpipe.{name}": value for name, value in execution.labels.items()}
        for name, address, *_ in execution.inputs:
            tags[f"rmpipe.input.{name}"] = (
                f"{tags[f'rmpipe.input.{name}']}, {address}"[:5000] if f"rmpipe.input.{name}" in tags else address
            )
        if execution.parent_run:
            tags["mlflow.parentRunId"] = execution.parent_run
        if commit := execution.surroundings.get("commit"):
            tags["mlflow.source.git.commit"] = commit
        name = f"{execution.title} ({execution.address.split('/')[1]})"
        run = self.client.create_run(experiment, tags=tags, run_name=name)
        told = {**execution.params, **{f"runtime.{key}": value for key, value in execution.runtime.items()}}
        params = [Param(_metric_name(key)[:250], str(value)[:6000]) for key, value in told.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run.info.run_id, params=params[start : start + 100])
        entry = Entry(execution, run.info.run_id, experiment)
        self._read(entry)
        return entry

    def dress(self, entry: Entry, part: Path, record: dict[str, Any]) -> None:
        """Give a model its id, which goes into its record; the folder is not yet in place."""
        execution = entry.execution
        if execution.kind in MODELS:
            model = self.client.create_logged_model(
                entry.experiment, name=re.sub(r"[./:]", "-", _metric_name(execution.title)),
                source_run_id=entry.run_id, model_type=MODELS[execution.kind],
                tags={"rmpipe.address": execution.address, "rmpipe.summary": record["summary"]},
            )  # fmt: skip
            entry.model_id = record["model_id"] = model.model_id

    def finish(
        self, entry: Entry, folder: Path, metrics: dict[str, float], curve: list[tuple[str, float, int, int]]
    ) -> None:
        """Enter numbers and curves, the data set or model that was made, and close the run."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        last = max((step for _, _, step, _ in curve), default=0)  # so that the numbers stand, not a curve of one name
        points = [
            Metric(_metric_name(name), value, now, last) for name, value in metrics.items() if math.isfinite(value)
        ]
        points += [
            Metric(_metric_name(name), value, at, step) for name, value, step, at in curve if math.isfinite(value)
        ]
        for start in range(0, len(points), 1000):
            self.client.log_batch(entry.run_id, metrics=points[start : start + 1000])
        if entry.execution.kind in DATA:
            self._log_data(entry.run_id, [(entry.execution.address, entry.execution.title, "made")])
        if entry.model_id:
            self._register(entry, folder)
        if entry.execution.subject:
            self._measured(entry, metrics, now)
        self.client.set_terminated(entry.run_id, "FINISHED")

    def fail(self, entry: Entry, text: str, *, killed: bool) -> None:
        """Close the run of an execution that raised, with its reason."""
        with suppress(Exception):  # the stage's own error matters more than the ledger's
            self.client.set_tag(entry.run_id, "rmpipe.error", text[:5000])
            self.client.set_terminated(entry.run_id, "KILLED" if killed else "FAILED")

    def _read(self, entry: Entry) -> None:
        from mlflow.entities import LoggedModelInput

        inputs = entry.execution.inputs
        self._log_data(entry.run_id, [(address, name, "read") for name, address, kind, *_ in inputs if kind in DATA])
        models = {model_id for _, _, kind, _, model_id, _ in inputs if kind in MODELS and model_id}
        if models:
            self.client.log_inputs(entry.run_id, models=[LoggedModelInput(model_id) for model_id in sorted(models)])

    def _log_data(self, run_id: str, sets: list[tuple[str, str, str]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        items = []
        for address, name, context in {address: (address, name, context) for address, name, context in sets}.values():
            stage, digest = address.split("/")
            source = json.dumps({"uri": str(self.home / "store" / address)})
            items.append(
                DatasetInput(
                    Dataset(f"{stage} {name}"[:500], digest, "local", source),
                    [InputTag("mlflow.data.context", context)],
                )
            )
        if items:
            self.client.log_inputs(run_id, datasets=items)

    def _register(self, entry: Entry, folder: Path) -> None:
        from mlflow.entities import LoggedModelOutput
        from mlflow.exceptions import MlflowException

        self.client.finalize_logged_model(entry.model_id, "READY")
        self.client.log_outputs(entry.run_id, [LoggedModelOutput(str(entry.model_id), 0)])
        name, card = registered_name(entry.execution), _card(entry.execution, folder)
        with suppress(MlflowException):  # another process may have made it first, or it is there from before
            self.client.create_registered_model(name)
        source = folder / "model" if (folder / "model").is_dir() else folder
        with suppress(FileNotFoundError):
            source = Path(json.loads((folder / "reference.json").read_text())["path"])
        tags = {"rmpipe.address": entry.execution.address}
        version = self.client.create_model_version(
            name, source.as_uri(), run_id=entry.run_id, tags=tags, description=card, await_creation_for=0, model_id=None
        )
        self.client.set_registered_model_alias(name, f"seed-{entry.execution.labels.get('seed', '0')}", version.version)
        self.client.set_logged_model_tags(entry.model_id, {"rmpipe.registered": f"models:/{name}/{version.version}"})

    def _measured(self, entry: Entry, metrics: dict[str, float], now: int) -> None:
        """Numbers about a reward model under one policy stand with the reward model, whichever run found them."""
        from mlflow.entities import Metric

        labels, model_id = entry.execution.labels, entry.execution.subject
        where = ".".join(labels[name] for name in ("policy", "algorithm") if name in labels)
        points = [
            Metric(_metric_name(f"{where}.{name}"), value, now, 0, model_id=model_id, run_id=entry.run_id)
            for name, value in metrics.items() if math.isfinite(value)
        ]  # fmt: skip
        self.client.log_batch(entry.run_id, metrics=points)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            from mlflow.exceptions import MlflowException

            found = self.client.get_experiment_by_name(name)
            if found is None:
                with suppress(MlflowException):
                    self.client.create_experiment(
                        name, artifact_location=(self.home / "mlflow-artifacts" / name).as_uri()
                    )
                found = self.client.get_experiment_by_name(name)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _bury(self, experiment: str, address: str) -> None:
        query = f"tags.`rmpipe.address` = '{address}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([experiment], query):
            self.client.set_terminated(run.info.run_id, "KILLED")

    # -- a study's invocations ------------------------------------------------------------------------------------

    def open_study(self, study: str, question: str) -> str:
        """The parent run of one invocation."""
        tags = {"rmpipe.study": study, "rmpipe.question": question}
        return self.client.create_run(self._experiment("study"), tags=tags, run_name=study).info.run_id

    def close_study(
        self, run_id: str, addresses: list[dict[str, Any]], status: str, report: Report | None = None
    ) -> None:
        """List every address of an invocation, hits too, and keep the report and the ranking with it.

        Args:
            addresses: {"stage", "title", "address", "status"} each.
            status: `FINISHED` or `FAILED`.
            report: the study's report, when it is made.
        """
        columns = {name: [item[name] for item in addresses] for name in ("stage", "title", "address", "status")}
        if addresses:
            self.client.log_table(run_id, columns, "addresses.json")
        for status_name in ("made", "hit", "failed"):
            self.client.log_metric(run_id, f"stages.{status_name}", columns["status"].count(status_name))
        if report is not None and report.built:
            self.client.log_artifact(run_id, str(report.page))
            self._keep_answer(run_id, report.inputs["ranking"].answer())
        self.client.set_terminated(run_id, status)

    def _keep_answer(self, run_id: str, answer: dict[str, Any]) -> None:
        """The ranking as a table, and the best teacher of each policy as an alias of its registered model."""
        rows = [
            {key: value for key, value in row.items() if not isinstance(value, dict | list)} | _numbers(row)
            for row in answer["rows"]
        ]
        names = dict.fromkeys(name for row in rows for name in row)
        self.client.log_table(run_id, {name: [row.get(name) for row in rows] for name in names}, "ranking.json")
        self.client.log_text(run_id, "\n\n".join(answer["sentences"]), "what-it-supports.md")
        self.client.set_tag(
            run_id, "mlflow.note.content", "\n\n".join([answer["question"], *answer["sentences"]])[:8000]
        )
        self._crown(answer)

    def _crown(self, answer: dict[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        first = answer["algorithms"][0]
        for row in answer["rows"]:
            name, alias = f"{answer['study']}.reward-model.{row['reward_model']}", f"best-teacher-of-{row['policy']}"
            if row["algorithm"] != first:
                continue
            with suppress(MlflowException):
                self.client.delete_registered_model_alias(name, alias)
            if row["rank"] in ("1", "1="):
                with suppress(MlflowException):
                    version = self.client.get_model_version_by_alias(name, f"seed-{answer['seeds'][0]}").version
                    self.client.set_registered_model_alias(name, alias, version)

    def catch_up(self) -> None:
        """Enter the invocations that had nothing to do and so never opened MLflow."""
        for file in sorted((self.home / "journal").glob("*.json")):
            told = json.loads(file.read_text())
            file.unlink()  # first: an invocation is entered once or, if we are killed here, not at all
            run_id = self.open_study(told["study"], told["question"])
            self.close_study(run_id, told["addresses"], "FINISHED", Report(told["report"], self.home))

    def count_runs(self) -> int:
        """How many runs there are in all."""
        ids = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return sum(len(self.client.search_runs([experiment], max_results=50_000)) for experiment in ids)

    # -- the browser ----------------------------------------------------------------------------------------------

    def serve(self, port: int) -> int:
        """Serve MLflow on loopback until Ctrl-C; the next free port is taken if this one is not."""
        self.prepare()
        port = next(number for number in range(port, port + 100) if _free(number))
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        command += [
            "--backend-store-uri",
            self.uri,
            "--default-artifact-root",
            (self.home / "mlflow-artifacts").as_uri(),
        ]
        environment = {**os.environ, **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        print(f"MLflow on http://127.0.0.1:{port}   (Ctrl-C ends it)", flush=True)
        server = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, 15)
            server.wait(timeout=10)


def note(home: Path, told: dict[str, Any]) -> None:
    """Leave a note of an invocation that had nothing to do; MLflow, seconds to import, learns of it later."""
    folder = home / "journal"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{time.time_ns()}-{os.getpid()}.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(told))
    part.replace(file)


def warm() -> None:
    """Import mlflow now: a worker pays for it while the rest gets ready."""
    os.environ.update(QUIET)
    import mlflow.tracking  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def registered_name(execution: Execution) -> str:
    """`pocket.reward-model.off`, `pocket.aligned.weak.off.rloo`."""
    parts = [
        execution.labels[name] for name in ("base", "policy", "reward_model", "algorithm") if name in execution.labels
    ]
    return ".".join([execution.study or "rmpipe", MODELS[execution.kind], *parts])


def model_path(uri: str, home: Path) -> Path:
    """The folder behind `models:/name@alias`, which `from_pretrained` loads; nothing is copied."""
    import mlflow

    os.environ.update(QUIET)
    ledger = Ledger(home)
    name, alias = uri.removeprefix("models:/").split("@")
    version = ledger.client.get_model_version_by_alias(name, alias)
    return Path(mlflow.artifacts.download_artifacts(version.source))


def _card(execution: Execution, folder: Path) -> str:
    """A short model card."""
    made = "\n".join(f"- {name}: `{address}`" for name, address, *_ in execution.inputs)
    by = f"**{execution.title}**, made by study `{execution.study}` at `{execution.address}`"
    return f"{by}\n\nMade from:\n{made}\n\nFiles: `{folder}`"


def _numbers(row: dict[str, Any]) -> dict[str, float | None]:
    """Each number of a row as three columns."""
    numbers = {name: value for name, value in row.items() if isinstance(value, dict) and "value" in value}
    return {
        f"{name}{end}": number[key]
        for name, number in numbers.items()
        for end, key in (("", "value"), (".low", "low"), (".high", "high"))
    }


def _metric_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-. /:" else "_" for letter in text)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
