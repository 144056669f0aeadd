"""Sums of floats that are exact until they are rounded once, so that no order, grouping or neighbour changes a bit.

Every float of a column is split into whole numbers (limbs): `value = sum(limb * 2**scale)`. Sums of limbs are exact in
int64 however they are taken (by differences of prefix sums, or event by event), and are added up limb by limb. Only the
last step rounds, correctly, to the nearest float. So a window's sum is the same on any machine, with any number of
threads and in pieces of any size: what a digest of a training set rests on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.definitions.partials import LOW, joined

_WORD = 62
_MANTISSA = 53
_SAMPLE = 1_000
_STEEP = 1_000
"""Powers of two beyond this are no floats of their own."""


@dataclass(frozen=True, kw_only=True)
class Limbs:
    """How the values of one column are split: the scales of its limbs, highest first, and how many bits each takes.

    Without scales the column is whole as it is, in `halves` where its sums may be more than 64 bits hold. With
    `odd` three more numbers count what no whole number stands for: NaN, infinity, and minus infinity.
    """

    scales: tuple[int, ...]
    bits: int
    odd: bool
    halves: bool = False

    @classmethod
    def of(cls, values: np.ndarray, *, terms: int) -> Limbs:
        """Fit for sums of up to `terms` of these values, int64 or float64."""
        if values.dtype == np.int64:
            largest_whole = max(-int(values.min(initial=0)), int(values.max(initial=0)))
            return cls(scales=(), bits=_WORD, odd=False, halves=largest_whole * terms >= 1 << 63)
        size = np.abs(values)
        largest = float(size.max(initial=0.0))
        odd = not np.isfinite(largest)
        if odd:
            size[~np.isfinite(size)] = 0.0
            largest = float(size.max())
        if largest * len(values) < 2.0**_MANTISSA and _all_whole(values[:_SAMPLE]) and _all_whole(values):
            return cls(scales=(0,), bits=_WORD, odd=odd)
        size[size == 0] = largest
        highest = int(np.frexp(largest)[1])
        lowest = int(np.frexp(size.min(initial=largest))[1]) - _MANTISSA
        bits = max(_WORD - max(terms, 1).bit_length(), 8)
        count = max(-(-(highest - lowest) // bits), 1)
        return cls(scales=tuple(highest - bits * (place + 1) for place in range(count)), bits=bits, odd=odd)

    @property
    def width(self) -> int:
        """How many int64 numbers a sum has."""
        return max(len(self.scales), 1 + self.halves) + 3 * self.odd

    def split(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """The values' numbers, int64 and as long as they, one kind after the other."""
        if not self.scales:
            yield from (values >> 32, values & LOW) if self.halves else (values,)
            return
        rest = values
        if self.odd:
            rest = np.where(np.isfinite(values), values, 0.0)
        for place, scale in enumerate(self.scales):
            limb = _times_power(rest, -scale)
            np.rint(limb, out=limb)
            yield limb.astype(np.int64)
            if place + 1 < len(self.scales):
                rest = np.subtract(rest, _times_power(limb, scale), out=limb)
        if self.odd:
            for is_odd in (np.isnan(values), values == np.inf, values == -np.inf):
                yield is_odd.astype(np.int64)

    def joined(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """Sums of the numbers as values: int64 where the column is whole, else the nearest float64."""
        if not self.scales:
            return joined(*sums)[0] if self.halves else sums[0]
        total = sums[0].astype(np.float64) if len(self.scales) == 1 else self._rounded(sums[: len(self.scales)])
        if len(self.scales) == 1 and self.scales[0]:
            total = _times_power(total, self.scales[0])
        if self.odd:
            nan, above, below = sums[len(self.scales) :]
            total[above > 0] = np.inf
            total[below > 0] = -np.inf
            total[(nan > 0) | ((above > 0) & (below > 0))] = np.nan
        return total

    def unfit(self, sums: Sequence[np.ndarray]) -> np.ndarray | None:
        """Which sums of whole numbers do not fit into 64 bits; None where it is certain that all do."""
        return joined(*sums)[1] if self.halves else None

    def _rounded(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        digits = self._carried(sums)
        negative = digits[0] < 0
        if bool(negative.any()):
            digits = self._carried([np.where(negative, -one, one) for one in sums])
        leading, exponent = digits[0], np.full(len(digits[0]), self.scales[0])
        for digit in digits[1:]:
            # The leading 62 bits are kept; of what lies below only whether there is anything matters for rounding.
            room = np.clip(_WORD - np.frexp(leading.astype(np.float64))[1], 0, self.bits)
            left = self.bits - room
            rest = digit >> left
            leading = (leading << room) | rest | ((rest << left) != digit)
            exponent -= room
        total = np.ldexp(leading.astype(np.float64), exponent)
        return np.where(negative, -total, total)

    def _carried(self, sums: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums as digits: all but the first from 0 to below `2**bits`."""
        digits = list(sums)
        for place in range(len(digits) - 1, 0, -1):
            carry = digits[place] >> self.bits
            digits[place] = digits[place] - (carry << self.bits)
            digits[place - 1] = digits[place - 1] + carry
        return digits


def _all_whole(values: np.ndarray) -> bool:
    return bool((np.rint(values) == values).all())


def _times_power(values: np.ndarray, power: int) -> np.ndarray:
    return values * 2.0**power if -_STEEP < power < _STEEP else np.ldexp(values, power)
