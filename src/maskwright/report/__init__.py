"""The reports: the files of a run or of a data folder become one HTML page that needs no network."""

from .build import build_report, write_report
from .data_page import build_data_report

__all__ = ["build_data_report", "build_report", "write_report"]
