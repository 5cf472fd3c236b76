"""What MLflow remembers: every execution, data set and model, and who made what from what.

The only importer of mlflow. All calls go through a client with explicit ids: MLflow's own notion of the current run and
experiment is one for the whole process. Weights are never copied: a registered version's source is the store's folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rmpipe.artifact import Report, open_artifact
from rmpipe.config import first_line
from rmpipe.crown import crown
from rmpipe.journal import MODELS, Entry, Execution, Journal, now
from rmpipe.store import Store

DATA = {"Preferences", "Rollouts", "Scores"}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
LOG = logging.getLogger(__name__)


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
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError

        try:
            # Two first starts would race in migrating the database.
            with Store(self.home).lock("mlflow"), _default_root(self.home / "mlflow-artifacts"):
                client = MlflowClient(self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError) as error:
            remedy = "mend MLFLOW_TRACKING_URI, or move a broken database away and a new one is made"
            raise RuntimeError(f"MLflow cannot use {self.uri}: {first_line(error)}; {remedy}") from error
        return client

    @property
    def journal(self) -> Journal:
        """What is yet to be entered."""
        return Journal(self.home)

    def prepare(self) -> None:
        """Make the database if need be, and enter what other invocations left to be entered."""
        _ = self.client
        self.catch_up()

    # -- one execution --------------------------------------------------------------------------------------------

    def begin(self, execution: Execution) -> Entry:
        """Open the run of an execution; the journal has it from now on, so that it is closed even if we are killed."""
        from mlflow.entities import Param

        experiment = self._experiment(execution.stage)
        name = f"{execution.title} ({execution.address.split('/')[1]})"
        run = self.client.create_run(experiment, tags=execution.tags, run_name=name)
        entry = Entry(execution, run.info.run_id, experiment)
        self.journal.keep(entry)
        told = {**execution.params, **{f"runtime.{key}": value for key, value in execution.runtime.items()}}
        params = [Param(_metric_name(key)[:250], str(value)[:6000]) for key, value in told.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run.info.run_id, params=params[start : start + 100])
        self._read(entry)
        return entry

    def dress(self, entry: Entry, record: dict[str, Any], curve: list[tuple[str, float, int, int]]) -> None:
        """Give a model its id, which goes into its record, and journal what is to be entered once it is in place.

        Args:
            record: sealed: its content says whether the model is one that was made before.
            curve: (name, value, step, milliseconds since the epoch).
        """
        entry.content, entry.metrics, entry.curve, entry.ended = record["content"], record["metrics"], curve, now()
        if entry.execution.kind in MODELS:
            entry.model_id = record["model_id"] = self._model(entry, record["summary"])
        self.journal.keep(entry)

    def _model(self, entry: Entry, summary: str) -> str:
        """The logged model of these bytes at this address: numbers found about it before the rebuild stay with it."""
        execution = entry.execution
        query = f"tags.`rmpipe.address` = '{execution.address}' and tags.`rmpipe.content` = '{entry.content}'"
        for model in self.client.search_logged_models([entry.experiment], query):
            if model.status == "READY":
                return model.model_id
        name = re.sub(r"[./:]", "-", _metric_name(execution.title))
        tags = {"rmpipe.address": execution.address, "rmpipe.content": entry.content, "rmpipe.summary": summary}
        kind = MODELS[execution.kind]
        return self.client.create_logged_model(entry.experiment, name, entry.run_id, tags, model_type=kind).model_id

    def finish(self, entry: Entry) -> None:
        """Enter numbers, curves, texts, the data set or model that was made, and close the run.

        It may be done twice: a process that was killed half-way is followed by one that does it again.
        """
        points = _points(entry)
        for start in range(0, len(points), 1000):
            self.client.log_batch(entry.run_id, metrics=points[start : start + 1000])
        if entry.execution.kind in DATA:
            self._log_data(entry.run_id, [(entry.execution.address, entry.execution.title, "made")])
        if entry.model_id:
            self._register(entry)
        if entry.execution.subject:
            self._measured(entry)
        self._show(entry)
        self.client.set_terminated(entry.run_id, "FINISHED", end_time=entry.ended)
        self.journal.drop(entry.execution.address)

    def enter(self, entry: Entry) -> tuple[str, ...]:
        """Finish what is in place; if MLflow refuses, say so and leave it to the journal: what was made is whole."""
        from mlflow.exceptions import MlflowException

        try:
            self.finish(entry)
        except MlflowException as error:
            return (f"MLflow did not take it ({first_line(error)}); a later run tries again",)
        return ()

    def fail(self, entry: Entry, text: str, *, killed: bool) -> None:
        """Close the run of an execution that raised, with its reason."""
        with suppress(Exception):  # the stage's own error matters more than the ledger's, and the journal has the run
            self.client.set_tag(entry.run_id, "rmpipe.error", text[:5000])
            self._abandon(entry, "KILLED" if killed else "FAILED")

    def _abandon(self, entry: Entry, status: str) -> None:
        self.client.set_terminated(entry.run_id, status)
        if entry.execution.kind in MODELS:
            for model in self.client.search_logged_models([entry.experiment], f"source_run_id = '{entry.run_id}'"):
                if model.status == "PENDING":
                    self.client.finalize_logged_model(model.model_id, "FAILED")
        self.journal.drop(entry.execution.address)

    def settle(self, address: str) -> None:
        """Finish what a process that died had made, or close its run as killed. Hold the lock of the address."""
        from mlflow.exceptions import MlflowException

        entry, store = self.journal.entry(address), Store(self.home)
        if entry is None:
            return self.journal.drop(address)
        try:
            if (store.record(address) or {}).get("run_id") == entry.run_id:
                store.clear(address)
                self.finish(entry)
            else:
                self._abandon(entry, "KILLED")
        except MlflowException as error:
            LOG.warning("the run of %s, left open by a process that died, was not closed: %s", address, error)
            if error.get_http_status_code() < 500:  # the run, or the database, was removed since: no use to try again
                self.journal.drop(address)

    def _read(self, entry: Entry) -> None:
        from mlflow.entities import LoggedModelInput

        inputs = entry.execution.inputs
        self._log_data(entry.run_id, [(address, name, "read") for name, address, kind, _ in inputs if kind in DATA])
        models = {model_id for _, _, kind, model_id in inputs if kind in MODELS and model_id}
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
            self._log_sets(run_id, items)

    def _log_sets(self, run_id: str, items: list[Any], tries: int = 5) -> None:
        """Of two runs that name a new data set at one moment the database refuses one; it then finds the other's."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_inputs(run_id, datasets=items)
        except MlflowException as error:
            if tries == 1 or "IntegrityError" not in str(error):
                raise
            self._log_sets(run_id, items, tries - 1)

    def _register(self, entry: Entry) -> None:
        from mlflow.entities import LoggedModelOutput

        self.client.finalize_logged_model(entry.model_id, "READY")
        if not self.client.get_run(entry.run_id).outputs.model_outputs:
            self.client.log_outputs(entry.run_id, [LoggedModelOutput(str(entry.model_id), 0)])
        name = entry.execution.registered
        version = self._version(name, entry)
        self.client.set_registered_model_alias(name, f"seed-{entry.execution.labels.get('seed', '0')}", version)
        self.client.set_logged_model_tags(entry.model_id, {"rmpipe.registered": f"models:/{name}/{version}"})

    def _version(self, name: str, entry: Entry) -> str:
        """The registered version of these bytes in this store, made unless it is there."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # another process may have made it first, or it is there from before
            self.client.create_registered_model(name)
        folder = Store(self.home).folder(entry.execution.address)
        source = _source(folder).absolute().as_uri()
        tags = {"rmpipe.address": entry.execution.address, "rmpipe.content": entry.content}
        for version in self.client.search_model_versions(f"name = '{name}'"):
            if version.source == source and tags.items() <= version.tags.items():
                return version.version
        card = entry.execution.card(folder)
        made = self.client.create_model_version(name, source, entry.run_id, tags, None, card, await_creation_for=0)
        return made.version

    def _measured(self, entry: Entry) -> None:
        """Numbers about a reward model under one policy stand with the reward model, whichever run found them."""
        from mlflow.entities import Metric

        labels, model_id = entry.execution.labels, entry.execution.subject
        where = ".".join(labels[name] for name in ("policy", "algorithm") if name in labels)
        points = [
            Metric(_metric_name(f"{where}.{name}"), value, entry.ended, 0, model_id=model_id, run_id=entry.run_id)
            for name, value in entry.metrics.items() if math.isfinite(value)
        ]  # fmt: skip
        self.client.log_batch(entry.run_id, metrics=points)

    def _show(self, entry: Entry) -> None:
        """Texts to read on the run's own page."""
        try:
            table = open_artifact(entry.execution.address, self.home).preview()
        except Exception as error:  # somebody else's kind of artifact: what was made is whole all the same
            return self._warn(entry.run_id, "texts", f"its preview failed: {type(error).__name__}: {error}")
        shown = {file.path for file in self.client.list_artifacts(entry.run_id)} if table is not None else set()
        if table is not None and "texts.json" not in shown:
            self.client.log_table(entry.run_id, table, "texts.json")

    def _warn(self, run_id: str, about: str, text: str) -> None:
        LOG.warning("%s", text)
        self.client.set_tag(run_id, f"rmpipe.warning.{about}", text[:5000])

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

    # -- a study's invocations ------------------------------------------------------------------------------------

    def open_study(self, study: str, question: str, at: int | None = None) -> str:
        """The parent run of one invocation, which began now or at a time of before, in milliseconds."""
        tags = {"rmpipe.study": study, "rmpipe.question": question}
        run = self.client.create_run(self._experiment("study"), start_time=at, tags=tags, run_name=study)
        return run.info.run_id

    def close_study(
        self,
        run_id: str,
        addresses: list[dict[str, Any]],
        status: str,
        report: Report | None = None,
        at: int | None = None,
    ) -> None:
        """List every address of an invocation, hits too, and keep the report and the ranking with it.

        Args:
            addresses: {"stage", "title", "address", "status"} each.
            status: `FINISHED` or `FAILED`.
            report: the study's report, when it is made.
            at: when it ended, in milliseconds since the epoch; now by default.
        """
        columns = {name: [item[name] for item in addresses] for name in ("stage", "title", "address", "status")}
        if addresses:
            self.client.log_table(run_id, columns, "addresses.json")
        for status_name in ("made", "hit", "failed"):
            self.client.log_metric(run_id, f"stages.{status_name}", columns["status"].count(status_name), at)
        try:
            if report is not None and report.built:
                self.client.log_artifact(run_id, str(report.page))
                self._keep_answer(run_id, report.inputs["ranking"].answer())
        finally:
            self.client.set_terminated(run_id, status, end_time=at)

    def _keep_answer(self, run_id: str, answer: dict[str, Any]) -> None:
        """The ranking as a table, and the best teacher of each policy as an alias of its registered model."""
        from mlflow.exceptions import MlflowException

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
        try:
            told, faults = crown(self.client, self.home, answer)
        except MlflowException as error:
            told, faults = {}, [f"the best teachers have no aliases: {error}"]
        for what, uri in told.items():
            self.client.set_tag(run_id, _metric_name(f"rmpipe.best-teacher.{what}"), uri)
        if faults:
            self._warn(run_id, "best-teacher", "; ".join(faults))

    def catch_up(self) -> None:
        """Close the runs of processes that died, and enter the invocations that had nothing to do."""
        for address in self.journal.addresses():
            with suppress(_AliveError), Store(self.home).lock(address, waiting=_leave_alone):
                self.settle(address)
        for told in self.journal.notes():
            try:
                self._enter(told)
            except Exception as error:  # nothing that must be made depends on it
                LOG.warning("an earlier invocation of %s was not entered: %s", told.get("study"), error)

    def _enter(self, told: dict[str, Any]) -> None:
        at = told["time"]
        run_id = self.open_study(told["study"], told["question"], at)
        self.close_study(run_id, told["addresses"], "FINISHED", Report(told["report"], self.home), at)

    # -- the browser ----------------------------------------------------------------------------------------------

    def serve(self, port: int) -> int:
        """Serve MLflow's pages on loopback until Ctrl-C or SIGTERM, see `browser.serve`."""
        from rmpipe.browser import serve

        if not self.uri.startswith("http"):
            self.prepare()
        return serve(self.home, self.uri, {**QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, port)


class _AliveError(Exception):
    """The process that holds an address lives."""


def _leave_alone(holder: dict[str, Any]) -> None:
    raise _AliveError


def note(home: Path, told: dict[str, Any]) -> bool:
    """Leave a note of an invocation that had nothing to do; MLflow, seconds to import, learns of it later.

    Returns:
        False when the store cannot be written, which is said: the answer matters more than that it was asked for.
    """
    try:
        Journal(home).note(told)
    except OSError as error:
        print(f"MLflow will not list this invocation: {home}: {error.strerror or error}", file=sys.stderr)
        return False
    return True


def warm() -> None:
    """Import mlflow now: a worker pays for it while the rest gets ready."""
    os.environ.update(QUIET)
    import mlflow.tracking  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def model_path(uri: str, home: Path | None = None) -> Path:
    """The folder behind `models:/name@alias`, which `from_pretrained` loads; nothing is copied.

    Args:
        home: the folder with all state; that of `$RMPIPE_HOME` by default.
    """
    import mlflow

    ledger = Ledger(home or Store().home)
    name, word = uri.removeprefix("models:/").rsplit("@", 1)
    version = ledger.client.get_model_version_by_alias(name, word)
    return Path(mlflow.artifacts.download_artifacts(version.source))


def _points(entry: Entry) -> list[Any]:
    """Numbers and curves; the numbers at the last step, so that they stand, not a curve of one name."""
    from mlflow.entities import Metric

    last = max((step for _, _, step, _ in entry.curve), default=0)
    told = [(name, value, last, entry.ended) for name, value in entry.metrics.items()]
    return [
        Metric(_metric_name(name), value, at, step)
        for name, value, step, at in [*told, *entry.curve]
        if math.isfinite(value)
    ]


@contextmanager
def _default_root(folder: Path) -> Iterator[None]:
    """Where MLflow, when it makes a database, is to place the experiment that nobody asked for.

    It would be the working folder, whose name it writes into a statement as it is: one with a quote in it fails.
    """
    os.environ[ROOT] = folder.as_uri()
    try:
        yield
    finally:
        os.environ.pop(ROOT, None)


def _source(folder: Path) -> Path:
    """Where the weights of an artifact lie: in it, or where its reference says."""
    with suppress(FileNotFoundError):
        return Path(json.loads((folder / "reference.json").read_text())["path"])
    return folder / "model" if (folder / "model").is_dir() else folder


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
