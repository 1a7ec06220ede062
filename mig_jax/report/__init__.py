"""A run told to people: a summary for the terminal and a self-contained page, both from a run's files alone."""

from mig_jax.report.comparison import compare
from mig_jax.report.html import page
from mig_jax.report.run_view import RunView, load_run
from mig_jax.report.summary import summary, summary_text
from mig_jax.report.sweep import write_sweep

__all__ = ["RunView", "compare", "load_run", "page", "summary", "summary_text", "write_sweep"]
