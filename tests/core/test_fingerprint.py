"""Fingerprints: equal content, equal name; anything else, another name."""

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.fingerprint import fingerprint, sha256_bytes, sha256_file

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_key_order_does_not_matter_but_list_order_does():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


@pytest.mark.parametrize(
    ("one", "other"), [(1, "1"), (None, "null"), (True, 1), ([], {}), ("a b", "ab"), (1, 1.0)]
)
def test_different_values_have_different_names(one, other):
    assert fingerprint(one) != fingerprint(other)


@settings(deadline=None)
@given(JSON)
def test_the_form_is_always_32_hexadecimal_digits(value):
    name = fingerprint(value)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")


def test_the_value_is_fixed_and_does_not_depend_on_the_process():
    value = {"zeta": [1, 2.5, None, True], "é": "中"}
    code = f"from maskwright.core.fingerprint import fingerprint; print(fingerprint({value!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert fingerprint(value) == other.strip()
    assert fingerprint({}) == hashlib.sha256(b"{}").hexdigest()[:32]


def test_half_a_surrogate_pair_has_a_name():
    assert len(fingerprint({"path": "\udcff"})) == 32


def test_only_json_values():
    with pytest.raises(TypeError, match="not JSON serializable"):
        fingerprint({"a": object()})


def test_sha256_of_bytes_and_files_agree(tmp_path):
    data = bytes(range(256)) * 5000  # more than one chunk
    path = tmp_path / "x"
    path.write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert sha256_file(path) == sha256_bytes(data) == sha256_bytes(memoryview(data)) == expected
    with pytest.raises(FileNotFoundError):
        sha256_file(tmp_path / "none")
