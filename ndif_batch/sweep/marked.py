"""Reads YAML into plain data that remembers the line of every key and item, so that errors can point at it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ndif_batch.errors import NotFoundError, SweepError, UnavailableError

Location: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the root of a document to one of its parts."""


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) with the line, counted from 1, of each part.

    It may be the part of another at ``root``: its locations begin there.
    """

    file: str
    data: Any
    lines: Mapping[Location, int]
    root: Location = ()

    def part(self, *location: str | int) -> Document:
        """The part at a location as a document of its own."""
        data = self.data
        for step in location:
            data = data[step]
        return Document(self.file, data, self.lines, (*self.root, *location))

    def line(self, location: Sequence[str | int]) -> int:
        """The line of the part at ``location``, or of the nearest part around it."""
        known = (*self.root, *location)
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)

    def error(self, message: str, location: Sequence[str | int], *, hint: str | None = None) -> SweepError:
        """A ``SweepError`` that names file, line and key of ``location``."""
        return SweepError(
            message, hint=hint, file=self.file, line=self.line(location), key=key_of((*self.root, *location)) or None
        )


def key_of(location: Sequence[str | int]) -> str:
    """A location as one reads it: ``parameters.layer.range[1]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def read_text(path: Path) -> str:
    """The text of a file; ``NotFoundError`` if there is none, ``SweepError`` if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise NotFoundError(f"{str(path)!r} is a directory, not a file") from None
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no file {str(path)!r}", hint=_beside(path)) from None
    except OSError as error:
        raise UnavailableError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SweepError(f"byte {error.start} is not UTF-8", file=str(path), hint="save the file as UTF-8") from None


def load_yaml(path: Path) -> Document:
    """The one document of a YAML file, with YAML 1.2's scalars: ``yes`` and ``1:30`` are text, ``1e-3`` is a number."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, file: str) -> Document:
    """As :func:`load_yaml`, from text; ``file`` is what errors call it."""
    lines: dict[Location, int] = {}
    try:
        root = _Loader(text).get_single_node()
        data = None if root is None else _plain(root, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise SweepError(problem, file=file, line=mark.line + 1 if mark else None, hint=error.note) from None
    except yaml.YAMLError as error:
        raise SweepError(str(error).splitlines()[0], file=file, hint="is it a YAML text file?") from None
    except RecursionError:
        raise SweepError("the document is nested too deeply", file=file) from None
    return Document(file, data, lines)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                None, None, f"alias '*{event.anchor}' is not supported", event.start_mark, "use ${name} instead"
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BOOL, _NULL, _STR = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"
_SCALARS = {
    _INT: re.compile(r"[-+]?[0-9]+\Z"),
    _FLOAT: re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
    _BOOL: re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    _NULL: re.compile(r"(?:null|Null|NULL|~|)\Z"),
}
FIRST = {"", *"0123456789+-.tTfFnN~"}
"""What a scalar begins with that is no text."""
for _tag, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)


def typed(text: str) -> bool | int | float | str | None:
    """A scalar as YAML 1.2 reads it when it is not quoted."""
    if text[:1] not in FIRST:
        return text
    for tag, pattern in _SCALARS.items():
        if pattern.match(text):
            return _scalar(tag, text)
    return text


def _scalar(tag: str, text: str) -> bool | int | float | str | None:
    if tag == _INT:
        return int(text)
    if tag == _FLOAT:
        return float(text.replace(".", "", 1)) if text.lstrip("+-")[:2].lower() in (".i", ".n") else float(text)
    if tag == _BOOL:
        return text.lower() == "true"
    return None if tag == _NULL else text


def _plain(node: yaml.Node, at: Location, lines: dict[Location, int]) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        if node.tag != _STR and not (node.tag in _SCALARS and _SCALARS[node.tag].match(node.value)):
            raise yaml.MarkedYAMLError(None, None, f"tag {node.tag!r} is not supported here", node.start_mark)
        return _scalar(node.tag, _paired(node))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*at, i), lines) for i, item in enumerate(node.value)]
    return _mapping(node, at, lines)


def _paired(node: yaml.ScalarNode) -> str:
    """The text of a scalar with the surrogate pairs that JSON's escapes make joined."""
    text: str = node.value
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise yaml.MarkedYAMLError(None, None, "half a surrogate pair is not a character", node.start_mark) from None


def _mapping(node: yaml.Node, at: Location, lines: dict[Location, int]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(None, None, "a key must be text", key.start_mark)
        name = _paired(key)
        if name in data:
            first = lines[(*at, name)]
            raise yaml.MarkedYAMLError(
                None, None, f"key {name!r} is given twice (first on line {first})", key.start_mark
            )
        lines[(*at, name)] = key.start_mark.line + 1
        data[name] = _plain(value, (*at, name), lines)
    return data


def _beside(path: Path) -> str | None:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no directory {str(folder)!r} either"
    alike = sorted(item.name for item in folder.iterdir() if item.suffix == path.suffix)
    return f"in {str(folder)!r} there is {', '.join(alike[:6])}" if alike else None
