"""What is checked once before the first step of a pretraining run, on a few of its samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.heads import MaskedLM
from ..model.layout import Layout
from ..objectives.mlm import MaskedLMStream, masked_lm_loss
from ..tokens.formats.checking import check_samples
from .guards import Guards, Probe, check_accumulation, check_probe, describe_samples
from .pretrain_setting import PretrainSetting

__all__ = ["check_beginning"]

_PROBE_SAMPLES = 4
_MOST_SAMPLES = 1 << 16


def check_beginning(
    setting: PretrainSetting, model: torch.nn.Module | None, stream: MaskedLMStream, guards: Guards
) -> None:
    """Look for faults that raise no error: in the order of samples, the masks, and who sees whom.

    Args:
        setting: what the run works with.
        model: on its device, with its first weights; None where it lies in shards, and what is computed
            with it cannot be checked.
        stream: batches of the run.
        guards: decide what a fault does.

    Raises:
        MaskwrightError: a fault ends the run.
    """
    if not guards.active:
        return
    samples, eos_id = setting.training, setting.tokenizer.eos_id
    guards.tell(0, describe_samples(samples, eos_id))
    some = min(2 * samples.samples_per_epoch, _MOST_SAMPLES)
    guards.judge("sampler", 0, check_samples(samples, some))
    plain = samples.batch(0, _PROBE_SAMPLES)
    masked = stream.batch(0, _PROBE_SAMPLES)
    probe = Probe(
        plain.ids,
        plain.positions,
        plain.lengths.tolist(),
        masked.ids_N.numpy(),
        masked.targets_M.numpy(),
        masked.labels_M.numpy(),
    )
    layout = Layout(masked.lengths, setting.device)

    def encode(ids_N: Tensor) -> Tensor:
        assert isinstance(model, MaskedLM)
        with torch.no_grad():
            return model.encode(ids_N.to(setting.device), layout)

    apart = setting.config.attention == "document" and model is not None
    check_probe(guards, 0, probe, setting.masker, encode if apart else None, eos_id)
    if guards.config.accumulation and model is not None:
        parts = [stream.batch(number, 1) for number in range(_PROBE_SAMPLES)]
        guards.judge("accumulation", 0, check_accumulation(model, masked_lm_loss, [masked], parts))
