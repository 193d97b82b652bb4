"""Constant tensors, stored once by content: one safetensors file, named by the digest of its bytes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any

from ndif_batch.errors import IntegrityError, NotFoundError, UnavailableError, UsageError

KEY = "tensor"
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
DIGEST = re.compile(r"[0-9a-f]{64}")


def encode(tensor: Any) -> bytes:
    """A torch tensor or numpy array as the bytes of a safetensors file; equal tensors give equal bytes."""
    if type(tensor).__module__.partition(".")[0] == "torch":
        data: bytes = import_module("safetensors.torch").save({KEY: tensor.detach().cpu().contiguous()})
    else:
        numpy = import_module("numpy")
        data = import_module("safetensors.numpy").save({KEY: numpy.asarray(tensor, order="C")})
    return data


def decode(data: bytes) -> Any:
    """The torch tensor in the bytes of :func:`encode`, on the CPU."""
    return import_module("safetensors.torch").load(data)[KEY]


def digest(data: bytes) -> str:
    """BLAKE2b-256 of an encoded tensor, in hexadecimal."""
    return blake2b(data, digest_size=32).hexdigest()


def store(directory: Path, constants: Mapping[str, Any]) -> None:
    """Writes each tensor under its digest, atomically; what is there already stays.

    Raises ``IntegrityError`` if a digest is not its tensor's, ``UnavailableError`` if the disk refuses.
    """
    for name, tensor in constants.items():
        data = encode(tensor)
        if digest(data) != name:
            raise IntegrityError(f"constant {name[:12]} holds a tensor with digest {digest(data)[:12]}")
        if not path(directory, name).exists():
            _write(path(directory, name), data)


def load(directory: Path, digests: Iterable[str]) -> dict[str, Any]:
    """The torch tensors with these digests, on the CPU.

    Raises ``NotFoundError`` for one that was never stored and ``IntegrityError`` for one whose file is damaged.
    """
    return {name: decode(_read(directory, name)) for name in digests}


def describe(directory: Path, name: str) -> tuple[tuple[int, ...], str]:
    """Shape and dtype (torch's name) of a stored tensor; errors as for :func:`load`."""
    data = _read(directory, name)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])[KEY]
    return tuple(header["shape"]), DTYPES[header["dtype"]]


def names(file: Path) -> list[str]:
    """The names of the tensors in a safetensors file; ``IntegrityError`` if it is none."""
    with _opened(file) as tensors:
        return list(tensors.keys())


def read(file: Path, name: str) -> Any:
    """The torch tensor called ``name`` in a safetensors file, on the CPU; errors as for :func:`names`."""
    with _opened(file) as tensors:
        return tensors.get_tensor(name)


def path(directory: Path, name: str) -> Path:
    """The file of the tensor with digest ``name``."""
    if not DIGEST.fullmatch(name):
        raise UsageError(f"{name!r} is no digest of a tensor")
    return directory / f"{name}.safetensors"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    safetensors = import_module("safetensors")
    try:
        with safetensors.safe_open(str(file), framework="pt") as tensors:
            yield tensors
    except (OSError, safetensors.SafetensorError) as error:
        raise IntegrityError(f"{file} cannot be read as safetensors: {error}") from None


def _read(directory: Path, name: str) -> bytes:
    try:
        data = path(directory, name).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no constant tensor {name[:12]} in {directory}") from None
    except OSError as error:
        raise UnavailableError(f"constant tensor {name[:12]} cannot be read: {error}") from None
    if digest(data) != name:
        raise IntegrityError(f"{path(directory, name)} is damaged", hint="remove it and submit the job again")
    return data


def _write(file: Path, data: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".tensor-{token_hex(8)}")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnavailableError(f"constant tensors cannot be written to {file.parent}: {error}") from None
