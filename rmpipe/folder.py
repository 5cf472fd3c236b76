"""A model's folder before it is loaded: whether it is whole, scores texts, is an adapter, or brings code of its own.

Folders are looked into before anything is spent on them, and what the hub gives as soon as it is here. Nothing is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rmpipe.config import StudyError

LANGUAGE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How transformers' classes are called that write texts."""

ADAPTER = "adapter_config.json"
ADAPTED = "adapter_model.safetensors"
SCORES = "AutoModelForSequenceClassification"


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Say of what is wrong inside which field of a study it is about."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{field}: {error}") from error


# -- whole ------------------------------------------------------------------------------------------------------------


def check_folder(path: Path | str) -> None:
    """Refuse a local folder that is no model before anything is spent on it; a hub id passes.

    Raises:
        StudyError: names the folder, what is missing, and the remedy.
    """
    folder = Path(path)
    if not folder.is_dir():
        if isinstance(path, Path) or folder.is_absolute() or len(folder.parts) > 2 or str(path).startswith("."):
            raise StudyError(f"{folder}: no such folder; name a folder of save_pretrained, or a hub id (owner/name)")
        return
    if (folder / ADAPTER).exists():
        raise StudyError(f"{folder}: an adapter and no whole model; merge it into its base, and save what comes out")
    needed = {"config.json": ["config.json"], "a tokenizer": ["tokenizer.json", "tokenizer.model", "vocab.json"]}
    needed["weights as safetensors"] = ["*.safetensors"]
    for name, patterns in needed.items():
        if not any(next(folder.glob(pattern), None) for pattern in patterns):
            raise StudyError(f"{folder}: {name} missing; save a model there with save_pretrained (safetensors)")
    for file in folder.glob("*.safetensors"):
        _check_whole(file)


def check_scorer(path: Path | str) -> None:
    """Refuse a local folder of a language model where a model that scores is asked for; a hub id passes.

    Raises:
        StudyError: names the folder, what it holds, and the remedy.
    """
    if kinds := _languages(path):
        told = f"{', '.join(kinds)} is a language model and scores nothing"
        raise StudyError(f"{path}: {told}; give a reward model, or a sequence classifier")


def _languages(path: Path | str) -> list[str]:
    """The classes of a local folder where all of them write texts."""
    kinds = _json(Path(path) / "config.json").get("architectures") or []
    return kinds if all(kind.endswith(LANGUAGE) for kind in kinds) else []


def _check_whole(file: Path) -> None:
    """Refuse weights whose file was cut or altered, which its header tells."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise StudyError(f"{file}: no whole safetensors file ({error}); copy or save the model again") from error


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


# -- adapters ---------------------------------------------------------------------------------------------------------


def is_adapter(path: Path | str) -> bool:
    """Whether a local folder holds an adapter, which is nothing without its base."""
    return (Path(path) / ADAPTER).is_file()


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that is not whole, or cannot be merged here.

    Raises:
        StudyError: names the folder, what is wrong, and the remedy.
    """
    if not (folder / ADAPTED).exists():
        pickle = ", and adapter_model.bin is a pickle, which may run code" * (folder / "adapter_model.bin").exists()
        raise StudyError(f"{folder}: {ADAPTED} missing{pickle}; save the adapter again as safetensors")
    _check_whole(folder / ADAPTED)
    if (kind := _json(folder / ADAPTER).get("peft_type")) != "LORA":
        raise StudyError(f"{folder}: a {kind} adapter, and LORA alone is merged; give the merged model")
    if find_spec("peft") is None:
        raise StudyError(f"{folder}: an adapter, and peft is not installed; pip install 'rmpipe[peft]'")


def base_of(folder: Path, base: str | None = None) -> tuple[str, str | None]:
    """The base of an adapter, as folder or hub id, and the revision that the adapter asks for.

    Args:
        base: another place of it, which counts for more.

    Raises:
        StudyError: the adapter names none.
    """
    told = _json(folder / ADAPTER)
    if base is None and not told.get("base_model_name_or_path"):
        raise StudyError(f"base_path: {folder} names no base; say where it is")
    return (base, None) if base is not None else (str(told["base_model_name_or_path"]), told.get("revision"))


def cached_base(place: str, revision: str | None = None) -> tuple[str, str | None] | None:
    """The base of an adapter of the hub, where that is in the hub's cache; None where it is not, or is no adapter."""
    folder = cached(place, ADAPTER, revision)
    return None if folder is None else base_of(folder)


