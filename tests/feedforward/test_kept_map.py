"""Maps kept in pieces of rows: any part reads as it was written, and memory goes round."""

from __future__ import annotations

import pytest
import torch

from impasto.errors import is_out_of_memory
from impasto.feedforward import kept_map
from impasto.feedforward.kept_map import KeptMap, Pieces


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_part_reads_as_it_was_written(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_map, "PIECE", 2000)
    whole = torch.rand(1, 4, 37, 23).to(dtype)
    kept = KeptMap(tuple(whole.shape), dtype, Pieces(torch.device("cpu")))
    for top in range(0, 37, 10):
        for left in range(0, 23, 8):
            rows, columns = slice(top, min(37, top + 10)), slice(left, min(23, left + 8))
            kept.write(rows, columns, whole[..., rows, columns])
    assert kept.nbytes == whole.nbytes
    for rows, columns in ((slice(0, 37), slice(0, 23)), (slice(9, 21), slice(3, 4)), (slice(36, 37), slice(0, 9))):
        found = kept.read(rows, columns)
        assert torch.equal(found, whole[..., rows, columns])
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_released_rows_make_room_for_a_map_of_another_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_map, "PIECE", 1024)
    memory = Pieces(torch.device("cpu"))
    first, second = (KeptMap((1, count, 16, 8), torch.float32, memory) for count in (8, 2))
    first.write(slice(0, 16), slice(0, 8), torch.ones(1, 8, 16, 8))
    own = {piece.data_ptr() for piece in first.pieces.values()}
    first.release(7)  # a piece has four rows: the second one is still read in part
    assert len(memory.free) == 1
    assert torch.equal(first.read(slice(4, 16), slice(0, 8)), torch.ones(1, 8, 12, 8))
    first.release(16)
    assert not first.pieces
    second.write(slice(0, 16), slice(0, 8), torch.zeros(1, 2, 16, 8))
    assert {piece.data_ptr() for piece in second.pieces.values()} < own
    memory.close()
    second.release(16)
    assert not memory.free


def test_a_row_may_be_larger_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_map, "PIECE", 64)
    memory = Pieces(torch.device("cpu"))
    kept = KeptMap((1, 3, 2, 50), torch.float32, memory)
    whole = torch.rand(1, 3, 2, 50)
    kept.write(slice(0, 2), slice(0, 50), whole)
    assert torch.equal(kept.read(slice(0, 2), slice(10, 20)), whole[..., 10:20])
    kept.release(2)
    assert not memory.free  # only pieces of the usual size go round


def test_no_memory_for_a_piece_is_said_as_torch_says_it() -> None:
    kept = KeptMap((1, 1 << 20, 1, 1 << 30), torch.float32, Pieces(torch.device("cpu")))
    with pytest.raises((MemoryError, RuntimeError)) as found:
        kept.memory.take(kept.row)
    assert is_out_of_memory(found.value)
