"""Links lead somewhere, and both READMEs say the same."""

import re
from urllib.parse import unquote

import pytest
from house_files import READMES, ROOT, blocks, links, markdown_files

PAGES = markdown_files()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    for target in links(page):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (page.parent / unquote(target.partition("#")[0])).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_one_title(page):
    titles = re.findall(
        r"^# .+$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S), re.M
    )
    assert len(titles) == 1


def test_every_page_of_the_documentation_is_in_its_contents():
    contents = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in contents


def outline(page):
    """Levels of the headings, and number of cells and list entries under each."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    found = []
    for line in text.splitlines():
        if heading := re.match(r"#+ ", line):
            found.append([len(heading[0]) - 1, 0, 0])
        elif line.startswith("|"):
            found[-1][1] += line.count("|")
        elif line.startswith("- "):
            found[-1][2] += 1
    return found


def without_comments(block):
    return [re.sub(r"\s*#.*$", "", line) for line in block.splitlines()]


def test_both_readmes_have_the_same_outline():
    english, chinese = map(outline, READMES)
    assert len(english) > 5
    assert english == chinese


@pytest.mark.parametrize("language", ["bash", "yaml", "python"])
def test_both_readmes_have_the_same_code(language):
    english, chinese = (blocks(page, language) for page in READMES)
    assert english
    assert [without_comments(block) for block in english] == [without_comments(block) for block in chinese]


def test_both_readmes_have_the_same_links():
    english, chinese = (set(links(page)) - {"README.md", "README.zh-CN.md"} for page in READMES)
    assert english == chinese


def test_the_readmes_link_to_each_other():
    english, chinese = READMES
    assert chinese.name in links(english)
    assert english.name in links(chinese)


def test_both_readmes_leave_the_same_numbers_to_measure():
    english, chinese = (re.findall(r"<!-- measured: .*? -->", page.read_text("utf-8")) for page in READMES)
    assert english == chinese


def test_the_readme_has_the_two_commands():
    assert blocks(READMES[0], "bash")[0].split("\n")[:2] == ["make demo", "make test"]
