"""A model that gives numbers for a text, loaded whole: from a folder, from the hub, or an adapter merged into its base.

No weights are made up, none are read from pickles, and code that comes with a model is run only where it is trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmpipe.config import StudyError
from rmpipe.folder import (
    ADAPTED,
    SCORES,
    base_of,
    check_adapter,
    check_base,
    check_code,
    check_folder,
    headless,
    heads_of,
    is_adapter,
    tokenizer_of,
)
from rmpipe.source import reaching


def load(
    source: Path | str, *, output: int | None = None, dtype: str = "float32", attention: str | None = None,
    base: str | None = None, revision: str | None = None, trust_remote_code: bool = False,
) -> Any:  # fmt: skip
    """Load a sequence-classification model in evaluation mode, on the GPU when there is one.

    Args:
        base: as of `SequenceScorer`.

    Raises:
        StudyError: it cannot be loaded, weights are missing (a causal language model, or an adapter without its head,
            would get a head of random numbers), it is read by code that is not trusted, or it has several outputs and
            none of them is named.
        UnreachableError: the hub did not answer.
    """
    import torch

    told: dict[str, Any] = {"trust_remote_code": trust_remote_code, "use_safetensors": True}
    told |= {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    told |= {"attn_implementation": attention} if attention else {}
    with reaching(str(source), "path", "give a sequence-classification model with its weights as safetensors"):
        if (folder := adapter(source, revision)) is not None:
            model = _merged(folder, base, told)
        else:
            check_folder(source)
            model, missing = _classifier(source, revision, told)
            if missing:
                told_of = ", ".join(sorted(missing)[:3])
                raise StudyError(f"{source}: no weights for {told_of}: no reward model; train one on it")
    if type(model).__module__.startswith("transformers."):  # else its outputs may be what its reward is made of
        check_output(source, int(model.config.num_labels), output)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def check_output(source: Path | str, outputs: int, output: int | None) -> None:
    """Refuse an output that is not there, and to choose one of several.

    Raises:
        StudyError: says how many there are.
    """
    if outputs == 1 and output:
        raise StudyError(f"{source}: one output a text, and output = {output}; leave output out")
    if (output or 0) >= outputs or (output is None and outputs > 1):
        raise StudyError(f"{source}: {outputs} outputs a text; say which is the reward, output = 0 to {outputs - 1}")


def _classifier(place: Path | str, revision: str | None, told: dict[str, Any]) -> tuple[Any, set[str]]:
    """A sequence classifier, and the names of weights that it had to make up, which its loading alone tells."""
    from transformers import AutoModelForSequenceClassification

    check_code(place, revision, trusted=told["trust_remote_code"], always=SCORES)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        place, output_loading_info=True, revision=revision, **told
    )
    return model, set(info["missing_keys"])


def adapter(source: Path | str, revision: str | None = None) -> Path | None:
    """The folder of an adapter, which from the hub is fetched; None of a whole model."""
    from huggingface_hub import snapshot_download
    from transformers.utils.peft_utils import find_adapter_config_file

    if Path(source).is_dir():
        return Path(source) if is_adapter(source) else None
    check_folder(source)
    if find_adapter_config_file(str(source), revision=revision) is None:
        return None
    return Path(snapshot_download(str(source), revision=revision, ignore_patterns=["*.bin", "*.pt", "*.pth", "*/*"]))


def _merged(folder: Path, base: str | None, told: dict[str, Any]) -> Any:
    """What comes of adding an adapter to its base."""
    from safetensors.torch import load_file

    check_adapter(folder)
    check_base(folder, base)
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    (place, revision), heads = base_of(folder, base), heads_of(folder)
    labels = [shape[0] for shape in heads.values() if len(shape) == 2]
    model, missing = _classifier(place, revision, told | ({"num_labels": min(labels)} if labels else {}))
    if missing - heads.keys():
        raise StudyError(f"path: {headless(folder, place)}")
    config = PeftConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = place
    # Of what it was saved as, PEFT would take a task's usual head: the one that is there counts.
    config.task_type, config.modules_to_save = None, sorted({name.rpartition(".")[0] for name in heads}) or None
    adapted: Any = get_peft_model(model, config)
    found: Any = set_peft_model_state_dict(adapted, load_file(folder / ADAPTED))
    if lost := [*found.unexpected_keys, *(key for key in found.missing_keys if "lora_" in key)]:
        raise StudyError(f"base_path: {folder} does not fit its base {place} ({lost[0]}); give the one it was made on")
    model = adapted.merge_and_unload()
    tokenizer = load_tokenizer(folder, base, trust_remote_code=told["trust_remote_code"])
    if tokenizer.pad_token_id is not None:  # it alone says what was padded with in the adapter's training
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model


def load_tokenizer(
    source: Path | str, base: str | None = None, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The tokenizer of a scorer; of an adapter without one that of its base.

    Raises:
        StudyError: it cannot be loaded.
        UnreachableError: the hub did not answer.
    """
    from transformers import AutoTokenizer

    with reaching(str(source), "path", "give a model with its tokenizer"):
        place = (str(source), revision)
        if (folder := adapter(source, revision)) is not None:
            place = tokenizer_of(folder, base)
        return AutoTokenizer.from_pretrained(place[0], revision=place[1], trust_remote_code=trust_remote_code)
