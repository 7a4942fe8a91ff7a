"""The report of a run: one HTML file that opens anywhere, offline."""

from clickintent.report.data import ReportData
from clickintent.report.page import build
from clickintent.report.projection import project

__all__ = ["ReportData", "build", "project"]
