"""What chance explains, and how far so many samples bound a share: binomial distributions, exact up to float64."""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, exp, fsum, lgamma, log, log1p, sqrt

CONFIDENCE = 0.95
"""Of every interval: in one of 20 data sets, at most, the true share lies outside."""
EXACT_CHANGES = 1 << 14
"""Changed answers whose binomial coefficients are added up, in milliseconds; the time grows with the square."""
SMALLEST_TERM = 2.0**-60
"""Relative to the sum so far: smaller terms of a tail fall faster than a geometric series and change no bit."""
COUNTED_SAMPLES = 1 << 16
"""Beyond this number of samples an interval is taken as narrowing with the square root, for an estimate of a number."""


def at_least(count: int, samples: int, share: float) -> float:
    """The probability that ``count`` or more of ``samples`` are right when each is right with ``share``.

    The binomial tail, summed from its largest term on; relative error below 1e-6 for up to 10^9 samples (lgamma's).
    """
    if count <= 0 or count > samples:
        return float(count <= 0)
    if share in (0, 1):
        return float(share)
    if count > samples * share:
        return min(1.0, _tail(count, samples, share))
    return max(0.0, 1.0 - _tail(samples - count + 1, samples, 1 - share))


def _tail(count: int, samples: int, share: float) -> float:
    """``at_least`` above the mean, where each term is smaller than the one before."""
    hit, miss = log(share), log1p(-share)
    ways = lgamma(samples + 1) - lgamma(count + 1) - lgamma(samples - count + 1)
    term = exp(ways + count * hit + (samples - count) * miss)
    terms, total, odds = [term], term, share / (1 - share)
    for k in range(count, samples):
        term *= (samples - k) / (k + 1) * odds
        if term <= total * SMALLEST_TERM:
            break
        terms.append(term)
        total += term
    return fsum(terms)


def share_interval(right: int, samples: int, doubt: float = 1 - CONFIDENCE) -> tuple[float, float]:
    """The interval of Clopper and Pearson (Biometrika 26, 1934, 404) for the share behind ``right`` of ``samples``.

    Its ends are the shares at which so many right answers, or more (fewer), have the probability ``doubt / 2``. It
    holds the true share with a probability of 1 - ``doubt`` or more, for any share and number of samples.
    """
    low, high = 0.0, 1.0
    if right > 0:
        low, _ = _halved(lambda share: at_least(right, samples, share) < doubt / 2)
    if right < samples:  # at most ``right`` are right: at least the rest are wrong
        _, high = _halved(lambda share: at_least(samples - right, samples, 1 - share) > doubt / 2)
    return low, high


def loss_interval(lost: int, gained: int, samples: int, doubt: float = 1 - CONFIDENCE) -> tuple[float, float]:
    """An interval for the share of right answers that a model loses against another on the same samples.

    With the interval [a, b] of Clopper and Pearson for the share of answers lost, and [c, d] for those gained, both
    with half of the doubt, it is [a - d, b - c]. By Bonferroni's inequality it holds the true loss with a probability
    of 1 - ``doubt`` or more, for any shares and any number of samples, also when no answer changed.

    Args:
        lost: samples that the first model alone has right.
        gained: samples that the second model alone has right.
        samples: all.
        doubt: probability that the interval may miss.
    """
    fewest_lost, most_lost = share_interval(lost, samples, doubt / 2)
    fewest_gained, most_gained = share_interval(gained, samples, doubt / 2)
    return fewest_lost - most_gained, most_lost - fewest_gained


def samples_for(lost: int, gained: int, samples: int, precision: float) -> int:
    """About how many samples bound the loss to ``precision`` above its measured value, if shares stay as they are."""
    number = samples
    while (beyond := _beyond(lost, gained, samples, number) / precision) > 1:
        # the bound falls as 1 / n while few answers change, later as 1 / sqrt(n): the first never goes too far
        if number > COUNTED_SAMPLES:
            return round(number * beyond**2)
        number = max(number + 1, round(number * beyond))
    return number


def _beyond(lost: int, gained: int, samples: int, number: int) -> float:
    """By how much the loss of ``number`` samples with the same shares may exceed what is measured."""
    b, c = round(lost / samples * number), round(gained / samples * number)
    return loss_interval(b, c, number)[1] - (b - c) / number


def by_chance(lost: int, gained: int) -> float:
    """Two-sided sign test (McNemar's exact test): the probability of so uneven a split of the changed answers.

    Up to ``EXACT_CHANGES`` changed answers it is counted out in integers. Beyond, the binomial distribution is taken as
    normal with Yates's continuity correction: ``erfc((|lost - gained| - 1) / sqrt(2 * changed))``. There the error is
    below 1e-5, and below 1% of the probability while that exceeds 1e-9.
    """
    changed, smaller = lost + gained, min(lost, gained)
    if changed > EXACT_CHANGES:
        return erfc(max(0, abs(lost - gained) - 1) / sqrt(2 * changed))
    tail = ways = 1
    for k in range(1, smaller + 1):
        ways = ways * (changed - k + 1) // k
        tail += ways
    return min(1.0, float(2 * tail / 2**changed))


def _halved(below: Callable[[float], bool]) -> tuple[float, float]:
    """Two numbers in 0 to 1, 2^-40 apart, between which a condition that holds below some point ends."""
    low, high = 0.0, 1.0
    while high - low > 2.0**-40:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low, high
