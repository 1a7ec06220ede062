"""The peak of a run's memory is that run's."""

import numpy as np
import pytest

from mig_jax.core import memory
from mig_jax.core.memory import PeakMemory

MB = 1 << 20


def touched(megabytes: int) -> int:
    return int(np.ones(megabytes * MB, np.uint8)[-1])


def test_the_peak_counts_from_where_it_is_made():
    touched(300)
    peak = PeakMemory()
    if peak.since == "process":
        pytest.skip("this system does not let the count begin anew")
    before = peak.facts()["peak_bytes"]
    touched(200)
    assert peak.facts() == {"peak_bytes": pytest.approx(before + 200 * MB, abs=100 * MB), "since": "run"}


def test_elsewhere_it_is_that_of_the_process(tmp_path, monkeypatch):
    for name in ("_RESET", "_STATUS"):
        monkeypatch.setattr(memory, name, tmp_path / "none" / name)
    facts = PeakMemory().facts()
    assert facts["since"] == "process" and facts["peak_bytes"] > 30 * MB
