"""Preparing data: the same bytes every time, whatever interrupted it, and held-out documents stay out."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, DataError, OutputExistsError
from maskwright.corpus.runners import Stage
from maskwright.corpus.stages import CleanPart
from maskwright.jobs import prepare as job
from maskwright.jobs.preparation import encode, pipeline, publish
from maskwright.jobs.preparation.surviving import is_validation
from maskwright.jobs.prepare import PrepareConfig, prepare_data
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split, verify_folder
from maskwright.tokens.tokenizer import Tokenizer
from preparing import Killed, clean_documents, decoded, kill_at


@pytest.fixture
def values(corpus_file):
    return tiny_world.prepare_values(corpus_file)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Settings that are soon done: 60 documents in two shards."""
    path = tiny_world.write_corpus(tmp_path_factory.mktemp("small") / "corpus.jsonl", documents=60)
    return {**tiny_world.prepare_values(path), "tokens_per_shard": 3000}


@pytest.fixture(scope="module")
def small_folder(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "data"
    maskwright.prepare(small, output=folder, workers=1)
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


# With two shards there are 7 tasks: clean, exact, 2 sample, tokenizer, 2 encode.
POINTS = [
    *((Stage, "execute", after) for after in range(7)),
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
    small, small_folder, tmp_path, monkeypatch, owner, name, after
):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, after)
        with pytest.raises(Killed):
            maskwright.prepare(small, output=folder)
    assert (folder / "manifest.json").exists() == (name in ("build_data_report", "clear_work", "_summary"))
    if (name, after) != ("execute", 0):  # before that nothing is there
        with pytest.raises(OutputExistsError, match="is not empty; add --resume to go on"):
            maskwright.prepare(small, output=folder)
    maskwright.prepare(small, output=folder, resume=True)
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(small_folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in small_folder.iterdir()}


def test_what_is_finished_is_not_done_again(small, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        kill_at(patch, job, "publish")
        with pytest.raises(Killed):
            maskwright.prepare(small, output=folder)
    with monkeypatch.context() as patch:
        kill_at(patch, Stage, "execute")
        maskwright.prepare(small, output=folder, resume=True)
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
def test_a_damaged_result_is_made_again(small, small_folder, tmp_path, name, damage):
    folder = shutil.copytree(small_folder, tmp_path / "data")
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif name == "audit.json":
        path.write_bytes(path.read_bytes()[:-9])
    elif path.suffix == ".json":
        path.write_text(path.read_text().replace("a", "b", 3))
    else:
        path.write_bytes(b"\x01" + path.read_bytes()[1:])
    maskwright.prepare(small, output=folder, resume=True)
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(small_folder)


def test_what_a_kill_cut_off_is_taken_away(small, small_folder, tmp_path):
    folder = tmp_path / "data"
    strangers = [folder / name for name in ("a.partial-1", "tokenizer/a.partial-1", "train/a.partial-1")]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    maskwright.prepare(small, output=folder)
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(small_folder)


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
    assert any(
        "the fast encoder could not be used" in text for text in audit_of(tmp_path / "data")["warnings"]
    )


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


PARTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5000)), max_size=5)


@given(st.lists(st.tuples(st.sampled_from("abc"), PARTS), unique_by=lambda one: one[0]), st.integers(1, 3000))
def test_groups_of_parts_keep_the_order_and_mix_no_sources(sources, tokens_per_shard):
    sizes = [(name, size) for name, parts in sources for times, size in parts for _ in range(times)]
    parts = [
        CleanPart(number, f"{number}.jsonl.zst", name, 1, size) for number, (name, size) in enumerate(sizes)
    ]
    groups = encode.group_parts(parts, tokens_per_shard)
    assert [part for group in groups for part in group.parts] == parts
    assert all({part.source for part in group.parts} == {group.source} for group in groups)
    for group in groups:  # full at most by its last part
        assert group.text_bytes - group.parts[-1].text_bytes < encode.BYTES_PER_TOKEN * tokens_per_shard


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
