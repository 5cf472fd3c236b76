"""What goes with a model to the hub: its card, for whoever finds it there, with all that is known of it here.

Numbers are those of the store, with their intervals; nothing is said of this machine but versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rmpipe.artifact import Artifact, Measurement, Policy, RewardModel
from rmpipe.card import ASKED, HOW, MEASURED, Links, made_from
from rmpipe.config import flatten
from rmpipe.interval import Estimate, bootstrap
from rmpipe.registry import WORDS
from rmpipe.reward import Kind
from rmpipe.store import Store, open_artifact

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

REFERENCE = "reference"
"""The folder of what an implicit reward model's likelihoods are compared with."""
TEMPLATED = """\
tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
)"""
"""A prompt as a tokenizer with a chat template has it."""
ORIGINS = ("base", "policy")
"""What stages call the language model that they start from."""
TIES = (
    "On policy, a pair of responses is right where reward and ground truth order it alike, so that a tie is right only "
    "if both tie; over test pairs a tie earns one half."
)
ACCURACIES = {
    "accuracy_off": "pairwise accuracy, a tie one half",
    "accuracy_on": "on-policy accuracy, a tie right only if both tie",
}
KINDS = {"Policy": "aligned", "Preferred": "aligned", "RewardModel": "reward-model"}
STARTS = {
    "explicit": """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model, tokenizer = (kind.from_pretrained("{hub}") for kind in (AutoModelForSequenceClassification, AutoTokenizer))
text = {asked} + response + tokenizer.eos_token
reward = model(**tokenizer({given}, return_tensors="pt")).logits[0, 0].item()""",
    "generative": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (kind.from_pretrained("{hub}") for kind in (AutoModelForCausalLM, AutoTokenizer))
question = {template!r}
prompt = question.replace("{{prompt}}", prompt).replace("{{response}}", response)
text = {asked}
reward = model(**tokenizer({given}, return_tensors="pt")).logits[0, -1].softmax(-1)[{yes}].item()  # {word!r}""",
    "implicit": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (kind.from_pretrained("{hub}") for kind in (AutoModelForCausalLM, AutoTokenizer))
{reference}
def log_probability(model, asked, text):
    ids = tokenizer({given}, return_tensors="pt").input_ids
    begin = len(tokenizer({before}).input_ids)
    told = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
    return told[begin - 1:].sum().item()

asked = {asked}
text = asked + response + tokenizer.eos_token
reward = {beta} * {difference}""",
    "policy": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (kind.from_pretrained("{hub}") for kind in (AutoModelForCausalLM, AutoTokenizer))
text = {asked}
ids = model.generate(**tokenizer({given}, return_tensors="pt"), do_sample=True, max_new_tokens=64)
response = tokenizer.decode(ids[0], skip_special_tokens=True)""",
}
"""How a model is loaded and used, by its kind; `prompt` and `response` are texts."""


class Plain(Links):
    """Names with addresses where a page of MLflow would have links."""

    def to(self, address: str, text: str = "") -> str:
        """A title and an address."""
        return f"{text or self.title(address)} (`{address}`)"


