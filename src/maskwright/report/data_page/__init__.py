"""The data report: what `maskwright prepare` read, kept and left out, on one page for people."""

from .build import build_data_report

__all__ = ["build_data_report"]
