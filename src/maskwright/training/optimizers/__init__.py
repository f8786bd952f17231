"""Optimisers, one file each, with the parameter groups that RoBERTa uses."""

from .config import OptimizerConfig
from .factory import OptimizerFactory, optimizer_factory

__all__ = ["OptimizerConfig", "OptimizerFactory", "optimizer_factory"]
