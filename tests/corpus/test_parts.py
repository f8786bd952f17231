"""Parts: every document comes back, the same bytes every time, damage shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus import Document
from maskwright.corpus.parts import read_part, write_part

NAME = "work/clean/part-00000-00000.jsonl.zst"
STRINGS = st.text(st.characters(), max_size=30)
DOCUMENTS = st.lists(st.builds(Document, STRINGS, STRINGS, STRINGS, st.dictionaries(STRINGS, STRINGS)))


def write(folder, documents):
    with write_part(folder, NAME) as part:
        for document in documents:
            part.add(document)
    return part


@given(DOCUMENTS)
def test_every_document_comes_back(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("parts")
    part = write(folder, documents)
    assert list(read_part(folder / NAME)) == documents
    assert part.path == NAME
    assert part.documents == len(documents)
    assert part.text_bytes == sum(len(one.text.encode("utf-8", "surrogatepass")) for one in documents)


def test_line_ends_and_half_surrogates_stay_in_their_document(tmp_path):
    documents = [Document("a\nb\u2028c\x00", "\udcff", "s", {"k": "v\n"}), Document("", "e", "s")]
    write(tmp_path, documents)
    assert list(read_part(tmp_path / NAME)) == documents


def test_the_same_documents_give_the_same_bytes(tmp_path):
    documents = [Document(f"text {number}" * 50, str(number), "s") for number in range(500)]
    for name in ("one", "other"):
        write(tmp_path / name, documents)
    assert (tmp_path / "one" / NAME).read_bytes() == (tmp_path / "other" / NAME).read_bytes()


def test_a_part_that_was_broken_off_does_not_exist(tmp_path):
    def documents():
        yield Document("text", "0", "s")
        raise KeyError

    with pytest.raises(KeyError):
        write(tmp_path, documents())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.fault
def test_any_flipped_bit_is_found_by_name(tmp_path):
    documents = [Document(f"{number} words of text", str(number), "s") for number in range(40)]
    write(tmp_path, documents)
    whole = (tmp_path / NAME).read_bytes()
    found = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / NAME).write_bytes(damaged)
        said = outcome(tmp_path / NAME, documents)
        assert said == "the same" or "part-00000-00000.jsonl.zst: " in said
        found += said != "the same"
    assert found > 0.9 * len(whole)  # the format does not use every bit


def outcome(path, documents):
    try:
        return "the same" if list(read_part(path)) == documents else "another text"
    except DataError as error:
        return str(error)


@pytest.mark.fault
def test_any_cut_is_found_by_name(tmp_path):
    documents = [Document(f"{number} words of text", str(number), "s") for number in range(40)]
    write(tmp_path, documents)
    whole = (tmp_path / NAME).read_bytes()
    for size in range(1, len(whole), 7):
        (tmp_path / NAME).write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"part-00000-00000\.jsonl\.zst: "):
            list(read_part(tmp_path / NAME))


def test_a_line_that_is_no_json(tmp_path):
    import zstandard

    (tmp_path / "p.jsonl.zst").write_bytes(zstandard.compress(b"{nothing\n"))
    with pytest.raises(DataError, match=r"p\.jsonl\.zst: is missing or damaged \(.*\); remove it"):
        list(read_part(tmp_path / "p.jsonl.zst"))


def test_a_missing_part(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl\.zst: is missing or damaged"):
        list(read_part(tmp_path / "gone.jsonl.zst"))
