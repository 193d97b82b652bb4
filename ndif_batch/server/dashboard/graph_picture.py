"""A graph as a drawing: its runs above, each node below all that it takes, arrows between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ndif_batch.graph.nodes import Graph, inputs
from ndif_batch.graph.text import to_text

WIDTH, HEIGHT = 168, 44
"""Pixels of a box."""

ACROSS, DOWN = 22, 34
"""Pixels between boxes."""

MOST_NODES = 120
"""Larger graphs are shown as text alone."""

LETTERS = 24
"""Letters that a box has room for."""


@dataclass(frozen=True, slots=True)
class Box:
    """One run or node; its upper left corner in pixels."""

    key: str
    kind: str
    title: str
    note: str
    told: str
    x: float
    y: float
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes, and the lines between them as SVG paths; ``size`` in pixels."""

    boxes: Sequence[Box]
    paths: Sequence[str]
    size: tuple[float, float]


def draw(graph: Graph, failures: Mapping[int, int]) -> Drawing | None:
    """The drawing, with how many tasks failed at each node; None for a graph that is too large."""
    if len(graph.nodes) > MOST_NODES:
        return None
    edges = _edges(graph)
    places = _places(graph, edges)
    told = _lines(graph)
    boxes = [_box(graph, key, places[key], told[key], failures) for key in places]
    width = max((box.x for box in boxes), default=0) + WIDTH
    height = max((box.y for box in boxes), default=0) + HEIGHT
    return Drawing(boxes, [_path(places[a], places[b]) for a, b in edges], (width + 2, height + 2))


def _edges(graph: Graph) -> list[tuple[str, str]]:
    """From what is taken to what takes it, a run as it was last written to; boxes are named ``r0`` and ``n0``."""
    found = []
    changed = {run: f"r{run}" for run in range(len(graph.runs))}
    for i, node in enumerate(graph.nodes):
        found += [(f"n{one}", f"n{i}") for one in dict.fromkeys(inputs(node))]
        if node.run is not None:
            found.append((changed[node.run], f"n{i}"))
        if node.run is not None and node.op == "write":
            changed[node.run] = f"n{i}"
    return found


def _places(graph: Graph, edges: Sequence[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """The corner of each box: a layer below the lowest that it takes, beside it where there is room."""
    above: dict[str, list[str]] = {f"r{i}": [] for i in range(len(graph.runs))}
    above |= {f"n{i}": [] for i in range(len(graph.nodes))}
    for source, target in edges:
        above[target].append(source)
    layers: dict[str, int] = {}
    for key, taken in above.items():  # runs come first, and a node takes earlier ones only
        layers[key] = 1 + max((layers[one] for one in taken), default=-1 if key.startswith("r") else 0)
    places: dict[str, tuple[float, float]] = {}
    for layer in range(max(layers.values(), default=-1) + 1):
        row = [key for key, at in layers.items() if at == layer]
        wanted = {key: _middle([places[one][0] for one in above[key]], i) for i, key in enumerate(row)}
        free = 0.0
        for key in sorted(row, key=lambda one: wanted[one]):
            x = max(wanted[key], free)
            places[key] = (x, layer * (HEIGHT + DOWN))
            free = x + WIDTH + ACROSS
    return places


def _middle(xs: Sequence[float], place: int) -> float:
    return sum(xs) / len(xs) if xs else place * (WIDTH + ACROSS)


def _path(source: tuple[float, float], target: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = source, target
    x1, y1, x2 = x1 + WIDTH / 2, y1 + HEIGHT, x2 + WIDTH / 2
    bend = min(DOWN, (y2 - y1) / 2)
    return f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"


def _lines(graph: Graph) -> dict[str, str]:
    """What the text of the graph says of each box."""
    lines = to_text(graph).splitlines()[len(graph.params) :]
    runs = len(graph.runs)
    return {f"r{i}": line for i, line in enumerate(lines[:runs])} | {
        f"n{i}": line for i, line in enumerate(lines[runs:])
    }


def _box(graph: Graph, key: str, place: tuple[float, float], told: str, failures: Mapping[int, int]) -> Box:
    number = int(key[1:])
    if key.startswith("r"):
        return Box(key, "run", graph.runs[number].name, "run", told, *place)
    node = graph.nodes[number]
    note = node.name or node.site or told.partition("(")[2].removesuffix(")")
    kind = node.op if node.op in ("read", "write", "save", "log") else "node"
    return Box(key, kind, f"%{number} {node.op}", _short(note), told, *place, failures.get(number, 0))


def _short(text: str) -> str:
    """The end of a long name says most."""
    return text if len(text) <= LETTERS else "…" + text[1 - LETTERS :]
