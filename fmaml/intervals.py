"""Confidence intervals of measured rates."""

import math

Z95 = 1.96  # the normal distribution's two-sided 95 % point


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a rate (Journal of the American Statistical Association 22, 1927).

    >>> low, high = wilson_interval(5, 10)
    >>> round(low, 4), round(high, 4)
    (0.2366, 0.7634)
    """
    rate, spread = hits / trials, Z95 * Z95 / trials
    half = Z95 * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials))
    return (rate + spread / 2 - half) / (1 + spread), (rate + spread / 2 + half) / (1 + spread)
