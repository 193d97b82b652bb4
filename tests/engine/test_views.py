"""What a run sees of a site and what its writes touch: its own tokens, nothing else."""

import pytest
import torch

from ndif_batch.engine.pack import Kept, Pack, Segment
from ndif_batch.engine.views import SiteBuffer, view
from ndif_batch.graph.sites import SiteTensor

STREAM = SiteTensor((1, None, 4), "float32")
HEADS = SiteTensor((1, 2, None, 3), "float32")
ROWS = SiteTensor((None, 4), "float32")
MIDDLE = Segment(2, 3)


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "size", "seen"),
    [(STREAM, (1, 7, 4), (1, 3, 4)), (HEADS, (1, 2, 7, 3), (1, 2, 3, 3)), (ROWS, (7, 4), (3, 4))],
)
def test_a_view_is_cut_at_the_tokens_axis(shape: SiteTensor, size: tuple[int, ...], seen: tuple[int, ...]) -> None:
    assert view(numbered(*size), shape, MIDDLE).shape == seen


def test_a_write_changes_its_own_tokens_and_leaves_the_tensor_it_came_from() -> None:
    value = numbered(1, 7, 4)
    before = value.clone()
    buffer = SiteBuffer(value, STREAM)
    buffer.write(MIDDLE, (slice(None), -1), torch.full((4,), -1.0))
    assert torch.equal(value, before)
    changed = buffer.value != before
    assert changed.nonzero()[:, 1].unique().tolist() == [4]


@pytest.mark.parametrize("index", [(0, 3), (0, -4), (slice(None), slice(None), 4)])
def test_a_write_outside_the_own_tokens_is_refused_even_where_a_neighbour_has_some(index: tuple[object, ...]) -> None:
    with pytest.raises(IndexError):
        SiteBuffer(numbered(1, 7, 4), STREAM).write(MIDDLE, index, 0.0)


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RuntimeError):
        SiteBuffer(numbered(1, 7, 4), STREAM).write(MIDDLE, (), torch.zeros(1, 7, 4))


def test_what_was_read_does_not_change_with_later_writes() -> None:
    buffer = SiteBuffer(numbered(1, 7, 4), STREAM)
    first = buffer.view(MIDDLE)
    buffer.write(MIDDLE, (), 1.0)
    second = buffer.view(MIDDLE)
    buffer.write(MIDDLE, (), 2.0)
    assert first[0, 0, 0] == 8
    assert torch.equal(second, torch.ones(1, 3, 4))
    assert torch.equal(buffer.view(MIDDLE), torch.full((1, 3, 4), 2.0))


def test_items_of_a_tuple_are_written_one_by_one_or_together() -> None:
    both = (STREAM, None, ROWS)
    buffer = SiteBuffer((numbered(1, 7, 4), None, numbered(7, 4)), both)
    buffer.write(MIDDLE, (0, slice(None), 0), 0.0)
    buffer.write(MIDDLE, (-1,), 5.0)
    assert buffer.value[0][0, 2].tolist() == [0, 0, 0, 0]
    assert buffer.value[2][:, 0].tolist() == [0, 4, 5, 5, 5, 20, 24]
    with pytest.raises(IndexError, match="holds 3 values"):
        buffer.write(MIDDLE, (3,), 0.0)
    with pytest.raises(TypeError, match="no tensor"):
        buffer.write(MIDDLE, (1,), 0.0)
    with pytest.raises(TypeError, match="tuple of 3"):
        buffer.write(MIDDLE, (), 0.0)


def test_a_pack_puts_runs_of_equal_length_side_by_side_and_remembers_whose_tokens_are_where() -> None:
    pack = Pack.of([(1, 2, 3), (4,), (5, 6, 7), (8, 9)], torch.device("cpu"))
    assert pack.tokens == 9
    assert [(group.rows, group.length) for group in pack.groups] == [(1, 1), (1, 2), (2, 3)]
    runs = [pack.token_ids[0, s.first : s.first + s.length].tolist() for s in pack.segments]
    assert runs == [[1, 2, 3], [4], [5, 6, 7], [8, 9]]
    assert [pack.positions[0, s.first].item() for s in pack.segments] == [0, 0, 0, 0]


def test_kept_positions_are_found_on_the_pack() -> None:
    pack = Pack.of([(1, 2, 3), (4, 5)], torch.device("cpu"))
    kept = Kept.of([(0, 2), (1,)])
    assert pack.token_ids[0, kept.index(pack)].tolist() == [1, 3, 5]
    assert [(s.first, s.length) for s in kept.segments] == [(0, 2), (2, 1)]
    assert kept.places[0] == {0: 0, 2: 1}
