"""To and from the folders that `transformers` reads. Nothing here imports it but the parity check."""

from .config_file import load_encoder_config
from .folder import export_model, load_model, load_weights, read_weights
from .names import from_hf_names, to_hf_names
from .parity import Parity, check_parity
from .tensors import load_tensors

__all__ = [
    "Parity",
    "check_parity",
    "export_model",
    "from_hf_names",
    "load_encoder_config",
    "load_model",
    "load_tensors",
    "load_weights",
    "read_weights",
    "to_hf_names",
]
