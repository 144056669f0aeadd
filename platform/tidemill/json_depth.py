"""How deeply JSON is nested. Nobody who sends events or asks for features means a hundred levels, and a text of two
kilobytes that has them keeps libraries that look for a column's type busy for minutes and takes gigabytes."""

from __future__ import annotations

from typing import Any

DEEPEST = 32
"""How many levels of arrays and objects are taken, the outermost included."""


def is_too_deep(text: bytes, found: Any) -> bool:
    """Whether a JSON text, of which `found` was read, is nested deeper than `DEEPEST` levels.

    Most texts have fewer brackets than that, or one pair of them for each of their flat `rows`, and are not walked
    through.
    """
    brackets = text.count(b"{") + text.count(b"[")
    return brackets > DEEPEST and brackets - _objects_in_rows(found) > DEEPEST and _is_deeper(found, DEEPEST)


def _objects_in_rows(found: Any) -> int:
    rows = found.get("rows") if type(found) is dict else None
    return len(rows) if type(rows) is list and set(map(type, rows)) == {dict} else 0


def _is_deeper(value: Any, levels: int) -> bool:
    """Level by level, since a recursion would fail on what it is to find."""
    inner = [value]
    for _ in range(levels):
        parts = (part for whole in inner for part in (whole.values() if type(whole) is dict else whole))
        inner = [part for part in parts if type(part) is dict or type(part) is list]
        if not inner:
            return False
    return True
