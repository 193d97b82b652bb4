"""Passes with gradients that keep less: of a block only what goes in is kept, and it is computed again on the way back.

What graphs do at sites inside a block is done once. The second time its modules get and give what they did then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ndif_batch.graph.sites import ATTENTION
from ndif_batch.models.probe import with_first_argument

Again: TypeAlias = Callable[[Mapping[str, Any]], AbstractContextManager[None]]
"""What there has to be around a block that is computed again, for what its sites handed on."""


class Checkpoints:
    """The blocks of one pass, at ``paths``, of which only what goes in is kept.

    ``find`` gives the module at a path; ``again`` what there has to be around a block that is computed again, as it is
    around it now.
    """

    def __init__(
        self,
        paths: Sequence[str],
        find: Callable[[str], nn.Module],
        again: Callable[[], Again],
    ) -> None:
        self._find = find
        self._again = again
        self._handed_on: dict[str, dict[str, Any]] = {path: {} for path in paths}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with these blocks."""
        with ExitStack() as stack:
            for path in self._handed_on:
                stack.enter_context(self._replaced(path))
            yield

    def beside(self) -> AbstractContextManager[Any]:
        """What graphs compute inside a block is kept whole: it is not done again."""
        return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor) if self._handed_on else nullcontext()

    def hand_on(self, site: str, value: Any) -> None:
        """Notes what a site hands on that is not what the model made."""
        module = site.rpartition(".")[0]
        for path, sites in self._handed_on.items():
            if module.startswith(f"{path}."):
                sites[site] = _loose(value)

    @contextmanager
    def _replaced(self, path: str) -> Iterator[None]:
        module, handed_on = self._find(path), self._handed_on[path]
        before, forward = module.__dict__.get("forward"), module.forward

        def keeping_little(*args: Any, **kwargs: Any) -> Any:
            around = _Around(self._find, handed_on, self._again())
            return checkpoint(
                forward,
                *args,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), around),
                **kwargs,
            )

        module.forward = keeping_little
        try:
            yield
        finally:
            del module.forward
            if before is not None:
                module.forward = before


class _Around:
    """What is around a block each time that it is computed again."""

    def __init__(
        self,
        find: Callable[[str], nn.Module],
        handed_on: dict[str, Any],
        again: Again,
    ) -> None:
        self._find = find
        self._handed_on = handed_on
        self._again = again
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._stack.enter_context(self._again(self._handed_on))
        for site, value in self._handed_on.items():
            if site.rpartition(".")[2] not in ATTENTION:
                self._stack.callback(self._repeated(site, value).remove)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _repeated(self, site: str, value: Any) -> Any:
        path, _, side = site.rpartition(".")
        if side == "output":
            return self._find(path).register_forward_hook(lambda module, args, output: value)
        return self._find(path).register_forward_pre_hook(
            lambda module, args, kwargs: with_first_argument(args, kwargs, value), with_kwargs=True
        )


def _loose(value: Any) -> Any:
    """A value that does not hold what it was made of."""
    if isinstance(value, tuple | list):
        return type(value)(_loose(item) for item in value)
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value
