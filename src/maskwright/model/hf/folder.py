"""A model to and from the folders that `transformers` reads: `config.json` and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from ...core.files import atomic_open, write_json
from ...core.log import get_logger
from ..config import EncoderConfig
from ..encoder import Block
from ..heads import MaskedLM, SequenceClassifier
from .config_file import CONFIG_NAME, hf_config, load_encoder_config, read_labels
from .names import from_hf_names, has_tensors, to_hf_names
from .tensors import WEIGHTS_NAME, load_tensors, weights_path

__all__ = ["export_model", "load_model", "load_weights", "read_weights"]

log = get_logger(__name__)
_OPTIONAL = ("pooler", "nsp_output")
# Looked at together, since a file may hold a second copy of them.
_TIED = ("encoder.embeddings.word.weight", "head_bias")


def export_model(
    folder: Path, model: nn.Module, config: EncoderConfig, labels: list[str] | None = None
) -> None:
    """Write `config.json` and `model.safetensors` that `transformers` loads as they are.

    Args:
        folder: where; made if missing.
        model: `MaskedLM` or `SequenceClassifier`; weights are written in fp32.
        config: its shape and kind; `bos_token_id` and `eos_token_id` are the tokenizer's.
        labels: names of the classes, for a classifier.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_open(folder / WEIGHTS_NAME) as file:
        published = to_hf_names(tensors, config.num_attention_heads, config.model_type)
        file.write(save(published, metadata={"format": "pt"}))
    write_json(folder / CONFIG_NAME, hf_config(config, labels))


def load_weights(model: nn.Module, folder: Path, *, encoder_only: bool = False) -> None:
    """Fill a model from a Hugging Face folder.

    A pooler and a next-sentence head that the file lacks keep the values they have, with a warning.

    Args:
        model: `MaskedLM` or `SequenceClassifier`.
        folder: holds the weights.
        encoder_only: leave the head as it is, for a new task. A BERT classifier's first layer is the
            pooler and is taken where the file has one.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    _fill(model, load_tensors(folder), str(weights_path(folder)), encoder_only=encoder_only)


def read_weights(model: MaskedLM, folder: Path) -> Callable[[], Iterator[Block]]:
    """What `load_weights` would fill a model with, parameter by parameter.

    `safetensors` are mapped into memory and read as they are asked for: the cost is that of the largest
    parameter, and of reading twice. A `pytorch_model.bin` is in memory whole while it is read.

    Args:
        model: of the shape to read, on any device; it is not changed.
        folder: holds the weights, all of which are checked at once.

    Returns:
        Gives the values. Those of a pooler and a next-sentence head that the file lacks are not among
        them, with a warning.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    tensors, place = load_tensors(folder), str(weights_path(folder))
    config, wanted = model.config, _wanted(model, tensors, place, encoder_only=False)
    for _ in _blocks(config, tensors, wanted, place):
        pass
    return lambda: _blocks(config, load_tensors(folder), wanted, place)


def _blocks(
    config: EncoderConfig, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str
) -> Iterator[Block]:
    tied = [name for name in _TIED if name in wanted]
    for names in (tied, *([name] for name in wanted if name not in tied)):
        some = {name: wanted[name] for name in names}
        found = from_hf_names(tensors, some, place, config.num_attention_heads, config.model_type)
        for name in names:
            yield Block(name, 0, found.pop(name))


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], place: str, *, encoder_only: bool) -> None:
    config = model.config
    assert isinstance(config, EncoderConfig)
    wanted = _wanted(model, tensors, place, encoder_only=encoder_only)
    heads, classifier = config.num_attention_heads, isinstance(model, SequenceClassifier)
    found = from_hf_names(tensors, wanted, place, heads, config.model_type, classifier=classifier)
    model.load_state_dict(found, strict=len(wanted) == len(model.state_dict()))


def _wanted(
    model: nn.Module, tensors: Mapping[str, Tensor], place: str, *, encoder_only: bool
) -> dict[str, Tensor]:
    """The tensors of a model that a file is to fill."""
    config = model.config
    assert isinstance(config, EncoderConfig)
    kind, state, classifier = config.model_type, model.state_dict(), isinstance(model, SequenceClassifier)
    parts = dict.fromkeys(name.partition(".")[0] for name in state)
    if encoder_only:
        parts = dict.fromkeys(["encoder"])
        if classifier and kind == "bert" and has_tensors(tensors, "head_dense", kind, classifier=True):
            parts["head_dense"] = None
    for part in _OPTIONAL:
        if part in parts and not has_tensors(tensors, part, kind):
            log.warning("%s: has no %s; it starts from new weights", place, part)
            del parts[part]
    return {name: value for name, value in state.items() if name.partition(".")[0] in parts}


def load_model(folder: Path) -> tuple[MaskedLM | SequenceClassifier, list[str] | None]:
    """Build the model that a Hugging Face folder holds, with every head that its file has.

    Returns:
        A `MaskedLM`, or a `SequenceClassifier`; and the names of the classes, of a classifier.

    Raises:
        CheckpointError: there is none, it is damaged, or of a kind or task that is not supported.
    """
    config, values = load_encoder_config(folder)
    labels = read_labels(values)
    model: MaskedLM | SequenceClassifier
    tensors = load_tensors(folder)
    if labels is not None:
        model = SequenceClassifier(config, len(labels))
    else:
        pooler, sentence = (has_tensors(tensors, part, config.model_type) for part in _OPTIONAL)
        model = MaskedLM(config.replace(pooler=pooler, next_sentence=pooler and sentence))
    _fill(model, tensors, str(weights_path(folder)), encoder_only=False)
    return model.eval(), labels