def check_base(folder: Path, base: str | None = None) -> None:
    """Refuse an adapter whose base is not here, or where neither has a head; a base on the hub passes.

    Raises:
        StudyError: names the field, the folder and the remedy.
    """
    place, _ = base_of(folder, base)
    with naming("base_path"):
        check_folder(place)
    if not heads_of(folder) and _languages(place):
        raise StudyError(f"path: {headless(folder, place)}")


def headless(folder: Path | str, base: str) -> str:
    """What is said of an adapter that scores nothing."""
    told = f"no weights for a head in the adapter, nor in its base {base}, so that its rewards would be random"
    return f'{folder}: {told}; save it with its head (modules_to_save = ["score"])'


def heads_of(folder: Path) -> dict[str, list[int]]:
    """The shapes of weights of layers that an adapter has whole, by their names in the model, but for embeddings."""
    from safetensors import safe_open

    with safe_open(folder / ADAPTED, framework="numpy") as file:
        whole = {key.removeprefix("base_model.model."): key for key in file.keys() if "lora_" not in key}  # noqa: SIM118
        shapes = {name: file.get_slice(key).get_shape() for name, key in whole.items()}
    layers = {name.removesuffix(".weight") for name in shapes if not re.search(r"embed|lm_head|wte|wpe", name)}
    return {name: shape for name, shape in shapes.items() if name.rpartition(".")[0] in layers}


def tokenizer_of(path: Path | str, base: str | None = None) -> tuple[str, str | None]:
    """Where the tokenizer of a local folder is, and its revision: of an adapter without one, with its base."""
    if is_adapter(path) and not (Path(path) / "tokenizer_config.json").exists():
        return base_of(Path(path), base)
    return str(path), None


# -- code -------------------------------------------------------------------------------------------------------------


def check_code(place: Path | str, revision: str | None = None, *, trusted: bool, always: str = "") -> None:
    """Refuse a model that code of its own reads, unless that is trusted; and code of any other place.

    Args:
        always: the automatic class whose code counts even where transformers has a class for the model.

    Raises:
        StudyError: names the field, the code and the remedy.
    """
    config, tokenizer = _told(place, revision)
    own: dict[str, str] = config.get("auto_map") or {}
    if not trusted and (needed := needed_code(config, always)) in own:
        told = f"{place} is read by code of its own ({own[needed]}), which is not run unasked"
        raise StudyError(f"trust_remote_code: {told}; read it, and set trust_remote_code = true where you trust it")
    tokenizers = (tokenizer.get("auto_map") or {}).get("AutoTokenizer") or []
    references = [*own.values(), *([tokenizers] if isinstance(tokenizers, str) else tokenizers)]
    for reference in references if trusted else ():
        elsewhere, _, name = str(reference or "").rpartition("--")
        if elsewhere not in ("", str(place)):
            told = f"{place} runs code of another place ({elsewhere}, {name}), which its revision does not pin"
            raise StudyError(f"trust_remote_code: {told}; keep model and code in one folder, and give that")


def needed_code(config: dict[str, Any], always: str = "") -> str | None:
    """The automatic class by whose code a model must be read; None where transformers has a class for it.

    Args:
        config: its config.json.
        always: as of `check_code`.
    """
    own = config.get("auto_map") or {}
    return always if always in own else "AutoConfig" if own and not _known(config) else None


def check_commit(field: str, place: str, revision: str | None, remedy: str) -> None:
    """Refuse code of the hub that may be other code tomorrow.

    Raises:
        StudyError: names the field and the place.
    """
    if not is_pinned(place, revision):
        told = f"code that comes with {place} is run as yours, and may be other code tomorrow"
        raise StudyError(f"{field}: {told}; {remedy}")


def _told(place: Path | str, revision: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of a model and of its tokenizer."""
    if Path(place).is_dir():
        return _json(Path(place) / "config.json"), _json(Path(place) / "tokenizer_config.json")
    from transformers import PreTrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    config, _ = PreTrainedConfig.get_config_dict(place, revision=revision)
    return config, get_tokenizer_config(place, revision=revision)


def _known(config: dict[str, Any]) -> bool:
    """Whether transformers has a class for a configuration."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") in CONFIG_MAPPING_NAMES


# -- what is meant ----------------------------------------------------------------------------------------------------


def cached(place: str, file: str, revision: str | None = None) -> Path | None:
    """The folder in the hub's cache that has a file of a hub id; None where it is not there, or that is no hub id."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(place, file, revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def is_pinned(place: str, revision: str | None = None) -> bool:
    """Whether what is named cannot become another unseen: a folder, whose files count, or a commit of the hub."""
    return Path(place).exists() or re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None
