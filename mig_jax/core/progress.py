"""Progress of long work. A library does not print: it calls a ``Progress`` that its caller passes in."""

from typing import Protocol, runtime_checkable

_SI = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))
_TIMES = ((86_400, "d"), (3_600, "h"), (60, "min"))


@runtime_checkable  # for the type checks of the tests
class Progress(Protocol):
    """``progress(stage, done, total, unit)``.

    Args:
      stage: the name of the work.
      done, total: counts; ``total`` is None where it is not known beforehand.
      unit: what is counted, in the plural ("rows"). Sizes in "bytes" are shown in kB, MB, GB. With a unit the rate and
        the remaining time are shown too.
    """

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "", /) -> None: ...


def silent(stage: str, done: int, total: int | None, unit: str = "", /) -> None:
    """The default: no output."""


def amount(done: int, total: int | None, unit: str = "") -> str:
    """``1,200 of 8,000 tokens``, ``3.2 of 3.3 GB``."""
    if unit != "bytes":
        return f"{done:,}" + (f" of {total:,}" if total else "") + (f" {unit}" if unit else "")
    size, name = _scale(total or done)
    counts = [f"{count / size:,.{int(size > 1)}f}" for count in (done, total) if count is not None]
    return f"{' of '.join(counts if total else counts[:1])} {name}"


def speed(rate: float, unit: str) -> str:
    """A rate in three significant digits, below 10 in two: ``52,300 tokens/s``, ``0.28 rows/s``, ``310 MB/s``."""
    if unit == "bytes":
        size, unit = _scale(rate)
        rate = rate / size
    return f"{float(f'{rate:.3g}'):,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"


def duration(seconds: float) -> str:
    """A time to wait, rounded: ``59 s``, ``2 min``, ``1.5 h``, ``2.3 d``."""
    for size, name in _TIMES:
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size or name == 'min' else 1}f} {name}"
    return f"{seconds:.0f} s"


def _scale(size: float) -> tuple[int, str]:
    return next((scale for scale in _SI if size >= scale[0]), _SI[-1])
