"""Layers shared between ranks that see the same samples (tensor parallel)."""

from .share import partial_parameters, share_layers, sum_partial_gradients

__all__ = ["partial_parameters", "share_layers", "sum_partial_gradients"]
