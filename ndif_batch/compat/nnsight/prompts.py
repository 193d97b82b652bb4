"""What nnsight would run a model on, as the prompt of a run and the options of a generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ndif_batch.trace.generation import Generates
from ndif_batch.trace.place import refusal

_WITHOUT_EFFECT = frozenset(
    {"use_cache", "return_dict", "pad_token_id", "streamer", "token_type_ids", "cache_position"}
)
_OFF: Mapping[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""What transformers can do besides drawing, and the values with which it does not."""


def token_ids(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[int, ...]:
    """The prompt's own tokens; takes what says them out of ``options``."""
    ids = options.pop("input_ids", args[0] if args else None)
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        raise refusal("a run begins with text or token ids", hint="write other inputs at the embedding's output")
    if ids.ndim > 1 and ids.shape[0] != 1:
        raise refusal(
            f"this invoke has {ids.shape[0]} prompts, and a run has one",
            hint="one `with tracer.invoke(prompt):` for each, or prompts as an axis: ndif_batch.param",
        )
    row = ids.reshape(-1)
    mask = options.pop("attention_mask", None)
    if mask is not None:
        row = row[mask.reshape(-1).bool()]
    positions = options.pop("position_ids", None)
    if positions is not None and mask is not None:
        positions = positions.reshape(-1)[mask.reshape(-1).bool()]
    if positions is not None and positions.reshape(-1).tolist() != list(range(len(row))):
        raise refusal("positions other than 0, 1, 2, … cannot be given", hint="a run's tokens count from its first")
    return tuple(row.tolist())


def check_forward(options: Mapping[str, Any]) -> None:
    """Refuses keywords that change what a forward pass is."""
    for name in _effective(options):
        raise refusal(f"a forward pass takes no {name!r} here", hint="read the sites of its modules instead")


def generates(options: Mapping[str, Any], checkpoint: Any) -> Generates:
    """``model.generate``'s keywords, with those of the checkpoint's ``generation_config`` behind them."""
    given = dict(options)
    config = given.pop("generation_config", None) or checkpoint

    def option(name: str, default: Any = None) -> Any:
        """What is said of ``name``, by the call or the checkpoint."""
        said = (given.pop(name, None), getattr(config, name, None), default)
        return next((value for value in said if value is not None), None)

    count, least, stop = option("max_new_tokens"), option("min_new_tokens", 0), option("eos_token_id", [])
    if not isinstance(count, int):
        raise refusal("how many tokens?", hint="model.generate(prompt, max_new_tokens=20)")
    if least not in (0, count):
        raise refusal(f"min_new_tokens={least} is neither 0 nor max_new_tokens", hint="generate either way")
    for name, off in _OFF.items():
        if (value := option(name, off)) != off:
            raise refusal(f"{name}={value!r} cannot be generated with", hint="greedy, or temperature, top_k and top_p")
    sampled, temperature = option("do_sample", False), option("temperature", 1.0)
    top_k, top_p = option("top_k", 50), option("top_p", 1.0)
    for name in _effective(given):
        raise refusal(f"a generation takes no {name!r} here", hint="greedy, or temperature, top_k and top_p")
    stops = [] if least else stop if isinstance(stop, list) else [stop]
    if not sampled:
        return Generates(count, stop=stops)
    return Generates(count, temperature, top_k or None, None if top_p == 1 else top_p, stops)


def _effective(options: Mapping[str, Any]) -> Iterator[str]:
    return (
        name
        for name, value in options.items()
        if value is not None and value is not False and name not in _WITHOUT_EFFECT
    )
