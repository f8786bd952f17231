"""RoBERTa as fairseq saves it (`model.pt`), read into our model without running what the file brings.

Both layouts are read: `args` of the first releases and `cfg` of the later ones; queries, keys and
values joined or apart; the encoder under `decoder.` or `encoder.`. The arguments are checked
against the tensors, and what our encoder does not compute is refused by name. The ids are those of
the `dict.txt` beside the file. Cost: the checkpoint is in memory once, the optimiser's state in it too.

Source: Ott et al., fairseq, 2019, and its RoBERTa example (Liu et al., arXiv 1907.11692).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.config import parse_config
from ..core.errors import CheckpointError, ConfigError
from ..core.log import get_logger
from .config import EncoderConfig, ModelKind
from .heads import MaskedLM
from .hf.tensors import load_pickle
from .qkv import join_qkv

__all__ = ["load_fairseq"]

log = get_logger(__name__)
_PAD_ID = 1  # fairseq's dictionaries begin with <s> <pad> </s> <unk>
_BASES = ("encoder.", "decoder.")
_EMBEDDINGS = {
    "embed_tokens.weight": "word.weight",
    "embed_positions.weight": "position.weight",
    "emb_layer_norm": "norm",
    "layernorm_embedding": "norm",
}
_LAYER = {
    "self_attn.out_proj": "attention_output",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "intermediate",
    "fc2": "output",
    "final_layer_norm": "output_norm",
}
_HEAD = {"dense": "head_dense", "layer_norm": "head_norm"}
_QKV = ("q_proj", "k_proj", "v_proj")
# Arguments that decide what is computed, and the value of them that we compute.
_SUPPORTED: dict[str, Any] = {
    "activation_fn": "gelu",
    "encoder_learned_pos": True,
    "untie_weights_roberta": False,
    "no_token_positional_embeddings": False,
    "adaptive_input": False,
    "encoder_layers_to_keep": None,
}


class _Meter:
    """Stands for a counter in a training checkpoint, of which nothing is used."""

    def __init__(self, *arguments: Any) -> None:
        pass


_ALLOWED = (
    argparse.Namespace,
    *(
        (_Meter, f"fairseq.{module}.{name}")
        for module in ("meters", "logging.meters")
        for name in ("AverageMeter", "TimeMeter", "StopwatchMeter")
    ),
)


def load_fairseq(path: Path, kind: ModelKind = "roberta") -> MaskedLM:
    """Read a RoBERTa checkpoint of fairseq.

    Args:
        path: the checkpoint, usually `model.pt`.
        kind: `roberta`, or `xlm-roberta` whose files have the same form.

    Returns:
        The model, in fp32.

    Raises:
        CheckpointError: the file is damaged, holds no RoBERTa, or one that we do not compute.
    """
    checkpoint = load_pickle(path, _ALLOWED)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), Mapping):
        raise CheckpointError(f"{path}: has no model inside; give a checkpoint of fairseq")
    arguments = _arguments(checkpoint, path)
    tensors = _rename(checkpoint["model"], path)
    del checkpoint
    config = _config(tensors, arguments, path, kind)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; use an earlier checkpoint")
    model = MaskedLM(config)
    # RoBERTa has one token type, which fairseq leaves out.
    tensors["encoder.embeddings.token_type.weight"] = torch.zeros(1, config.hidden_size)
    for name, wanted in model.state_dict().items():
        if name not in tensors or tensors[name].shape != wanted.shape:
            found = tuple(tensors[name].shape) if name in tensors else "missing"
            raise CheckpointError(
                f"{path}: what becomes {name} is {found}, expected {tuple(wanted.shape)}; "
                "is this a RoBERTa with its language-model head?"
            )
    for name in [name for name in tensors if ".qkv." in name]:
        # There the matrices lie below each other, here head by head.
        tensors[name] = join_qkv(tensors[name].chunk(3), config.num_attention_heads)
    model.load_state_dict(tensors)
    return model.eval()


def _arguments(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The model's arguments, from whichever layout the file has."""
    found: Any = checkpoint.get("args")
    if found is None and isinstance(checkpoint.get("cfg"), Mapping):
        found = checkpoint["cfg"].get("model")
    values = vars(found) if isinstance(found, argparse.Namespace) else found
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path}: has neither args nor cfg.model; give a checkpoint of fairseq")
    arguments = {str(name): value for name, value in values.items()}
    kind = str(arguments.get("arch") or arguments.get("_name") or "roberta")
    if not kind.startswith(("roberta", "xlmr", "xlm_roberta")):
        raise CheckpointError(f'{path}: holds a "{kind}", expected a RoBERTa')
    for name, supported in _SUPPORTED.items():
        value = arguments.get(name, supported)
        if value != supported:
            raise CheckpointError(f"{path}: {name} is {value!r}, only {supported!r} is supported")
    return arguments


