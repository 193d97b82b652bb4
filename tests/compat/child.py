"""Runs nnsight's patterns both ways in a process of its own, since nnsight gives every object a method ``save``.

``python -m tests.compat.child DIRECTORY OUTPUT`` makes two tiny models in the directory and writes what came out.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from anyio.abc import SocketAttribute  # noqa: F401 -- the server's, which cannot be made once nnsight is there
from nnsight import TransformersModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from ndif_batch import Client
from ndif_batch.compat.nnsight import NDIFBatchBackend
from ndif_batch.queue import schema
from tests import toy
from tests.compat import jobs, page, patterns

TOKENS = {"vocab_size": toy.VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 16, "n_head": 2, "n_positions": 32},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
    },
}


def write(directory: Path, name: str) -> Path:
    torch.manual_seed(3)
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(AutoConfig.for_model(name, **SIZES[name], **TOKENS), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    where = directory / name
    model.save_pretrained(where)
    toy.write_tokenizer(where)
    tokenizer: Any = PreTrainedTokenizerFast
    words = tokenizer(tokenizer_file=str(where / "tokenizer.json"), unk_token="[unknown]", pad_token="[unknown]")
    words.save_pretrained(where)
    return where


def through(model: Any, backend: NDIFBatchBackend) -> Any:
    """A model whose traces and sessions go through ``backend`` when nothing else is said."""

    def method(name: str) -> Callable[..., Any]:
        return lambda own, *args, **kwargs: getattr(base, name)(own, *args, **{"backend": backend, **kwargs})

    base = type(model)
    names = [name for name in ("trace", "session") if hasattr(base, name)]
    model.__class__ = type(base.__name__, (base,), {"backend": backend, **{name: method(name) for name in names}})
    return model


def outcome(pattern: Callable[[Any], Any], given: Any) -> Any:
    """What a pattern gives, or its error in words."""
    try:
        return plain(pattern(given))
    except Exception as error:  # noqa: BLE001 -- it is compared
        return f"{type(error).__name__}: {error}"


def plain(value: Any) -> Any:
    """Without nnsight's and transformers' own classes."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else None


def main(directory: Path, output: Path) -> None:
    warnings.simplefilter("ignore")
    client = Client(toy.settings(directory / "data"))
    schema.upgrade(client.settings.database)
    both: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for name, chosen in (("gpt2", patterns.GPT2), ("llama", patterns.LLAMA)):
        where = write(directory, name)
        client.add_model(str(where), name)
        backend = NDIFBatchBackend(name, client=client)
        words = PreTrainedTokenizerFast.from_pretrained(where)
        options = {"task": "text-generation", "tokenizer": words, "attn_implementation": "eager"}
        theirs = TransformersModel(str(where), dispatch=True, **options)
        ours = through(TransformersModel(str(where), **options), backend)
        models[name] = theirs, ours
        for pattern in chosen:
            pair = theirs, ours
            if (wrap := patterns.PLAIN.get(pattern)) is not None:
                pair = wrap(theirs._module), through(wrap(ours._module), backend)
            both[pattern.__name__] = [outcome(pattern, model) for model in pair]
        assert not ours.dispatched
    refused = {pattern.__name__: outcome(pattern, models["gpt2"][1]) for pattern, _ in patterns.REFUSED}
    done = {test.__name__: outcome(partial(test, client), models["gpt2"][0]) for test in jobs.ALL}
    theirs, ours = models["gpt2"]
    lm = client.language_model("gpt2")
    pages = [
        [
            outcome(partial(page.run, their, "native"), {"model": theirs}),
            outcome(partial(page.run, their, "backend"), {"model": ours}),
            outcome(partial(page.run, own, "here"), {"lm": lm}),
        ]
        for their, own in page.pairs()
    ]
    for block in page.refused():
        refused[str(block.line)] = outcome(partial(page.run, block, "refused"), {"model": ours})
    torch.save({"pages": pages, "both": both, "refused": refused, "jobs": done}, output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
