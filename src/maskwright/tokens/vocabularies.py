"""Vocabulary files of other projects, brought into one form: a `tokenizer.json` and five roles.

What is read: any `tokenizer.json`; `encoder.json` + `vocab.bpe` + `dict.txt` as RoBERTa was released
(ids in the order of the dictionary); `vocab.json` + `merges.txt`; and BERT's `vocab.txt`. Nothing is
guessed silently: files that leave the ids open are refused with what is missing. Reading costs as
long as parsing the files, about a tenth of a second for 50,000 entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DataError, TokenizerError
from ..core.files import read_bytes, read_json
from ..core.log import get_logger

__all__ = [
    "BERT_TOKENS",
    "ROBERTA_TOKENS",
    "SpecialTokens",
    "Vocabulary",
    "find_roles",
    "read_vocabulary",
    "wordpiece_definition",
]

log = get_logger(__name__)
_GPT2 = ("encoder.json", "vocab.bpe")
_PARTS = {"encoder.json", "vocab.bpe", "dict.txt", "vocab.json", "merges.txt"}


@dataclass(frozen=True)
class SpecialTokens:
    """Which entry plays which part: start, padding, end (and separator), unknown, mask."""

    bos: str
    pad: str
    eos: str
    unk: str
    mask: str


ROBERTA_TOKENS = SpecialTokens("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT_TOKENS = SpecialTokens("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
_FAMILIES = {"RoBERTa": ROBERTA_TOKENS, "BERT": BERT_TOKENS}
# Where configurations of others name a role; the first that is given counts.
_ROLE_KEYS = {
    "bos": ("cls_token", "bos_token"),
    "pad": ("pad_token",),
    "eos": ("sep_token", "eos_token"),
    "unk": ("unk_token",),
    "mask": ("mask_token",),
}


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary as it was found.

    Attributes:
        definition: content of a `tokenizer.json`.
        place: the file, for messages.
        names: entries by role (`bos`, `pad`, `eos`, `unk`, `mask`), as far as files name them.
    """

    definition: str
    place: str
    names: Mapping[str, str]


def read_vocabulary(path: Path) -> Vocabulary:
    """Read whichever vocabulary lies in a folder, or the one that a file belongs to.

    Args:
        path: a folder, a `tokenizer.json` under any name, a `vocab.txt`, or one file of a set.

    Raises:
        TokenizerError: there is none, a file of the set is missing, or it cannot be used.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name not in _PARTS:
        if path.suffix == ".model":
            raise TokenizerError(_SENTENCEPIECE.format(path=path))
        return _read_bert(path) if path.suffix == ".txt" else _read_definition(path)
    if not path.exists():
        raise TokenizerError(f"{path}: has no tokenizer.json; give a folder that holds a tokenizer")
    if path.is_dir() and (folder / "tokenizer.json").is_file():
        return _read_definition(folder / "tokenizer.json")
    if all((folder / name).is_file() for name in _GPT2):
        return _read_fairseq(folder)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _read_split_files(folder)
    if (folder / "vocab.txt").is_file():
        return _read_bert(folder / "vocab.txt")
    models = sorted(folder.glob("*.model"))
    if models:
        raise TokenizerError(_SENTENCEPIECE.format(path=models[0]))
    raise TokenizerError(
        f"{path}: has no tokenizer.json; give a folder that holds a tokenizer (tokenizer.json, vocab.txt, "
        "vocab.json with merges.txt, or encoder.json with vocab.bpe and dict.txt)"
    )


_SENTENCEPIECE = (
    "{path}: is a SentencePiece model, expected tokenizer.json; convert it once with "
    "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of transformers"
)


def find_roles(entries: Mapping[str, int], named: Mapping[str, str], place: str) -> SpecialTokens:
    """Which entry of a vocabulary plays which part.

    Args:
        entries: ids by entry.
        named: entries by role, as far as they are known; the rest is looked for by the usual names.
        place: for messages.

    Raises:
        TokenizerError: a role is named that the vocabulary lacks, or none can be found for it.
    """
    for role, token in named.items():
        if token not in entries:
            raise TokenizerError(
                f"{place}: names {token!r} as its {role} token, but has no such entry; "
                "mend tokenizer_config.json beside it"
            )
    # The family that has most: what it lacks is what the message is about.
    family = max(_FAMILIES, key=lambda name: sum(token in entries for token in astuple(_FAMILIES[name])))
    usual = asdict(_FAMILIES[family])
    found = {**usual, **named}
    missing = [token for token in found.values() if token not in entries]
    if missing:
        raise TokenizerError(
            f"{place}: has no {', '.join(missing)}; a {family} vocabulary has {' '.join(usual.values())} "
            "(other names can be given in tokenizer_config.json)"
        )
    return SpecialTokens(**found)


def _named_roles(folder: Path) -> dict[str, str]:
    """Roles that the configuration files of a folder name; `tokenizer_config.json` counts first."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = _settings(folder / name)
        for role, keys in _ROLE_KEYS.items():
            given = [values[key] for key in keys if values.get(key)]
            if given:
                content = given[0].get("content") if isinstance(given[0], dict) else given[0]
                named[role] = str(content)
    return named


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = read_json(path)
    except DataError as error:
        raise TokenizerError(f"{error}; mend or remove it") from error
    if not isinstance(values, dict):
        raise TokenizerError(f"{path}: holds a {type(values).__name__}, expected settings; mend or remove it")
    return values


