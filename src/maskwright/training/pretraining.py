"""Pretrain a masked language model: from a data folder to an exported encoder and its numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.config import dump_config
from ..core.files import write_json, write_text
from ..core.lock import lock_folder
from ..core.log import get_logger
from ..core.machine import describe_machine, library_versions, peak_memory_bytes
from ..model.heads import MaskedLM
from ..model.hf import export_model
from ..objectives.masking import Expectation
from ..objectives.masking.guards import rate_interval
from ..objectives.mlm import MaskedLMStream, mask_batch, masked_lm_loss
from ..objectives.step_sizes import StepSizes
from ..parallel.config import is_sharded
from ..parallel.engine import Engine
from ..parallel.factory import EngineParts, make_engine
from ..parallel.world import SOLO, World, open_world
from ..planner.flops import model_flops_per_token
from ..tokens.verification import DataCheck
from .agreement import agree_on_folder
from .beginning import check_beginning
from .checkpoints import Checkpoints, check_address
from .device import measure_matrix_peak, resolve_device, set_tf32
from .guards import Guards, RateGuard
from .hooks import Hook, Record, standard_hooks, tracking_hooks
from .identity import VERSIONS, RunIdentity
from .loop import train
from .optimizers import optimizer_factory
from .parts import Parts, Plan
from .pretrain_config import PretrainConfig
from .pretrain_setting import PlannedModel, PretrainSetting, open_setting, plan_model, prepare_for_device
from .profiling import Profiler
from .samples import sample_predictions
from .schedules import BatchWarmup, Schedule
from .spikes import SpikeGuard, point_to_samples
from .unigram import mixture_counts
from .watching import RunWatch, tell_of_lost_ranks

__all__ = ["run_pretraining"]

log = get_logger(__name__)


def _evaluator(setting: PretrainSetting) -> Callable[[Engine], Record]:
    def evaluate(engine: Engine) -> Record:
        record = setting.validation.measure(lambda batch: engine.forward(masked_lm_loss, batch), engine.world)
        if is_sharded(setting.config.parallel):
            return record  # no rank has the whole model; the exported one is measured at the end
        assert isinstance(engine.model, MaskedLM)
        return record | setting.probes.while_training(engine.model)

    return evaluate


def _plan(setting: PretrainSetting, peak: float, world: World = SOLO) -> Plan:
    config = setting.config
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    flops = model_flops_per_token(
        **{name: getattr(setting.shape, name) for name in names},
        sequence_length=config.sequence_length,
        head_positions_share=config.masking.mlm_probability,
    )
    return Plan(
        schedule=Schedule(config.schedule, config.optimizer.lr, config.steps),
        evaluate_every=config.evaluation.every_steps,
        checkpoint_every=config.checkpoint.every_steps,
        log_every=config.log_every_steps,
        flops_per_token=flops.training,
        peak_flops=peak,
        device=setting.device,
        processes="" if world.size == 1 else f"{world.size} processes, {config.parallel.resolve(world.size)}",
    )


def _stream(setting: PretrainSetting, world: World = SOLO, force: bool = False) -> MaskedLMStream:
    config, batch = setting.config, setting.config.batch
    # Neither micro-batches nor processes have a say in what a step is.
    growth = BatchWarmup(batch.sequences, batch.warmup_from or 1, batch.warmup_from, batch.warmup_samples)
    sizes = StepSizes(
        setting.training,
        growth.sequences_at,
        batch.micro_sequences,
        config.format.fills_tokens,
        batch.model_dump(exclude={"micro_sequences"}),
    )
    return MaskedLMStream(
        setting.training,
        setting.masker,
        sizes,
        config.attention,
        next_sentence=config.predicts_next_sentence,
        rank=world.data_rank,
        world_size=world.data_size,
        force=force,
    )


def _spike_guard(setting: PretrainSetting) -> SpikeGuard:
    samples = setting.training
    return SpikeGuard(
        setting.config.spikes,
        lambda numbers: [str(place) for place in point_to_samples(samples.data, samples.batch, numbers)],
    )


def run_pretraining(
    config: PretrainConfig,
    folder: Path,
    hooks: Sequence[Hook] = (),
    claim: Callable[[], None] = lambda: None,
    *,
    force: bool = False,
) -> Record:
    """Train, evaluate, export.

    Args:
        config: what to do.
        folder: the run's folder; a checkpoint in it is gone on from. Gets `config.yaml` when all fits.
        hooks: further watchers.
        claim: called when everything is opened and checked, before anything is written.
        force: go on from a checkpoint of other data or another order.

    Returns:
        The summary, which is also written to `summary.json`.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: data, model or a value cannot be used; nothing was lost.
    """
    patience = config.parallel.timeout_seconds
    with open_world(resolve_device(config.device), patience) as processes, tell_of_lost_ranks(processes):
        world = processes.share_layers(config.parallel.tensor)
        setting = open_setting(config)
        planned = plan_model(setting)
        identity = RunIdentity(setting, world, force=force)

        def check_and_claim() -> None:
            place = folder / "checkpoints"
            check_address(config.checkpoint.upload, place, identity.differs, patience)
            claim()

        with _held(world, folder, check_and_claim):
            agree_on_folder(world, folder)
            return _run(setting, identity, planned, world, folder, hooks, force)


@contextlib.contextmanager
def _held(world: World, folder: Path, claim: Callable[[], None]) -> Iterator[None]:
    """Claim the folder of a run, and let no other run work in it until this one ends."""
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            # A new folder is made by the claim: one that is refused leaves none behind.
            if there := folder.exists():
                stack.enter_context(lock_folder(folder))
            claim()
            if not there:
                stack.enter_context(lock_folder(folder))

        world.on_main(hold)
        yield


def _run(
    setting: PretrainSetting,
    identity: RunIdentity,
    planned: PlannedModel,
    world: World,
    folder: Path,
    hooks: Sequence[Hook],
    force: bool,
) -> Record:
    config = setting.config
    set_tf32(config.tf32)
    peak = measure_matrix_peak(setting.device, "fp8" if config.fp8 else setting.precision)
    num_parameters = sum(parameter.numel() for parameter in planned.model.parameters())
    stream = _stream(setting, world, force)
    engine = _engine(setting, planned, world)
    # Nothing is written before everything is made, so that a value that is refused leaves no run behind.
    watchers = _watchers(setting, folder, hooks) if world.is_main else []
    guards = Guards(config.guards, watchers)
    profiler = Profiler(config.profile, folder, engine, stream)

    def finish(result: Record) -> Record:
        weights, summary = engine.weights(), dict[str, Any]()
        # The others stay meanwhile: whoever starts processes would take a machine that leaves for the end.
        world.patient().on_main(
            lambda: summary.update(_finish(setting, weights, result, peak * world.size, folder, world))
        )
        return summary

    data_check = DataCheck([setting.training.data, setting.validation.data], world.rank, world.size)
    parts = Parts(
        stream=stream,
        objective=masked_lm_loss,
        engine=engine,
        checkpoints=Checkpoints(
            folder / "checkpoints",
            config.checkpoint,
            identity.about,
            world,
            config.parallel.timeout_seconds,
            identity.differs,
        ),
        evaluate=_evaluator(setting),
        hooks=[*watchers, RateGuard(guards, config.masking.mlm_probability)] if world.is_main else [],
        spikes=_spike_guard(setting),
        profile=profiler.step,
        filler=stream.filler,
        begun=lambda: write_text(folder / "config.yaml", dump_config(config)),
        check=data_check.raise_damage,
        finish=finish,
        watch=RunWatch(
            folder, world, config.parallel.timeout_seconds, {"versions": library_versions(VERSIONS)}
        ),
    )
    if world.is_main:
        _announce(setting, num_parameters, peak, world)
    check_beginning(setting, None if is_sharded(config.parallel) else engine.model, stream, guards)
    data_check.start()
    try:
        return train(parts, _plan(setting, peak, world))
    finally:
        data_check.close()
        profiler.close()
        setting.training.data.place.close()


def _watchers(setting: PretrainSetting, folder: Path, hooks: Sequence[Hook]) -> list[Hook]:
    config = setting.config
    tracking = tracking_hooks(config.tracking, folder, config.model_dump(mode="json"), config.steps)
    return standard_hooks(folder, config.steps, [*hooks, *tracking])


def _engine(setting: PretrainSetting, planned: PlannedModel, world: World) -> Engine:
    config = setting.config
    parts = EngineParts(
        planned.model,
        optimizer_factory(config.optimizer, setting.shape.num_attention_heads),
        setting.device,
        setting.precision,
        config.max_grad_norm,
        lambda model: prepare_for_device(model, setting),
        config.batch.sequences,
        config.batch.micro_sequences,
        planned.first_weights,
    )
    return make_engine(config.parallel, parts, world)


def _announce(setting: PretrainSetting, num_parameters: int, peak: float, world: World) -> None:
    if world.size > 1:
        log.info(_plan(setting, peak, world).processes)
    log.info(
        "%s parameters, %s training tokens, %s on %s, matrix peak %.2f TFLOP/s a process",
        f"{num_parameters:,}",
        f"{setting.training.data.num_tokens:,}",
        setting.precision,
        setting.device,
        peak / 1e12,
    )
    shares = setting.training.samples_by_source
    if len(shares) > 1:
        parts = (f"{name} {count / setting.training.samples_per_epoch:.2%}" for name, count in shares.items())
        log.info("samples by source: %s", ", ".join(parts))


def _finish(
    setting: PretrainSetting,
    weights: dict[str, Tensor],
    result: Record,
    peak: float,
    folder: Path,
    world: World,
) -> Record:
    config, tokenizer = setting.config, setting.tokenizer
    with torch.device("meta"):
        final = MaskedLM(setting.shape)
    # Takes the tensors over: there is one copy of them.
    final.load_state_dict(weights, assign=True)
    export_model(folder / "export", final, setting.shape)
    tokenizer.save(folder / "export", setting.shape.max_length)
    samples = sample_predictions(final, tokenizer, setting.validation.largest, setting.validation.masker)
    baseline = setting.validation.baseline(mixture_counts(setting.training.data))
    probability = config.masking.mlm_probability
    summary = {
        "steps": result["step"],
        "validation_loss": result["loss"],
        "validation_accuracy": result["accuracy"],
        "validation_perplexity": result["perplexity"],
        "unigram_loss": baseline["unigram_loss"],
        "validation_sources": setting.validation.sources(result, baseline),
        **setting.probes.measure(final.to(setting.device)),
        "mask_rate_target": probability,
        "mask_rate_interval": _mask_rate_interval(setting),
        "num_parameters": sum(weight.numel() for weight in weights.values()),
        "seconds": result["seconds"],
        "tokens_seen": result["tokens_seen"],
        "tokens_per_second": result["tokens_seen"] / max(result["seconds"], 1e-9),
        "flops_per_token": _plan(setting, peak).flops_per_token,
        "matrix_peak_flops": peak,
        "peak_memory_bytes": peak_memory_bytes(),
        "precision": setting.precision,
        "processes": world.size,
        "engine": config.parallel.resolve(world.size),
        "data_fingerprint": setting.manifest.fingerprint,
        "machine": describe_machine(),
        "versions": library_versions(VERSIONS),
        "samples": samples,
    }
    summary["peak_share"] = summary["tokens_per_second"] * summary["flops_per_token"] / peak
    write_json(folder / "summary.json", summary)
    return summary


def _mask_rate_interval(setting: PretrainSetting) -> list[float]:
    """Where 99.9 % of mask rates of one full training record should lie, by the law of chance."""
    config = setting.config
    counts = mask_batch(setting.training, setting.masker, 0, min(16, config.batch.sequences), None).counts
    scale = config.batch.sequences * config.log_every_steps / min(16, config.batch.sequences)
    expected = Expectation(
        round(counts["eligible"] * scale), counts["expected_targets"] * scale, counts["mask_variance"] * scale
    )
    return list(rate_interval(expected, 1e-3))
