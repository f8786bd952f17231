"""Token data for people who train elsewhere, and theirs for us: Megatron files and Hugging Face datasets."""

from .hf_datasets import export_hf_dataset
from .megatron import MegatronFile, export_megatron, import_megatron

__all__ = ["MegatronFile", "export_hf_dataset", "export_megatron", "import_megatron"]
