"""Probabilities and quantiles of the binomial, beta and Student's t distribution, to 12 digits (10 for
millions of degrees of freedom).

All come from the regularized incomplete beta function: the continued fraction of the Digital Library of
Mathematical Functions, 8.17.22 (dlmf.nist.gov/8.17#v), times a factor that keeps its digits where a and b are
large (Loader 2000, "Fast and accurate computation of binomial probabilities"). The normal distribution is
`statistics.NormalDist` of Python itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

_TINY = 1e-300  # in place of a zero divisor in the continued fraction
_SAME = 4e-16  # a factor so near to 1 changes nothing
_LAST = 1e-13  # Newton's step after one of this part of the value would change nothing


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b): the probability that a beta variable of a > 0 and b > 0 is at most x, for x in 0..1."""
    return _incomplete_beta(a, b, x, 1 - x)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x of which I_x(a, b) is p, for p in 0..1."""
    if p <= 0 or p >= 1:
        return min(max(p, 0.0), 1.0)

    def density(x: float) -> float:
        return _beta_factor(a, b, x, 1 - x) / (x * (1 - x))

    mean = a / (a + b)
    near = NormalDist(mean, math.sqrt(mean * (1 - mean) / (a + b + 1))).inv_cdf(p)
    return _root(lambda x: incomplete_beta(a, b, x) - p, density, 0.0, 1.0, near if 0 < near < 1 else mean)


def t_tail(t: float, df: float) -> float:
    """The probability that Student's t of df > 0 degrees of freedom is above t."""
    square = df + t * t
    tail = _incomplete_beta(df / 2, 0.5, df / square, t * t / square) / 2
    return tail if t >= 0 else 1 - tail


def t_quantile(p: float, df: float) -> float:
    """The value below which Student's t of df > 0 degrees of freedom is with probability p, 0 < p < 1."""
    tail = min(p, 1 - p)
    if tail == 0.5:
        return 0.0
    most = 1.0
    while t_tail(most, df) > tail:
        most *= 2

    def density(t: float) -> float:
        square = df + t * t
        return _beta_factor(df / 2, 0.5, df / square, t * t / square) / t

    return math.copysign(_root(lambda t: tail - t_tail(t, df), density, 0.0, most, most / 2), p - 0.5)


def binomial_probability(k: int, n: int, p: float) -> float:
    """Of exactly k successes in n trials, 0 < p < 1."""
    if k in (0, n):
        return math.exp(n * (math.log1p(-p) if k == 0 else math.log(p)))
    # The beta factor is this probability times k (n - k) / n.
    return _beta_factor(k, n - k, p, 1 - p) * n / (k * (n - k))


def binomial_at_most(k: int, n: int, p: float) -> float:
    """Of k successes or fewer in n trials, 0 < p < 1."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else _incomplete_beta(n - k, k + 1, 1 - p, p)


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """I_x(a, b) where x + y is 1: of the smaller of them all digits are known."""
    if x <= 0 or y <= 0:
        return 0.0 if x <= 0 else 1.0
    # The fraction converges quickly on this side of the mean only.
    if x <= (a + 1) / (a + b + 2):
        return _beta_factor(a, b, x, y) / a * _fraction(a, b, x)
    return 1 - _beta_factor(b, a, y, x) / b * _fraction(b, a, y)


def _fraction(a: float, b: float, x: float) -> float:
    """1 / (1 + d1 / (1 + d2 / (1 + …))), from its front (the method of Lentz, Thompson and Barnett)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    value, m = d, 1
    while True:
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or _TINY)
            c = 1 + term / c or _TINY
            value *= c * d
        if abs(c * d - 1) < _SAME:
            return value
        m += 1


def _beta_factor(a: float, b: float, x: float, y: float) -> float:
    """x^a y^b / B(a, b), where x + y is 1."""
    n = a + b
    exponent = (
        _stirling_error(n)
        - _stirling_error(a)
        - _stirling_error(b)
        - _deviance(a, n * x)
        - _deviance(b, n * y)
    )
    return math.sqrt(a * b / (2 * math.pi * n)) * math.exp(exponent)


def _stirling_error(z: float) -> float:
    """What Stirling's formula lacks: ln Γ(z + 1) - (z + 1/2) ln z + z - ln √(2π)."""
    if z < 16:
        return math.lgamma(z + 1) - (z + 0.5) * math.log(z) + z - 0.5 * math.log(2 * math.pi)
    square = z * z
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / (1188 * square)) / square) / square) / square) / z


def _deviance(value: float, mean: float) -> float:
    """value ln(value / mean) + mean - value, without the cancellation where the two are near."""
    off = value - mean
    if abs(off) >= 0.1 * (value + mean):
        return value * math.log(value / mean) - off
    v = off / (value + mean)
    total, power, k = off * v, 2 * value * v, 1
    while True:
        power *= v * v
        more = total + power / (2 * k + 1)
        if more == total:
            return total
        total, k = more, k + 1


def _root(
    f: Callable[[float], float], slope: Callable[[float], float], lo: float, hi: float, x: float
) -> float:
    """Where an increasing f is zero: Newton's steps, and halves of what is left where one would leave it."""
    while True:
        at = f(x)
        if at == 0:
            return x
        lo, hi = (x, hi) if at < 0 else (lo, x)
        steepness = slope(x)
        then = x - at / steepness if steepness > 0 else lo
        if not lo < then < hi:
            then = (lo + hi) / 2
        if abs(then - x) <= _LAST * abs(then) or not lo < then < hi:
            return then
        x = then
