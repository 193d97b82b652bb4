"""An archive is deleted whole, also when a deletion before died half way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ndif_batch.archive import Results, create, remove
from ndif_batch.errors import NotAllowedError, NotFoundError, UnavailableError
from tests.archive.archive_example import example_spec


@pytest.fixture
def neighbour(written: Results) -> Path:
    """Another job's archive in the same directory, with a name that ends alike."""
    path = written.path.with_name("17.zarr")
    create(path, example_spec(job=17))
    return path


def test_nothing_of_it_is_left_and_its_neighbour_stays(written: Results, neighbour: Path) -> None:
    remove(written.path)
    assert list(neighbour.parent.iterdir()) == [neighbour]
    assert Results(neighbour).verify() == []
    with pytest.raises(NotFoundError):
        Results(written.path)


def test_nobody_meets_a_part_of_it_and_a_second_try_deletes_the_rest(
    written: Results, neighbour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(path: Path) -> None:
        (path / "loss" / "zarr.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            remove(written.path)
    assert not written.path.exists()
    assert len(list(neighbour.parent.iterdir())) == 2
    remove(written.path)
    remove(written.path)
    assert list(neighbour.parent.iterdir()) == [neighbour]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(PermissionError(13, "Permission denied"), NotAllowedError), (OSError(5, "Input/output error"), UnavailableError)],
)
def test_a_disk_that_refuses_leaves_it_as_it_is(
    written: Results, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", refuse)
        with pytest.raises(expected):
            remove(written.path)
    assert written.verify() == []
