"""Owns the report of a study: one HTML file that is read offline, the verdict first."""

from ssmfin.reporting.data import ReportData
from ssmfin.reporting.page import write_report

__all__ = ["ReportData", "write_report"]
