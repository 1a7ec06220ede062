"""The mathematics and nothing else: phi, the two gains, E(D) and the certificate."""

from mig_jax.objective.certificate import Certificate, Feasible, certify
from mig_jax.objective.information_curve import Curve, curve
from mig_jax.objective.phi import Phi, make_phi

__all__ = ["Certificate", "Curve", "Feasible", "Phi", "certify", "curve", "make_phi"]
