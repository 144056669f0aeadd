"""The words of the OpenAPI page: JSON schemas of values, and operations with all that they may answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tidemill.definitions.types import ValueType

Json = dict[str, Any]

STATUS: Json = {
    "type": "string",
    "enum": ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
    "description": "PRESENT: found and inside its ttl. NULL_VALUE: found, and the value is null. OUTSIDE_MAX_AGE: "
    "found but older than its ttl, so null. NOT_FOUND: never written, so null.",
}
INSTANT: Json = {"type": "string", "format": "date-time"}
PROBLEM: Json = {
    "type": "object",
    "description": "What was found, what was expected, what to do (RFC 9457).",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "found", "expected"],
                "properties": {
                    "where": {"type": "string"},
                    "found": {"type": "string"},
                    "expected": {"type": "string"},
                },
            },
        },
    },
}
FLOAT: Json = {
    "oneOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}],
    "description": "A number; what JSON cannot say is a text.",
}
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_SCALARS: dict[ValueType, Json] = {
    ValueType.BYTES: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    ValueType.STRING: {"type": "string"},
    ValueType.INT32: {
        "type": "integer",
        "format": "int32",
        "minimum": -(2**31),
        "maximum": 2**31 - 1,
    },
    ValueType.INT64: {
        "type": "integer",
        "format": "int64",
        "minimum": -(2**63),
        "maximum": 2**63 - 1,
    },
    ValueType.DOUBLE: {"type": "number", "format": "double"},
    ValueType.FLOAT: {"type": "number", "format": "float"},
    ValueType.BOOL: {"type": "boolean"},
    ValueType.UNIX_TIMESTAMP: INSTANT,
    ValueType.JSON: {"type": "string"},
}

_FAILURES = {
    400: "The body is not JSON of the expected kind",
    401: "No valid token",
    404: "There is nothing of that name",
    408: "The request did not arrive in time",
    409: "Somebody else is doing this already, or holds what is needed",
    413: "The body is too large",
    422: "Rows do not fit what was declared",
    429: "Too many requests are waiting",
    431: "The head of the request is too long",
    500: "A defect of the server, or of a function that the project defines; the server's log has the cause",
    503: "A part that is needed does not answer; it is asked again at the next request",
    504: "No answer was ready in time",
}
_ANY_REQUEST = (401, 431, 500, 503)
_ANY_BODY = (400, 404, 408, 413, 422, 429, 504)


def operation(
    name: str,
    *,
    tag: str,
    summary: str,
    answer: Json | None,
    description: str = "",
    body: Json | None = None,
    parameters: Sequence[Json] = (),
    also: Sequence[int] = (),
) -> Json:
    """One operation. `answer` and `body` are schemas; `also` are statuses beyond those of every request or body."""
    ok: Json = {"description": "OK"}
    if answer is not None:
        ok["content"] = json_content(answer)
    failures = {*_ANY_REQUEST, *also, *(_ANY_BODY if body is not None else ())}
    found: Json = {
        "tags": [tag],
        "operationId": re.sub(r"\W", "_", name),
        "summary": summary,
        "responses": {"200": ok} | {str(status): _failure(status) for status in sorted(failures)},
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": json_content(body)}
    if parameters:
        found["parameters"] = [*parameters]
    if description:
        found["description"] = description
    return found


def _failure(status: int) -> Json:
    return {"description": _FAILURES[status], "content": {"application/problem+json": {"schema": ref("Problem")}}}


def object_of(properties: Json, *, required: list[str] | None = None) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required}


def array_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def rows_of(name: str, *, most: int) -> Json:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": ref(name)}


def json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def value_of(dtype: ValueType) -> Json:
    """What a value of the type is in a request."""
    if dtype.is_list:
        return array_of(nullable(value_of(dtype.element)))
    return dict(_SCALARS.get(dtype, {}))


def answered(dtype: ValueType) -> Json:
    """The same in an answer, where it may be missing and a float may be no number."""
    if dtype.element in (ValueType.DOUBLE, ValueType.FLOAT):
        scalar: Json = ref("Float")
        return nullable(array_of(scalar) if dtype.is_list else scalar)
    return nullable(value_of(dtype))


def nullable(schema: Json) -> Json:
    if not schema:
        return {}
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
