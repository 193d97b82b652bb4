"""Makes tensors of images and texts, as the model's own processor does: where a job is submitted, never on a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.errors import ModelError, NotFoundError, UsageError, nearest
from ndif_batch.models.info import PREPROCESSOR, ModelInfo
from ndif_batch.models.inputs import IDS, MASK, PIXELS, described
from ndif_batch.models.tokenizer import FILE as TOKENIZER

if TYPE_CHECKING:
    from PIL.Image import Image
    from tokenizers import Tokenizer

IMAGES, TEXT = "images", "text"
MOST_PIXELS = 100_000_000
"""The largest image that is read."""


def tensors_of(info: ModelInfo, prompt: object, folder: Path = Path()) -> dict[str, Any]:
    """The tensors, torch's or numpy's, that a prompt is for a model that takes some.

    ``prompt`` is an image (the path of a file, looked for in ``folder``; a PIL image; an array of bytes
    ``[height, width, channels]``), the only tensor that the model takes, or a mapping: tensors by name, and ``images``
    and ``text`` for what becomes tensors. A text that begins with ``{`` is such a mapping in JSON.

    ``ModelError`` or ``NotFoundError`` says what is wrong with it. Names, shapes and dtypes are not looked at.
    """
    wanted = info.sites.inputs or {}
    if isinstance(prompt, str) and prompt.lstrip().startswith("{"):
        prompt = _json(prompt)
    if isinstance(prompt, Mapping):
        return {name: tensor for key, value in prompt.items() for name, tensor in _named(info, key, value, folder)}
    if _is_tensor(prompt) and len(wanted) == 1 and not _is_picture(prompt):
        return {next(iter(wanted)): prompt}
    if set(wanted) == {PIXELS} and not isinstance(prompt, list | tuple):
        return {PIXELS: _pixels(info, prompt, folder)}
    given = f"the text {prompt[:40]!r}" if isinstance(prompt, str) else f"a value of type {type(prompt).__name__}"
    both = f', or {{"{IMAGES}": …, "{TEXT}": …}}' if {PIXELS, IDS} <= wanted.keys() else ""
    raise ModelError(
        f"{given} is no prompt of the model, which takes {described(wanted)}", hint=f"give its tensors by name{both}"
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelError(f"the prompt {text[:40]!r} is not JSON: {error}") from None


def _named(info: ModelInfo, key: str, value: object, folder: Path) -> list[tuple[str, Any]]:
    wanted = info.sites.inputs or {}
    if key == IMAGES and PIXELS in wanted:
        return [(PIXELS, _pixels(info, value, folder))]
    if key == TEXT and IDS in wanted:
        return list(_tokens(info, value).items())
    if key not in wanted:
        words = [word for word, name in ((IMAGES, PIXELS), (TEXT, IDS)) if name in wanted]
        raise ModelError(
            f"the model takes no input {key!r}, but {described(wanted)}", hint=nearest(str(key), [*wanted, *words])
        )
    if not _is_tensor(value):
        raise ModelError(f"input {key!r} must be a tensor of torch or numpy, not a {type(value).__name__}")
    return [(key, value)]


def _is_tensor(value: object) -> bool:
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "torch"


def _is_picture(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8


def _tokens(info: ModelInfo, text: object) -> dict[str, Any]:
    """The token ids of a text and, where the model takes it, the mask of its padding: ``[1, tokens]`` each."""
    if not isinstance(text, str):
        raise ModelError(f"{TEXT} must be one text a run, not a {type(text).__name__}")
    wanted = info.sites.inputs or {}
    found = _tokenizer(info.directory).encode(text)
    length = wanted[IDS].at(1)[1]
    if len(found.ids) > length:
        raise ModelError(f"the text {text[:40]!r} has {len(found.ids)} tokens; the model takes {length}")
    tokens = {IDS: np.array([found.ids], np.int64)}
    return tokens | ({MASK: np.array([found.attention_mask], np.int64)} if MASK in wanted else {})


@lru_cache(maxsize=8)
def _tokenizer(directory: Path) -> Tokenizer:
    """A model's tokenizer with its padding."""
    import tokenizers

    if not (directory / TOKENIZER).is_file():
        raise NotFoundError(f"the model in {directory} has no tokenizer", hint=f"give {IDS} as a tensor")
    return tokenizers.Tokenizer.from_file(str(directory / TOKENIZER))


def _pixels(info: ModelInfo, image: object, folder: Path) -> Any:
    """``[1, channels, height, width]`` of an image."""
    channels = (info.sites.inputs or {})[PIXELS].at(1)[1]
    picture = _opened(image, folder).convert("L" if channels == 1 else "RGB")
    return _processor(info.directory)(images=picture, return_tensors="np")[PIXELS]


@lru_cache(maxsize=8)
def _processor(directory: Path) -> Any:
    from transformers import AutoImageProcessor

    if not (directory / PREPROCESSOR).is_file():
        raise NotFoundError(
            f"the model in {directory} has no image processor ({PREPROCESSOR})", hint=f"give {PIXELS} as a tensor"
        )
    factory: Any = AutoImageProcessor
    return factory.from_pretrained(str(directory), backend="pil", trust_remote_code=False, local_files_only=True)


def _opened(image: object, folder: Path) -> Image:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError:
        raise UsageError("images are read with Pillow, which is not installed", hint="pip install pillow") from None
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        try:
            return Image.fromarray(image)
        except TypeError:
            raise ModelError(
                f"an array of the shape {list(image.shape)} is no image", hint="height, width, 3"
            ) from None
    if not isinstance(image, str | Path):
        raise ModelError(f"a {type(image).__name__} is no image", hint="one image a run: a path, a PIL image or bytes")
    path = folder / Path(image).expanduser()
    try:
        with path.open("rb") as file, Image.open(file) as found:
            if found.width * found.height > MOST_PIXELS:
                raise ModelError(f"{path} has {found.width} x {found.height} pixels; at most {MOST_PIXELS:,} are read")
            found.load()
            return found.copy()
    except FileNotFoundError:
        raise NotFoundError(f"there is no image {str(image)!r}", hint=f"looked for {path.absolute()}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ModelError(f"{path} cannot be read as an image: {error}") from None
