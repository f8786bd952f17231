"""Where tokens lie: offsets, positions, and blocks that hold every sequence once."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.model.layout import Layout

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


@settings(deadline=None)
@given(lengths=LENGTHS)
def test_offsets_and_positions(lengths):
    layout = Layout(lengths)
    rows = [torch.arange(length) for length in lengths]
    assert torch.equal(layout.positions, torch.cat(rows))
    assert [layout.positions[i].item() for i in layout.first_tokens] == [0] * len(lengths)
    assert layout.num_tokens == sum(lengths)
    padded = torch.full((len(lengths) * max(lengths),), -1)
    padded[layout.padded_index] = torch.cat(rows)
    expected = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    assert torch.equal(padded.view(len(lengths), -1), expected)


@settings(deadline=None)
@given(lengths=LENGTHS, heads=st.sampled_from([1, 3, 16]))
def test_blocks_hold_every_sequence_once(lengths, heads):
    layout = Layout(lengths)
    blocks = layout.blocks(heads)
    assert sorted(row for block in blocks for row in block.rows) == list(range(len(lengths)))
    for block in blocks:
        assert block.lengths == tuple(lengths[row] for row in block.rows)
        assert block.length - 8 < min(block.lengths) <= max(block.lengths) <= block.length
        if block.index is None:
            assert block.start == layout.starts[block.rows[0]]
            assert list(block.rows) == list(range(block.rows[0], block.rows[-1] + 1))
            continue
        for row, index in zip(block.rows, block.index, strict=True):
            start, real = layout.starts[row], lengths[row]
            assert index[:real].tolist() == list(range(start, start + real))
            assert index[real:].tolist() == [start + real - 1] * (block.length - real)
    assert layout.blocks(heads) is blocks


def test_a_block_of_scores_is_bounded():
    blocks = Layout([512] * 100).blocks(12)
    assert len(blocks) > 50
    assert all(len(block.rows) * 12 * 512 * 512 <= 1 << 22 or len(block.rows) == 1 for block in blocks)
