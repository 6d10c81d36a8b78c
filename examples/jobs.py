"""The jobs of the demo: one keeps a CPU busy, the other one only waits.

They live in a module of their own, as jobs of real programs do. Slaves on other
machines import it under the same name, so it must be importable there, for
example with ``PYTHONPATH=examples python -m papyros.distributed --slaves=3``.
"""

from __future__ import annotations

import math
import random
import time

import papyros


class PrimeFactors(papyros.Job):
    """Factorise one number by trial division; keeps a CPU busy.

    The result is the list of its prime factors in ascending order, each as often
    as it divides the number: ``PrimeFactors(12)`` gives ``[2, 2, 3]``.
    """

    def __call__(self, number: int) -> list[int]:
        if number < 1:
            raise ValueError(f"only positive numbers have prime factors, and {number} is not")
        primes = []
        divisor = 2
        while divisor * divisor <= number:
            while number % divisor == 0:
                primes.append(divisor)
                number //= divisor
            divisor += 1 if divisor == 2 else 2
        if number > 1:
            primes.append(number)
        return primes


class SlowSqrt(papyros.Job):
    """Take the square root of a number after a nap; needs hardly any CPU, as when waiting for a network."""

    def __call__(self, number: float) -> float:
        time.sleep(random.uniform(0.02, 0.2))
        if number < 0:
            raise ValueError(f"{number} has no real square root")
        return math.sqrt(number)
