"""Finished runs as people read them, from their folders alone: a summary for the terminal, a page, a comparison."""

from mig_jax.report.comparison import Comparison, compare
from mig_jax.report.comparison_page import comparison_page
from mig_jax.report.run_view import RunView, load_run
from mig_jax.report.selection_page import page
from mig_jax.report.summary import summary, summary_text

__all__ = ["Comparison", "RunView", "compare", "comparison_page", "load_run", "page", "summary", "summary_text"]
