"""What MLflow remembers: every execution, data set and model, and who made what from what.

The only importer of mlflow. All calls go through a client with explicit ids: MLflow's own notion of the current run and
experiment is one for the whole process. Models are in `registry`, a study's page in `invocation`, all texts in `card`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe import card
from rmpipe.artifact import Report, open_artifact
from rmpipe.browser import answers
from rmpipe.config import StudyError, first_line
from rmpipe.crown import crown
from rmpipe.edge import Edges
from rmpipe.invocation import Invocation, named
from rmpipe.journal import MODELS, Entry, Execution, Journal, metric_name, now, source
from rmpipe.lock import HeldError, leave_alone
from rmpipe.moving import settle_in
from rmpipe.registry import Registry, weights
from rmpipe.store import Store

if TYPE_CHECKING:
    from rmpipe.browser import Pages

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
STUDIES = "studies"
"""Invocations under way, in the journal."""
LOG = logging.getLogger(__name__)


@dataclass
class Ledger:
    """MLflow on a store.

    Args:
        home: the folder with all state; the database is `mlflow.db`, small files go below `mlflow-artifacts/`.
    """

    home: Path
    _experiments: dict[str, str] = field(default_factory=dict)
    _open: dict[str, ExitStack] = field(default_factory=dict)

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

        theirs = os.environ.get("MLFLOW_TRACKING_URI")
        if theirs and theirs.startswith("http") and not answers(f"{theirs}/health"):  # MLflow would try for minutes
            raise RuntimeError(f"MLFLOW_TRACKING_URI: no server answers at {theirs}; start it, or unset the variable")
        try:
            # Two first starts would race in migrating the database.
            with Store(self.home).lock("mlflow"), _default_root(self.home / "mlflow-artifacts"):
                if not theirs:
                    _settled(self.home)
                client = MlflowClient(self.uri, registry_uri=self.uri)
                for empty in client.search_experiments(filter_string="name = 'Default'"):
                    self._remove(client, empty.experiment_id)
        except (MlflowException, SQLAlchemyError) as error:
            remedy = "mend MLFLOW_TRACKING_URI, or move a broken database away and a new one is made"
            if "out-of-date" in str(error):
                remedy = "keep a copy of it, then: mlflow db upgrade " + self.uri
            raise RuntimeError(f"MLflow cannot use {self.uri}: {first_line(error)}; {remedy}") from error
        return client

    def _remove(self, client: Any, experiment: str) -> None:
        """Take away the experiment that MLflow makes unasked, while nothing is in it and the database is ours."""
        if not os.environ.get("MLFLOW_TRACKING_URI") and not client.search_runs([experiment], max_results=1):
            client.delete_experiment(experiment)

    @cached_property
    def links(self) -> card.Links:
        """Links to the runs of what the store has, as far as this database is older."""
        from mlflow.exceptions import MlflowException

        since = 0
        with suppress(MlflowException):  # its first experiment is as old as the database, unless it was purged
            since = self.client.get_experiment("0").creation_time or 0
        return card.Links(self.home, since)

    @property
    def models(self) -> Registry:
        """Logged models and their registered versions."""
        from mlflow import entities

        return Registry(self.client, entities, self.home)

    def _edges(self, entry: Entry) -> Edges:
        from mlflow import entities

        return Edges(self.client, entities, self.home, entry.run_id)

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

        experiment = self._experiment(execution.stage, execution.purpose)
        name = f"{execution.title} ({execution.address.split('/')[1]})"
        tags = execution.tags | {card.NOTE: card.of_execution(execution, self.links)}
        run = self.client.create_run(experiment, tags=tags, run_name=name)
        entry = Entry(execution, run.info.run_id, experiment)
        self.journal.keep(entry)
        told = {**execution.params, **{f"runtime.{key}": value for key, value in execution.runtime.items()}}
        params = [Param(metric_name(key)[:250], str(value)[:6000]) for key, value in told.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run.info.run_id, params=params[start : start + 100])
        titles = {address: self.links.title(address) for _, address, *_ in execution.inputs}
        self._edges(entry).read(execution, titles)
        return entry

    def dress(self, entry: Entry, record: dict[str, Any], curve: list[tuple[str, float, int, int]]) -> None:
        """Give a model its id, which goes into its record, and journal what is to be entered once it is in place.

        Args:
            record: sealed: its content says whether the model is one that was made before.
            curve: (name, value, step, milliseconds since the epoch).
        """
        entry.content, entry.metrics, entry.curve, entry.ended = record["content"], record["metrics"], curve, now()
        if entry.execution.kind in MODELS:
            entry.model_id = record["model_id"] = self.models.log(entry, record["summary"])
        self.journal.keep(entry)

    def finish(self, entry: Entry) -> None:
        """Enter numbers, curves, texts, the data set or model that was made, and close the run.

        It may be done twice: a process that was killed half-way is followed by one that does it again.
        """
        from mlflow.entities import Metric

        points = [Metric(metric_name(name), value, at, step) for name, value, step, at in entry.points]
        for start in range(0, len(points), 1000):
            self.client.log_batch(entry.run_id, metrics=points[start : start + 1000])
        self._edges(entry).made(entry.execution)
        summary = (Store(self.home).record(entry.execution.address) or {}).get("summary", "")
        text = card.of_execution(entry.execution, self.links, summary=summary)
        self.client.set_tag(entry.run_id, card.NOTE, text)
        if entry.model_id:
            self.models.register(entry, text)
        if entry.execution.subject:
            self.models.add_numbers(entry)
        if entry.execution.kind == "Ranking":
            self.models.add_forecasts(entry, self.links)
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
            self._abandon(entry, "KILLED" if killed else "FAILED", text)

    def _abandon(self, entry: Entry, status: str, text: str = "") -> None:
        why_not = card.fault(status, text)
        note = card.of_execution(entry.execution, self.links, why_not=why_not)
        self.client.set_tag(entry.run_id, card.NOTE, note)
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

    def _experiment(self, name: str, purpose: str = "") -> str:
        if name not in self._experiments:
            from mlflow.exceptions import MlflowException

            found = self.client.get_experiment_by_name(name)
            if found is None:
                ours = (self.home / "mlflow-artifacts" / name).as_uri()
                place = None if self.uri.startswith("http") else ours  # a server keeps what all its clients log
                with suppress(MlflowException):
                    self.client.create_experiment(name, artifact_location=place)
                found = self.client.get_experiment_by_name(name)
            for key, text in card.of_experiment(name, found.experiment_id, purpose).items():
                if (purpose or key not in found.tags) and found.tags.get(key) != text:
                    with suppress(MlflowException):  # another process writes the same at the same moment
                        self.client.set_experiment_tag(found.experiment_id, key, text)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    # -- a study's invocations ------------------------------------------------------------------------------------

    def open_study(self, study: str, question: str, at: int | None = None) -> str:
        """The parent run of one invocation, which began now or at a time of before, in milliseconds.

        Should we die before it is closed, the next process that looks closes it as killed.
        """
        tags = {"rmpipe.study": study, "rmpipe.question": question, **source(study)}
        run = self.client.create_run(self._experiment("study", card.STUDY), start_time=at, tags=tags, run_name=study)
        self._open[run.info.run_id] = ExitStack()
        self._open[run.info.run_id].enter_context(self.journal.under_way(STUDIES, run.info.run_id, {"study": study}))
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
        run = self.client.get_run(run_id)
        page = Invocation(self.client, run_id, run.info.experiment_id, self.links)
        try:
            page.list_stages(addresses, at)
            if report is not None and report.built:
                self._crown(run_id, page.keep_report(report))
        finally:
            name = named(run.data.tags["rmpipe.study"], addresses, status)
            self.client.set_tag(run_id, "mlflow.runName", name)
            self.client.set_terminated(run_id, status, end_time=at)
        self._open.pop(run_id).close()

    def _crown(self, run_id: str, answer: dict[str, Any]) -> None:
        """The best teacher of each policy as an alias of its registered model."""
        from mlflow.exceptions import MlflowException

        try:
            told, faults = crown(self.client, self.home, answer)
        except MlflowException as error:
            told, faults = {}, [f"the best teachers have no aliases: {error}"]
        for what, uri in told.items():
            self.client.set_tag(run_id, metric_name(f"rmpipe.best-teacher.{what}"), uri)
        if faults:
            self._warn(run_id, "best-teacher", "; ".join(faults))

    def report_of(self, run_id: str) -> str | None:
        """The address of the report that a study's run ended in; None of any other run, and of one that ended early."""
        from mlflow.exceptions import MlflowException

        if not (self.uri.startswith("http") or (self.home / "mlflow.db").exists()):
            return None
        with suppress(MlflowException):  # there is no such run
            return self.client.get_run(run_id).data.tags.get("rmpipe.report")
        return None

    def catch_up(self) -> None:
        """Close the runs of processes that died, and enter the invocations that had nothing to do."""
        for address in self.journal.addresses():
            with suppress(HeldError), Store(self.home).lock(address, waiting=leave_alone):
                self.settle(address)
        self._close_killed()
        for told in self.journal.notes():
            try:
                self._enter(told)
            except Exception as error:  # nothing that must be made depends on it
                LOG.warning("an earlier invocation of %s was not entered: %s", told.get("study"), error)

    def _close_killed(self) -> None:
        """Close the runs of invocations whose process died, but for one that somebody has removed since."""
        from mlflow.exceptions import MlflowException

        for run_id, told in self.journal.abandoned(STUDIES):
            try:
                self.client.set_tag(run_id, card.NOTE, card.KILLED)
                self.client.set_tag(run_id, "mlflow.runName", f"{told['study']} · killed")
                self.client.set_terminated(run_id, "KILLED")
            except MlflowException as error:
                if error.get_http_status_code() >= 500:  # a busy database: the journal keeps it for the next who looks
                    LOG.warning("the run of %s, whose process died, was not closed: %s", told["study"], error)
                    return

    def _enter(self, told: dict[str, Any]) -> None:
        at = told["time"]
        run_id = self.open_study(told["study"], told["question"], at)
        self.close_study(run_id, told["addresses"], "FINISHED", Report(told["report"], self.home), at)

    # -- the browser ----------------------------------------------------------------------------------------------

    def serving(self, port: int) -> AbstractContextManager[Pages]:
        """Serve MLflow's pages on loopback while the context lasts, see `browser.serving`."""
        from rmpipe.browser import serving

        if not self.uri.startswith("http"):
            self.prepare()
        return serving(self.home, self.uri, {**QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, port)


def _settled(home: Path) -> None:
    """Our own database: told its place if the home was moved; made beside it, since one half migrated is lost."""
    from mlflow.tracking import MlflowClient

    file, part = home / "mlflow.db", home / ".mlflow.db.part"
    if file.exists():
        return settle_in(home)
    part.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{part}", registry_uri=f"sqlite:///{part}").search_experiments(max_results=1)
    part.replace(file)


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

    Raises:
        StudyError: the store does not have it with these bytes; another that registers at the same server may.
    """
    store = Store(home)
    name, word = uri.removeprefix("models:/").rsplit("@", 1)
    tags = Ledger(store.home).client.get_model_version_by_alias(name, word).tags
    address = tags["rmpipe.address"]
    if (store.record(address) or {}).get("content") != tags["rmpipe.content"]:
        remedy = "make it here, or `rmpipe export` it where it is and `rmpipe import` it"
        raise StudyError(f"{uri}: {address} with these bytes is not in {store.root}; {remedy}")
    return weights(address, store.home)


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
