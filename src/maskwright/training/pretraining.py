"""Pretrain a masked language model: from a data folder to an exported encoder and its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.config import dump_config
from ..core.errors import ConfigError, TokenizerError
from ..core.files import write_json
from ..core.log import get_logger
from ..core.machine import describe_machine, library_versions, peak_memory_bytes
from ..model.config import EncoderConfig
from ..model.encoder import initialize
from ..model.heads import MaskedLM
from ..model.hf import export_model, load_encoder_config, load_weights
from ..objectives.masking import Masker
from ..objectives.mlm import MaskedLMStream, fixed_batches, masked_lm_loss
from ..parallel.engine import Engine
from ..parallel.single import SingleEngine
from ..planner.flops import model_flops_per_token
from ..tokens.manifest import Manifest
from ..tokens.shards import TokenData, open_split
from ..tokens.stream import SampleStream
from ..tokens.tokenizer import Tokenizer
from .checkpoint import Checkpoints
from .device import measure_matrix_peak, resolve_device, resolve_precision
from .hooks import Hook, Record, standard_hooks
from .loop import Parts, Plan, train
from .mlm_evaluation import measure
from .optimizers import optimizer_factory
from .pretrain_config import ModelConfig, PretrainConfig
from .samples import sample_predictions
from .schedules import learning_rate
from .unigram import unigram_loss

__all__ = ["run_pretraining"]

log = get_logger(__name__)
VERSIONS = ("maskwright", "torch", "tokenizers", "gigatoken", "numpy", "transformers")


@dataclass(frozen=True)
class _Setting:
    """What a run works with, after everything is opened and checked."""

    config: PretrainConfig
    shape: EncoderConfig
    tokenizer: Tokenizer
    manifest: Manifest
    training: SampleStream
    validation: SampleStream
    masker: Masker
    device: str
    precision: str


def _open(config: PretrainConfig) -> _Setting:
    folder = Path(config.data)
    training = open_split(folder, "train")
    manifest = training.manifest
    tokenizer = Tokenizer.load(folder / "tokenizer")
    if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
        raise TokenizerError(
            f"{folder / 'tokenizer'}: was changed after the shards were made (its fingerprint is "
            f"{tokenizer.fingerprint}, theirs {manifest.tokenizer.fingerprint}); prepare the data again"
        )
    shape = _shape(config, tokenizer)
    device = resolve_device(config.device)
    masker = Masker(
        config.masking, config.seed, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids
    )

    def stream(data: TokenData, *, shuffle: bool) -> SampleStream:
        length, ids = config.sequence_length, (tokenizer.bos_id, tokenizer.eos_id)
        return SampleStream(data, length, *ids, config.seed, shuffle=shuffle)

    return _Setting(
        config=config,
        shape=shape,
        tokenizer=tokenizer,
        manifest=manifest,
        training=stream(training, shuffle=True),
        validation=stream(open_split(folder, "validation", manifest), shuffle=False),
        masker=masker,
        device=device,
        precision=resolve_precision(config.precision, device),
    )


def _shape(config: PretrainConfig, tokenizer: Tokenizer) -> EncoderConfig:
    if config.init_from is None:
        return config.model.resolve(tokenizer.vocab_size, config.sequence_length, tokenizer.pad_id)
    if config.model != ModelConfig():
        log.warning("init_from gives the shape of the model; what model says is ignored")
    shape, _ = load_encoder_config(Path(config.init_from))
    tokenizer.require_size(shape.vocab_size, config.init_from)
    if config.sequence_length > shape.max_length:
        raise ConfigError(
            f'"sequence_length" is {config.sequence_length}, but {config.init_from} takes '
            f"{shape.max_length}; lower it"
        )
    return shape


def _evaluator(setting: _Setting) -> Callable[[Engine], Record]:
    config = setting.config

    def evaluate(engine: Engine) -> Record:
        batches = fixed_batches(
            setting.validation, setting.masker, config.evaluation.sequences, config.batch.micro_sequences
        )
        return measure(batches, lambda batch: engine.forward(masked_lm_loss, batch))

    return evaluate


def _plan(setting: _Setting, peak: float) -> Plan:
    config = setting.config
    shape = setting.shape
    flops = model_flops_per_token(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        sequence_length=config.sequence_length,
        head_positions_share=config.masking.mlm_probability,
    )
    return Plan(
        total_steps=config.steps,
        evaluate_every=config.evaluation.every_steps,
        checkpoint_every=config.checkpoint.every_steps,
        log_every=config.log_every_steps,
        learning_rate=lambda step: learning_rate(config.schedule, config.optimizer.lr, step, config.steps),
        flops_per_token=flops.training,
        peak_flops=peak,
    )


def run_pretraining(
    config: PretrainConfig,
    folder: Path,
    hooks: Sequence[Hook] = (),
    claim: Callable[[], None] = lambda: None,
) -> Record:
    """Train, evaluate, export.

    Args:
        config: what to do.
        folder: the run's folder; holds `config.yaml` already. A checkpoint in it is gone on from.
        hooks: further watchers.
        claim: called when everything is opened and checked, before anything is written.

    Returns:
        The summary, which is also written to `summary.json`.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: data, model or a value cannot be used; nothing was lost.
    """
    setting = _open(config)
    model = _build(setting)
    claim()
    peak = measure_matrix_peak(setting.device, setting.precision)
    engine = SingleEngine(
        model, optimizer_factory(config.optimizer), setting.device, setting.precision, config.max_grad_norm
    )
    about = {"config": dump_config(config), "versions": library_versions(VERSIONS)}
    parts = Parts(
        stream=MaskedLMStream(
            setting.training, setting.masker, config.batch.sequences, config.batch.micro_sequences
        ),
        objective=masked_lm_loss,
        engine=engine,
        checkpoints=Checkpoints(folder / "checkpoints", config.checkpoint.keep, about),
        evaluate=_evaluator(setting),
        hooks=standard_hooks(folder, config.steps, hooks),
    )
    _announce(setting, engine, peak)
    result = train(parts, _plan(setting, peak))
    return _finish(setting, engine, result, peak, folder)


def _build(setting: _Setting) -> MaskedLM:
    model = MaskedLM(setting.shape)
    initialize(model, setting.config.seed, setting.shape.initializer_range)
    if setting.config.init_from is not None:
        load_weights(model, Path(setting.config.init_from))
    return model


def _announce(setting: _Setting, engine: SingleEngine, peak: float) -> None:
    parameters = sum(master.numel() for master in engine.masters)
    log.info(
        "%s parameters, %s training tokens, %s on %s, matrix peak %.2f TFLOP/s",
        f"{parameters:,}",
        f"{setting.training.data.num_tokens:,}",
        setting.precision,
        setting.device,
        peak / 1e12,
    )
    shares = setting.training.samples_by_source
    if len(shares) > 1:
        parts = (f"{name} {count / setting.training.samples_per_epoch:.2%}" for name, count in shares.items())
        log.info("samples by source: %s", ", ".join(parts))


def _finish(setting: _Setting, engine: SingleEngine, result: Record, peak: float, folder: Path) -> Record:
    config, tokenizer = setting.config, setting.tokenizer
    final = MaskedLM(setting.shape)
    final.load_state_dict(engine.weights())
    export_model(folder / "export", final, setting.shape)
    tokenizer.save(folder / "export", setting.shape.max_length)
    samples = sample_predictions(final, tokenizer, setting.validation, setting.masker)
    probability = config.masking.mlm_probability
    summary = {
        "steps": result["step"],
        "validation_loss": result["loss"],
        "validation_accuracy": result["accuracy"],
        "validation_perplexity": result["perplexity"],
        "unigram_loss": _baseline(setting),
        "mask_rate_target": probability,
        "mask_rate_interval": _mask_rate_interval(setting, probability),
        "num_parameters": sum(master.numel() for master in engine.masters),
        "seconds": result["seconds"],
        "tokens_seen": result["tokens_seen"],
        "tokens_per_second": result["tokens_seen"] / max(result["seconds"], 1e-9),
        "flops_per_token": _plan(setting, peak).flops_per_token,
        "matrix_peak_flops": peak,
        "peak_memory_bytes": peak_memory_bytes(),
        "precision": setting.precision,
        "data_fingerprint": setting.manifest.fingerprint,
        "machine": describe_machine(),
        "versions": library_versions(VERSIONS),
        "samples": samples,
    }
    summary["peak_share"] = summary["tokens_per_second"] * summary["flops_per_token"] / peak
    write_json(folder / "summary.json", summary)
    return summary


def _baseline(setting: _Setting) -> float:
    config = setting.config
    batches = fixed_batches(
        setting.validation, setting.masker, config.evaluation.sequences, config.batch.micro_sequences
    )
    labels = (batch.labels_M.numpy() for batch in batches)
    return unigram_loss(setting.validation.data.token_counts(), labels, setting.tokenizer.special_ids)


def _mask_rate_interval(setting: _Setting, probability: float) -> list[float]:
    """Where 99.9 % of mask rates of one training record should lie, by the binomial law."""
    config = setting.config
    tokens = config.batch.sequences * setting.training.window * config.log_every_steps
    reach = 3.29 * math.sqrt(probability * (1 - probability) / tokens)
    return [probability - reach, probability + reach]
