"""The model's own weights, where a block computes with them: they are read in the graph, not brought along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

from ndif_batch.compat.nnsight import hooks
from ndif_batch.compat.nnsight.recorder import NNsightRecorder
from ndif_batch.trace import functions

_ATTRIBUTES = ("T", "mT", "data")


class Weights(TorchFunctionMode):
    """While it is entered, torch's functions of the model's parameters are recorded."""

    def __init__(self, recorder: NNsightRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if hooks.recording() is None or not any(id(arg) in self._recorder.weights for arg in args):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            attribute = func.__self__.__name__  # type: ignore[attr-defined]
            if attribute not in _ATTRIBUTES:
                return func(*args, **kwargs)
            weight = self._recorder.or_weight(args[0])
            return weight if attribute == "data" else getattr(weight, attribute)
        if functions.find(name.strip("_")) is None and name not in functions.CASTS and name != "to":
            return func(*args, **kwargs)
        first, *rest = map(self._recorder.or_weight, args)
        if first is not args[0] and not name.startswith("__"):
            return getattr(first, name)(*rest, **kwargs)
        return self._recorder.apply_torch(func, [first, *rest], kwargs)
