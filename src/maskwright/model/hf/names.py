"""Our names of tensors and the published ones, in both directions.

Only names and the joined query-key-value matrix (`qkv.py`) differ; the numbers are the same. Files of earlier
releases of `transformers` and of other tools are read too: `gamma` and `beta` for the norms, an
encoder without its prefix, a bias under the decoder's name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...core.errors import CheckpointError
from ..config import ModelKind
from ..qkv import join_qkv, split_qkv

__all__ = ["base_prefix", "from_hf_names", "has_tensors", "to_hf_names"]

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
_ROBERTA_HEADS = {
    "head_dense": "lm_head.dense",
    "head_norm": "lm_head.layer_norm",
    "head_bias": "lm_head.bias",
    "pooler": "roberta.pooler.dense",
    "nsp_output": "cls.seq_relationship",
    "classifier.head_dense": "classifier.dense",
    "classifier.head_output": "classifier.out_proj",
}
_BERT_HEADS = {
    "head_dense": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
    "head_bias": "cls.predictions.bias",
    "pooler": "bert.pooler.dense",
    "nsp_output": "cls.seq_relationship",
    "classifier.head_dense": "bert.pooler.dense",
    "classifier.head_output": "classifier",
}
_QKV = ("query", "key", "value")
_OTHER_SPELLINGS = (
    (".LayerNorm.weight", ".LayerNorm.gamma"),
    (".LayerNorm.bias", ".LayerNorm.beta"),
    ("lm_head.bias", "lm_head.decoder.bias"),
    ("cls.predictions.bias", "cls.predictions.decoder.bias"),
)


def base_prefix(kind: ModelKind) -> str:
    """What the names of an encoder's tensors begin with, and of its attribute in `transformers`."""
    return "bert" if kind == "bert" else "roberta"


def _hf_names(name: str, kind: ModelKind, classifier: bool) -> list[str]:
    """The published names that one of our tensors is split over: three for a joined matrix, else one."""
    base = base_prefix(kind)
    if name.startswith("encoder.embeddings."):
        return [f"{base}.embeddings.{_EMBEDDINGS[name.removeprefix('encoder.embeddings.')]}"]
    if name.startswith("encoder.layers."):
        number, part, end = name.removeprefix("encoder.layers.").split(".")
        layer = f"{base}.encoder.layer.{number}"
        if part == "qkv":
            return [f"{layer}.attention.self.{one}.{end}" for one in _QKV]
        return [f"{layer}.{_LAYER[part]}.{end}"]
    heads = _BERT_HEADS if kind == "bert" else _ROBERTA_HEADS
    if name in heads:
        return [heads[name]]
    part, _, end = name.rpartition(".")
    return [f"{heads[f'classifier.{part}' if classifier else part]}.{end}"]


def to_hf_names(
    tensors: Mapping[str, Tensor], num_heads: int, kind: ModelKind = "roberta"
) -> dict[str, Tensor]:
    """Rename our tensors to the published names and split the joined matrices.

    Args:
        tensors: of a `MaskedLM` or `SequenceClassifier`.
        num_heads: attention heads of a layer.
        kind: whose names.
    """
    classifier = "head_output.weight" in tensors
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = _hf_names(name, kind, classifier)
        if len(names) == 1:
            result[names[0]] = tensor.contiguous()
            continue
        for published, values in zip(names, split_qkv(tensor, num_heads), strict=True):
            result[published] = values.flatten(0, 1).contiguous()
    return result


def from_hf_names(
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    place: str,
    num_heads: int,
    kind: ModelKind = "roberta",
    *,
    classifier: bool = False,
) -> dict[str, Tensor]:
    """Find the tensors of one of our models among tensors with published names.

    Args:
        tensors: what the file holds.
        wanted: our names and tensors of the right shape.
        place: the file, for messages.
        num_heads: attention heads of a layer.
        kind: whose names the file has.
        classifier: whether a head that is wanted is a classifier's.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or holds NaN or infinity; or the
            output weights are not the word embeddings.
    """
    result: dict[str, Tensor] = {}
    for name, target in wanted.items():
        names = _hf_names(name, kind, classifier)
        found = [_get(tensors, published, place, kind) for published in names]
        shape = (len(target) // len(names), *target.shape[1:])
        for published, value in zip(names, found, strict=True):
            if value.shape != shape:
                raise CheckpointError(
                    f"{place}: {published} has shape {tuple(value.shape)}, but the config asks for "
                    f"{shape}; config and weights do not belong together"
                )
            if not torch.isfinite(value).all():
                raise CheckpointError(
                    f"{place}: {published} holds NaN or infinity; use an earlier checkpoint"
                )
        result[name] = join_qkv(found, num_heads) if len(found) > 1 else found[0]
    if "head_bias" in wanted:
        _require_tied(tensors, result, place, kind)
    return result


def has_tensors(
    tensors: Mapping[str, Tensor], part: str, kind: ModelKind, *, classifier: bool = False
) -> bool:
    """Whether a file holds a layer, given by our name for it, such as `pooler`."""
    names = [_hf_names(f"{part}.{end}", kind, classifier)[0] for end in ("weight", "bias")]
    return all(_find(tensors, name, kind) is not None for name in names)


def _find(tensors: Mapping[str, Tensor], name: str, kind: ModelKind) -> Tensor | None:
    candidates = [name, name.removeprefix(f"{base_prefix(kind)}.")]
    for ours, theirs in _OTHER_SPELLINGS:
        if name.endswith(ours):
            candidates += [candidate.removesuffix(ours) + theirs for candidate in candidates]
    return next((tensors[candidate] for candidate in candidates if candidate in tensors), None)


def _get(tensors: Mapping[str, Tensor], name: str, place: str, kind: ModelKind) -> Tensor:
    found = _find(tensors, name, kind)
    if found is None:
        family = "BERT" if kind == "bert" else "RoBERTa"
        raise CheckpointError(f"{place}: has no tensor {name}; is this a {family} model with the right head?")
    return found


def _require_tied(
    tensors: Mapping[str, Tensor], found: Mapping[str, Tensor], place: str, kind: ModelKind
) -> None:
    """Refuse output weights of their own, which our head has no place for."""
    decoder = "cls.predictions.decoder" if kind == "bert" else "lm_head.decoder"
    for end, ours in (("weight", "encoder.embeddings.word.weight"), ("bias", "head_bias")):
        given = tensors.get(f"{decoder}.{end}")
        if given is not None and ours in found and not torch.equal(given, found[ours]):
            other = "the word embeddings" if end == "weight" else f"{decoder.removesuffix('.decoder')}.bias"
            raise CheckpointError(
                f"{place}: {decoder}.{end} is not the same as {other}; a head with output weights of its "
                "own is not supported, use a model with tied weights"
            )
