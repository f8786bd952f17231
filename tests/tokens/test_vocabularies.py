"""Vocabulary files of other projects: ids, roles, special texts, and what transformers makes of them."""

import json
import logging

import pytest
import vocabulary_makers as makers

from maskwright.core.errors import TokenizerError
from maskwright.tokens.tokenizer import Tokenizer

TRICKY = [
    "The ferry, the gull. CAFÉ naïve",
    "中文 ab abb hello world!",
    "",
    "  a \t\n b",
    "<mask> and </s> or [MASK] [SEP]",
    "👩‍👩‍👧 e\u0301 \u3000 it's",
]


def definition_of(folder):
    return json.loads((folder / "tokenizer.json").read_text("utf-8"))


def write_definition(folder, definition, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def renamed_specials(folder):
    """A trained vocabulary whose special entries have names that nobody else uses."""
    makers.byte_level().save(folder)
    text = (folder / "tokenizer.json").read_text("utf-8")
    for old, new in (("<s>", "<B>"), ("<pad>", "<P>"), ("</s>", "<E>"), ("<unk>", "<U>"), ("<mask>", "<M>")):
        text = text.replace(old, new)
    (folder / "tokenizer.json").write_text(text, "utf-8")
    (folder / "tokenizer_config.json").unlink()
    return folder


def test_fairseq_files_number_by_the_dictionary(tmp_path):
    folder, order = makers.write_fairseq(tmp_path)
    tokenizer = Tokenizer.load(folder)
    entries = tokenizer.reference.get_vocab()
    assert sorted(entries, key=entries.get) == order
    assert tokenizer.special_ids == (0, 1, 2, 3, len(order) - 1)
    assert tokenizer.mask_id == tokenizer.vocab_size - 1
    trained = makers.byte_level()
    for text in [*makers.TEXTS[:5], *TRICKY]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert [order[i] for i in ids] == [trained.reference.id_to_token(i) for i in trained.encode(text)]
    for name in ("encoder.json", "vocab.bpe", "dict.txt"):
        assert Tokenizer.load(folder / name).fingerprint == tokenizer.fingerprint


def test_gpt2_files_without_a_dictionary_are_explained(tmp_path):
    folder, _ = makers.write_fairseq(tmp_path)
    (folder / "dict.txt").unlink()
    with pytest.raises(
        TokenizerError, match=r"no dict\.txt; those two number the entries as GPT-2 does and RoB"
    ):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "dict.txt",
            "madeupword0000 0",
            "madeupword0000",
            r"dict\.txt:\d+: 'madeupword0000' is no entry and count",
        ),
        ("dict.txt", "madeupword0000 0", "0 5", r"dict\.txt: names an entry twice"),
        (
            "vocab.bpe",
            "#version: 0.2\n",
            "#version: 0.2\na b c\n",
            r"vocab\.bpe:2: 'a b c' is no pair to merge",
        ),
        (
            "vocab.bpe",
            "#version: 0.2\n",
            "\u4e2d \u6587\n",
            r"vocab\.bpe: does not fit the entries beside it \(",
        ),
        (
            "encoder.json",
            "{",
            '{"xyz": "y", ',
            r"encoder\.json: does not number its entries; get the file again",
        ),
        ("encoder.json", "{", "[", r"encoder\.json: is not valid JSON .*; mend or remove it"),
    ],
)
def test_damaged_fairseq_files_are_named(tmp_path, name, old, new, message):
    folder, _ = makers.write_fairseq(tmp_path)
    text = (folder / name).read_text("utf-8")
    (folder / name).write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.load(folder)


def test_vocab_json_and_merges(tmp_path):
    trained = makers.byte_level()
    model = trained.definition["model"]
    entries = trained.reference.get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps(entries), "utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (tmp_path / "merges.txt").write_text(merges, "utf-8")
    for path in (tmp_path, tmp_path / "merges.txt"):
        tokenizer = Tokenizer.load(path)
        assert (tokenizer.vocab_size, tokenizer.mask_id) == (350, 349)
        assert tokenizer.encode(TRICKY[0]).tolist() == trained.encode(TRICKY[0]).tolist()


