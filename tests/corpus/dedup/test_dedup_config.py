from __future__ import annotations

import pytest

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.corpus.dedup.config import (
    ContaminationConfig,
    DeduplicationConfig,
    EvaluationConfig,
    NearConfig,
)


def contamination(**values):
    return parse_config(ContaminationConfig, {"evaluation": [{"path": "dev.json"}], **values}, "here")


def test_only_exact_copies_go_by_default():
    config = DeduplicationConfig()
    assert (config.exact, config.lines, config.near) == (True, None, None)


def test_near_knows_its_bands():
    assert NearConfig().bands == (16, 8)


def test_names_come_from_paths():
    assert EvaluationConfig(path="data/squad/dev.json").label == "dev"
    assert EvaluationConfig(path="dev.json", name="squad").label == "squad"


@pytest.mark.parametrize("path", ["", [], ["a", ""]])
def test_a_path_is_needed(path):
    with pytest.raises(ConfigError, match=r"path is empty, expected a file, a folder or a pattern"):
        contamination(evaluation=[{"path": path}])


def test_min_words_above_ngram():
    with pytest.raises(ConfigError, match=r"min_words is 9, above ngram 8; lower it"):
        contamination(min_words=9, ngram=8)


def test_names_of_sets_differ():
    with pytest.raises(ConfigError, match=r'two evaluation sets are called "dev"; set name on one of them'):
        contamination(evaluation=[{"path": "a/dev.json"}, {"path": "b/dev.json"}])
