"""A model entry without weights: four layers and a head of known shapes, and a tokenizer of whole words."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from ndif_batch.client import Client
from ndif_batch.config import Settings
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.graph.sites import Site, SiteMap, SiteTensor
from ndif_batch.models.info import FILE, ModelInfo
from ndif_batch.queue import schema
from ndif_batch.queue.records import ModelRecord

NAME = "toy"
LAYERS, WIDTH, VOCABULARY = 4, 6, 50
WORDS = ("the", "cat", "sat", "on", "mat", "dog", "ran", "far", "Paris", "Rome")
ALL = SliceArg()


def site_map(layers: int = LAYERS, longest: int = 12) -> SiteMap:
    hidden, logits = SiteTensor((1, None, WIDTH), "float32"), SiteTensor((1, None, VOCABULARY), "float32")
    modules = [*(f"model.layers.{i}" for i in range(layers)), "lm_head"]
    sites = {}
    for order, module in enumerate(modules):
        sites[f"{module}.input"] = Site(f"{module}.input", 2 * order, hidden)
        gives = logits if module == "lm_head" else hidden
        sites[f"{module}.output"] = Site(f"{module}.output", 2 * order + 1, gives)
    return SiteMap(
        sites,
        ("model", "model.layers", *modules),
        {"lm_head.weight": ((VOCABULARY, WIDTH), "float32")},
        VOCABULARY,
        longest,
        "lm_head",
    )


def settings(root: Path) -> Settings:
    return Settings(data_dir=root, model_cache=root / "models", user="ada", heartbeat_seconds=0.1)


def client(root: Path) -> Client:
    """A client of a new queue that knows the model."""
    made = Client(settings(root))
    schema.upgrade(made.settings.database)
    add(made)
    return made


def add(made: Client, name: str = NAME, sites: SiteMap | None = None) -> None:
    """Let a client's queue know a model of this kind under a name."""
    info = entry(made.settings.model_cache / name, name, sites)
    record = ModelRecord(name, info.source, str(info.directory), info.revision, info.dtype, info.digest, {})
    made.queue.add_model(record)


def entry(directory: Path, name: str = NAME, sites: SiteMap | None = None) -> ModelInfo:
    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(directory)
    info = ModelInfo(name, "here", directory, directory, "r1", "d" * 64, "float32", sites or site_map())
    (directory / FILE).write_text(json.dumps(info.to_json()))
    return info


def write_tokenizer(directory: Path) -> None:
    vocabulary = {word: i for i, word in enumerate((*WORDS, "[unknown]"))}
    words = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="[unknown]"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(directory / "tokenizer.json"))


def reading() -> Graph:
    """Saves the residual stream at ``layer`` and ``position``, and the logit of ``answer`` at the last token."""
    return Graph(
        params={"prompt": ParamType.PROMPT, "layer": ParamType.INT, "position": ParamType.INT, "answer": ParamType.INT},
        runs=(Run("only", ParamRef("prompt")),),
        nodes=(
            Node("read", run=0, site="model.layers.{layer}.output"),
            Node("getitem", (NodeRef(0), (0, ParamRef("position")))),
            Node("save", (NodeRef(1),), name="residual"),
            Node("read", run=0, site="lm_head.output"),
            Node("getitem", (NodeRef(3), (0, -1, ParamRef("answer")))),
            Node("save", (NodeRef(4),), name="logit"),
        ),
    )


def whole() -> Graph:
    """Saves the whole residual stream at ``layer``: as long as the prompt."""
    return Graph(
        params={"prompt": ParamType.PROMPT, "layer": ParamType.INT},
        runs=(Run("only", ParamRef("prompt")),),
        nodes=(
            Node("read", run=0, site="model.layers.{layer}.output"),
            Node("getitem", (NodeRef(0), 0)),
            Node("save", (NodeRef(1),), name="residual", dims=("token", "hidden")),
        ),
    )