def test_bert_words(tmp_path):
    tokenizer = Tokenizer.load(makers.write_bert(tmp_path, do_lower_case=True))
    words = makers.BERT_WORDS
    assert tokenizer.vocab_size == len(words)
    roles = (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id)
    assert [words[i] for i in roles] == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    shown = [words[i] for i in tokenizer.encode("The Ferrys CAFÉ 中文abb xyz!")]
    assert shown == ["the", "ferry", "##s", "caf", "##e", "中", "文", "a", "##b", "##b", "[UNK]", "!"]
    assert Tokenizer.load(tmp_path / "vocab.txt").fingerprint == tokenizer.fingerprint
    assert tokenizer.token_text(words.index("##s")) == "##s"


def test_settings_of_a_bert_vocabulary(tmp_path):
    folder = makers.write_bert(
        tmp_path, do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False
    )
    tokenizer = Tokenizer.load(folder)
    shown = [makers.BERT_WORDS[i] for i in tokenizer.encode("The café 中文")]
    assert shown == ["[UNK]", "caf", "##e", "[UNK]"]


@pytest.mark.parametrize(("words", "said"), [(["The"], "capital letters"), (["the"], "no capital letters")])
def test_a_bert_vocabulary_without_settings_says_what_is_assumed(tmp_path, caplog, words, said):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    with caplog.at_level(logging.WARNING, "maskwright"):
        tokenizer = Tokenizer.load(makers.write_bert(tmp_path, [*specials, *words]))
    assert f"because the entries have {said}" in caplog.text
    assert tokenizer.encode("The").tolist() == [5]


def test_lines_of_windows_and_a_word_named_twice(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a\x85b", "the"]
    makers.write_bert(tmp_path, do_lower_case=True)
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(words).encode())
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.encode("the").tolist()) == (8, [7])


def test_unigram(tmp_path):
    tokenizer = Tokenizer.load(makers.write_unigram(tmp_path))
    assert tokenizer.special_ids == (0, 1, 2, 3, len(makers.PIECES))
    assert tokenizer.mask_id == tokenizer.vocab_size - 1
    ids = tokenizer.encode("the ferry ß")
    assert ids.tolist()[-1] == tokenizer.unk_id
    assert tokenizer.token_text(ids[1]) == " ferry"
    assert tokenizer.decode(tokenizer.encode("the ferry")) == "the ferry"


@pytest.mark.parametrize("kind", makers.KINDS)
def test_special_texts_are_text(tmp_path, kind):
    tokenizer = Tokenizer.load(makers.write_kind(tmp_path, kind))
    for token in ["<s>", "<pad>", "</s>", "<mask>", "[CLS]", "[PAD]", "[SEP]", "[MASK]", "[unused0]"]:
        for text in (token, f"a {token} b", f"a{token}{token}b", token.lower(), f"{token}\n"):
            ids = set(tokenizer.encode(text).tolist()) - {tokenizer.unk_id}
            assert not ids & set(tokenizer.special_ids), text
    # Texts of the unknown token may be unknown, but never whole.
    unknown = tokenizer.reference.id_to_token(tokenizer.unk_id)
    assert len(tokenizer.encode(unknown)) > 1


@pytest.mark.parametrize("kind", makers.KINDS)
def test_saving_keeps_everything(tmp_path, kind):
    tokenizer = Tokenizer.load(makers.write_kind(tmp_path / "from", kind))
    tokenizer.save(tmp_path / "to")
    again = Tokenizer.load(tmp_path / "to")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.special_ids == tokenizer.special_ids
    for text in [*TRICKY, *makers.TEXTS[:3]]:
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


