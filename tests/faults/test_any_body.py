"""Whatever is sent, the answer is an answer or says what is wrong with the request: never a defect of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_live import FEATURES, PREDICT, PUSH, ROW, pushed
from small_model import promoted_with_redis
from small_project import served

PUSHED = pushed("JFK", 1.5)
VALID: dict[str, dict[str, Any]] = {
    FEATURES: {"rows": [ROW], "event_times": True},
    PREDICT: {"rows": [ROW], "explain": True, "request_id": "r1"},
    "/v1/features": {"features": ["weather:temp", "request:hours"], "rows": [ROW], "event_times": False},
    PUSH: {"rows": [PUSHED], "to": "online"},
    "/push": {
        "push_source_name": "weather_now",
        "df": {name: [value] for name, value in PUSHED.items()},
        "to": "online",
        "allow_registry_cache": True,
        "transform_on_write": True,
    },
    "/get-online-features": {
        "feature_service": "delay_v1",
        "features": ["weather:temp"],
        "entities": {name: [value] for name, value in ROW.items()},
        "full_feature_names": True,
    },
    "/write-to-online-store": {
        "feature_view_name": "weather",
        "df": {name: [value] for name, value in PUSHED.items()},
        "allow_registry_cache": True,
    },
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["", "JFK", "weather", "weather:temp", "delay_v1", "2013-10-01T12:00:00Z", "both"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with promoted_with_redis(tmp_path_factory.mktemp("project"), max_rows=100) as project, served(project) as client:
        yield client


@st.composite
def nearly_valid(draw: st.DrawFn) -> tuple[str, Any]:
    """A correct body, of which one part has become something else, is gone, or has got company."""
    path = draw(st.sampled_from(sorted(VALID)))
    return path, _changed(draw, VALID[path])


def _changed(draw: st.DrawFn, part: Any) -> Any:
    how = draw(st.sampled_from(["deeper", "deeper", "deeper", "other", "less", "more"]))
    if how == "deeper" and part and isinstance(part, dict):
        name = draw(st.sampled_from(sorted(part)))
        return part | {name: _changed(draw, part[name])}
    if how == "deeper" and part and isinstance(part, list):
        return [_changed(draw, part[0]), *part[1:]]
    if how == "less" and part and isinstance(part, dict):
        gone = draw(st.sampled_from(sorted(part)))
        return {name: value for name, value in part.items() if name != gone}
    if how == "more" and isinstance(part, dict):
        return part | {draw(st.text(max_size=8)): draw(JSON)}
    if how == "more" and isinstance(part, list):
        return [*part, draw(JSON)]
    return draw(JSON)


@settings(max_examples=400)
@given(request=nearly_valid())
@example(request=("/get-online-features", VALID["/get-online-features"] | {"feature_service": 5}))
@example(request=("/get-online-features", VALID["/get-online-features"] | {"entities": {}}))
@example(request=(PUSH, {"rows": [PUSHED | {"more": 2**64 - 1}, PUSHED | {"more": -1}]}))
@example(request=(PUSH, {"rows": [PUSHED | {"more": {"a": 1}}, PUSHED | {"more": "x"}, PUSHED | {"more": [None, 1]}]}))
@example(request=(FEATURES, {"rows": [ROW | {"distance": 1e308}]}))
@example(request=("/v1/features", {"features": ["weather:temp", "weather:temp"], "rows": [ROW]}))
def test_no_body_is_answered_with_a_defect(client: httpx.Client, request: tuple[str, Any]) -> None:
    path, body = request
    try:
        answer = client.post(path, json=body)
    except (ValueError, OverflowError):  # not JSON, so nobody can send it
        return
    assert answer.status_code in (200, 400, 404, 422), answer.text
    assert "detail" in answer.json() if answer.status_code != 200 else True


@settings(max_examples=150)
@given(path=st.sampled_from(sorted(VALID)), body=st.binary(max_size=60) | JSON.map(lambda value: repr(value).encode()))
def test_no_bytes_are_answered_with_a_defect(client: httpx.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code in (400, 404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", sorted(VALID))
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_whatever_is_nested_without_end_is_refused_before_anybody_looks_at_it(
    client: httpx.Client, path: str, brackets: tuple[str, str]
) -> None:
    """In the place of each part of a correct body. Two kilobytes of it would else keep the server busy for minutes."""
    for body in _with_a_hole(VALID[path]):
        for levels in (20, 100, 400, 1_000):
            text = brackets[0] * levels + "1" + brackets[1] * levels
            answer = client.post(path, content=orjson.dumps(body).replace(HOLE.encode(), text.encode()))
            assert answer.status_code in ((200, 400, 404, 422) if levels == 20 else (400,)), answer.text


HOLE = '"a hole"'


def _with_a_hole(part: Any) -> Iterator[Any]:
    """The body as often as it has parts, each time with another in which there is a hole."""
    yield HOLE.strip('"')
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, value in items:
        for hollow in _with_a_hole(value):
            yield part | {name: hollow} if isinstance(part, dict) else [hollow]


@settings(max_examples=150)
@given(path=st.text(st.characters(codec="utf-8"), max_size=30), method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]))
def test_no_path_is_answered_with_a_defect(client: httpx.Client, path: str, method: str) -> None:
    assert client.request(method, f"/v1/{quote(path, safe='/')}").status_code < 500
