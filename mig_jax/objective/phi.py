"""The concave functions phi of MIG, in forms that neither cancel nor overflow.

kind    phi(x)             theta                     phi'(x)                  phi(x + d) - phi(x)
power   (x + eps)^b        b in (0, 1), eps > 0      b (x + eps)^(b - 1)      (x + eps)^b expm1(b log1p(d / (x + eps)))
exp     1 - exp(-alpha x)  alpha > 0                 alpha exp(-alpha x)      exp(-alpha x) (-expm1(-alpha d))
log     log(1 + x / c)     c > 0                     1 / (c + x)              log1p(d / (c + x))

A difference of two powers rises with x in 24 % of float32 steps at x = 1e5, although phi'' < 0. These forms fall:
every slope and the rises of exp and log in every float32 step tried, the rise of power up to rounding (by at most
44 ulp, 4e-6 of its value, near x = 0; 6 ulp, 7e-7, from x = 1,000 on). The engine therefore decides in float64, and
uses float32 only for bounds.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.core.errors import UserError

KINDS = ("power", "exp", "log")
WIDE = "from 1e-9 to 1e9; beyond, gains leave float32's range"


@partial(jax.tree_util.register_dataclass, data_fields=["a", "eps"], meta_fields=["kind"])
@dataclass(frozen=True)
class Phi:
    """One phi. ``a`` is the exponent b, the rate alpha or the scale c: data, so that a sweep over it compiles once."""

    kind: str = field(default="power")
    a: Any = 0.8  # a float, or a tracer where jax.jit traces it
    eps: Any = 1e-6

    def slope(self, x: Any) -> Any:
        """phi'(x), elementwise, x >= 0."""
        xp = np if isinstance(x, np.ndarray | float) else jnp
        if self.kind == "power":
            return self.a * xp.power(x + self.eps, self.a - 1)
        if self.kind == "exp":
            return self.a * xp.exp(-self.a * x)
        return 1.0 / (self.a + x)

    def height(self, x: Any) -> Any:
        """The factor of a rise that depends on x alone, and costs most; reuse it for several rises at one x."""
        xp = np if isinstance(x, np.ndarray | float) else jnp
        if self.kind == "power":
            return xp.power(x + self.eps, self.a)
        if self.kind == "exp":
            return xp.exp(-self.a * x)
        return x

    def rise(self, x: Any, d: Any, height: Any = None) -> Any:
        """phi(x + d) - phi(x), elementwise, x >= 0, d >= 0; ``height`` is height(x)."""
        xp = np if isinstance(x, np.ndarray | float) else jnp
        height = self.height(x) if height is None else height
        if self.kind == "power":
            return height * xp.expm1(self.a * xp.log1p(d / (x + self.eps)))
        if self.kind == "exp":
            return height * -xp.expm1(-self.a * d)
        return xp.log1p(d / (self.a + x))

    def value(self, x: Any) -> Any:
        """phi(x) - phi(0), elementwise: the information of an empty selection is 0."""
        return self.rise(x * 0.0, x)

    @property
    def settings(self) -> dict[str, float]:
        """The keys of ``phi.*`` that make it, without the kind."""
        if self.kind == "power":
            return {"exponent": float(self.a), "eps": float(self.eps)}
        return {"alpha" if self.kind == "exp" else "c": float(self.a)}

    @property
    def at_zero(self) -> float:
        """phi(0). The reference's objective is ours plus L phi(0)."""
        return float(self.eps**self.a) if self.kind == "power" else 0.0


def make_phi(
    kind: str = "power", *, exponent: float = 0.8, eps: float = 1e-6, alpha: float = 1.0, c: float = 1.0
) -> Phi:
    """A Phi from the keys of ``phi.*``.

    Raises:
      UserError: a key is out of range.
    """
    if kind not in KINDS:
        raise UserError(key="phi", value=kind, allowed=KINDS)
    if kind == "power":
        _check("phi.exponent", exponent, 0 < exponent < 1, "between 0 and 1, both excluded (the paper uses 0.8)")
        _check("phi.eps", eps, 1e-15 <= eps <= 1, "from 1e-15 to 1 (the paper uses 1e-6)")
        return Phi("power", float(exponent), float(eps))
    if kind == "exp":
        _check("phi.alpha", alpha, 1e-9 <= alpha <= 1e9, WIDE)
        return Phi("exp", float(alpha), 0.0)
    _check("phi.c", c, 1e-9 <= c <= 1e9, WIDE)
    return Phi("log", float(c), 0.0)


def _check(key: str, value: float, good: bool, allowed: str) -> None:
    if not good:
        raise UserError(key=key, value=value, allowed=allowed)
