"""Finished runs told to people, from their folders alone: a summary for the terminal, a page, several runs compared."""

import importlib
from typing import TYPE_CHECKING, Any

from mig_jax.report.comparison import Comparison, compare
from mig_jax.report.run_view import RunView, load_run
from mig_jax.report.summary import summary, summary_text

if TYPE_CHECKING:
    from mig_jax.report.html import page
    from mig_jax.report.sweep import write_sweep

_DRAWN = {"page": "html", "write_sweep": "sweep"}  # by matplotlib, which takes longer to import than all else to do

__all__ = ["Comparison", "RunView", "compare", "load_run", "page", "summary", "summary_text", "write_sweep"]


def __getattr__(name: str) -> Any:
    if name in _DRAWN:
        return getattr(importlib.import_module(f"mig_jax.report.{_DRAWN[name]}"), name)
    raise AttributeError(f"module 'mig_jax.report' has no attribute {name!r}")
