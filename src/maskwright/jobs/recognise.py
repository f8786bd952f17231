"""Tell by its content what data is for: labelled texts, minimal pairs, shards, or plain texts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..core.errors import DataError
from ..core.files import is_remote
from ..corpus.streams import file_suffix
from ..training.evaluation.records import JSON_SUFFIXES, find_json_files, read_records

__all__ = ["TaskName", "is_data_folder", "recognise"]

TaskName = Literal["classification", "masked-lm", "minimal-pairs", "pseudo-perplexity"]
PAIR_KEYS = {"sentence_good", "sentence_bad"}


def is_data_folder(data: str) -> bool:
    """Whether a path is a finished folder of token shards."""
    return not is_remote(data) and (Path(data) / "manifest.json").exists()


def recognise(
    data: str, text_field: str | int, label_field: str | int, is_classifier: bool
) -> tuple[TaskName, str]:
    """What data is for.

    Args:
        data: a file or folder, here or on another storage.
        text_field: key of the text.
        label_field: key of the label.
        is_classifier: the model is one; decides where the content leaves a choice.

    Returns:
        The task, and what told so, for people.
    """
    path = Path(data)
    if is_data_folder(data):
        return "masked-lm", "a data folder"
    if not is_remote(data) and path.is_dir():
        keys = _first_keys(data)
        if keys >= PAIR_KEYS:
            return "minimal-pairs", "a folder of files with sentence_good and sentence_bad"
        return ("classification" if is_classifier else "masked-lm"), "a folder"
    if file_suffix(data) in JSON_SUFFIXES:
        return _of_keys(_first_keys(data), text_field, label_field, is_classifier)
    if is_classifier:
        return "classification", "a file of rows"
    if not is_remote(data) and not path.exists():
        return "masked-lm", "nothing is there"
    if file_suffix(data) in (".tsv", ".csv"):
        return "classification", f"a table, {file_suffix(data)}"
    return "pseudo-perplexity", "lines of text"


def _of_keys(
    keys: set[str], text_field: str | int, label_field: str | int, is_classifier: bool
) -> tuple[TaskName, str]:
    if keys >= PAIR_KEYS:
        return "minimal-pairs", "it has sentence_good and sentence_bad"
    if label_field in keys:
        return "classification", f'it has "{label_field}"'
    if not is_classifier and text_field in keys:
        return "pseudo-perplexity", f'it has "{text_field}" and no "{label_field}"'
    return ("classification" if is_classifier else "pseudo-perplexity"), "a file of records"


def _first_keys(data: str) -> set[str]:
    """Keys of the first record; none where it cannot be read, which the reader of the task will say."""
    try:
        for file in find_json_files(data):
            for _, record in read_records(file):
                return set(record)
    except DataError:
        pass
    return set()
