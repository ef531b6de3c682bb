"""How far chance reaches, in standard errors. Apart from the metrics, so that rules need no numerical library to be read."""

from __future__ import annotations

import math
from statistics import NormalDist


def standard_errors_to(tail: float, groups: int | None) -> float:
    """How many standard errors leave so much probability beyond: of the normal distribution, or of Student's with one
    degree of freedom less than there are independent groups. Infinitely many with a single group, which tells nothing."""
    if groups is None:
        return -NormalDist().inv_cdf(tail)
    from scipy.special import stdtrit  # here, as it is slow to import

    return -float(stdtrit(groups - 1, tail)) if groups > 1 else math.inf
