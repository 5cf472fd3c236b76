"""What MLflow's pages say of a run, a model or a study: short Markdown, in which every name leads to what made it.

A link is relative (`#/runs/ID`), so that it holds on whichever port or server the pages are. It is made only to a run
that MLflow has: what was made elsewhere, or is gone, is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rmpipe.answer import Form
from rmpipe.artifact import Artifact
from rmpipe.config import StudyError, flatten
from rmpipe.journal import Execution

NOTE = "mlflow.note.content"
"""The tag whose Markdown MLflow shows on the page of a run, a logged model or an experiment."""
LONGEST = 7800
"""Characters of a description: MLflow keeps 8000."""
MANY, LINES = 4, 30
"""How many artifacts of one role, and how many in all, the list of what something was made from names."""
KILLED = "**It was killed before it was done.** The next run of its study makes what is missing."
STUDY = "Each run is a study that was asked for: open it for the answer, the report, and every stage that it took."
VIEWS = {
    "align": ("metrics.`truth_gain`", "metrics.`forecast`", "metrics.`proxy_gain`", "metrics.`kl`"),
    "measure": ("metrics.`variance`", "metrics.`accuracy_on`", "metrics.`accuracy_off`", "metrics.`flat_share`"),
    "audit": ("metrics.`fails`", "metrics.`drifts`", "metrics.`accuracy`", "metrics.`length`"),
    "evaluate": ("metrics.`test.accuracy`", "metrics.`test.margin`", "metrics.`test.loss`"),
    "diagnose": ("metrics.`ches.q50`", "metrics.`ches.q95`", "metrics.`ches.length`"),
    "single": ("metrics.`chosen`", "metrics.`rejected`", "metrics.`displaced`", "metrics.`decrease`"),
    "select": ("metrics.`pairs.reward`", "metrics.`dropped`"),
    "track": ("metrics.`trained.chosen`", "metrics.`trained.rejected`", "metrics.`trained.displaced`",
              "metrics.`trained.accuracy`", "metrics.`kl`"),
    "classify": ("metrics.`refusal`", "metrics.`unparsed`"),
    "gauge": ("metrics.`flat`", "metrics.`zero`", "metrics.`mean`", "metrics.`std`", "metrics.`norm_low`",
              "metrics.`norm_high`", "metrics.`ratio`", "metrics.`spearman`"),
    "imitate": ("metrics.`labels`",),
    "sift": ("metrics.`kept`", "metrics.`dropped`", "metrics.`deferred`"),
    "control": ("metrics.`supervised.gain_modified`", "metrics.`supervised.gain_unmodified`",
                "metrics.`expected_reinforce.gain_modified`", "metrics.`expected_reinforce.gain_unmodified`",
                "metrics.`initial.norm_modified`", "metrics.`initial.norm_unmodified`"),
}  # fmt: skip
"""The numbers of a stage that its runs are compared by, in the first place by the first."""
LABELS = ("policy", "reward_model", "algorithm", "seed")
TREATED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("diagnose", "single", "select", "track", "classify"), ("policy", "training", "subset", "seed")),
    **dict.fromkeys(("gauge", "sift"), ("policy", "reward", "seed")),
    "imitate": ("policy", "finetuning", "reward", "seed"), "control": ("experiment", "seed"),
}  # fmt: skip
"""The labels beside these numbers, where they are not `LABELS`."""
MEASURED = {"variance": "variance", "accuracy_on": "accuracy, on policy", "accuracy_off": "accuracy, off policy",
            "flat_share": "share of flat prompts"}  # fmt: skip
TAUGHT = {"truth_gain": "ground-truth gain", "forecast": "forecast", "proxy_gain": "proxy gain", "kl": "KL"}
ASKED = {"accuracy": "accuracy", "loss": "loss", "chosen": "mean reward, chosen", "rejected": "mean reward, rejected"}
GAUGED = {"flat": "share of prompts that teach nothing", "std": "mean std", "norm_low": "gradient norm, low std",
          "norm_high": "gradient norm, high std", "ratio": "low over high"}  # fmt: skip
UNDER: dict[str, tuple[str, ...]] = {"evaluate": (), "align": ("policy", "arm", "algorithm")}
"""The labels that the numbers of a stage about a reward model are named after, where these are not `CIRCUMSTANCES`."""
CIRCUMSTANCES = ("policy", "algorithm")
SCORES = "\n\n**What it scores, and whom it taught**\n\n"
"""Where the numbers of a reward model begin on its card: what stands before is written once, what follows anew."""
HOW = {
    "RewardModel": "Variance is that of its whitened rewards within a prompt, over responses of the policy that is "
    "named. Accuracy is ranking accuracy: on policy over pairs of these responses, off policy over the test pairs. "
    "A gain is what that policy gained by being taught with it, and a forecast what was foretold of that: 1 is as fast "
    "as the ground truth itself would teach. On a set of pairs, accuracy counts a tie as one half, and loss is that of "
    "Bradley and Terry.",
    "Policy": "A gain is a mean over held-out prompts, in standard deviations of each reward under the initial policy; "
    "KL is from the initial policy, in nats.",
    "Measurement": "Variance is that of whitened rewards within a prompt; accuracies are ranking accuracies.",
    "evaluate": "On each set of pairs: ranking accuracy, a tie one half; the margin in standard deviations of the "
    "set's rewards; the loss of Bradley and Terry; mean rewards. Cues is the share of the rewards that a bag of tokens "
    "explains, carried that which it explains with weights from the held-out pairs.",
    "diagnose": "CHES is the inner product of the summed hidden states of both responses, less the squared length of "
    "those of the chosen one; hidden that of the last states; edit minus the share of tokens that differ; length the "
    "tokens of the rejected response less those of the chosen one. q0 to q100 are quantiles over pairs, and .length is "
    "Spearman with that difference in length. Before any training.",
    "single": "Each pair is trained on alone, from the same weights. chosen and rejected are mean changes of log pi in "
    "nats, displaced is the share of pairs whose chosen response ends less likely, decrease the mean of the largest "
    "fall of its probability on the way.",
    "select": "The pairs that a subset keeps of those to train on, and how many it drops.",
    "prefer": "Trained on the pairs of a subset, with the policy it starts from as its reference.",
    "track": "Means over pairs, of those trained on and of those held out: changes of log pi in nats; displaced is the "
    "share of pairs whose chosen response ends less likely, fall the largest fall between two looks, accuracy the "
    "share of pairs whose chosen response is the likelier. KL is from the policy that it starts from, in nats.",
    "classify": "The share of responses that refuse, of those that could be told; unparsed is the share that could "
    "not.",
    "weigh": "Each similarity is judged by its rank correlation with the change of log pi of the chosen response: "
    "plainly, given the difference in length, and among pairs of equal length.",
    "gauge": "At each prompt, the std of the rewards of the policy's own responses, and the norm of the gradient of "
    "their expectation. flat is the share of prompts whose whitened std is under the threshold, zero that of prompts "
    "all of whose rewards are equal. Low are the prompts of least std, high the others; ratio is the norm of low over "
    "that of high, spearman the rank correlation of std and norm. Before any training.",
    "imitate": "labels is how many inputs it learnt the labels of.",
    "sift": "Prompts that teach nothing, for the std of their reward under the initial policy: kept, dropped, or "
    "deferred until after all others.",
    "control": "Rewards and gradients are exact. A gain is the expected reward after less before: of inputs whose "
    "label was modified, so that their std was small, and of the unmodified; initial is before finetuning.",
    "conclude": "The gain of a prompt is its mean reward after less before, from other draws than those that its std "
    "was estimated on.",
    "separate": "Inner products and cosines are of differences of hidden representations, chosen less rejected, before "
    "any training.",
}
"""How the numbers of a stage are measured, or else those of each kind of artifact."""


@dataclass(frozen=True)
class Links:
    """Links to the runs that made the artifacts of one home.

    Args:
        home: the folder with all state.
        since: when MLflow's database was made, in milliseconds since the epoch: it has no run of an older record.
    """

    home: Path
    since: int = 0

    def record(self, address: str) -> dict[str, Any]:
        """The record of an address; {} when it is gone."""
        try:
            return Artifact(address, self.home).record
        except StudyError:
            return {}

    def to(self, address: str, text: str = "") -> str:
        """A link to the run that made an artifact, by its title or another text; or why there is none."""
        name, run = plain(text or self.title(address)), self.run(address)
        missing = "made elsewhere" if self.record(address) else "its record is gone"
        return f"[{name}](#/runs/{run})" if run else f"{name} ({missing})"

    def title(self, address: str) -> str:
        """What an artifact is called."""
        return self.record(address).get("title", address)

    def run(self, address: str) -> str | None:
        """The run of MLflow's that made an artifact; None when it has none."""
        record = self.record(address)
        created = record.get("created")
        late = not created or 1000 * (datetime.fromisoformat(created).timestamp() + 1) >= self.since
        return record.get("run_id") if late else None


