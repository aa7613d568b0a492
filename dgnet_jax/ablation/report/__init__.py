"""The report of a study, or of one run: one HTML page and its pictures as PNG."""

from dgnet_jax.ablation.report.page import write_report, write_run_report

__all__ = ["write_report", "write_run_report"]
