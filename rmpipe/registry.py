"""Models in MLflow: each is logged once, registered in versions, and has a card that grows with what is found about it.

Weights are never copied: a registered version's source is the store's folder; at a server, which several stores
share, it is the logged model, and the tags say the artifact's address and content.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmpipe.artifact import Ranking, Weights
from rmpipe.card import CIRCUMSTANCES, NOTE, UNDER, Links, scored
from rmpipe.citation import KEYS
from rmpipe.journal import MODELS, Entry, metric_name
from rmpipe.store import Store

WORDS = {"policy": "A policy before RLHF", "aligned": "A policy that RLHF taught", "reward-model": "A reward model"}
"""What a registered model is, by what MLflow calls its kind."""

SHORTER = 4500
"""Characters of a version's card: MLflow keeps 5000 of a version's description."""


@dataclass(frozen=True)
class Registry:
    """The models of one home.

    Args:
        client: MLflow's.
        entities: MLflow's module of this name.
        home: the folder with all state.
    """

    client: Any
    entities: Any
    home: Path

    def log(self, entry: Entry, summary: str) -> str:
        """The logged model of these bytes at this address: numbers found about it before a rebuild stay with it."""
        execution = entry.execution
        query = f"tags.`rmpipe.address` = '{execution.address}' and tags.`rmpipe.content` = '{entry.content}'"
        for model in self.client.search_logged_models([entry.experiment], query):
            if model.status == "READY":
                return model.model_id
        name = re.sub(r"[./:%\"']", "-", execution.title)
        tags = {"rmpipe.address": execution.address, "rmpipe.content": entry.content, "rmpipe.summary": summary}
        kind = MODELS[execution.kind]
        return self.client.create_logged_model(entry.experiment, name, entry.run_id, tags, model_type=kind).model_id

    def register(self, entry: Entry, card: str) -> None:
        """A logged model whose files are in place: it is ready, has a version with an alias, and a card on both."""
        model_id, name = str(entry.model_id), entry.execution.registered
        self.client.finalize_logged_model(model_id, "READY")
        if not self.client.get_run(entry.run_id).outputs.model_outputs:
            self.client.log_outputs(entry.run_id, [self.entities.LoggedModelOutput(model_id, 0)])
        version = str(self._version(name, entry, card))
        self.client.set_registered_model_alias(name, f"seed-{entry.execution.labels.get('seed', '0')}", version)
        shown = json.dumps([{"name": name, "version": version}])  # what the model's page links to
        told = {"rmpipe.registered": f"models:/{name}/{version}", "mlflow.modelVersions": shown}
        self.client.set_logged_model_tags(model_id, told)
        self._describe(model_id, card)

    def add_numbers(self, entry: Entry) -> None:
        """Numbers about a reward model, under one policy or on sets, stand with it, whichever run found them."""
        labels, model_id = entry.execution.labels, str(entry.execution.subject)
        under = UNDER.get(entry.execution.stage, CIRCUMSTANCES)
        where = [labels[name] for name in under if name in labels]
        points = [
            self.entities.Metric(
                metric_name(".".join([*where, name])), value, entry.ended, 0, model_id=model_id, run_id=entry.run_id
            )
            for name, value in entry.metrics.items() if math.isfinite(value)
        ]  # fmt: skip
        self.client.log_batch(entry.run_id, metrics=points)
        self._describe(model_id)

    def add_forecasts(self, entry: Entry, links: Links) -> None:
        """What a ranking says was foretold stands beside what came true: in each training's run, and with its teacher.

        Args:
            entry: of the ranking.
            links: to the runs that MLflow has.
        """
        ranking, at = Ranking(entry.execution.address, self.home), entry.ended
        for aligned, name, value in foretold(ranking.answer()) if ranking.built else ():
            record, run = links.record(aligned), links.run(aligned)
            teacher = record.get("inputs", {}).get("teacher", "")
            if run is None or links.run(teacher) is None:
                continue
            model_id, labels = links.record(teacher).get("model_id"), record["labels"]
            key = metric_name(".".join([*(labels[label] for label in CIRCUMSTANCES), name]))
            told = self.entities.Metric(key, value, at, 0, model_id=model_id, run_id=run)
            self.client.log_batch(run, metrics=[self.entities.Metric(metric_name(name), value, at, 0), told])
            self._describe(str(model_id))

    def _version(self, name: str, entry: Entry, card: str) -> Any:
        """The registered version of these bytes in this store, made unless it is there."""
        execution, place = entry.execution, self._place(entry)
        self._create(name, entry)
        tags = {"rmpipe.address": execution.address, "rmpipe.content": entry.content}
        for version in self.client.search_model_versions(f"name = '{name}'"):
            if version.source == place["source"] and tags.items() <= version.tags.items():
                return version.version
        told = {"run_id": entry.run_id, "tags": tags, "description": card}
        return self.client.create_model_version(name, await_creation_for=0, **place, **told).version

    def _place(self, entry: Entry) -> dict[str, str]:
        """What a version names: the folder of its weights; at a server, which takes no client's folder, its model."""
        if self.client.tracking_uri.startswith("http"):
            return {"source": f"models:/{entry.model_id}", "model_id": str(entry.model_id)}
        return {"source": weights(entry.execution.address, self.home).absolute().as_uri()}

    def _create(self, name: str, entry: Entry) -> None:
        """The registered model, unless it is there; its tags are what the list of models shows."""
        execution = entry.execution
        if self.client.search_registered_models(f"name = '{name}'"):
            return
        kind = MODELS[execution.kind]
        tags = {"rmpipe.study": execution.study, "rmpipe.kind": kind}
        text = f"{WORDS[kind]}, made for the study {execution.study}. The alias seed-1 is the latest of seed 1."
        with suppress(Exception):  # another process was first; if not, the version that follows will say what is wrong
            self.client.create_registered_model(name, tags, text)

    def _describe(self, model_id: str, card: str = "") -> None:
        """Write the card of a model with all that was found about it so far: on it, its run, and each version of it.

        Of two that found something at one moment the later writer has the numbers of both, since one waits.
        """
        store = Store(self.home)
        with store.lock(f"card/{model_id}"):
            model = self.client.get_logged_model(model_id)
            found = [(metric.key, metric.value, metric.run_id) for metric in model.metrics or ()]
            text = scored(card or model.tags.get(NOTE, ""), found)
            self.client.set_logged_model_tags(model_id, {NOTE: text})
            self.client.set_tag(model.source_run_id, NOTE, text)
            address = model.tags["rmpipe.address"]
            for version in self.client.search_model_versions(f"tags.`rmpipe.address` = '{address}'"):
                if version.tags.get("rmpipe.content") == model.tags["rmpipe.content"]:
                    files = f"Files: `{store.folder(address)}`"
                    self.client.update_model_version(version.name, version.version, f"{text[:SHORTER]}\n\n{files}")


def foretold(answer: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(address of a training, `forecast`, or `NAME_forecast` by a further ground truth, value) of all forecasts."""
    if not answer.get("forecast"):
        return
    taught = {tuple(row[key] for key in KEYS): row["addresses"]["align"] for row in answer["rows"]}
    for row in answer["forecast"]["rows"]:
        name = "forecast" if row["truth"] == answer["ground_truth"] else f"{row['truth']}_forecast"
        for aligned in taught.get(tuple(row[key] for key in KEYS), ()) if row["forecast"] else ():
            yield aligned, name, row["forecast"]["value"]


def weights(address: str, home: Path) -> Path:
    """Where the weights of an artifact lie: in it, or where its reference says."""
    model = Weights(address, home)
    if (model.path / "reference.json").exists() or (model.path / "model").is_dir():
        return model.model
    return model.path


def every(search: Callable[..., Any], **asked: Any) -> Iterator[Any]:
    """Everything that a search finds, page by page."""
    page = search(**asked)
    yield from page
    while page.token:
        page = search(**asked, page_token=page.token)
        yield from page
