"""Numbers about a run before it is started: arithmetic, memory, messages, speed. Imports no torch."""

from .communication import Traffic, step_traffic
from .flops import TokenFlops, model_flops_per_token, num_parameters
from .hardware import HARDWARE, Hardware
from .memory import RankMemory, activation_bytes, rank_memory
from .scaling import Choice, Estimate, best_mesh, predict, scaling_table
from .setup import Batch, Mesh, Shape

__all__ = [
    "HARDWARE",
    "Batch",
    "Choice",
    "Estimate",
    "Hardware",
    "Mesh",
    "RankMemory",
    "Shape",
    "TokenFlops",
    "Traffic",
    "activation_bytes",
    "best_mesh",
    "model_flops_per_token",
    "num_parameters",
    "predict",
    "rank_memory",
    "scaling_table",
    "step_traffic",
]
