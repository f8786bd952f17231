from __future__ import annotations

import pytest

from maskwright.core.errors import DataError
from maskwright.corpus.sources import find_files, source_name


@pytest.fixture
def tree(tmp_path):
    for name in ("b.txt", "a/2.txt", "a/1.txt", "a/deep/3.md", ".hidden/4.txt", "a/.5.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def labels(*paths):
    return [file.label for file in find_files([str(path) for path in paths])]


def test_a_file_is_labelled_by_its_name(tree):
    (file,) = find_files([str(tree / "b.txt")])
    assert (file.label, file.named) == ("b.txt", True)
    status = (tree / "b.txt").stat()
    assert (file.num_bytes, file.version) == (5, f"5-{status.st_mtime_ns}")


def test_a_link_that_leads_nowhere_has_no_version(tree):
    (tree / "z.txt").symlink_to(tree / "nowhere")
    file = find_files([str(tree)])[-1]
    assert (file.label, file.num_bytes, file.version) == ("z.txt", None, "")


def test_a_folder_is_read_in_name_order_without_hidden_files(tree):
    assert labels(tree) == ["a/1.txt", "a/2.txt", "a/deep/3.md", "b.txt"]
    assert not any(file.named for file in find_files([str(tree)]))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["b.txt"]),
        ("a/?.txt", ["1.txt", "2.txt"]),
        ("*/[12].txt", ["1.txt", "2.txt"]),
        ("**/*.txt", ["a/1.txt", "a/2.txt", "b.txt"]),
        ("**/deep/**", ["3.md"]),
    ],
)
def test_patterns(tree, pattern, expected):
    assert labels(tree / pattern) == expected


def test_a_list_keeps_its_order_and_takes_each_file_once(tree):
    assert labels(tree / "b.txt", tree / "a", tree / "*.txt") == [
        "b.txt",
        "a/1.txt",
        "a/2.txt",
        "a/deep/3.md",
    ]


def test_a_path_that_exists_is_no_pattern(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    (tmp_path / "a1.txt").write_text("y")
    assert labels(tmp_path / "a[1].txt") == ["a[1].txt"]


def test_loops_of_links_end(tree):
    (tree / "a" / "up").symlink_to(tree, target_is_directory=True)
    (tree / "a" / "deep" / "self").symlink_to(tree / "a" / "deep", target_is_directory=True)
    expected = ["a/1.txt", "a/2.txt", "a/deep/3.md", "b.txt"]
    assert labels(tree) == expected
    assert labels(tree / "**" / "*") == expected


def test_a_folder_may_be_a_link(tree, tmp_path_factory):
    link = tmp_path_factory.mktemp("other") / "link"
    link.symlink_to(tree / "a", target_is_directory=True)
    assert labels(link) == ["1.txt", "2.txt", "deep/3.md"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.txt", "no such file or folder; check the path"),
        ("*.csv", "the pattern matches no files; check the path"),
        ("nowhere/**/*.csv", "the pattern matches no files; check the path"),
        ("empty", "the folder holds no files; check the path"),
    ],
)
def test_what_leads_nowhere_is_named(tree, path, message):
    (tree / "empty").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        find_files([str(tree / path)])
    assert str(caught.value).startswith(str(tree / path))


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tree), "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed \(Permission denied\)"):
        find_files([str(tree)])


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["data/train.jsonl.zst"], "train"),
        (["data/books/"], "books"),
        (["data/**/*.txt"], "data"),
        (["one.txt", "two.txt"], "one"),
        (["*.txt"], "source"),
    ],
)
def test_sources_get_short_names(paths, name):
    assert source_name(paths) == name
