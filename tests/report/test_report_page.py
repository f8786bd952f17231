import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from synthetic_run import (
    PACKAGES,
    make_data,
    make_evaluation,
    make_finetuning,
    make_pretraining,
    make_run,
    write_lines,
    write_object,
)

from maskwright.core.errors import StorageError
from maskwright.report import build_report, write_report

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\" onload=\"alert(2)"
SECTIONS = ["Pretraining", "Data", "Predictions", "Evaluation", "Configuration", "Reproduce"]
VOID = {"meta", "link"}


class Outline(HTMLParser):
    """Collects what the tests look at, and fails on tags that do not close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids = [], [], [], []
        self.headings = []

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += [(name, key, value) for key, value in attributes]
        self.ids += [value for key, value in attributes if key == "id"]
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.headings.append(data)


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run):
    return build_report("A demo", **run)


def text_of(page):
    return re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]).replace("\N{NO-BREAK SPACE}", " ")


def test_every_section_is_there_and_in_the_contents(page):
    found = outline(page)
    assert found.headings[0] == "A demo"
    assert [heading for heading in found.headings if heading in SECTIONS] == SECTIONS
    for heading in ("Loss", "Speed", "Mask rate", "What was left out", "Comparison"):
        assert heading in found.headings
    anchors = [value[1:] for name, key, value in found.attributes if name == "a" and key == "href"]
    assert set(anchors) <= set(found.ids)
    assert len(anchors) >= len(SECTIONS) + 12
    assert len(found.ids) == len(set(found.ids))


def test_nothing_comes_from_outside(page):
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    for name, key, value in outline(page).attributes:
        assert key not in {"src", "srcset", "action", "poster", "data"}
        assert not key.startswith("on")
        if key == "href":
            assert value.startswith("#") or (name, value) == ("link", "data:,")


def test_main_numbers_are_on_the_page(page):
    text = " ".join(text_of(page).split())
    for words in (
        "Validation loss 3.21 unigram baseline 7.13",
        "Documents 35,213 kept of 48,211 read",
        "Share of matrix peak 41.8 % of 216 GFLOP/s, measured",
        "An encoder of 4.38 M parameters, pretrained for 3,000 steps on 6.14 M tokens in 7 min 11 s",
        "is 32.7 points above “random weights”, and their intervals do not overlap.",
        "exact duplicate 7,214 15.0 %",
        "The right token comes first in 2 of 4 and is among the first 5 in 3.",
        "maskwright demo --output runs/demo optimizer.lr=6e-4",
        "8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        "logged steps lie inside the interval of 14.57 % to 15.44 %",
        "interrupted by SIGINT; checkpoint written",
    ):
        assert words in text


def test_the_same_input_gives_the_same_bytes(run, page):
    assert build_report("A demo", **run) == page


def test_the_only_script_is_ours_and_named_by_its_hash(page):
    assert page.count("<script") == 1
    assert re.search(r"script-src &#x27;sha256-[\w+/=]{44}&#x27;", page)
    assert "default-src &#x27;none&#x27;" in page


def test_text_from_anywhere_is_escaped(tmp_path):
    data, pretrain = make_data(tmp_path / "data"), make_pretraining(tmp_path / "pretrain", steps=60)
    write_object(
        data / "audit.json",
        {
            "documents_read": 3,
            "documents_kept": 1,
            "drops": {EVIL: 2},
            "drop_samples": {EVIL: [EVIL]},
            "repairs": {EVIL: 1},
            "sources": {EVIL: {"documents": 1}},
        },
    )
    write_object(
        data / "manifest.json",
        {"splits": {EVIL: {"num_tokens": 1}}, "fingerprint": EVIL, "tokenizer": {"fingerprint": EVIL}},
    )
    (pretrain / "config.yaml").write_text(f"{EVIL}: {EVIL}\n")
    sample = {"position_text": f"{EVIL} <mask> {EVIL}", "answer": EVIL}
    sample["predictions"] = [{"token": EVIL, "probability": 0.5}]
    machine = {"cpu": EVIL, "cores": 1, "gpus": [{"name": EVIL}], "flags": {EVIL: True}, "platform": EVIL}
    versions = {EVIL: EVIL}
    summary = {"samples": [sample], "machine": machine, "versions": versions, "precision": EVIL}
    write_object(pretrain / "summary.json", summary)
    with (pretrain / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "event", "step": 60, "message": EVIL}) + "\n")
    tuned = make_finetuning(tmp_path / "tuned", 0.8, 1, labels=[EVIL, "b"])
    evaluation = json.loads((tuned / "evaluation.json").read_text())
    write_object(tuned / "evaluation.json", {**evaluation, "task": EVIL, "split": EVIL})
    page = build_report(
        EVIL, data=data, pretrain=pretrain, finetune=[(EVIL, tuned), (EVIL, tuned)], command=EVIL
    )
    found = outline(page)
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]
    assert page.count("&lt;script&gt;alert") > 20


def test_nothing_given_says_what_makes_each_part():
    text = " ".join(text_of(build_report("Empty")).split())
    for words in (
        "No pretraining run was given; maskwright pretrain makes one.",
        "No prepared data was given; maskwright prepare makes one.",
        "No fine-tuned model was given; maskwright finetune makes one.",
        "No config.yaml was found; maskwright pretrain makes one.",
    ):
        assert words in text
    assert text.count("No prepared data") == 1


FILES = [
    ("data", "manifest.json", "data/manifest.json is missing; maskwright prepare makes it."),
    ("data", "audit.json", "data/audit.json is missing; maskwright prepare makes it."),
    ("pretrain", "metrics.jsonl", "pretrain/metrics.jsonl is missing; maskwright pretrain makes it."),
    ("pretrain", "summary.json", "pretrain/summary.json is missing; maskwright pretrain makes it."),
    (
        "finetune",
        "evaluation.json",
        "pretrained encoder: finetune/evaluation.json is missing; maskwright finetune",
    ),
]


@pytest.mark.parametrize(("folder", "name", "words"), FILES)
def test_a_missing_file_costs_only_its_part(tmp_path, folder, name, words):
    arguments = make_run(tmp_path)
    (tmp_path / folder / name).unlink()
    page = build_report("Part", **arguments)
    assert words in " ".join(text_of(page).split()).replace(" ; ", "; ")
    assert [heading for heading in outline(page).headings if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize(
    "content", ["", "null", "[]", '"text"', '{"torn": ', "{}", '{"splits": 3, "drops": [1]}']
)
def test_damaged_files_never_stop_the_report(tmp_path, content):
    arguments = make_run(tmp_path)
    for path in tmp_path.rglob("*.json"):
        path.write_text(content)
    outline(build_report("Damaged", **arguments))


def scrambled(value, replacement):
    """The same JSON with every leaf replaced."""
    if isinstance(value, dict):
        return {key: scrambled(child, replacement) for key, child in value.items()}
    if isinstance(value, list):
        return [scrambled(child, replacement) for child in value]
    return replacement


@pytest.mark.parametrize(
    "replacement", [None, "text", float("nan"), float("inf"), -1, 0, True, [], {}, 10**400]
)
def test_values_of_any_kind_never_stop_the_report(tmp_path, replacement):
    arguments = make_run(tmp_path)
    for path in tmp_path.rglob("*.json"):
        write_object(path, scrambled(json.loads(path.read_text()), replacement))
    for path in tmp_path.rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()[:60]]
        write_lines(
            path, [scrambled(row, replacement) | {"kind": row["kind"], "step": row["step"]} for row in rows]
        )
    page = build_report("Scrambled", **arguments)
    outline(page)
    assert not re.search(r"(?:left|right|width|bottom):-?(?:nan|inf)", page)


def test_a_torn_last_line_is_counted(tmp_path):
    pretrain = make_pretraining(tmp_path / "pretrain", steps=60)
    with (pretrain / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 62, "lo')
    text = " ".join(text_of(build_report("Torn", pretrain=pretrain)).split())
    assert "1 line could not be read and is left out" in text


def test_a_run_that_has_just_begun(tmp_path):
    row = {"kind": "train", "step": 1, "loss": 9.1, "accuracy": 0.0, "lr": 1e-6, "grad_norm": 3.0}
    write_lines(tmp_path / "metrics.jsonl", [row, {"kind": "evaluation", "step": 1, "loss": 9.0}])
    text = " ".join(text_of(build_report("Begun", pretrain=tmp_path)).split())
    assert "Validation loss is 9.00 at step 1." in text
    assert "Validation loss 9.00" in text
    assert "Perplexity 8,103" in text


def test_a_loss_that_was_not_finite_is_named(tmp_path):
    rows = [
        {"kind": "train", "step": step, "loss": float("nan") if step == 3 else 5.0} for step in range(1, 6)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    page = build_report("Broken", pretrain=tmp_path)
    assert "The training loss was not finite in 1 logged steps (3)." in text_of(page)


def test_answers_are_found_with_and_without_their_space(tmp_path):
    pretrain = make_pretraining(tmp_path / "pretrain", steps=60)
    guesses = [{"token": token, "probability": 0.3} for token in (" cat", "dog", " ")]
    samples = [
        {"position_text": "a <mask>", "answer": "cat", "predictions": guesses},
        {"position_text": "x" * 900 + "<mask> y", "answer": " dog", "predictions": guesses},
        {"position_text": "no gap", "answer": "", "predictions": guesses},
    ]
    write_object(pretrain / "summary.json", {"samples": samples})
    page = build_report("Gaps", pretrain=pretrain)
    assert "first in 1 of 3 and is among the first 5 in 2." in text_of(page)
    assert page.count('class="chip"') == 2
    assert "… " + "x" * 300 in page
    assert "x" * 301 not in page


def test_many_labels_are_cut_to_the_most_frequent(tmp_path):
    labels = [f"label {number}" for number in range(60)]
    write_object(tmp_path / "evaluation.json", make_evaluation(0.7, labels, 1, per_label=12))
    page = build_report("Many", finetune=[("ours", tmp_path)])
    assert "Shown are the 40 most frequent of 60 labels." in text_of(page)
    heat = page.partition('class="heat"')[2].partition("</table>")[0]
    assert heat.count('scope="row"') == 40


def test_one_model_has_a_result_and_no_verdict(tmp_path):
    page = build_report("One", finetune=[("ours", make_finetuning(tmp_path, 0.7, 1, PACKAGES[:3]))])
    assert "Result" in outline(page).headings
    assert " points " not in text_of(page)


def test_overlapping_intervals_are_said_to_overlap(tmp_path):
    first = make_finetuning(tmp_path / "a", 0.70, 1, PACKAGES[:3])
    page = build_report("Two", finetune=[("a", first), ("b", first)])
    assert "“a” is 0.0 points above “b”, and their intervals overlap." in text_of(page)


def test_the_page_is_written_whole(tmp_path, run, page):
    path = tmp_path / "deep" / "report.html"
    write_report(path, "A demo", **run)
    assert path.read_text(encoding="utf-8") == page
    assert list(path.parent.iterdir()) == [path]


def test_a_refusing_storage_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match=r"report.html: No space left on device; free some space"):
        write_report(tmp_path / "report.html", "Full")
    assert list(tmp_path.iterdir()) == []


def test_lone_surrogates_in_a_run_can_be_written(tmp_path):
    write_lines(
        tmp_path / "metrics.jsonl", [{"kind": "event", "step": 1, "message": "half \ud800 of a pair"}]
    )
    write_report(tmp_path / "report.html", "Half", pretrain=tmp_path)
    assert "half ? of a pair" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_needs_no_torch():
    program = "import sys, maskwright.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_files_of_a_real_run_fit(data_folder, pretrained, finetuned):
    page = build_report("Real", data=data_folder, pretrain=pretrained, finetune=[("tuned", finetuned)])
    text = text_of(page)
    assert "makes it." not in text
    assert "makes one." not in text
    assert "No finite value was logged." not in text
    for heading in ("Loss", "Documents and tokens", "Predictions", "Classes: tuned", "Confusion: tuned"):
        assert heading in outline(page).headings


def test_white_space_tokens_can_be_seen(tmp_path):
    pretrain = make_pretraining(tmp_path / "pretrain", steps=60)
    guesses = [{"token": token, "probability": 0.1} for token in (" ", "\n\t", "")]
    write_object(
        pretrain / "summary.json",
        {"samples": [{"position_text": "a<mask>b", "answer": " ", "predictions": guesses}]},
    )
    text = text_of(build_report("Space", pretrain=pretrain))
    for written in ("␣", "⏎⇥", "(nothing)"):
        assert written in text


def test_padding_free_speed_is_drawn_only_where_it_differs(tmp_path):
    rows = [
        {"kind": "train", "step": step, "tokens_per_second": 100.0, "real_tokens_per_second": 100.0}
        for step in range(1, 9)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    assert "without padding" not in build_report("Same", pretrain=tmp_path)
    write_lines(tmp_path / "metrics.jsonl", [{**row, "real_tokens_per_second": 90.0} for row in rows])
    assert "without padding" in build_report("Different", pretrain=tmp_path)
