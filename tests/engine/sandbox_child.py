"""Carries out every operation, with right and with hostile arguments, and tells all that Python's audit hooks saw."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ndif_batch.engine.kernels import KERNELS
from ndif_batch.errors import GraphError, NdifBatchError, ShapeError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import SliceArg
from ndif_batch.graph.operations import OPERATIONS, RANDOM
from ndif_batch.graph.serialize import graph_from_json
from ndif_batch.graph.validate import validate
from tests.engine.kernel_cases import Case, all_cases

LARGE = 2**16
"""Results of more elements are not made here."""
INTERPRETER = (sys.prefix, sys.base_prefix)

TEXTS = (
    "/etc/passwd",
    "../../.ssh/id_rsa",
    "__class__",
    "__import__('os').system('touch /tmp/owned')",
    "{0.__globals__}",
    "%s%n",
    "i,i->\x00",
    "a" * 10_000,
    "ij,jk->ik; import os",
)
HOSTILE: tuple[Any, ...] = (
    *TEXTS,
    -1,
    2**31,
    -(2**63),
    2**64,
    float("nan"),
    float("inf"),
    None,
    True,
    (),
    (2**40, 2**40),
    ((((1,),),),),
    ("__dict__",),
    SliceArg(2**62, -(2**62), 0),
    AbstractTensor((0, 3), "float32"),
    AbstractTensor((2, 2), "bool"),
    AbstractTensor((1,) * 9, "bfloat16"),
    object(),
    open,
    Path,
)


@dataclass
class Watch:
    """An audit hook that notes what is done while it is ``on``; modules may be read while it says so."""

    on: bool = False
    reads_modules: bool = False
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        reading = self.reads_modules and (event in READING or (event == "open" and _is_module(*args[:2])))
        if self.on and not reading and event not in HARMLESS:
            self.seen.append(f"{event} {args!r:.200}")


HARMLESS = ("builtins.id",)
READING = ("import", "exec", "compile", "marshal.loads", "os.listdir", "sys._getframe", "object.__getattr__")
"""What reading a module for the first time does."""


def _is_module(path: object, mode: object) -> bool:
    return mode in ("r", "rb") and str(path).startswith(INTERPRETER)


def hostile(cases: dict[str, list[Case]]) -> Iterator[tuple[str, Case]]:
    """Each argument of each operation in turn is what nobody should send."""
    for name in KERNELS:
        good = next(case for case in cases[name] if _result(name, case) is not None)
        args, kwargs = good
        for value in HOSTILE:
            for place in range(len(args)):
                yield name, ((*args[:place], value, *args[place + 1 :]), kwargs)
            for parameter in OPERATIONS[name].parameters:
                yield name, (args, {**kwargs, parameter.name: value})
            yield name, ((*args, value), kwargs)
            yield name, (args, {**kwargs, "__class__": value})


def _result(name: str, case: Case) -> Any:
    try:
        return OPERATIONS[name].shape(OPERATIONS[name].bind(*case))
    except (ShapeError, ValueError):
        return None


def carry_out(name: str, case: Case) -> bool:
    """Whether the table took the arguments; then so did the kernel, unless it refused the values."""
    promised = _result(name, case)
    if promised is None or _elements(promised) > LARGE:
        return False
    more: dict[str, Any] = {"generator": torch.Generator().manual_seed(0)} if name in RANDOM else {}
    try:
        KERNELS[name](*map(_real, case[0]), **{key: _real(value) for key, value in case[1].items()}, **more)
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError, NdifBatchError):
        return False
    return True


def _elements(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(_elements, value))
    return torch.Size(value.shape).numel() if isinstance(value, AbstractTensor) else 1


def _real(value: Any) -> Any:
    if isinstance(value, AbstractTensor):
        return torch.ones(value.shape, dtype=getattr(torch, value.dtype))
    if isinstance(value, SliceArg):
        return slice(value.start, value.stop, value.step)
    return tuple(map(_real, value)) if isinstance(value, tuple) else value


def accepted_texts() -> list[str]:
    """Read graphs that have, in each place of a text in turn, what nobody should send; what was not refused."""
    accepted = []
    for place, text in product(PLACES, TEXTS):
        words = {**PLACES, place: json.dumps(text)[1:-1]}
        try:
            validate(graph_from_json(json.loads(GRAPH % words)))
        except GraphError:
            continue
        accepted.append(f"{place} {text}")
    return accepted


PLACES = {"op": "save", "site": "model.layers.0.output", "name": "x", "digest": "d" * 64, "param": "prompt", "run": "a"}
GRAPH = """{"version": 1, "params": {"%(param)s": "prompt"},
"runs": [{"name": "%(run)s", "prompt": {"param": "%(param)s"}}],
"nodes": [{"op": "read", "run": 0, "site": "%(site)s"},
{"op": "add", "args": [{"node": 0}, {"tensor": "%(digest)s"}]},
{"op": "%(op)s", "args": [{"node": 1}], "name": "%(name)s"}]}"""


def main() -> None:
    warnings.simplefilter("ignore")
    cases = all_cases()
    typical = [(name, case) for name, own in cases.items() for case in own]
    watch = Watch()
    sys.addaudithook(watch)
    watch.on = watch.reads_modules = True
    for name, case in typical:
        carry_out(name, case)
    watch.reads_modules = False
    taken = [name for name, case in typical if carry_out(name, case)]
    attacks = list(hostile(cases))
    survived = sum(carry_out(name, case) for name, case in attacks)
    accepted = accepted_texts()
    watch.on = False
    told = {"operations": sorted(set(taken)), "attacks": len(attacks), "survived": survived, "accepted": accepted}
    print(json.dumps({**told, "seen": sorted(set(watch.seen))}))


if __name__ == "__main__":
    validate(graph_from_json(json.loads(GRAPH % PLACES)))
    main()