@pytest.mark.parity
@pytest.mark.parametrize("model_type", [None, "roberta", "bert"])
@pytest.mark.parametrize("kind", makers.KINDS)
def test_transformers_gives_equal_ids(tmp_path, kind, model_type):
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.load(makers.write_kind(tmp_path / "from", kind))
    tokenizer.save(tmp_path / "to", max_length=77)
    if model_type is not None:
        (tmp_path / "to" / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    # In Unigram, transformers finds "</s>" in a text whatever it is asked; we never do.
    texts = [text for text in TRICKY if kind != "unigram" or "</s>" not in text]
    for text in [*texts, *makers.TEXTS[:3]]:
        expected = [tokenizer.bos_id, *tokenizer.encode(text).tolist(), tokenizer.eos_id]
        assert theirs(text, split_special_tokens=True)["input_ids"] == expected, text
    names = ("cls_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "mask_token_id")
    ours = (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id)
    assert tuple(getattr(theirs, name) for name in names) == ours
    assert theirs.model_max_length == 77
    assert (
        theirs("a <mask> b" if "bert" not in kind else "a [MASK] b")["input_ids"].count(tokenizer.mask_id)
        == 1
    )


@pytest.mark.parity
@pytest.mark.parametrize("lowercase", [True, False])
def test_bert_files_are_read_as_transformers_reads_them(tmp_path, lowercase):
    transformers = pytest.importorskip("transformers")
    folder = makers.write_bert(tmp_path, do_lower_case=lowercase, tokenizer_class="BertTokenizer")
    ours, theirs = Tokenizer.load(folder), transformers.BertTokenizer.from_pretrained(folder)
    for text in TRICKY[:4]:
        assert [ours.bos_id, *ours.encode(text).tolist(), ours.eos_id] == theirs(text)["input_ids"]
    pair = [ours.bos_id, *ours.encode("the"), ours.eos_id, *ours.encode("gull"), ours.eos_id]
    assert theirs("the", "gull")["input_ids"] == pair == ours.reference.encode("the", "gull").ids
    assert theirs("the", "gull")["token_type_ids"] == ours.reference.encode("the", "gull").type_ids


def test_roles_are_taken_from_the_files_beside(tmp_path):
    folder = renamed_specials(tmp_path)
    named = {"bos_token": "<B>", "pad_token": {"content": "<P>"}, "eos_token": "<U>", "sep_token": "<E>"}
    (folder / "special_tokens_map.json").write_text(json.dumps({**named, "unk_token": "<U>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": "<M>", "cls_token": None}))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.special_ids == (0, 1, 2, 3, 349)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id) == (0, 2, 349)
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").fingerprint == tokenizer.fingerprint
    assert not set(tokenizer.encode("a <M> <E>").tolist()) & set(tokenizer.special_ids)


def test_roles_that_nobody_names(tmp_path):
    folder = renamed_specials(tmp_path)
    with pytest.raises(
        TokenizerError, match=r"has no <s>, .*; a RoBERTa vocabulary has .*tokenizer_config\.json"
    ):
        Tokenizer.load(folder)


def test_a_bert_vocabulary_without_a_mask(tmp_path):
    makers.write_bert(tmp_path, [word for word in makers.BERT_WORDS if word != "[MASK]"], do_lower_case=True)
    with pytest.raises(
        TokenizerError, match=r"vocab\.txt: has no \[MASK\]; a BERT vocabulary has \[CLS\] \[PAD\]"
    ):
        Tokenizer.load(tmp_path)


def test_a_role_without_an_entry(tmp_path):
    makers.byte_level().save(tmp_path)
    write_definition(tmp_path, definition_of(tmp_path), mask_token="<blank>")
    with pytest.raises(TokenizerError, match="names '<blank>' as its mask token, but has no such entry"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "holds a list, expected settings"), ("{", "is not valid")]
)
def test_settings_that_are_none(tmp_path, content, message):
    makers.byte_level().save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=rf"tokenizer_config\.json: {message}.*mend or remove it"):
        Tokenizer.load(tmp_path)


def test_a_sentencepiece_model_is_explained(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"\n\x01")
    for path in (tmp_path, tmp_path / "sentencepiece.bpe.model"):
        with pytest.raises(
            TokenizerError, match=r"bpe\.model: is a SentencePiece model, expected tokenizer\.json"
        ):
            Tokenizer.load(path)


def test_no_text_at_all(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match=r"vocab\.txt: is not a tokenizer\.json or a vocabulary"):
        Tokenizer.load(tmp_path)


def test_an_unreadable_file(tmp_path, monkeypatch):
    from maskwright.core.errors import DataError
    from maskwright.tokens import vocabularies

    def refuse(path):
        raise DataError(f"{path}: cannot be read")

    makers.byte_level().save(tmp_path)
    monkeypatch.setattr(vocabularies, "read_bytes", refuse)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer.load(tmp_path)


def test_cutting_and_padding_of_a_definition_are_dropped(tmp_path):
    makers.byte_level().save(tmp_path)
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1}
    pad |= {"pad_type_id": 0, "pad_token": "<pad>"}
    definition = {**definition_of(tmp_path), "truncation": cut, "padding": pad}
    tokenizer = Tokenizer.load(write_definition(tmp_path, definition))
    assert tokenizer.decode(tokenizer.encode(makers.TEXTS[0])) == makers.TEXTS[0]
    assert len(tokenizer.reference.encode("a b c d e f g", add_special_tokens=False).ids) > 3
    assert tokenizer.fingerprint == makers.byte_level().fingerprint