@dataclass(frozen=True)
class Leaflet:
    """The card of a model.

    Args:
        artifact: a reward model that was trained here, or weights of a language model.
        hub: OWNER/NAME, where it is to be found.
    """

    artifact: Any
    hub: str

    @property
    def kind(self) -> str:
        """`explicit`, `implicit`, `generative`, or `policy`."""
        return str(self.asked.kind) if isinstance(self.artifact, RewardModel) else "policy"

    @cached_property
    def asked(self) -> Any:
        """Of a reward model, what it is."""
        return Kind.parse(self.artifact.json("reward_model.json"), where=self.artifact.address)

    def card(self) -> ModelCard:
        """All of it."""
        from huggingface_hub import ModelCard, ModelCardData

        results = list(self.results())
        name = self.hub.split("/")[1]
        told: dict[str, Any] = {"eval_results": results, "model_name": name} if results else {}
        data = ModelCardData(
            library_name="transformers", base_model=self.origin()[0], datasets=self.datasets() or None,
            pipeline_tag="text-classification" if self.kind == "explicit" else "text-generation",
            tags=self.tags(), metrics=["accuracy"] if results else None, **told,
        )  # fmt: skip
        return ModelCard(f"---\n{data}\n---\n\n{self.text()}", ignore_metadata_errors=False)

    def tags(self) -> list[str]:
        """What it is found by."""
        if isinstance(self.artifact, RewardModel):
            return ["rmpipe", "trl", "reward-model", self.kind]
        return ["rmpipe", "trl", KINDS.get(type(self.artifact).__name__, "policy")]

    def text(self) -> str:
        """What a person reads."""
        parts = {
            "": self._what(), "Made from": self._origins(), "Training": _settings(self.artifact.record["config"]),
            "Numbers": self._numbers(), "How to use it": self._use(), "Limits": self._limits(),
            "Lineage": self._lineage(),
        }  # fmt: skip
        head = f"# {self.hub.split('/')[1]}"
        told = [f"## {title}\n\n{text}" if title else f"{head}\n\n{text}" for title, text in parts.items() if text]
        return "\n\n".join(told) + "\n"

    # -- what it is -----------------------------------------------------------------------------------------------

    def _what(self) -> str:
        record = self.artifact.record
        word = WORDS[KINDS.get(record["kind"], "policy")]
        if isinstance(self.artifact, RewardModel):
            word = f"{word}, {self.asked.describe()}"
        study, seed = record.get("study") or "none", record["labels"].get("seed", "?")
        made = f"made by rmpipe for the study `{study}`, seed {seed}"
        return f"{word}; {made} ({record['created'][:10]})."

    def ancestors(self) -> dict[str, Artifact]:
        """Every artifact that it was made from, back to the beginning, as far as records are here."""
        found: dict[str, Artifact] = {}
        waiting = [self.artifact.record]
        while waiting:
            for address in filter(None, flatten(waiting.pop()["inputs"]).values()):
                if isinstance(address, str) and address not in found:
                    found[address] = Artifact(address, self.artifact.home)
                    waiting += [found[address].record] if found[address].built or found[address].only_told else []
        return {address: one for address, one in found.items() if one.built or one.only_told}

    def origin(self) -> tuple[str | None, str]:
        """The hub id of the language model that it began as, None of one from elsewhere; and in words what it is."""
        record, home = self.artifact.record, self.artifact.home
        while start := next((record["inputs"][name] for name in ORIGINS if record["inputs"].get(name)), None):
            record = Artifact(start, home).record
        content = str(record["config"].get("content", ""))
        if record["stage"] == "pretrain":
            told = "a small language model of random weights, pretrained on the embedded world"
            return None, f"{told} (`{_named(record)}`)"
        if "@" in content:
            place, _, revision = content.rpartition("@")
            return place, f"[{place}](https://huggingface.co/{place}) at revision `{revision}`"
        return None, f"a language model from a folder, SHA-256 `{content or record['content']}` (`{_named(record)}`)"

    def datasets(self) -> list[str]:
        """The hub ids of the data that it was made from."""
        contents = [str(record["config"].get("content", "")).partition(" ")[0] for record in self._data()]
        return list(dict.fromkeys(content.rpartition("@")[0] for content in contents if "@" in content))

    def _data(self) -> list[dict[str, Any]]:
        return [one.record for one in self.ancestors().values() if one.record["stage"] in ("prepare", "label")]

    def _origins(self) -> str:
        lines = [f"- base: {self.origin()[1]}"]
        for record in self._data():
            source, content = record["config"].get("source", "?"), str(record["config"].get("content", ""))
            came = f" `{content.partition(' ')[0]}`" if content else ""
            read = f"content SHA-256 `{record['content']}`"
            lines.append(f"- data: source `{source}`{came}, {record['summary']}; {read} (`{_named(record)}`)")
        came = self.artifact.record["stage"] == "fetch"  # whose summary is a place of this machine
        summary = "as it came" if came else self.artifact.record["summary"]
        lines.append(f"- this model: {summary}; content SHA-256 `{self.artifact.content}`")
        return "\n".join(lines)

    # -- what was found about it ----------------------------------------------------------------------------------

    def _about(self, stage: str, name: str) -> Iterator[Artifact]:
        """Artifacts of a stage that were made of this one, as its input of this name."""
        store = Store(self.artifact.home)
        for address in store.all(stage):
            if (store.record(address) or {}).get("inputs", {}).get(name) == self.artifact.address:
                yield open_artifact(address, store.home)

    @cached_property
    def measured(self) -> list[tuple[str, dict[str, Any]]]:
        """(policy, numbers with intervals) of each policy that its rewards were measured under."""
        store, found = Store(self.artifact.home), []
        for address in store.all("measure"):
            record = store.record(address) or {}
            scores = store.record(record.get("inputs", {}).get("scores", "")) or {}
            if scores.get("inputs", {}).get("reward_model") == self.artifact.address:
                found.append((record["labels"].get("policy", "?"), Measurement(address, store.home).numbers()))
        return found

    @cached_property
    def gains(self) -> list[tuple[str, dict[str, Estimate]]]:
        """(policy and algorithm, gains with intervals over prompts) of each policy that it taught, or its own."""
        own = isinstance(self.artifact, Policy)
        taught: Iterable[Any] = [self.artifact] if own else self._about("align", "teacher")
        found = []
        for policy in taught:
            table, labels = policy.samples(), policy.record["labels"]
            names = [name for name in ("truth_gain", "proxy_gain") if name in table]
            parts = ("policy", "reward_model" if own else "", "algorithm")
            where = ", ".join(labels[name] for name in parts if name in labels)
            found.append((where, {name: bootstrap(table[name].to_numpy()) for name in names}))
        return found

    @cached_property
    def tried(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(policy, set, numbers with intervals) of each set of pairs that it was asked about."""
        found = []
        for made in self._about("evaluate", "reward_model"):
            numbers = Measurement(made.address, made.home).numbers()
            for name in dict.fromkeys(key.rpartition(".")[0] for key in numbers if key.endswith(".accuracy")):
                mine = {key: numbers.get(f"{name}.{key}") for key in ASKED}
                found.append((made.record["labels"].get("policy", "?"), name, mine))
        return found

    def _numbers(self) -> str:
        parts = []
        if self.measured:
            rows = [{"policy": where} | _told(numbers, MEASURED) for where, numbers in self.measured]
            parts.append(_table(rows))
        if self.tried:
            rows = [{"policy": where, "set": name} | _told(mine, ASKED) for where, name, mine in self.tried]
            parts.append(_table(rows))
        if self.gains:
            words = {"truth_gain": "ground-truth gain", "proxy_gain": "proxy gain"}
            head = "taught" if isinstance(self.artifact, RewardModel) else "how"
            parts.append(_table([{head: where} | {words[name]: str(value) for name, value in mine.items()}
                                 for where, mine in self.gains]))  # fmt: skip
        audits = [f"Audit: {one.record['summary']}." for one in self._about("audit", "reward_model")]
        if not parts:
            return "\n\n".join(audits)
        how = HOW["RewardModel" if isinstance(self.artifact, RewardModel) else "Policy"]
        ties = f" {TIES}" if self.measured else ""
        return "\n\n".join([*parts, *audits, f"In brackets: 95 % intervals over prompts. {how}{ties}"])

    def results(self) -> Iterator[EvalResult]:
        """The accuracies as the hub's model index has them."""
        from huggingface_hub import EvalResult

        data = next(iter(self.datasets()), "preference-pairs")
        kind: dict[str, Any] = {
            "task_type": "text-classification",
            "task_name": "Preference ranking",
            "metric_type": "accuracy",
        }
        seen: dict[tuple[str, str], EvalResult] = {}
        for where, numbers in self.measured:
            for name, words in ACCURACIES.items():
                if number := numbers.get(name):
                    split = "test" if name == "accuracy_off" else f"responses of {where}"
                    more: dict[str, Any] = {"dataset_type": data, "dataset_name": f"{data}, {split}"}
                    more |= {"dataset_split": split, "metric_name": words, "metric_value": round(number["value"], 4)}
                    seen[split, name] = EvalResult(**kind, **more)
        for where, name, mine in self.tried:
            if number := mine.get("accuracy"):
                more = {"dataset_type": data, "dataset_name": f"{name} ({where})", "dataset_split": name}
                told: dict[str, Any] = {
                    "metric_name": ACCURACIES["accuracy_off"],
                    "metric_value": round(number["value"], 4),
                }
                seen[name, where] = EvalResult(**kind, **more, **told)
        yield from seen.values()

    # -- how it is used -------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        """Its own."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.artifact.model)

    def _use(self) -> str:
        told: dict[str, Any] = {"hub": self.hub, "asked": self._asked(), "given": "text", "before": "asked"}
        note = ""
        if self.kind == "generative":
            yes, _ = self.asked.answers(self.tokenizer)
            told |= {"template": self.asked.template, "yes": yes, "word": self.asked.yes}
        elif self.kind == "implicit":
            load, difference = "", "log_probability(model, asked, text)"
            if self.asked.reference:
                load = f'reference = AutoModelForCausalLM.from_pretrained("{self.hub}", subfolder="{REFERENCE}")\n'
                difference = f"({difference} - log_probability(reference, asked, text))"
            told |= {"reference": load, "beta": f"{self.asked.beta:g}", "difference": difference}
        elif self.kind == "explicit":
            note = _read_how(self.asked, self.hub)
        return f"```python\n{STARTS[self.kind].format(**told)}\n```{note}"

    def _asked(self) -> str:
        """A prompt as the model reads it, its beginning of sequence left to the tokenizer where that adds one."""
        if not self.tokenizer.chat_template:
            return "prompt"
        adds = self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        return TEMPLATED + (".removeprefix(tokenizer.bos_token)" if adds else "")

    def _limits(self) -> str:
        lines = [f"- It holds {_context(self.artifact.model, self.tokenizer):,} tokens, prompt and response together."]
        if isinstance(self.artifact, RewardModel):
            lines.insert(0, "- A reward has no zero and no unit of its own: it orders responses to one prompt.")
            if any(one.record["stage"] == "relabel" for one in self.ancestors().values()):
                lines.append("- Pairs were labelled by the study's ground truth: accuracies are agreement with that.")
            lines.append("- Accuracy does not say what it teaches, and it teaches a policy: measure it on yours.")
        lines.append("- It was tried on the data named above, and on nothing else that is told here.")
        return "\n".join(lines)

    def _lineage(self) -> str:
        record, links = self.artifact.record, Plain(self.artifact.home)
        inputs = [(name, address) for name, value in record["inputs"].items()
                  for address in filter(None, flatten({"": value}).values())]  # fmt: skip
        packages = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
        code = f"commit `{record['commit']}`, " if record.get("commit") else ""
        version = f"stage version {record['version']}, {code}{len(record['code'])} definitions"
        lines = [f"Address `{self.artifact.address}`. Code: {version}. Packages: {packages}.", ""]
        return "\n".join([*lines, *made_from(inputs, links)])


def _named(record: dict[str, Any]) -> str:
    """The address of a record."""
    return Store.address({name: record[name] for name in ("stage", "version", "config", "inputs")})


def _settings(config: dict[str, Any]) -> str:
    """A configuration as a table of what is said."""
    leaves = {name: value for name, value in flatten(config).items() if value is not None and name != "content"}
    return _table([{"setting": f"`{name}`", "value": f"`{value}`"} for name, value in leaves.items()])


def _told(numbers: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    return {text: str(Estimate.of(numbers[name])) if numbers.get(name) else "" for name, text in names.items()}


def _table(rows: list[dict[str, str]]) -> str:
    heads = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heads, ["---"] * len(heads), *([row.get(head, "") for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _context(folder: Any, tokenizer: Any) -> int:
    from transformers import AutoConfig

    from rmpipe.text import held

    return held(AutoConfig.from_pretrained(folder), tokenizer)


def _read_how(kind: Any, hub: str) -> str:
    """What else there is to say of an explicit reward model's scores."""
    inside = f'In a study of rmpipe: `kind = "pretrained"`, `path = "{hub}"`, `form = "continuation"`.'
    if kind.read == "mean":
        return (
            "\n\nIts head was trained to be read at every token of the response, of which the mean is taken; the lines "
            "above read the last token alone, which is another number."
        )
    return f"\n\n{inside}"
