"""`config.json` of a Hugging Face folder: read into a shape, and written.

What a file leaves out has the value that `transformers` would take, so that both build the same
model. What our encoder does not compute is refused by name rather than ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from ...core.config import parse_config
from ...core.errors import CheckpointError, ConfigError
from ...core.files import read_json
from ..config import EncoderConfig, ModelKind

__all__ = ["CONFIG_NAME", "hf_config", "load_encoder_config", "read_labels"]

CONFIG_NAME = "config.json"
_KINDS: tuple[str, ...] = get_args(ModelKind)
_CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert", "bert": "Bert"}
_COMMON = {
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "vocab_size": 30_522,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
# The defaults of the classes of `transformers`, which files may leave out.
_THEIR_DEFAULTS: dict[str, dict[str, Any]] = {
    "roberta": {**_COMMON, "vocab_size": 50_265},
    "xlm-roberta": _COMMON,
    "camembert": _COMMON,
    "bert": {**_COMMON, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None},
}
# What a config may say beside the shape, and what alone is supported of it.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "pruned_heads": ({},),
}
# Heads are found by the tensors of a file; which of them a model has is its objective's choice.
_OUR_OWN = {"pooler", "next_sentence"}


def load_encoder_config(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """Read the shape of a model from a Hugging Face folder.

    Returns:
        The shape, without pooler and next-sentence head, and the whole `config.json`.

    Raises:
        CheckpointError: there is no such model, or it is of another kind.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no {CONFIG_NAME}; give the folder of an exported model")
    values = read_json(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}, expected the config of a model")
    kind = values.get("model_type")
    if kind not in _KINDS:
        raise CheckpointError(f'{path}: model_type is "{kind}", expected {", ".join(_KINDS)}')
    for name, allowed in _SUPPORTED.items():
        if values.get(name) is not None and values[name] not in allowed:
            shown = f'"{allowed[0]}"' if isinstance(allowed[0], str) else repr(allowed[0]).lower()
            given = f'"{values[name]}"' if isinstance(values[name], str) else repr(values[name]).lower()
            raise CheckpointError(f"{path}: {name} is {given}, only {shown} is supported; use another model")
    names = EncoderConfig.model_fields.keys() - _OUR_OWN
    known = {**_THEIR_DEFAULTS[kind], **{name: values[name] for name in names if name in values}}
    try:
        return parse_config(EncoderConfig, known, str(path)), values
    except ConfigError as error:
        raise CheckpointError(f"{error}; export the model again") from error


def hf_config(config: EncoderConfig, labels: list[str] | None) -> dict[str, Any]:
    """Content of the `config.json` of a model.

    Args:
        config: its shape and kind.
        labels: names of the classes, for a classifier.
    """
    task = "ForMaskedLM" if labels is None else "ForSequenceClassification"
    if config.model_type == "bert" and config.next_sentence and labels is None:
        task = "ForPreTraining"
    values: dict[str, Any] = {
        "architectures": [_CLASSES[config.model_type] + task],
        **config.model_dump(exclude=_OUR_OWN),
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if labels is not None:
        values["id2label"] = {str(number): name for number, name in enumerate(labels)}
        values["label2id"] = {name: number for number, name in enumerate(labels)}
    return values


def read_labels(values: dict[str, Any]) -> list[str] | None:
    """Names of the classes in a `config.json`, in order; None where it is no classifier's."""
    kinds = values.get("architectures") or []
    if not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
        return None
    # transformers leaves its default out: two classes.
    names = values.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return [str(names[str(number)]) for number in range(len(names)) if str(number) in names]
