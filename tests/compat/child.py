"""Runs nnsight's patterns both ways in a process of its own, since nnsight gives every object a method ``save``.

``python -m tests.compat.child DIRECTORY OUTPUT`` makes two tiny models in the directory and writes what came out.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nnsight import TransformersModel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerFast

from ndif_batch import Client
from ndif_batch.compat.nnsight import NDIFBatchBackend
from ndif_batch.errors import NdifBatchError
from ndif_batch.queue import schema
from tests import toy
from tests.compat import patterns

TOKENS = {"vocab_size": toy.VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, n_positions=32, **TOKENS)),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            **TOKENS,
        )
    ),
}


def write(directory: Path, name: str) -> Path:
    torch.manual_seed(3)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    where = directory / name
    model.save_pretrained(where)
    toy.write_tokenizer(where)
    words = PreTrainedTokenizerFast(tokenizer_file=str(where / "tokenizer.json"), unk_token="[unknown]", pad_token="[unknown]")
    words.save_pretrained(where)
    return where


def through(model: Any, backend: NDIFBatchBackend, *names: str) -> Any:
    """A model whose methods of these names go through ``backend`` when nothing else is said."""

    def method(name: str) -> Callable[..., Any]:
        return lambda own, *args, **kwargs: getattr(base, name)(own, *args, **{"backend": backend, **kwargs})

    base = type(model)
    model.__class__ = type(base.__name__, (base,), {name: method(name) for name in names})
    return model


def outcome(pattern: Callable[[Any], Any], model: Any) -> Any:
    try:
        return pattern(model)
    except Exception as error:  # noqa: BLE001 -- it is compared
        return f"{type(error).__name__}: {error} ({getattr(error, 'hint', None)})" + "".join(__import__("traceback").format_tb(error.__traceback__)[-4:])


def plain(value: Any) -> Any:
    """Without nnsight's and transformers' own classes."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def main(directory: Path, output: Path) -> None:
    warnings.simplefilter("ignore")
    client = Client(toy.settings(directory / "data"))
    schema.upgrade(client.settings.database)
    found: dict[str, Any] = {}
    for name, chosen in (("gpt2", patterns.GPT2), ("llama", patterns.LLAMA)):
        where = write(directory, name)
        client.add_model(str(where), name)
        backend = NDIFBatchBackend(name, client=client)
        words = PreTrainedTokenizerFast.from_pretrained(where)
        theirs = TransformersModel(str(where), task="text-generation", tokenizer=words, dispatch=True)
        ours = through(TransformersModel(str(where), task="text-generation", tokenizer=words), backend, "trace", "session")
        for pattern in chosen:
            pair = theirs, ours
            if (wrap := patterns.PLAIN.get(pattern)) is not None:
                pair = wrap(theirs._module), through(wrap(ours._module), backend, "trace")
            found[pattern.__name__] = [plain(outcome(pattern, model)) for model in pair]
        assert not ours.dispatched
    torch.save(found, output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
