"""Small vocabularies of every kind, written as other projects write them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from shard_helpers import ShardWriter

import tiny_world
from maskwright.core.fingerprint import fingerprint
from maskwright.tokens.manifest import Manifest, TokenizerEntry, save_manifest
from maskwright.tokens.shard_writing import write_array
from maskwright.tokens.tokenizer import Tokenizer

TEXTS = [tiny_world.text(random.Random(number), "harbour", 5) for number in range(60)]
BERT_WORDS = [
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(
        "[",
        "]",
        "!",
        ".",
        ",",
        "<",
        ">",
        "/",
        "s",
        "mask",
        "cls",
        "##s",
        "the",
        "ferry",
        "gull",
        "caf",
        "##e",
    ),
    *("中", "文", "a", "b", "##b", "naive", "hello", "world"),
]
PIECES = [
    *(("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)),
    *((piece, -3.0) for piece in ("▁", "▁the", "▁ferry", "▁a", "er", "s", "mask")),
    *((letter, -6.0) for letter in "abcdefghijklmnopqrtuvwxyz<>/[].中文"),
]


def shared_data(*parts: str) -> Path:
    """A path below the real data, which may be absent."""
    return Path(__file__).parents[3].joinpath("shared", "data", *parts)


def byte_level() -> Tokenizer:
    """A trained byte-level BPE of 350 entries."""
    return Tokenizer.train(TEXTS, 350)


def write_fairseq(folder: Path) -> tuple[Path, list[str]]:
    """Files of a RoBERTa release: GPT-2's numbers in `encoder.json`, ids by `dict.txt`.

    Returns:
        The folder, and the entries by id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = byte_level().definition["model"]
    entries = [
        token for token in model["vocab"] if not (len(token) > 2 and token[0] == "<" and token[-1] == ">")
    ]
    random.Random(1).shuffle(entries)
    (folder / "encoder.json").write_text(json.dumps({token: i for i, token in enumerate(entries)}), "utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (folder / "vocab.bpe").write_text(f"#version: 0.2\n{merges}", "utf-8")
    order = list(range(len(entries)))
    random.Random(2).shuffle(order)
    lines = [*(f"{number} {1000 - place}" for place, number in enumerate(order)), "madeupword0000 0"]
    (folder / "dict.txt").write_text("\n".join(lines) + "\n", "utf-8")
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    return folder, [*specials, *(entries[number] for number in order), "madeupword0000", "<mask>"]


def write_bert(folder: Path, words: list[str] = BERT_WORDS, **settings: object) -> Path:
    """BERT's `vocab.txt`, with a `tokenizer_config.json` where settings are given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def write_unigram(folder: Path) -> Path:
    """A `tokenizer.json` as XLM-R has it: pieces with scores, the special ones among them, `<mask>` added."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Reference

    reference = Reference(models.Unigram(PIECES, unk_id=3))
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    reference.pre_tokenizer = pre_tokenizers.Sequence(words)
    reference.decoder = decoders.Metaspace()
    reference.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    reference.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    reference.save(str(folder / "tokenizer.json"))
    return folder


def write_kind(folder: Path, kind: str) -> Path:
    """A vocabulary of one of the kinds `byte-level`, `fairseq`, `bert`, `bert-cased`, `unigram`."""
    if kind == "fairseq":
        return write_fairseq(folder)[0]
    if kind == "bert":
        return write_bert(folder, do_lower_case=True)
    if kind == "bert-cased":
        return write_bert(folder, do_lower_case=False, strip_accents=False, tokenize_chinese_chars=False)
    if kind == "unigram":
        return write_unigram(folder)
    byte_level().save(folder)
    return folder


def write_data(folder: Path, tokenizer: Tokenizer, texts: dict[str, list[str]]) -> Manifest:
    """A data folder of some texts by split, in shards of about 200 tokens."""
    writers = {split: ShardWriter(folder, split, tokenizer, 200) for split in texts}
    for split, writer in writers.items():
        for text in texts[split]:
            writer.add([text])
    tokenizer.save(folder / "tokenizer")
    entry = TokenizerEntry(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size)
    splits = {split: writer.finish() for split, writer in writers.items()}
    manifest = Manifest(
        tokenizer=entry,
        dtype="uint16",
        splits=splits,
        token_counts=write_array(folder, "token_counts.bin", writers["train"].token_counts),
        provenance={
            "request": fingerprint([entry.model_dump(), None, False, 200]),
            "sources": "megatron",
        },
    )
    save_manifest(folder, manifest)
    return manifest


KINDS = ("byte-level", "fairseq", "bert", "bert-cased", "unigram")