def plain(text: str) -> str:
    """A name as Markdown shows it as it is."""
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", text).replace("<", "&lt;")


def table(rows: list[dict[str, str]]) -> str:
    """Rows as a table of Markdown; the first decides on the columns, which MLflow sets without any space between."""
    heads, cells = list(rows[0]), [list(row.values()) for row in rows]
    lines = [[f"{text}&nbsp;&nbsp;" for text in line] for line in (heads, *cells)]
    lines.insert(1, ["---"] * len(heads))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- runs and models ------------------------------------------------------------------------------------------------


def of_execution(execution: Execution, links: Links, *, summary: str = "", why_not: str = "") -> str:
    """What an execution makes, for which study, and from what, back to the beginning.

    Args:
        summary: one line of what was made.
        why_not: why nothing was, see `fault`.
    """
    study = plain(execution.study or "no study")
    asked = f"[{study}](#/runs/{execution.parent_run})" if execution.parent_run else study
    title = plain(execution.title)
    parts = [why_not] if why_not else []
    parts.append(f"{title}: {plain(summary)}" if summary else title)
    if origins := list(made_from(((name, address) for name, address, *_ in execution.inputs), links)):
        parts.append("**Made from**\n\n" + "\n".join(origins[:LINES] + ["- …"] * (len(origins) > LINES)))
    parts.append(f"Asked for by {asked}. Its whole record: `rmpipe why {execution.address}`")
    parts += [HOW[name] for name in (execution.stage, execution.kind) if name in HOW][:1]
    return "\n\n".join(parts)[:LONGEST]


