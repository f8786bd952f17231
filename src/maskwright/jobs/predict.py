"""Load an exported model and use it: classify texts, or fill masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import CheckpointError
from ..model.hf import load_encoder_config

__all__ = ["Predictor", "load"]


class Predictor(Protocol):
    """What every loaded model can do; a seam because each task answers in its own way."""

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """One answer a text."""


def load(path: str | Path) -> Predictor:
    """Load a model for prediction.

    Args:
        path: a finished run, or a Hugging Face folder.

    Returns:
        A classifier whose answers have `label`, `probability` and `scores`; or a masked language
        model whose answers have `fills` for each `<mask>` in the text.

    Raises:
        CheckpointError: there is no model, or of an unknown kind.
        TokenizerError: its tokenizer is missing or does not fit.
    """
    from ..core.allocator import keep_large_buffers
    from ..tasks.classification.finetune import find_model

    keep_large_buffers()
    folder = find_model(str(path))
    _, values = load_encoder_config(folder)
    kinds = [str(kind) for kind in values.get("architectures") or ["nothing"]]
    if any(kind.endswith("ForSequenceClassification") for kind in kinds):
        from ..tasks.classification.predictor import ClassificationPredictor

        return ClassificationPredictor(folder)
    if any(kind.endswith(("ForMaskedLM", "ForPreTraining")) for kind in kinds):
        from ..training.fill_mask import FillMaskPredictor

        return FillMaskPredictor(folder)
    raise CheckpointError(
        f"{folder}: holds a {kinds[0]}, which predict does not know; it knows classifiers and masked LMs"
    )
