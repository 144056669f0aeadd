"""JSON that is nested too deeply is told from JSON that only looks so."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.json_depth import DEEPEST, is_too_deep
from tidemill.online.event_log import message_of


def nested(levels: int, *, inner: Any = 1, objects: bool = False) -> Any:
    for _ in range(levels):
        inner = {"a": inner} if objects else [inner]
    return inner


def is_deep(value: Any) -> bool:
    return is_too_deep(orjson.dumps(value), value)


def depth_of(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth_of, parts), default=0)


@pytest.mark.parametrize("objects", [True, False])
def test_the_limit_is_the_last_level_that_is_taken(objects: bool) -> None:
    assert not is_deep(nested(DEEPEST, objects=objects))
    assert is_deep(nested(DEEPEST + 1, objects=objects))


def test_many_rows_hide_no_depth() -> None:
    flat, deep = [{"a": 1, "text": "[{"}] * 100, nested(DEEPEST)
    assert not is_deep({"rows": flat})
    assert not is_deep({"rows": [*flat, {"list": [1, [2]]}]})
    assert is_deep({"rows": [*flat, {"a": deep}]})
    assert is_deep({"rows": [1] * 100 + [deep]})
    assert is_deep({"rows": flat, "more": deep})
    assert is_deep({"rows": flat, "more": [[]] * 100 + [deep]})


@given(
    st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_depth_is_found_wherever_it_lies(value: Any, levels: int, beside: int) -> None:
    body = {"rows": [{"a": nested(levels, inner=value)}] * 2, "b": [{}] * beside}
    assert is_deep(body) == (depth_of(body) > DEEPEST)


def test_an_event_that_is_nested_without_end_is_set_aside_and_not_read() -> None:
    message = message_of("1-0", orjson.dumps({"origin": "JFK", "more": nested(200)}))
    assert message.row is None
    assert message.problem == f"its body is nested deeper than {DEEPEST} levels"
