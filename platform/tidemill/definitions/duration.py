"""Durations as people write them: `90s`, `5m`, `3h`, `7d`, `2w`, and sums of them such as `1h30m`."""

from __future__ import annotations

import re
from datetime import timedelta

from tidemill.errors import DefinitionError

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def parse_duration(text: str | timedelta) -> timedelta:
    """Read `5m` or `1h30m`; a timedelta comes back as it is. Raises DefinitionError for anything else."""
    if isinstance(text, timedelta):
        return text
    compact = text.strip().lower()
    if not compact or _PART.sub("", compact).strip():
        raise DefinitionError(
            f"{text!r} is not a duration.", hint="Write a number and a unit: 90s, 5m, 3h, 7d, 2w, or a sum like 1h30m."
        )
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact)))


def format_duration(duration: timedelta) -> str:
    """The shortest way to write a duration that `parse_duration` reads back."""
    rest = int(duration.total_seconds())
    if rest == 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
