"""95 % intervals of measurements."""

import math
import statistics

Z95 = 1.96  # the normal distribution's two-sided 95 % point
T95 = (  # for 1, 2, .. degrees of freedom, the t that Student's distribution exceeds with a probability of 2.5 %
    *(12.706204736, 4.302652730, 3.182446305, 2.776445105, 2.570581836, 2.446911851, 2.364624252, 2.306004135),
    *(2.262157163, 2.228138852, 2.200985160, 2.178812830, 2.160368656, 2.144786688, 2.131449546, 2.119905299),
    *(2.109815578, 2.100922040, 2.093024054, 2.085963447),
)


def wilson_interval(hits: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a rate (Journal of the American Statistical Association 22, 1927).

    >>> low, high = wilson_interval(5, 10)
    >>> round(low, 4), round(high, 4)
    (0.2366, 0.7634)
    """
    rate, spread = hits / trials, Z95 * Z95 / trials
    half = Z95 * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials))
    low, high = (rate + spread / 2 - half) / (1 + spread), (rate + spread / 2 + half) / (1 + spread)
    return max(0.0, low), min(1.0, high)  # rounding may pass the ends


def t95(degrees: int) -> float:
    """Half the width of the 95 % t-interval, in standard errors, to 7 digits.

    Beyond the table it is Fisher's expansion (Abramowitz and Stegun, 26.7.5).

    >>> round(t95(30), 6)
    2.042272
    """
    if degrees <= len(T95):
        return T95[degrees - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))
