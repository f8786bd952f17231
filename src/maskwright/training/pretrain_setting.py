"""What a pretraining run works with: data, tokenizer, shape, masks, opened and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..core.errors import ConfigError, TokenizerError
from ..core.log import get_logger
from ..model.acceleration import TargetCapacity, accelerate_model, capacity_for, convert_to_fp8
from ..model.config import EncoderConfig
from ..model.encoder import Block, initial_weights, initialize
from ..model.grow import extend_vocabulary, tile_weights
from ..model.heads import MaskedLM
from ..model.hf import load_encoder_config, load_weights, read_weights
from ..model.layers import EncoderLayer
from ..objectives.masking import Masker
from ..objectives.mlm import mask_batch
from ..tokens.manifest import Manifest
from ..tokens.shard_files import DataFolder
from ..tokens.shards import TokenData, open_split
from ..tokens.stream import SampleStream
from ..tokens.tokenizer import Tokenizer
from ..tokens.words import open_words
from .device import resolve_device, resolve_precision
from .evaluation import Probes, Validation
from .pretrain_config import ModelConfig, PretrainConfig
from .remote_data import open_data

__all__ = [
    "PlannedModel",
    "PretrainSetting",
    "build_model",
    "open_place",
    "open_setting",
    "plan_model",
    "prepare_for_device",
]

log = get_logger(__name__)
_SHARE_OF_PATIENCE = 0.75


@dataclass(frozen=True)
class PretrainSetting:
    """What a run works with, after everything is opened and checked."""

    config: PretrainConfig
    shape: EncoderConfig
    tokenizer: Tokenizer
    manifest: Manifest
    training: SampleStream
    validation: Validation
    probes: Probes
    masker: Masker
    device: str
    precision: str


def open_place(config: PretrainConfig) -> DataFolder:
    """Open the data folder of a run, which asks a storage again for less time than its processes have.

    Raises:
        UserError: there is no finished data, or it cannot be reached.
    """
    return open_data(config.data, config.cache, _SHARE_OF_PATIENCE * config.parallel.timeout_seconds)


def open_setting(config: PretrainConfig) -> PretrainSetting:
    """Open everything that a config names.

    Raises:
        UserError: data, tokenizer or model cannot be used, or do not fit each other.
    """
    place = open_place(config)
    data = open_split(place, "train")
    manifest, folder = data.manifest, place.path
    tokenizer = Tokenizer.load(folder / "tokenizer")
    if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
        raise TokenizerError(
            f"{folder / 'tokenizer'}: was changed after the shards were made (its fingerprint is "
            f"{tokenizer.fingerprint}, theirs {manifest.tokenizer.fingerprint}); prepare the data again"
        )
    shape = _shape(config, tokenizer)
    device = resolve_device(config.device)
    evaluation = config.evaluation
    validation = Validation(
        open_split(place, "validation", manifest),
        tokenizer,
        sequence_length=config.sequence_length,
        num_sequences=evaluation.sequences,
        batch_size=config.batch.micro_sequences,
        seed=evaluation.seed,
        per_source=evaluation.per_source,
    )
    return PretrainSetting(
        config=config,
        shape=shape,
        tokenizer=tokenizer,
        manifest=manifest,
        training=_samples(config, data, tokenizer, shape),
        validation=validation,
        probes=Probes(evaluation, tokenizer, validation),
        masker=_masker(config, data, tokenizer),
        device=device,
        precision=resolve_precision(config.precision, device),
    )


def _samples(
    config: PretrainConfig, data: TokenData, tokenizer: Tokenizer, shape: EncoderConfig
) -> SampleStream:
    return SampleStream(
        data,
        config.sequence_length,
        tokenizer.bos_id,
        tokenizer.eos_id,
        config.seed,
        format=config.format,
        separators=1 if shape.model_type == "bert" else 2,
    )


def _masker(config: PretrainConfig, data: TokenData, tokenizer: Tokenizer) -> Masker:
    words = open_words(data, tokenizer) if config.masking.unit != "token" else None
    ids = (tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
    return Masker(config.masking, config.seed, *ids, words)


def _shape(config: PretrainConfig, tokenizer: Tokenizer) -> EncoderConfig:
    following = config.predicts_next_sentence
    if config.init_from is None or config.grow:
        return config.model.resolve(
            config.sequence_length,
            next_sentence=following,
            vocab_size=tokenizer.vocab_size,
            pad_token_id=tokenizer.pad_id,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_id,
        )
    shape, _ = load_encoder_config(Path(config.init_from))
    dropout = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    if config.model != ModelConfig(**{name: getattr(config.model, name) for name in dropout}):
        log.warning("init_from gives the shape of the model; what model says is ignored, but for dropout")
    shape = shape.replace(next_sentence=following, **{name: getattr(config.model, name) for name in dropout})
    if config.extend_vocabulary:
        shape = shape.replace(vocab_size=tokenizer.vocab_size)
    tokenizer.require_size(shape.vocab_size, config.init_from)
    if config.sequence_length > shape.max_length:
        raise ConfigError(
            f'"sequence_length" is {config.sequence_length}, but {config.init_from} takes '
            f"{shape.max_length}; lower it"
        )
    return shape


def build_model(setting: PretrainSetting) -> MaskedLM:
    """The model with its first weights: random, loaded, grown, or with a longer vocabulary.

    Raises:
        UserError: the weights cannot be read or do not fit.
    """
    config, shape = setting.config, setting.shape
    model = MaskedLM(shape)
    initialize(model, config.seed, shape.initializer_range)
    if config.init_from is None:
        return model
    source = Path(config.init_from)
    if not (config.grow or config.extend_vocabulary):
        load_weights(model, source)
        return model
    small = MaskedLM(load_encoder_config(source)[0])
    initialize(small, config.seed, small.config.initializer_range)
    load_weights(small, source)
    state, old = small.state_dict(), small.config
    if config.extend_vocabulary:
        pieces = _new_entries(setting, old)
        state, old = extend_vocabulary(state, old, len(pieces), "mean", pieces)
    if config.grow:
        state = tile_weights(state, old, shape)
    # A head that only the new model has keeps its random weights.
    model.load_state_dict(state, strict=False)
    return model


class PlannedModel(NamedTuple):
    """A model as the engine of a run takes it.

    Attributes:
        model: with its first weights, or on the meta device.
        first_weights: gives them in the second case.
    """

    model: MaskedLM
    first_weights: Callable[[], Iterator[Block]] | None = None


def plan_model(setting: PretrainSetting) -> PlannedModel:
    """The model of `build_model`; for fsdp2 without memory, and with a source of the same weights.

    What is grown or gets a longer vocabulary is built whole, whatever the engine.

    Raises:
        UserError: the weights cannot be read or do not fit.
    """
    config, shape = setting.config, setting.shape
    if config.parallel.engine != "fsdp2" or config.grow or config.extend_vocabulary:
        return PlannedModel(build_model(setting))
    with torch.device("meta"):
        model, kept = MaskedLM(shape), MaskedLM(shape)
    # Nothing may be refused any more when a run has begun to write.
    read = None if config.init_from is None else read_weights(kept, Path(config.init_from))

    def first_weights() -> Iterator[Block]:
        loaded = set()
        for block in read() if read is not None else ():
            loaded.add(block.name)
            yield block
            del block  # before the next one is read
        yield from initial_weights(kept, config.seed, shape.initializer_range, without=loaded)

    return PlannedModel(model, first_weights)


def _new_entries(setting: PretrainSetting, old: EncoderConfig) -> list[list[int]]:
    """For each new entry of the vocabulary, the old ones that it is made of."""
    from ..tokens.extend import read_extension

    folder = setting.training.data.folder / "tokenizer"
    extension = read_extension(folder)
    if extension is None or extension.base_vocab_size != old.vocab_size:
        raise TokenizerError(
            f"{folder}: was not made by extending the {old.vocab_size} entries of "
            f"{setting.config.init_from}; prepare the data with tokenizer.path set to that model and "
            "tokenizer.extend to a number"
        )
    return [list(entry.pieces) for entry in extension.new]


def prepare_for_device(model: nn.Module, setting: PretrainSetting) -> None:
    """Compile, checkpoint activations and change matrix products as the config says.

    Raises:
        UserError: the device or the libraries do not offer what was asked for.
    """
    config, on_cpu = setting.config, setting.device == "cpu"
    if config.fp8:
        convert_to_fp8(model)
    again = config.activation_checkpointing
    if again == "feed-forward":
        _recompute_feed_forward(model, on_cpu)
        again = "none"
    compile_it = not on_cpu if config.compile == "auto" else config.compile
    if compile_it and on_cpu:
        raise ConfigError(
            '"compile" is true, but the device is the CPU, where our own layers are faster; drop it'
        )
    if again != "none" or not on_cpu:
        capacity = TargetCapacity(_capacity(setting)) if compile_it else None
        accelerate_model(model, compile=compile_it, activation_checkpointing=again, capacity=capacity)


def _capacity(setting: PretrainSetting) -> int:
    """Predicted positions of a micro-batch, with what chance may add."""
    config, masking = setting.config, setting.config.masking
    count = min(16, setting.training.samples_per_epoch)
    found = mask_batch(setting.training, setting.masker, 0, count, None).counts
    # Whole words and spans vary more than single tokens; by how much, some samples show.
    rate = found["expected_targets"] / found["eligible"]
    clustering = max(1.0, found["mask_variance"] / (found["eligible"] * rate * (1 - rate)))
    highest = max(masking.rate_at(0.0), masking.rate_at(1.0))
    return capacity_for(config.batch.micro_sequences * config.sequence_length, highest, clustering)


def _recompute_feed_forward(model: nn.Module, on_cpu: bool) -> None:
    if not on_cpu:
        raise ConfigError(
            '"activation_checkpointing" is "feed-forward", which exists on the CPU only; '
            "set selective or full"
        )
    for layer in model.modules():
        if isinstance(layer, EncoderLayer):
            layer.recompute_feed_forward = True
