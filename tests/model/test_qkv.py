"""The order of rows in a joined query-key-value matrix."""

import pytest
import torch

from maskwright.model.qkv import join_qkv, split_qkv


def test_rows_lie_head_by_head():
    query, key, value = torch.arange(4), torch.arange(10, 14), torch.arange(20, 24)
    assert join_qkv((query, key, value), 2).tolist() == [0, 1, 10, 11, 20, 21, 2, 3, 12, 13, 22, 23]


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
@pytest.mark.parametrize("columns", [(), (5,)], ids=["bias", "weight"])
def test_there_and_back(heads, columns):
    parts = torch.randn(3, 6, *columns, generator=torch.Generator().manual_seed(0))
    joined = join_qkv(parts.unbind(), heads)
    again = split_qkv(joined, heads)
    for part, found in zip(parts, again, strict=True):
        assert found.shape == (heads, 6 // heads, *columns)
        assert torch.equal(found.flatten(0, 1), part)
        assert found.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()


def test_a_run_of_heads_is_a_run_of_rows():
    parts = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0)).unbind()
    joined = join_qkv(parts, 4)
    assert torch.equal(joined[6:18], join_qkv([part[2:6] for part in parts], 2))
