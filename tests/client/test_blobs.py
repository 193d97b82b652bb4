"""Constant tensors come back as they were, under their content's name, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ndif_batch import blobs
from ndif_batch.errors import IntegrityError, NotFoundError, UnavailableError, UsageError

DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def stored(directory: Path, tensor: torch.Tensor) -> str:
    digest = blobs.digest(blobs.encode(tensor))
    blobs.store(directory, {digest: tensor})
    return digest


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_comes_back_with_its_dtype_and_shape(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 0, 5]]).to(dtype)
    digest = stored(tmp_path, tensor)
    found = blobs.load(tmp_path, [digest])[digest]
    assert found.dtype == dtype
    assert torch.equal(found, tensor)
    assert blobs.describe(tmp_path, digest) == ((2, 3), str(dtype).removeprefix("torch."))


def test_numpy_and_torch_give_one_digest_for_one_content() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert blobs.encode(array) == blobs.encode(torch.from_numpy(array))
    assert blobs.encode(array.T) == blobs.encode(torch.from_numpy(array).T)
    assert blobs.encode(array) != blobs.encode(array.T)
    assert blobs.encode(np.array(1.5)) == blobs.encode(torch.tensor(1.5, dtype=torch.float64))
    assert blobs.encode(torch.ones(4, 4)[1:3, ::2]) == blobs.encode(np.ones((2, 2), dtype=np.float32))


def test_a_tensor_under_a_strange_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="000000000000 holds a tensor with digest"):
        blobs.store(tmp_path, {"0" * 64: torch.ones(2)})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_never_read(tmp_path: Path) -> None:
    digest = stored(tmp_path, torch.ones(8))
    file = blobs.path(tmp_path, digest)
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match="is damaged"):
        blobs.load(tmp_path, [digest])


def test_a_missing_tensor_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no constant tensor aaaaaaaaaaaa"):
        blobs.load(tmp_path, ["a" * 64])


def test_a_digest_cannot_name_another_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no digest"):
        blobs.load(tmp_path, ["../../etc/passwd"])


def test_nothing_is_left_when_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the directory should be")
    tensor = torch.ones(2)
    with pytest.raises(UnavailableError, match="cannot be written"):
        blobs.store(tmp_path / "blobs", {blobs.digest(blobs.encode(tensor)): tensor})


def test_storing_twice_leaves_one_file(tmp_path: Path) -> None:
    assert stored(tmp_path, torch.ones(3)) == stored(tmp_path, torch.ones(3))
    assert len(list(tmp_path.iterdir())) == 1


def test_who_may_read_a_tensor_is_decided_by_the_umask_so_that_the_workers_account_can(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        digest = stored(tmp_path, torch.ones(2))
    finally:
        os.umask(before)
    assert blobs.path(tmp_path, digest).stat().st_mode & 0o777 == 0o640
