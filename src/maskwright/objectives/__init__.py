"""Batch and model in, summed loss and counts out."""
