"""The report: the files of a run become one HTML page that reads anywhere, with no network."""

from .build import build_report, write_report

__all__ = ["build_report", "write_report"]
