"""Numbers about a run before it is started: parameters, arithmetic, memory. Imports no torch."""

from .flops import TokenFlops, model_flops_per_token, num_parameters
from .memory import TrainingMemory, training_memory_bytes

__all__ = [
    "TokenFlops",
    "TrainingMemory",
    "model_flops_per_token",
    "num_parameters",
    "training_memory_bytes",
]