@pytest.mark.parametrize("kind", ["byte-level", "unigram"])
def test_definitions_as_they_were_written_once(tmp_path, kind):
    """Without the type of the model, with merges as one string."""
    expected = Tokenizer.load(makers.write_kind(tmp_path / "new", kind))
    definition = definition_of(tmp_path / "new")
    model = definition["model"]
    del model["type"], definition["normalizer"]
    if "merges" in model:
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
    tokenizer = Tokenizer.load(write_definition(tmp_path / "old", definition))
    assert tokenizer.check_fast_path(TRICKY) == (kind == "byte-level")
    for text in [*TRICKY, *makers.TEXTS[:3]]:
        assert tokenizer.encode(text).tolist() == expected.encode(text).tolist()
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").fingerprint == tokenizer.fingerprint


def test_special_entries_that_are_not_marked(tmp_path):
    makers.byte_level().save(tmp_path)
    definition = definition_of(tmp_path)
    for token in definition["added_tokens"]:
        token["special"] = False
    tokenizer = Tokenizer.load(write_definition(tmp_path, definition))
    assert tokenizer.mask_id not in tokenizer.encode("a <mask>").tolist()


@pytest.mark.parametrize("kind", ["byte-level", "bert", "unigram"])
def test_words_added_by_somebody_are_found(tmp_path, kind, caplog):
    folder = makers.write_kind(tmp_path / "from", kind)
    Tokenizer.load(folder).save(tmp_path / "to")
    definition = definition_of(tmp_path / "to")
    size = Tokenizer.load(folder).vocab_size
    added = {"id": size, "content": "zebra", "special": False, "normalized": False}
    definition["added_tokens"].append({**added, "single_word": False, "lstrip": False, "rstrip": False})
    with caplog.at_level(logging.WARNING, "maskwright"):
        tokenizer = Tokenizer.load(write_definition(tmp_path / "to", definition))
        assert size in tokenizer.encode("a zebra b").tolist()
    assert tokenizer.vocab_size == size + 1
    expected = tokenizer.reference.encode("a zebra b", add_special_tokens=False).ids
    assert tokenizer.encode("a zebra b").tolist() == expected


@pytest.fixture(scope="module")
def roberta():
    folder = makers.shared_data("roberta_vocab")
    if not folder.is_dir():
        pytest.skip("the shared data is absent")
    return Tokenizer.load(folder)


def roberta_reference():
    """RoBERTa's encoder built another way: GPT-2's own ids, and a table from them to fairseq's."""
    from tokenizers import Tokenizer as Reference
    from tokenizers import models, pre_tokenizers

    folder = makers.shared_data("roberta_vocab")
    gpt2 = Reference(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = [line.split()[0] for line in (folder / "dict.txt").read_text("utf-8").splitlines()]
    table = {int(word): place + 4 for place, word in enumerate(words) if word.isdigit()}
    return lambda text: [table[number] for number in gpt2.encode(text).ids]


@pytest.mark.shared
@pytest.mark.parity
def test_the_published_vocabulary(roberta):
    assert (roberta.vocab_size, roberta.mask_id, roberta.special_ids) == (
        50_265,
        50_264,
        (0, 1, 2, 3, 50_264),
    )
    assert roberta.encode("Hello world").tolist() == [31414, 232]
    assert roberta.encode(" Hello world").tolist() == [20920, 232]
    assert roberta.token_text(232) == " world"
    assert roberta.check_fast_path(["any text"])
    reference = roberta_reference()
    for text in [*TRICKY, *makers.TEXTS[:20]]:
        assert roberta.encode(text).tolist() == reference(text)


@pytest.mark.shared
@pytest.mark.parity
def test_the_published_vocabulary_in_transformers(roberta, tmp_path):
    transformers = pytest.importorskip("transformers")
    roberta.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Hello world")["input_ids"] == [0, 31414, 232, 2]
    assert theirs("Hello <mask>")["input_ids"] == [0, 31414, 50264, 2]
    for text in TRICKY[:4]:
        assert theirs(text)["input_ids"] == [0, *roberta.encode(text), 2]
