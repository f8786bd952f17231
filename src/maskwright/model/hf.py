"""To and from the folders that `transformers` reads: `config.json` and `model.safetensors`.

Only names and the joined query-key-value matrix differ; the numbers are the same. Nothing here
imports `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.config import parse_config
from ..core.errors import CheckpointError, ConfigError
from ..core.files import atomic_open, read_json, write_json
from .config import EncoderConfig

__all__ = [
    "export_model",
    "from_hf_names",
    "load_encoder_config",
    "load_tensors",
    "load_weights",
    "to_hf_names",
]

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"

_EMBEDDINGS = {
    "word.weight": "word_embeddings.weight",
    "position.weight": "position_embeddings.weight",
    "token_type.weight": "token_type_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
_HEADS = {
    "head_dense": "lm_head.dense",
    "head_norm": "lm_head.layer_norm",
    "classifier.head_dense": "classifier.dense",
    "classifier.head_output": "classifier.out_proj",
}
_QKV = ("query", "key", "value")


def _hf_name(name: str, classifier: bool) -> str:
    """The published name of one of our tensors, except for the joined matrices."""
    if name.startswith("encoder.embeddings."):
        return "roberta.embeddings." + _EMBEDDINGS[name.removeprefix("encoder.embeddings.")]
    if name.startswith("encoder.layers."):
        number, part, kind = name.removeprefix("encoder.layers.").split(".")
        return f"roberta.encoder.layer.{number}.{_LAYER[part]}.{kind}"
    if name == "head_bias":
        return "lm_head.bias"
    part, _, kind = name.rpartition(".")
    return f"{_HEADS[f'classifier.{part}' if classifier else part]}.{kind}"


def to_hf_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors to the published names and split the joined matrices."""
    classifier = "head_output.weight" in tensors
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".qkv." in name:
            _, _, number, _, kind = name.split(".")
            for part, values in zip(_QKV, tensor.chunk(3), strict=True):
                result[f"roberta.encoder.layer.{number}.attention.self.{part}.{kind}"] = values.contiguous()
        else:
            result[_hf_name(name, classifier)] = tensor
    return result


def from_hf_names(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str
) -> dict[str, Tensor]:
    """Find the tensors of one of our models among tensors with published names.

    Args:
        tensors: what the file holds.
        wanted: our names and tensors of the right shape.
        place: the file, for messages.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or holds NaN or infinity.
    """
    classifier = "head_output.weight" in wanted
    result: dict[str, Tensor] = {}
    for name, target in wanted.items():
        if ".qkv." in name:
            _, _, number, _, kind = name.split(".")
            prefix = f"roberta.encoder.layer.{number}.attention.self"
            names = [f"{prefix}.{part}.{kind}" for part in _QKV]
        else:
            names = [_hf_name(name, classifier)]
        found = [_get(tensors, published, place) for published in names]
        value = torch.cat(found) if len(found) > 1 else found[0]
        if value.shape != target.shape:
            raise CheckpointError(
                f"{place}: {names[0]} has shape {tuple(value.shape)}, but the config asks for "
                f"{tuple(target.shape)}; config and weights do not belong together"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{place}: {names[0]} holds NaN or infinity; use an earlier checkpoint")
        result[name] = value
    return result


def _get(tensors: Mapping[str, Tensor], name: str, place: str) -> Tensor:
    """A tensor under its published name; a bare encoder file lacks the `roberta.` in front."""
    for candidate in (name, name.removeprefix("roberta.")):
        if candidate in tensors:
            return tensors[candidate]
    raise CheckpointError(f"{place}: has no tensor {name}; is this a RoBERTa model with the right head?")


def export_model(
    folder: Path, model: nn.Module, config: EncoderConfig, labels: list[str] | None = None
) -> None:
    """Write `config.json` and `model.safetensors` that `transformers` loads as they are.

    Args:
        folder: where; made if missing.
        model: `MaskedLM` or `SequenceClassifier`; weights are written in fp32.
        config: its shape.
        labels: names of the classes, for a classifier.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_open(folder / WEIGHTS_NAME) as file:
        file.write(save(to_hf_names(tensors), metadata={"format": "pt"}))
    write_json(folder / CONFIG_NAME, _hf_config(config, labels))


def _hf_config(config: EncoderConfig, labels: list[str] | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "architectures": ["RobertaForMaskedLM" if labels is None else "RobertaForSequenceClassification"],
        "model_type": "roberta",
        **config.model_dump(),
        "hidden_act": "gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if labels is not None:
        values["id2label"] = {str(number): name for number, name in enumerate(labels)}
        values["label2id"] = {name: number for number, name in enumerate(labels)}
    return values


def load_encoder_config(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """Read the shape of a model from a Hugging Face folder.

    Returns:
        The shape, and the whole `config.json`.

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
    if kind != "roberta":
        raise CheckpointError(f'{path}: model_type is "{kind}", expected "roberta"')
    activation = values.get("hidden_act", "gelu")
    if activation != "gelu":
        raise CheckpointError(f'{path}: hidden_act is "{activation}", only "gelu" is supported')
    known = {name: values[name] for name in EncoderConfig.model_fields if name in values}
    try:
        return parse_config(EncoderConfig, known, str(path)), values
    except ConfigError as error:
        raise CheckpointError(f"{error}; export the model again") from error


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors` of a folder, with published names.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: has no {WEIGHTS_NAME}; give the folder of an exported model")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); export the model again") from error


def load_weights(model: nn.Module, folder: Path, *, encoder_only: bool = False) -> None:
    """Fill a model from a Hugging Face folder.

    Args:
        model: `MaskedLM` or `SequenceClassifier`.
        folder: holds `model.safetensors`.
        encoder_only: leave the head as it is, for a new task.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    state = model.state_dict()
    wanted = {name: value for name, value in state.items() if not encoder_only or name.startswith("encoder.")}
    found = from_hf_names(load_tensors(folder), wanted, str(folder / WEIGHTS_NAME))
    model.load_state_dict(found, strict=not encoder_only)
