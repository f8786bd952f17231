"""Maskwright: from raw text to a trained, measured and served RoBERTa-class encoder."""
__version__ = "0.1.0"
