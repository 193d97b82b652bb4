"""Loads an experiment: a graph in JSON, or a Python file whose ``build(lm)`` records one in this process."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ndif_batch.errors import NdifBatchError, SweepError, UsageError, nearest
from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.serialize import graph_from_json
from ndif_batch.sweep.marked import read_text

BUILD = "build"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A graph and its constant tensors by digest."""

    graph: Graph
    constants: Mapping[str, Any] = field(default_factory=dict)


def load_experiment(path: Path, language_model: Callable[[], Any]) -> Experiment:
    """The experiment in a ``.json`` or ``.py`` file; ``language_model`` is called for the latter only.

    Raises ``NotFoundError`` for a missing file, ``GraphError`` for a wrong graph, and ``UsageError`` with the user's
    line for a Python file that fails.
    """
    if path.suffix == ".py":
        return _recorded(path, language_model)
    if path.suffix == ".json":
        return Experiment(read_graph(path))
    raise UsageError(f"{path}: not an experiment", hint="give a graph in .json or a .py file with build(lm)")


def read_graph(path: Path) -> Graph:
    """The graph in a JSON file."""
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise SweepError(f"{error.msg} at column {error.colno}", file=str(path), line=error.lineno) from None
    return graph_from_json(data)


def _recorded(path: Path, language_model: Callable[[], Any]) -> Experiment:
    module = _imported(path)
    build = getattr(module, BUILD, None)
    if not callable(build):
        defined = [name for name, item in vars(module).items() if callable(item) and item.__module__ == module.__name__]
        raise UsageError(
            f"{path} has no function build(lm)",
            hint=nearest(BUILD, defined) if defined else "define `def build(lm): …` that returns the trace",
        )
    model = language_model()
    with _user_errors(path):
        trace = build(model)
    graph = trace if isinstance(trace, Graph) else getattr(trace, "graph", None)
    if not isinstance(graph, Graph):
        raise UsageError(f"{path}: build(lm) returned {type(trace).__name__}", hint="return the trace: `return t`")
    return Experiment(graph, getattr(trace, "constants", {}))


def _imported(path: Path) -> ModuleType:
    source = read_text(path)
    module = ModuleType(f"ndif_batch_experiment_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    with _user_errors(path):
        exec(compile(source, str(path), "exec"), vars(module))
    return module


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """An exception of the user's code becomes one error that names his line."""
    try:
        yield
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise UsageError(f"{error.filename}:{error.lineno}: {error.msg}", hint=line and f"in `{line}`") from None
    except NdifBatchError as error:
        error.message = _placed(path, error, error.message)
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(_placed(path, error, f"{type(error).__name__}: {error}"), hint=_line(path, error)) from error


def _placed(path: Path, error: BaseException, message: str) -> str:
    frame = _frame(path, error)
    return message if frame is None or path.name in message else f"{path}:{frame.lineno}: {message}"


def _line(path: Path, error: BaseException) -> str | None:
    frame = _frame(path, error)
    return f"in `{frame.line}`" if frame is not None and frame.line else None


def _frame(path: Path, error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame of ``error`` that lies in the user's file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return frames[-1] if frames else None
