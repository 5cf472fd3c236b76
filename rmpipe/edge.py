"""Who read and who made what: the edges between runs, data sets and models in MLflow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmpipe.journal import MODELS, Execution

DATA = {"Preferences", "Labelled", "Sieve", "Rollouts", "Scores"}
"""Kinds of artifact that are data sets."""


@dataclass(frozen=True)
class Edges:
    """The edges of one run.

    Args:
        client: MLflow's.
        entities: MLflow's module of this name.
        home: the folder with all state.
        run: the run's id.
    """

    client: Any
    entities: Any
    home: Path
    run: str

    def read(self, execution: Execution, titles: dict[str, str]) -> None:
        """The data sets and models that an execution reads.

        Args:
            titles: what each data set is called, by its address.
        """
        self._log([(address, titles[address], "read") for _, address, kind, _ in execution.inputs if kind in DATA])
        models = {model for _, _, kind, model in execution.inputs if kind in MODELS and model}
        if models:
            read = [self.entities.LoggedModelInput(model) for model in sorted(models)]
            self.client.log_inputs(self.run, models=read)

    def made(self, execution: Execution) -> None:
        """The data set that an execution has made, if it made one."""
        if execution.kind in DATA:
            self._log([(execution.address, execution.title, "made")])

    def _log(self, sets: list[tuple[str, str, str]]) -> None:
        items = []
        for address, title, context in dict.fromkeys(sets):
            source = json.dumps({"uri": str(self.home / "store" / address)})
            items.append(
                self.entities.DatasetInput(
                    self.entities.Dataset(title[:500], address.split("/")[1], "local", source),
                    [self.entities.InputTag("mlflow.data.context", context)],
                )
            )
        if items:
            self._send(items)

    def _send(self, items: list[Any], tries: int = 5) -> None:
        """Of two runs that name a new data set at one moment the database refuses one; it then finds the other's."""
        try:
            self.client.log_inputs(self.run, datasets=items)
        except Exception as error:
            if tries == 1 or "IntegrityError" not in str(error):
                raise
            self._send(items, tries - 1)
