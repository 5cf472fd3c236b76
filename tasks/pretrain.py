"""Bases: pretrained here on the embedded world, or somebody's own."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe import world
from rmpipe.algorithm import finetune as trained
from rmpipe.artifact import Weights
from rmpipe.source import reaching
from rmpipe.study import PretrainedBase, WorldBase
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def pretrain(config: WorldBase, seed: int, *, out: Path, log: Log) -> Weights:
    """A tiny language model from random weights, trained on the embedded world's documents."""
    tokenizer, shape = config.tokenizer(), {"hidden": config.hidden, "layers": config.layers, "heads": config.heads}
    model = world.new_model(seed, **shape, dangerous=config.danger > 0)
    rows = [{"text": text} for text in world.documents(seed, config.documents, config.danger)]
    trained((model, tokenizer), rows, out / "model", config=config.training, seed=seed, log=log)
    return Weights.at(out, f"{model.num_parameters():,} parameters", parameters=float(model.num_parameters()))


@stage(version=1, retry=(ConnectionError, TimeoutError))
def fetch(config: PretrainedBase, content: str, *, out: Path, log: Log) -> Weights:
    """A model in a local folder, or on the hub, by reference: its weights stay where they are, unless tokens are added.

    Args:
        content: SHA-256 of the folder's files, or the hub id with its revision.
    """
    path = Path(config.path)
    if not path.is_dir():
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        with reaching(config.path, "bases.path", "give the id of a model on the hub, with its revision, or a folder"):
            path = Path(snapshot_download(config.path, revision=config.revision, allow_patterns=patterns))
    if config.added_tokens:
        _with_tokens(path, config, out / "model")
        return Weights.at(out, f"{config.path} and {len(config.added_tokens)} tokens")
    told = {"path": str(path), "content": content} | ({"dtype": config.dtype} if config.dtype != "float32" else {})
    (out / "reference.json").write_text(json.dumps(told))
    return Weights.at(out, config.path)


def _with_tokens(path: Path, config: PretrainedBase, out: Path) -> None:
    """Save a model whose tokenizer has more tokens, the new embeddings drawn by a fixed seed."""
    import torch
    from transformers import AddedToken

    from rmpipe.algorithm import load

    model, tokenizer = load(path, dtype=config.dtype)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in config.added_tokens])
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
