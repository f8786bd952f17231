"""Preparing data: the same bytes every time, whatever interrupted it, and held-out documents stay out."""

import json
import shutil

import pytest
from preparing import ANSWER, NOTICE, Killed, clean_documents, decoded, kill_at, write_sources

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, DataError, OutputExistsError
from maskwright.corpus.runners import Stage, stage
from maskwright.jobs import prepare as job
from maskwright.jobs.preparation import encode, pipeline, publish
from maskwright.jobs.preparation.surviving import is_validation
from maskwright.jobs.prepare import PrepareConfig, prepare_data
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split, verify_folder
from maskwright.tokens.tokenizer import Tokenizer


@pytest.fixture
def values(corpus_file):
    return tiny_world.prepare_values(corpus_file)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Settings that need every stage."""
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def everything_folder(everything, tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything") / "data"
    maskwright.prepare(everything, output=folder, workers=1)
    return folder


def audit_of(folder):
    return json.loads((folder / "audit.json").read_text())


def test_what_it_leaves(data_folder):
    names = {path.name for path in data_folder.iterdir()}
    assert names == {
        *("config.yaml", "inputs.json", "tokenizer", "train", "validation"),
        *("token_counts.bin", "audit.json", "timings.json", "data_report.html", "manifest.json"),
    }
    verify_folder(data_folder)


def test_two_folders_get_the_same_bytes(values, data_folder, tmp_path):
    maskwright.prepare(values, output=tmp_path / "again")
    assert tiny_world.prepared_files(tmp_path / "again") == tiny_world.prepared_files(data_folder)


def test_a_rerun_does_nothing(values, data_folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in data_folder.rglob("*") if path.name != "config.yaml"}
    kill_at(monkeypatch, Stage, "execute")
    kill_at(monkeypatch, job, "publish")
    summary = maskwright.prepare(values, output=data_folder, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert summary["fingerprint"] == load_manifest(data_folder).fingerprint
    assert summary["documents_kept"] == 240


# With 240 documents in five shards there are 13 tasks: clean, exact, 5 sample, tokenizer, 5 encode.
POINTS = [
    *((Stage, "execute", after) for after in (0, 1, 2, 4, 7, 8, 12)),
    (pipeline, "encode_stage", 0),
    (job, "publish", 0),
    (publish, "write_array", 0),
    *((publish, "write_json", after) for after in (0, 1, 2)),
    (publish, "save_manifest", 0),
    (job, "build_data_report", 0),
    (job, "clear_work", 0),
    (job, "_summary", 0),
]


@pytest.mark.parametrize(("owner", "name", "after"), POINTS, ids=[f"{name} {n}" for _, name, n in POINTS])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(
    values, data_folder, tmp_path, monkeypatch, owner, name, after
):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, after)
        with pytest.raises(Killed):
            maskwright.prepare(values, output=folder)
    assert (folder / "manifest.json").exists() == (name in ("build_data_report", "clear_work", "_summary"))
    if (name, after) != ("execute", 0):  # before that nothing is there
        with pytest.raises(OutputExistsError, match="is not empty; add --resume to go on"):
            maskwright.prepare(values, output=folder)
    maskwright.prepare(values, output=folder, resume=True)
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(data_folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in data_folder.iterdir()}


def test_what_is_finished_is_not_done_again(values, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        kill_at(patch, job, "publish")
        with pytest.raises(Killed):
            maskwright.prepare(values, output=folder)
    with monkeypatch.context() as patch:
        kill_at(patch, Stage, "execute")
        maskwright.prepare(values, output=folder, resume=True)
    verify_folder(folder)
    timings = json.loads((folder / "timings.json").read_text())
    assert [one["executed"] for one in timings["stages"]] == [0] * len(timings["stages"])


@pytest.mark.parametrize(
    "name",
    [
        "train/shard-00000.tokens",
        "validation/shard-00000.documents",
        "token_counts.bin",
        "tokenizer/tokenizer.json",
        "manifest.json",
        "audit.json",
        "inputs.json",
    ],
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_result_is_made_again(values, data_folder, tmp_path, name, damage):
    folder = shutil.copytree(data_folder, tmp_path / "data")
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif name == "audit.json":
        path.write_bytes(path.read_bytes()[:-9])
    elif path.suffix == ".json":
        path.write_text(path.read_text().replace("a", "b", 3))
    else:
        path.write_bytes(b"\x01" + path.read_bytes()[1:])
    maskwright.prepare(values, output=folder, resume=True)
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(data_folder)


def test_what_a_kill_cut_off_is_taken_away(values, data_folder, tmp_path):
    folder = tmp_path / "data"
    strangers = [folder / name for name in ("a.partial-1", "tokenizer/a.partial-1", "train/a.partial-1")]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    maskwright.prepare(values, output=folder)
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(data_folder)


def test_changed_sources_are_noticed_and_old_shards_removed(corpus_file, tmp_path):
    path = tmp_path / "corpus.jsonl"
    shutil.copy(corpus_file, path)
    values = tiny_world.prepare_values(path)
    first = maskwright.prepare(values, output=tmp_path / "data")
    (tmp_path / "data" / "train" / "shard-00009.tokens").write_bytes(b"of an earlier start")
    tiny_world.write_corpus(path, seed=8)
    second = maskwright.prepare(values, output=tmp_path / "data", resume=True)
    assert first["fingerprint"] != second["fingerprint"]
    maskwright.prepare(values, output=tmp_path / "fresh")
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(tmp_path / "fresh")


def test_a_source_that_changes_between_two_starts_is_read_again(corpus_file, tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    shutil.copy(corpus_file, path)
    values = tiny_world.prepare_values(path)
    with monkeypatch.context() as patch:
        kill_at(patch, job, "publish")
        with pytest.raises(Killed):
            maskwright.prepare(values, output=tmp_path / "data")
    tiny_world.write_corpus(path, seed=8)
    maskwright.prepare(values, output=tmp_path / "data", resume=True)
    maskwright.prepare(values, output=tmp_path / "fresh")
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(tmp_path / "fresh")


def test_while_shards_are_written_again_nothing_looks_whole(corpus_file, tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl"
    shutil.copy(corpus_file, path)
    values = tiny_world.prepare_values(path)
    maskwright.prepare(values, output=tmp_path / "data")
    tiny_world.write_corpus(path, seed=8)
    kill_at(monkeypatch, Stage, "execute")
    with pytest.raises(Killed):
        maskwright.prepare(values, output=tmp_path / "data", resume=True)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_other_settings_are_refused(values, data_folder):
    with pytest.raises(ConfigError, match=r"was begun with other settings \(seed was 0, now 1\)"):
        maskwright.prepare(values, "seed=1", output=data_folder, resume=True)


def test_held_out_documents_are_chosen_by_their_id(values, tmp_path):
    folder = tmp_path / "data"
    maskwright.prepare(values, "keep_documents=true", output=folder)
    documents = clean_documents(folder)
    held_out = [document.text for document in documents if is_validation(document, 0, 0.1)]
    others = [document.text for document in documents if not is_validation(document, 0, 0.1)]
    assert list(decoded(folder, "validation")) == held_out
    assert list(decoded(folder, "train")) == others
    assert 0.03 < len(held_out) / len(documents) < 0.2


def seen_by_training(monkeypatch):
    """The texts that tokenizers are trained on from now on."""
    seen = []
    honest = Tokenizer.train

    def train(texts, vocab_size, **options):
        seen.extend(texts)
        return honest(seen, vocab_size, **options)

    monkeypatch.setattr(Tokenizer, "train", staticmethod(train))
    return seen


def test_the_tokenizer_never_sees_held_out_text(values, tmp_path, monkeypatch):
    seen = seen_by_training(monkeypatch)
    maskwright.prepare(values, "keep_documents=true", output=tmp_path / "data")
    documents = clean_documents(tmp_path / "data")
    assert seen == [document.text for document in documents if not is_validation(document, 0, 0.1)]
    assert len(seen) < len(documents)


def test_a_sample_of_the_text_trains_the_tokenizer(values, tmp_path, monkeypatch):
    taken = seen_by_training(monkeypatch)
    maskwright.prepare(values, "tokenizer.sample_bytes=30000", output=tmp_path / "data")
    assert 15_000 < sum(len(text.encode()) for text in taken) < 45_000


def test_no_text_to_train_a_tokenizer_on(values, tmp_path):
    said = (
        "data: no documents are left to train a tokenizer on; add text, lower validation_share or raise "
        "tokenizer.sample_bytes"
    )
    with pytest.raises(DataError, match=said):
        maskwright.prepare(values, "tokenizer.sample_bytes=1", output=tmp_path / "data")


@pytest.mark.parametrize(("share", "split"), [("1e-9", "validation"), ("0.9999999", "train")])
def test_a_split_that_gets_nothing(values, data_folder, tmp_path, share, split):
    said = f"data: the {split} split got none of 240 documents; add documents or change validation_share"
    given = f"tokenizer.path={data_folder / 'tokenizer'}"
    with pytest.raises(DataError, match=said):
        maskwright.prepare(values, f"validation_share={share}", given, output=tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_a_tokenizer_that_is_given(values, data_folder, tmp_path):
    maskwright.prepare(values, f"tokenizer.path={data_folder / 'tokenizer'}", output=tmp_path / "data")
    one, other = load_manifest(tmp_path / "data"), load_manifest(data_folder)
    assert one.fingerprint == other.fingerprint
    assert one.splits == other.splits


@pytest.mark.parametrize("name", ["_BATCH_CHARACTERS", "_CHECKED_CHARACTERS"])
def test_documents_in_pieces_give_the_same_bytes(values, data_folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr(encode, name, 1000)
    maskwright.prepare(values, output=tmp_path / "data")
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(data_folder)


def test_the_fast_encoder_is_checked_in_every_task(values, data_folder, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(Tokenizer, "check_fast_path", lambda self, texts: checked.append(list(texts)) or True)
    maskwright.prepare(values, output=tmp_path / "data")
    assert len(checked) == len(load_manifest(data_folder).splits["train"].shards) == 5
    assert [len(texts) for texts in checked[:4]] == [20] * 4


def test_a_fast_encoder_that_differed_is_said(values, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "check_fast_path", lambda self, texts: False)
    maskwright.prepare(values, output=tmp_path / "data")
    assert any("the fast encoder could not be used" in text for text in audit_of(tmp_path / "data")["warnings"])


def test_topics_need_their_source(values):
    said = "topics needs a source whose path is local-docs; remove topics or add the source"
    with pytest.raises(ConfigError, match=said):
        parse_config(PrepareConfig, {**values, "topics": {}}, "test")


def test_a_mixture_names_sources_and_has_one_rule(values):
    with pytest.raises(ConfigError, match='mixture names "books", which is no source'):
        parse_config(PrepareConfig, {**values, "mixture": {"weights": {"books": 1}}}, "test")
    with pytest.raises(ConfigError, match="temperature and epochs are both set; keep one of them"):
        parse_config(PrepareConfig, {**values, "mixture": {"temperature": 2, "epochs": {}}}, "test")


def test_the_summary_agrees_with_the_audit(values, tmp_path, data_folder):
    summary = prepare_data(parse_config(PrepareConfig, values, "test"), tmp_path / "data")
    assert summary["fingerprint"] == load_manifest(data_folder).fingerprint
    audit = audit_of(tmp_path / "data")
    assert audit["num_tokens"] == summary["train_tokens"] + summary["validation_tokens"]
    assert summary["bytes_per_token"] == pytest.approx(audit["bytes_kept"] / audit["num_tokens"])


def test_every_document_of_every_stage_is_accounted_for(everything_folder):
    audit = audit_of(everything_folder)
    documents = clean_documents(everything_folder)
    assert audit["documents_read"] == 150
    assert audit["drops"] == {"contaminated": 1, "exact_duplicate": 2, "near_duplicate": 1}
    assert audit["documents_kept"] == len(documents) == 146
    assert sum(split["documents"] for split in audit["splits"].values()) == 146
    assert sum(source["tokens"] for source in audit["sources"].values()) == audit["num_tokens"]
    assert {name: source["documents"] for name, source in audit["sources"].items()} == {
        "pages": 96,
        "notes": 50,
    }
    assert audit["bytes_kept"] == sum(len(one.text.encode()) for one in documents)
    assert audit["duplicates"]["exact"] == {"documents": 2}
    assert audit["duplicates"]["lines"] == {"lines": 14}
    assert audit["contamination"]["documents"] == 1
    texts = [document.text for document in documents]
    assert sum(NOTICE in text for text in texts) == 1
    assert not any(ANSWER in text for text in texts)
    assert any("<mask> and </s> are words here." in text for text in texts)


def test_samples_and_clusters_name_documents(everything_folder):
    audit = audit_of(everything_folder)
    samples = audit["drop_samples"]["exact_duplicate"]
    assert [sample.split(": ")[:2] for sample in samples] == [
        ["pages:0.jsonl#22", "pages:0.jsonl#4"],
        ["pages:1.jsonl#22", "pages:0.jsonl#5"],
    ]
    (cluster,) = audit["duplicates"]["near"]["largest"]
    assert cluster["kept"] == "pages:2.jsonl#13"
    assert cluster["dropped"] == ["pages:0.jsonl#6"]
    assert cluster["size"] == 2
    assert (everything_folder / "audit.json").read_bytes().find(b"\\u0002") == -1


def test_special_tokens_in_text_stay_text(everything_folder):
    tokenizer, data = Tokenizer.load(everything_folder / "tokenizer"), open_split(everything_folder, "train")
    texts = [
        data.document(number)
        for number in range(data.num_documents)
        if "<mask> and </s> are words here." in tokenizer.decode(data.document(number))
    ]
    (ids,) = texts
    assert tokenizer.eos_id not in ids.tolist()
    assert tokenizer.mask_id not in ids.tolist()


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bytes(
    everything, everything_folder, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr(stage, "_SMALL_BYTES", 0)
    maskwright.prepare(everything, output=tmp_path / "data", workers=workers)
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(everything_folder)


@pytest.mark.parametrize("split_bytes", [1_000, 7_777])
def test_files_cut_small_give_the_same_documents(everything, everything_folder, tmp_path, split_bytes):
    folder = tmp_path / "data"
    maskwright.prepare(everything, f"split_bytes={split_bytes}", output=folder, workers=1)
    assert clean_documents(folder) == clean_documents(everything_folder)
    for split in ("train", "validation"):
        assert list(decoded(folder, split)) == list(decoded(everything_folder, split))
    one, other = audit_of(folder), audit_of(everything_folder)
    for name in ("drops", "languages", "length_histogram", "sources", "duplicates", "num_inputs"):
        assert (one[name] == other[name]) == (name != "num_inputs"), name
    assert one["inputs"] == other["inputs"]


def test_more_text_per_shard_gives_the_same_documents(everything, everything_folder, tmp_path):
    maskwright.prepare(everything, "tokens_per_shard=1000000", output=tmp_path / "data", workers=1)
    assert clean_documents(tmp_path / "data") == clean_documents(everything_folder)
    shards = load_manifest(tmp_path / "data").splits["train"].shards
    assert [shard.source for shard in shards] == ["pages", "notes"]


def test_shards_of_a_mixture_say_how_often_they_are_seen(everything, tmp_path):
    mixed = {**everything, "mixture": {"epochs": {"notes": 2.5}}}
    maskwright.prepare(mixed, output=tmp_path / "data", workers=1)
    assert load_manifest(tmp_path / "data").repeats == {"notes": 2.5, "pages": 1.0}
    sources = audit_of(tmp_path / "data")["sources"]
    assert {name: source["repeats"] for name, source in sources.items()} == {"notes": 2.5, "pages": 1.0}


def test_ends_of_sentences_on_request(values, tmp_path):
    maskwright.prepare(values, "sentences=true", output=tmp_path / "data")
    data, tokenizer = (
        open_split(tmp_path / "data", "train"),
        Tokenizer.load(tmp_path / "data" / "tokenizer"),
    )
    first = data.document(0)
    ends = data.sentences(0).tolist()
    assert len(ends) > 1
    assert ends[-1] == len(first)
    assert tokenizer.decode(first[: ends[0]]).strip().endswith((".", "!"))
