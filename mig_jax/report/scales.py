"""From values to pixels, and the round numbers that stand on an axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` on pixels from ``start`` to ``end``, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = (math.log(max(one, 1e-300)) for one in (value, low, high))
        return self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0)

    def ticks(self, about: int) -> list[float]:
        """Round numbers between ``low`` and ``high``."""
        if self.logarithmic:
            return log_ticks(self.low, self.high)
        return even_ticks(self.low, self.high, about)


def nice_ticks(top: float, about: int) -> list[float]:
    """Round numbers from 0 to ``top`` or just above, about so many: 1, 2 or 5 times a power of ten apart."""
    rough = max(top, 1e-300) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * at for at in range(math.ceil(top / step * 0.999) + 1)]


def even_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, evenly apart."""
    step = nice_ticks(high - low, about)[1]
    digits = max(0, 1 - math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, digits) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``; where these are few, their multiples too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high > 3000 * low else (1, 2, 5) if high > 12 * low else (1, 1.5, 2, 3, 4, 5, 7)
    return [10.0**power * factor for power in powers for factor in factors if low <= 10.0**power * factor <= high]


def tick_text(value: float) -> str:
    """``25000`` -> ``25k``."""
    if abs(value) >= 1e12:
        return f"{value:.3g}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / 1e3 if unit == 'k' else value / size:g}{unit}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights moved as little as is needed for a distance of ``gap``; from ``low`` to ``high`` if they fit."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    out = [0.0] * len(wanted)
    before = low - gap
    for at in order:
        before = out[at] = max(wanted[at], before + gap)
    after = high + gap
    for at in reversed(order):
        after = out[at] = min(out[at], after - gap)
    return out
