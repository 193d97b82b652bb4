"""The measured model in memory: the same weights in every process, whichever library holds them."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from contenders.protocol import Subject
from contenders.shapes import FAMILIES, SHAPES, Shape


def load_model(subject: Subject) -> Any:
    """The Hugging Face model, ready for forward passes; random weights are made on the device itself."""
    torch.set_num_threads(subject.threads)
    torch.set_float32_matmul_precision("highest")
    if subject.parallel is not None:
        from contenders import placed

        return placed.make(subject)
    dtype = getattr(torch, subject.dtype)
    factory: Any = AutoModelForCausalLM
    if subject.weights is not None:
        model: Any = factory.from_pretrained(subject.weights, dtype=dtype)
    else:
        shape = SHAPES[subject.shape]
        config = AutoConfig.for_model(shape.family, **shape.config(subject.layers))
        with torch.device(subject.device):
            model = factory.from_config(config, dtype=dtype)
        fill(model, subject.device, shape.spread)
    return model.to(subject.device).eval().requires_grad_(False)


@torch.no_grad()
def fill(model: Any, device: str, spread: float) -> None:
    """Draws every weight from one generator, in the order of their names: transformers' own ways change."""
    generator = torch.Generator(device).manual_seed(0)
    for _, weight in sorted(model.named_parameters()):
        if weight.ndim > 1:
            weight.normal_(0, spread, generator=generator)


def shape_of(subject: Subject) -> Shape:
    return SHAPES[subject.shape]


def blocks(subject: Subject, model: Any) -> Any:
    """The decoder blocks of a model, or of whatever wraps one."""
    return attrgetter(FAMILIES[shape_of(subject).family].blocks)(model)


def neurons(subject: Subject, block: Any) -> Any:
    """The module whose input are the MLP's neurons."""
    return attrgetter(FAMILIES[shape_of(subject).family].neurons)(block)


def make_tokenizer(subject: Subject) -> PreTrainedTokenizerFast:
    """A tokenizer of numbers, for libraries that pad with one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {str(number): number for number in range(shape_of(subject).vocabulary)}
    factory: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = factory(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")), pad_token="0", padding_side="left"
    )
    return made
