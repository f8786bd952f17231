"""Keyed randomness: fixed values, uniform, independent, and the same in NumPy and torch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.keyed import derive_key, hash64, permute, to_range, to_unit

KEYS = st.integers(-(2**63), 2**63 - 1)
INDEX = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)


def counts(n: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.int64)


def reference_hash(key: int, index: int) -> int:
    """The same function, written again with Python's unbounded integers."""
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    inner = mix((index * 0x9E3779B97F4A7C15 + key) & mask)
    value = mix(inner ^ (derive_key(key, "second") & mask))
    return value - 2**64 if value >= 2**63 else value


def test_keys_are_fixed_for_all_time():
    # Old runs are resumed with these values: a change here breaks every checkpoint.
    assert derive_key(0, "mask", 3) == 7910497496643877085
    assert derive_key("a") == 8260280544287282447
    assert hash64(derive_key(0), counts(2)).tolist() == [2655130782022495342, -8062531114881555046]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), (2, 1)),
        ((1,), ("1",)),
        (("ab",), ("a", "b")),
        (("a\x1fstr:b",), ("a", "b")),
        (("a\x1e", "b"), ("a", "\x1eb")),
        (("a\x1e\x1fstr:b",), ("a\x1e", "b")),
        ((), ("",)),
        ((-1,), (1,)),
    ],
)
def test_different_parts_make_different_keys(one, other):
    assert derive_key(*one) != derive_key(*other)


def test_numpy_integers_are_integers():
    assert derive_key(np.int64(7), "x") == derive_key(7, "x") == derive_key(np.int32(7), np.str_("x"))


def test_keys_accept_any_text_and_only_integers_or_text():
    assert derive_key("\udcff") != derive_key("?")
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        derive_key(1.5)  # type: ignore[arg-type]


@settings(deadline=None)
@given(KEYS, INDEX)
def test_hash_equals_the_plain_definition(key, index):
    assert hash64(key, np.array(index, np.int64)).tolist() == [reference_hash(key, i) for i in index]


@settings(deadline=None)
@given(KEYS, INDEX, st.integers(-(2**40), 2**40), st.integers(1, 2**31))
def test_numpy_and_torch_agree(key, index, low, width):
    torch = pytest.importorskip("torch")
    ours = hash64(key, np.array(index, np.int64))
    theirs = hash64(key, torch.tensor(index, dtype=torch.int64))
    assert theirs.tolist() == ours.tolist()
    assert to_unit(theirs).tolist() == to_unit(ours).tolist()
    assert to_range(theirs, low, low + width).tolist() == to_range(ours, low, low + width).tolist()


def test_shape_is_kept_and_order_does_not_matter():
    key = derive_key(1)
    flat = hash64(key, counts(24))
    assert np.array_equal(hash64(key, counts(24).reshape(2, 3, 4)).ravel(), flat)
    assert np.array_equal(hash64(key, counts(24)[::-1]), flat[::-1])
    assert hash64(key, counts(0)).shape == (0,)
    assert int(hash64(key, np.array(5, np.int64))) == flat[5]


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64])
def test_hash_wants_int64(dtype):
    with pytest.raises(TypeError, match=f"index has dtype {np.dtype(dtype)}, expected int64"):
        hash64(1, np.zeros(3, dtype))


def test_bits_are_balanced_and_keys_independent():
    n = 1 << 16
    one, other = hash64(derive_key("a"), counts(n)), hash64(derive_key("b"), counts(n))
    sigma = 0.5 / n**0.5
    for values in (one, one ^ other, one[1:] ^ one[:-1]):
        for bit in range(64):
            assert abs(((values >> bit) & 1).mean() - 0.5) < 5 * sigma


def test_keys_that_differ_by_the_step_are_not_shifted_copies():
    step = int(np.uint64(0x9E3779B97F4A7C15).astype(np.int64))
    assert not np.intersect1d(hash64(0, counts(1000)), hash64(step, counts(1000))).size


def test_unit_covers_the_half_open_interval():
    units = to_unit(hash64(derive_key(2), counts(1 << 16)))
    assert units.dtype == np.float64
    assert 0 <= units.min() < 1e-3
    assert 1 - 1e-3 < units.max() < 1
    assert to_unit(np.array([-1], np.int64))[0] == 1 - 2.0**-53
    assert to_unit(np.array([0], np.int64))[0] == 0.0


def test_range_is_uniform_and_bounded():
    values = to_range(hash64(derive_key(3), counts(70_000)), 5, 12)
    tally = np.bincount(values - 5, minlength=7)
    assert tally.size == 7
    chi_square = ((tally - 10_000) ** 2 / 10_000).sum()
    assert chi_square < 22.46  # 99.9 % point of chi-square with 6 degrees of freedom
    assert to_range(np.array([-1, 0], np.int64), 0, 2**31).tolist() == [2**31 - 1, 0]


@settings(max_examples=60, deadline=None)
@given(KEYS, st.integers(1, 3000))
def test_permute_is_a_permutation(key, size):
    assert np.array_equal(np.sort(permute(key, counts(size), size)), counts(size))


def test_permute_looks_up_single_positions():
    key = derive_key("order", 0)
    whole = permute(key, counts(1000), 1000)
    picked = counts(1000)[::-7]
    before = picked.copy()
    assert np.array_equal(permute(key, picked, 1000), whole[picked])
    assert np.array_equal(picked, before), "the input was changed"
    assert permute(key, counts(6).reshape(2, 3), 1000).shape == (2, 3)
    assert permute(key, counts(0), 1000).shape == (0,)
    for position in range(20):  # some of these walk more than one cycle
        assert permute(key, np.array(position, np.int64), 1000) == whole[position]


@pytest.mark.parametrize("size", [2**31 + 11, 2**61 + 1, 2**62])
def test_permute_of_enormous_sizes_stays_inside_and_does_not_repeat(size):
    index = np.concatenate([counts(500), counts(500, size - 500)])
    result = permute(derive_key(9), index, size)
    assert result.min() >= 0
    assert result.max() < size
    assert np.unique(result).size == 1000


def test_permutations_of_a_few_elements_are_all_reached_evenly():
    tally: dict[tuple[int, ...], int] = {}
    for number in range(2400):
        order = tuple(permute(derive_key("few", number), counts(4), 4).tolist())
        tally[order] = tally.get(order, 0) + 1
    assert len(tally) == 24
    chi_square = sum((count - 100) ** 2 / 100 for count in tally.values())
    assert chi_square < 49.73  # 99.9 % point of chi-square with 23 degrees of freedom


@pytest.mark.parametrize("position", [-1, 10])
def test_permute_refuses_positions_outside(position):
    with pytest.raises(IndexError, match=r"positions must lie in \[0, 10\)"):
        permute(1, np.array([position], np.int64), 10)


@pytest.mark.parametrize("size", [0, -1, 2**62 + 1])
def test_permute_refuses_sizes_it_cannot_hold(size):
    with pytest.raises(IndexError, match=rf"the size of a permutation is {size}, expected 1 to 2\*\*62"):
        permute(1, counts(1), size)
