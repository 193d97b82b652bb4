"""What is known of a model without its weights: where it lies, its revision, its sites."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ndif_batch.errors import IntegrityError, NotFoundError
from ndif_batch.graph.sites import SiteMap
from ndif_batch.models.tokenizer import Tokenizer

FILE = "ndif_batch.json"
VERSION = 2
"""Of the record: the site map of a first one has no sites inside attention."""


@dataclass(frozen=True)
class ModelInfo:
    """A model entry. ``directory`` holds this record and the tokenizer, ``weights`` the configuration and safetensors.

    ``revision`` is the hub's commit, or the beginning of ``digest`` (BLAKE2b of the weight files) for local sources.
    """

    name: str
    source: str
    directory: Path
    weights: Path
    revision: str
    digest: str
    dtype: str
    sites: SiteMap
    version: int = VERSION

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, or ``None`` if it has none."""
        try:
            return Tokenizer.load(self.directory)
        except NotFoundError:
            return None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        plain = {name: str(getattr(self, name)) for name in _PLAIN}
        return {**plain, "version": self.version, "sites": self.sites.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelInfo:
        """The inverse of :meth:`to_json`."""
        plain = {name: data[name] for name in _PLAIN}
        plain |= {"directory": Path(data["directory"]), "weights": Path(data["weights"])}
        return cls(**plain, sites=SiteMap.from_json(data["sites"]), version=data.get("version", 1))

    @classmethod
    def read(cls, directory: Path) -> ModelInfo:
        """The entry in ``directory``; ``NotFoundError`` if there is none."""
        file = directory / FILE
        try:
            return cls.from_json(json.loads(file.read_text()))
        except FileNotFoundError:
            raise NotFoundError(f"there is no model entry in {directory}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{file} is damaged: {error}", hint="remove it and add the model again") from None


_PLAIN = ("name", "source", "directory", "weights", "revision", "digest", "dtype")
