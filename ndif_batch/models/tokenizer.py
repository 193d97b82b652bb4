"""Text to token ids: prompts, and strings that stand for one token of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import tokenizers

from ndif_batch.errors import ModelError, NotFoundError
from ndif_batch.graph.bind import bind, prompt_of
from ndif_batch.graph.nodes import Graph, Inputs, ParamType, Prompt, Run, Value
from ndif_batch.graph.sites import SiteMap
from ndif_batch.graph.steps import generations
from ndif_batch.models.inputs import check_kind

FILE = "tokenizer.json"


class Tokenizer:
    """A model's own tokenizer, without its framework."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self.encode = lru_cache(maxsize=65_536)(self._encode)

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """The tokenizer of a model entry; ``NotFoundError`` if the model has none."""
        file = directory / FILE
        if not file.is_file():
            raise NotFoundError(f"the model in {directory} has no tokenizer", hint="give prompts as lists of token ids")
        return cls(tokenizers.Tokenizer.from_file(str(file)))

    def _encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, with the special tokens that the model's tokenizer adds."""
        return tuple(self._backend.encode(text).ids)

    def token(self, text: str) -> int:
        """The id of the one token that ``text`` is; ``ModelError`` if it is none or several."""
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if len(ids) == 1:
            return int(ids[0])
        pieces = self.pieces(ids)
        raise ModelError(
            f"{text!r} is {len(ids)} tokens {pieces}, not one",
            hint=f"a word inside a sentence begins with a space: {' ' + text!r}" if text[:1] != " " else None,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return [self.decode([token]) for token in ids]


def resolve(
    params: Mapping[str, ParamType], bindings: Mapping[str, Value], tokenizer: Tokenizer | None, sites: SiteMap
) -> dict[str, Value]:
    """``bindings`` with prompt text as token ids and, for ``int`` parameters, a string as the id of its one token.

    ``ModelError`` for what is no prompt of the model.
    """
    resolved: dict[str, Value] = {}
    for name, value in bindings.items():
        kind = params.get(name)
        if kind is ParamType.PROMPT:
            check_kind(f"parameter {name!r}", value, sites)
        if isinstance(value, str) and kind in (ParamType.PROMPT, ParamType.INT):
            if tokenizer is None:
                raise ModelError(f"parameter {name!r} is text but the model has no tokenizer", hint="give token ids")
            value = tokenizer.encode(value) if kind is ParamType.PROMPT else tokenizer.token(value)
        resolved[name] = value
    return resolved


def concrete(graph: Graph, bindings: Mapping[str, Value], tokenizer: Tokenizer | None, sites: SiteMap) -> Graph:
    """The graph that one task runs: no parameters left, every prompt checked token ids, or tensors."""
    bound = bind(graph, resolve(graph.params, bindings, tokenizer, sites))
    prompts = [checked_prompt(run, {}, tokenizer, sites) for run in bound.runs]
    check_room(graph, [len(prompt) for prompt in prompts], sites)
    runs = tuple(replace(run, prompt=prompt) for run, prompt in zip(bound.runs, prompts, strict=True))
    return replace(bound, runs=runs)


def check_room(graph: Graph, lengths: Sequence[int], sites: SiteMap) -> None:
    """``ModelError`` if a run would generate more tokens than the model takes after a prompt of its length, or any
    of a model that does not generate here."""
    for run, own in generations(graph).items():
        if sites.inputs is not None or sites.decoder_start is not None:
            kind = "encoder-decoders generate nothing" if sites.inputs is None else "models of tensors generate nothing"
            raise ModelError(f"run {graph.runs[run].name!r} generates; in this version {kind}")
        if lengths[run] + own.count - 1 > sites.max_tokens:
            raise ModelError(
                f"run {graph.runs[run].name!r} has {lengths[run]} tokens and generates {own.count}; "
                f"the model takes {sites.max_tokens}",
                hint="take fewer steps, or a shorter prompt",
            )


def checked_prompt(run: Run, resolved: Mapping[str, Value], tokenizer: Tokenizer | None, sites: SiteMap) -> Prompt:
    """The checked token ids, or tensors, of a run's prompt; ``resolved`` is what :func:`resolve` gave."""
    prompt = prompt_of(run, resolved)
    check_kind(f"the prompt of run {run.name!r}", prompt, sites)
    if isinstance(prompt, Inputs):
        return prompt
    if isinstance(prompt, str):
        if tokenizer is None:
            raise ModelError(f"run {run.name!r} is text but the model has no tokenizer", hint="give token ids")
        prompt = tokenizer.encode(prompt)
    check_prompt(run.name, prompt, sites)
    return prompt


def check_prompt(run: str, ids: Sequence[object], sites: SiteMap) -> None:
    """``ModelError`` if a prompt is empty, too long, or has an id outside the vocabulary."""
    if not ids:
        raise ModelError(f"the prompt of run {run!r} has no tokens", hint="a prompt needs at least one token")
    if len(ids) > sites.max_tokens:
        raise ModelError(f"the prompt of run {run!r} has {len(ids)} tokens; the model takes {sites.max_tokens}")
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < sites.vocabulary:
            raise ModelError(
                f"the prompt of run {run!r} holds {token!r}, which is no token id of the model",
                hint=f"ids go from 0 to {sites.vocabulary - 1}",
            )
