"""An archive on another machine, read file by file and range by range through whoever fetches them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

if TYPE_CHECKING:
    from ndif_batch.archive.integrity import Problem


@dataclass(frozen=True)
class RemotePath:
    """What :class:`~ndif_batch.archive.Results` needs of the path of an archive that is not a folder of this host.

    ``fetch`` gives the bytes of a file, or of a span of it in the words of HTTP (``0-9``, ``10-``, ``-10``), and None
    if there is none; ``names`` lists a folder; ``problems`` says what is damaged.
    """

    url: str
    fetch: Callable[[str, str | None], bytes | None]
    names: Callable[[str], list[str]]
    problems: Callable[[], list[Problem]]
    part: str = ""

    def __truediv__(self, name: str) -> RemotePath:
        return replace(self, part=f"{self.part}/{name}" if self.part else name)

    def __str__(self) -> str:
        return f"{self.url}/{self.part}" if self.part else self.url

    def read_bytes(self) -> bytes:
        """The file's bytes; ``FileNotFoundError`` if there is none."""
        data = self.fetch(self.part, None)
        if data is None:
            raise FileNotFoundError(str(self))
        return data

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return self.fetch(self.part, "0-0") is not None

    def store(self) -> Store:
        """The archive as a Zarr store, to read."""
        return RemoteStore(self)


class RemoteStore(Store):
    """A Zarr store of one remote archive, to read."""

    def __init__(self, place: RemotePath) -> None:
        super().__init__(read_only=True)
        self._place = place

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other._place.url == self._place.url

    def __repr__(self) -> str:
        return f"RemoteStore({self._place.url!r})"

    def with_read_only(self, read_only: bool = False) -> Store:
        """Itself; there is no other way to open it."""
        if not read_only:
            self._refuse()
        return self

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a file or of a part of it."""
        data = await asyncio.to_thread(self._place.fetch, key, _span(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several, at once."""
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(self._place.fetch, key, "0-0") is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names in a folder."""
        for name in await asyncio.to_thread(self._place.names, prefix.strip("/")):
            yield name

    async def list(self) -> AsyncIterator[str]:
        """Every file."""
        async for name in self.list_prefix(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every file whose name begins so: an archive is a folder of folders."""
        for folder in await asyncio.to_thread(self._place.names, ""):
            inside = [] if "." in folder else await asyncio.to_thread(self._place.names, folder)
            for name in (f"{folder}/{one}" for one in inside) if inside else (folder,):
                if name.startswith(prefix):
                    yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        self._refuse()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> Any:
        raise ValueError(f"the archive at {self._place.url} is only read")


def _span(request: ByteRequest | None) -> str | None:
    match request:
        case None:
            return None
        case RangeByteRequest(start, end):
            return f"{start}-{end - 1}"
        case OffsetByteRequest(offset):
            return f"{offset}-"
        case SuffixByteRequest(suffix):
            return f"-{suffix}"
    raise TypeError(f"{request!r} is no part of a file")