def fault(status: str, text: str = "") -> str:
    """Why an execution made nothing: it was `KILLED`, or `FAILED` with an error."""
    if status == "KILLED":
        return KILLED
    shown = text[:3000].replace("```", "...")
    return f"**It failed:**\n\n```\n{shown}\n```"


def of_experiment(name: str, experiment: str, purpose: str) -> dict[str, str]:
    """The tags of an experiment: what its runs do, and a link to a view of them side by side by their numbers."""
    if name not in VIEWS:
        return {NOTE: purpose} if purpose else {}
    columns = [*VIEWS[name], *(f"tags.`rmpipe.{label}`" for label in TREATED.get(name, LABELS))]
    view = {"selectedColumns": columns, "orderByKey": columns[0], "orderByAsc": False}
    link = f"[Side by side](#/experiments/{experiment}/runs?viewStateShareKey=numbers)"
    return {NOTE: f"{purpose} {link}".strip(), "mlflow.sharedViewState.numbers": json.dumps(view)}


def made_from(
    inputs: Iterable[tuple[str, str]], links: Links, depth: int = 0, told: set[str] | None = None
) -> Iterator[str]:
    """What something was made from, and below each what that was made from; each address is followed once."""
    told, roles = set() if told is None else told, dict[str, list[str]]()
    for role, address in inputs:
        roles.setdefault(role.replace("_", " "), []).append(address)
    for role, addresses in roles.items():
        for address in addresses[:MANY]:
            yield f"{'    ' * depth}- {role}: {links.to(address)}"
            if address not in told:
                told.add(address)
                yield from made_from(_inputs(links.record(address).get("inputs", {})), links, depth + 1, told)
        if len(addresses) > MANY:
            yield f"{'    ' * depth}- {role}: {len(addresses) - MANY} more"


