"""Numbers as people read them."""

NO_LABELS = "no labels: E(D) is not known"


def count(value: float | None) -> str:
    """12345 -> ``12,345``; None -> a dash."""
    return "–" if value is None else f"{round(value):,}"


def row_count(value: int) -> str:
    """12345 -> ``12,345 rows``."""
    return f"{count(value)} row{'s' * (value != 1)}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, whole ones uncut, thousands apart; None (not finite) -> a dash."""
    if value is None:
        return "–"
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}" if abs(value) >= 1e-4 else f"{value:.{digits - 1}e}"


def share(part: float, whole: float) -> str:
    """A percentage that does not round something to nothing or almost all to all."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent % 100 else f"{percent:.0f} %"


def floor_percent(ratio: float) -> str:
    """A proven share in percent with one digit, never rounded up: 0.93199 -> ``93.1``."""
    # The tenth of a billionth undoes what 1000 * ratio loses when the ratio is a round decimal.
    return f"{int(1000 * ratio + 1e-10) / 10:.1f}"


def bytesize(value: float | None) -> str:
    """A size: ``312 MiB``, ``1.24 GiB``; None -> a dash."""
    if value is None:
        return "–"
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.0f} {unit}" if value >= 100 * size else f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def seconds(value: float | None) -> str:
    """A duration: ``0.21 s``, ``14 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