def _read_definition(path: Path) -> Vocabulary:
    return Vocabulary(_text(path), str(path), _named_roles(path.parent))


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{path}: is not a tokenizer.json or a vocabulary ({error}); get the file again"
        ) from error
    except DataError as error:
        raise TokenizerError(str(error)) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers. Entries may hold any character but LF, so nothing else ends a line."""
    lines = _text(path).replace("\r\n", "\n").split("\n")
    yield from enumerate(lines[:-1] if not lines[-1] else lines, start=1)


def _read_fairseq(folder: Path) -> Vocabulary:
    """RoBERTa as released: the merges of GPT-2, numbered by fairseq's dictionary."""
    if not (folder / "dict.txt").is_file():
        raise TokenizerError(
            f"{folder}: has encoder.json and vocab.bpe, but no dict.txt; those two number the entries as "
            "GPT-2 does and RoBERTa's ids follow dict.txt, so put the dict.txt of the same model beside them"
        )
    names = {str(number): token for token, number in _entries(folder / "encoder.json").items()}
    order = list(astuple(ROBERTA_TOKENS)[:4])
    for number, line in _lines(folder / "dict.txt"):
        word, _, count = line.partition(" ")
        if not word or not count.split(" ")[0].isdigit():
            raise TokenizerError(
                f"{folder / 'dict.txt'}:{number}: {line[:60]!r} is no entry and count; get the file again"
            )
        order.append(names.get(word, word))
    ids = {token: number for number, token in enumerate([*order, ROBERTA_TOKENS.mask])}
    if len(ids) != len(order) + 1:
        raise TokenizerError(f"{folder / 'dict.txt'}: names an entry twice; get the file again")
    return _byte_level(folder / "vocab.bpe", ids, asdict(ROBERTA_TOKENS))


def _read_split_files(folder: Path) -> Vocabulary:
    """`vocab.json` and `merges.txt`, as `transformers` wrote byte-level vocabularies once."""
    return _byte_level(folder / "merges.txt", _entries(folder / "vocab.json"), _named_roles(folder))


def _entries(path: Path) -> dict[str, int]:
    values = _settings(path)
    if not values or not all(isinstance(number, int) for number in values.values()):
        raise TokenizerError(f"{path}: does not number its entries; get the file again")
    return values


def _byte_level(merges_file: Path, ids: Mapping[str, int], named: Mapping[str, str]) -> Vocabulary:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    merges = []
    for number, line in _lines(merges_file):
        if number == 1 and line.startswith("#version"):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not all(pair):
            raise TokenizerError(
                f"{merges_file}:{number}: {line[:60]!r} is no pair to merge; get the file again"
            )
        merges.append(pair)
    roles = find_roles(ids, named, str(merges_file.parent))
    try:
        reference = Tokenizer(models.BPE(vocab=dict(ids), merges=merges))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(
            f"{merges_file}: does not fit the entries beside it ({error}); get the files again"
        ) from error
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.decoder = decoders.ByteLevel()
    mask = AddedToken(roles.mask, lstrip=True, special=True)
    reference.add_special_tokens([roles.bos, roles.pad, roles.eos, roles.unk, mask])
    reference.post_processor = processors.RobertaProcessing(
        (roles.eos, ids[roles.eos]), (roles.bos, ids[roles.bos]), add_prefix_space=False
    )
    return Vocabulary(reference.to_str(), str(merges_file.parent), asdict(roles))


def _read_bert(path: Path) -> Vocabulary:
    """One entry a line; how text is brought into form stands in `tokenizer_config.json`."""
    ids = {token: number - 1 for number, token in _lines(path)}  # of an entry named twice, the last counts
    settings = _settings(path.parent / "tokenizer_config.json")
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        special = set(astuple(BERT_TOKENS))
        lowercase = not any(
            any("A" <= character <= "Z" for character in token) for token in ids if token not in special
        )
        log.warning(
            "%s: no tokenizer_config.json says do_lower_case; it is taken as %s, because the entries have %s",
            path,
            str(lowercase).lower(),
            "no capital letters" if lowercase else "capital letters",
        )
    roles = find_roles(ids, _named_roles(path.parent), str(path))
    definition = wordpiece_definition(
        ids,
        roles,
        lowercase=bool(lowercase),
        split_chinese=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
    )
    return Vocabulary(definition, str(path), asdict(roles))


def wordpiece_definition(
    ids: Mapping[str, int],
    roles: SpecialTokens,
    *,
    lowercase: bool,
    split_chinese: bool = True,
    strip_accents: bool | None = None,
) -> str:
    """The `tokenizer.json` of a BERT vocabulary.

    Args:
        ids: ids by entry; `##` begins the pieces inside a word.
        roles: the special entries.
        lowercase: fold capital letters.
        split_chinese: every Chinese character is a word of its own.
        strip_accents: take accents off; None where `lowercase` decides.

    Source: Devlin et al. 2019; Wu et al. 2016 (WordPiece).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    reference = Tokenizer(models.WordPiece(vocab=dict(ids), unk_token=roles.unk))
    reference.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reference.decoder = decoders.WordPiece(prefix="##")
    reference.add_special_tokens(list(astuple(roles)))
    reference.post_processor = processors.TemplateProcessing(
        single=f"{roles.bos} $A {roles.eos}",
        pair=f"{roles.bos} $A {roles.eos} $B:1 {roles.eos}:1",
        special_tokens=[(roles.bos, ids[roles.bos]), (roles.eos, ids[roles.eos])],
    )
    return str(reference.to_str())