def _rename(published: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Our names for the tensors of a file, with queries, keys and values joined."""
    result: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    heads = set()
    for name, tensor in published.items():
        short = next((name.removeprefix(base) for base in _BASES if name.startswith(base)), name)
        if short.startswith("classification_heads."):
            heads.add(short.split(".")[1])
            continue
        if short.endswith((".version", "._float_tensor")):
            continue
        ours, part = _our_name(short)
        if ours is None:
            raise CheckpointError(
                f"{path}: has a tensor {name}, which RoBERTa has no place for; "
                "only its published layout is supported"
            )
        if part is None:
            result[ours] = tensor.float()
        else:
            parts.setdefault(ours, {})[part] = tensor.float()
    if heads:
        log.warning("%s: its classification heads (%s) are left out", path, ", ".join(sorted(heads)))
    for ours, found in parts.items():
        if found.keys() != set(_QKV):
            raise CheckpointError(f"{path}: what becomes {ours} lacks a part; get the file again")
        result[ours] = torch.cat([found[part] for part in _QKV])
    decoder = result.pop("decoder", None)
    words = result.get("encoder.embeddings.word.weight")
    if decoder is not None and (words is None or not torch.equal(decoder, words)):
        raise CheckpointError(
            f"{path}: lm_head.weight is not the same as the word embeddings; a head with output "
            "weights of its own is not supported"
        )
    return result


def _our_name(name: str) -> tuple[str | None, str | None]:
    """Our name for a tensor, and which part of a joined one it is; None for one that is unknown."""
    if name.startswith("lm_head."):
        rest = name.removeprefix("lm_head.")
        if rest in ("weight", "bias"):
            return {"weight": "decoder", "bias": "head_bias"}[rest], None
        layer, _, end = rest.partition(".")
        return (f"{_HEAD[layer]}.{end}", None) if layer in _HEAD else (None, None)
    rest = name.removeprefix("sentence_encoder.")
    if rest in _EMBEDDINGS:
        return f"encoder.embeddings.{_EMBEDDINGS[rest]}", None
    part, _, end = rest.rpartition(".")
    if part in _EMBEDDINGS:
        return f"encoder.embeddings.{_EMBEDDINGS[part]}.{end}", None
    if not part.startswith("layers."):
        return None, None
    _, number, inner = [*part.split(".", 2), ""][:3]
    ours = f"encoder.layers.{number}"
    if end in ("in_proj_weight", "in_proj_bias") and inner == "self_attn":
        return f"{ours}.qkv.{end.removeprefix('in_proj_')}", None
    projection = inner.removeprefix("self_attn.")
    if projection in _QKV:
        return f"{ours}.qkv.{end}", projection
    return (f"{ours}.{_LAYER[inner]}.{end}", None) if inner in _LAYER else (None, None)


def _config(
    tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], path: Path, kind: ModelKind
) -> EncoderConfig:
    """The shape, measured on the tensors and compared with the arguments."""
    names = ("embeddings.word.weight", "embeddings.position.weight", "layers.0.intermediate.weight")
    found = [tensors.get(f"encoder.{name}") for name in names]
    if any(tensor is None or tensor.dim() != 2 for tensor in found):
        raise CheckpointError(
            f"{path}: lacks the tables or the layers of an encoder; is this a RoBERTa with its "
            "language-model head?"
        )
    words, positions, intermediate = (tensor.shape for tensor in found if tensor is not None)
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}
    measured = {
        "encoder_layers": len(layers),
        "encoder_embed_dim": words[1],
        "encoder_ffn_embed_dim": intermediate[0],
        "max_positions": positions[0] - _PAD_ID - 1,
    }
    for name, size in measured.items():
        if arguments.get(name, size) != size:
            raise CheckpointError(
                f"{path}: {name} is {arguments[name]}, but its tensors have {size}; arguments and weights "
                "do not belong together"
            )
    values = {
        "model_type": kind,
        "vocab_size": words[0],
        "hidden_size": words[1],
        "num_hidden_layers": len(layers),
        "num_attention_heads": arguments.get("encoder_attention_heads"),
        "intermediate_size": intermediate[0],
        "max_position_embeddings": positions[0],
        "hidden_dropout_prob": arguments.get("dropout", 0.1),
        "attention_probs_dropout_prob": arguments.get("attention_dropout", 0.1),
    }
    try:
        return parse_config(EncoderConfig, values, str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}; the checkpoint's arguments describe no RoBERTa") from error