def _inputs(inputs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(argument, address) of all that a record names."""
    for name, value in inputs.items():
        yield from ((name, address) for address in flatten(value).values() if isinstance(address, str))


def scored(card: str, metrics: list[tuple[str, float, str]]) -> str:
    """A reward model's card with all that was found about it so far, each line with a link to the run that found it.

    Args:
        card: as it was written first, or last.
        metrics: (`weak.variance`, `weak.rloo.truth_gain` or `paraphrase.accuracy`, value, run) of its logged model.
    """
    heads = {"policy": MEASURED, "gauged": GAUGED, "taught": TAUGHT, "set": ASKED}
    tables = [_scores(head, names, _rows(metrics, names)) for head, names in heads.items()]
    return card.partition(SCORES)[0] + (SCORES + "\n\n".join(filter(None, tables)) if any(tables) else "")


def _scores(head: str, names: dict[str, str], rows: dict[tuple[str, str], dict[str, float]]) -> str:
    lines = [
        {head: f"[{plain(where)}](#/runs/{run})"}
        | {text: f"{found[name]:.2f}" if name in found else "" for name, text in names.items()}
        for (where, run), found in rows.items()
    ]
    return table(lines) if lines else ""


def _rows(metrics: list[tuple[str, float, str]], names: Iterable[str]) -> dict[tuple[str, str], dict[str, float]]:
    """The numbers of these names, by (what stands before the name, run)."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, value, run in sorted(metrics):
        where, _, name = key.rpartition(".")
        if where and name in names:
            rows.setdefault((where, run), {})[name] = value
    return rows


# -- a study --------------------------------------------------------------------------------------------------------


def of_study(answer: dict[str, Any], page: str, figures: list[str]) -> str:
    """A study's question, where its report is, the answer in sentences and, as far as there is room, the rankings.

    Args:
        answer: a ranking's.
        page: the address of its run's page.
        figures: the files of its figures, the first of which are shown.
    """
    from rmpipe.page import RELATED

    files = {"the report": "report.html", "the runs behind every number": "ranking.md", "every stage": "stages.md"}
    planes = [name for name in figures if name.endswith("/accuracy-against-variance.svg")]
    files |= {"its figures": (planes or figures)[0]} if figures else {}
    open_ = ", ".join(f"[{text}]({page}/artifacts/{name})" for text, name in files.items())
    text = "\n\n".join([answer["question"], f"Open {open_}."])
    leads = [sentence for sentence in answer["sentences"] if RELATED not in sentence]
    shown = [f"![{name}](get-artifact?path={name}&run_uuid={page.rsplit('/', 1)[1]})" for name in planes]
    for part in (*leads, *_rankings(answer), *shown):
        text = f"{text}\n\n{part}" if len(text) + len(part) + 2 <= LONGEST else text
    return text


def ranking(answer: dict[str, Any], links: Links) -> str:
    """The rankings, with links to the runs that made each reward model, measured it, and taught with it."""
    return "\n\n".join([f"# {answer['question']}", *_rankings(answer, links)]) + "\n"


def _rankings(answer: dict[str, Any], links: Links | None = None) -> Iterator[str]:
    form = Form.of(answer)
    for where in dict.fromkeys(map(form.where, answer["rows"])):
        mine = [row for row in answer["rows"] if form.where(row) == where]
        yield f"**{plain(where)}**\n\n" + table([_line(row, form) | _runs(row, form, links) for row in mine])


def _line(row: dict[str, Any], form: Form) -> dict[str, str]:
    from rmpipe.interval import Estimate

    numbers = {text: str(Estimate.of(row[name])) if row.get(name) else "" for name, text in form.numbers.items()}
    return {"rank": row["rank"], form.ranked: plain(row[form.keys[2]])} | numbers


def _runs(row: dict[str, Any], form: Form, links: Links | None) -> dict[str, str]:
    """Links of a row, one a run: to what was made in a stage, or to what that was made from."""
    if links is None:
        return {}
    cells = {}
    for head, (stage, given) in form.runs.items():
        made = row["addresses"].get(stage, [])
        meant = [links.record(address).get("inputs", {}).get(given, address) for address in made]
        cells[head] = ", ".join(
            links.to(one, _run(row, links, address)) for one, address in zip(meant, made, strict=True)
        )
    return cells


def _run(row: dict[str, Any], links: Links, address: str) -> str:
    """What tells a run of a row from the others: its seed; and its policy, where the row is of several."""
    labels = links.record(address).get("labels", {})
    policy = labels.get("policy", row["policy"])
    return f"{'' if policy == row['policy'] else f'{policy}, '}seed {labels.get('seed', '?')}"


def stages(listed: list[dict[str, Any]], links: Links) -> str:
    """Every stage of an invocation with a link to the run that made it, whenever that was."""
    rows = [
        {"stage": links.to(item["address"], item["title"]), "here": item["status"], "address": f"`{item['address']}`"}
        for item in listed
    ]
    return f"# Every stage\n\n{table(rows)}\n"
