"""The OpenAPI page, with the exact rows and answers of every model and service of the catalog in force.

Every schema has a name of its own under `components`, so that generated clients get named types.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tidemill.definitions.catalog import Catalog, Model, Service
from tidemill.definitions.types import ValueType
from tidemill_serving.frames import pushed_types
from tidemill_serving.rows import RowSchema
from tidemill_serving.state import ServingState, Snapshot
from tidemill_serving.vectors import service_types

Json = dict[str, Any]

_STATUS: Json = {
    "type": "string",
    "enum": ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
    "description": "PRESENT: found and inside its ttl. NULL_VALUE: found, and the value is null. OUTSIDE_MAX_AGE: "
    "found but older than its ttl, so null. NOT_FOUND: never written, so null.",
}
_INSTANT: Json = {"type": "string", "format": "date-time"}
_PROBLEM: Json = {
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
_FLOAT: Json = {
    "oneOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}],
    "description": "A number; what JSON cannot say is a text.",
}
_SCALARS: dict[ValueType, Json] = {
    ValueType.BYTES: {"type": "string", "contentEncoding": "base64"},
    ValueType.STRING: {"type": "string"},
    ValueType.INT32: {"type": "integer", "format": "int32"},
    ValueType.INT64: {"type": "integer", "format": "int64"},
    ValueType.DOUBLE: {"type": "number", "format": "double"},
    ValueType.FLOAT: {"type": "number", "format": "float"},
    ValueType.BOOL: {"type": "boolean"},
    ValueType.UNIX_TIMESTAMP: _INSTANT,
    ValueType.JSON: {"type": "string"},
}
_FAILURES = {
    "400": "The body is not JSON of the expected kind",
    "401": "No valid token",
    "413": "The body is too large",
    "422": "Rows do not fit what was declared",
    "429": "Too many requests are waiting",
    "503": "A part that is needed does not answer; it is asked again at the next request",
    "504": "No answer was ready in time",
}


def describe(app: FastAPI, state: ServingState) -> None:
    """Make `app.openapi()` describe the catalog in force, rebuilt when that changes."""
    held: dict[int, Json] = {}

    def openapi() -> Json:
        version = 0 if state.trouble is not None else state.snapshot.version
        if version not in held:
            held.clear()
            held[version] = _document(app, state.snapshot if version else None)
        return held[version]

    app.openapi = openapi  # type: ignore[method-assign] - FastAPI documents this as the way


def _document(app: FastAPI, snapshot: Snapshot | None) -> Json:
    document = get_openapi(title=app.title, version="1", description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Problem": _PROBLEM, "FeatureStatus": _STATUS, "Float": _FLOAT}
    document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"bearer": []}, {}]
    if snapshot is not None:
        for part in (_model_paths(snapshot), _service_paths(snapshot), _push_paths(snapshot.catalog)):
            document["paths"] |= part["paths"]
            schemas |= part["schemas"]
    return document


def _model_paths(snapshot: Snapshot) -> Json:
    paths, schemas = {}, {}
    for model in snapshot.catalog.models:
        name = _type_name(model.name)
        schemas[f"{name}Row"] = _row(snapshot.model_schemas[model.name])
        schemas[f"{name}Features"] = _features(snapshot.catalog, model.service)
        schemas[f"{name}Statuses"] = _statuses(snapshot.catalog, model.service)
        schemas[f"{name}Prediction"] = _prediction(name, model)
        schemas[f"{name}PredictRequest"] = _object(
            {"rows": _rows_of(f"{name}Row"), "explain": {"type": "boolean", "default": False}}, required=["rows"]
        )
        schemas[f"{name}PredictResponse"] = _object(
            {
                "model": {"type": "string", "const": model.name},
                "version": {"type": "integer"},
                "at": _INSTANT,
                "predictions": {"type": "array", "items": _ref(f"{name}Prediction")},
            }
        )
        paths[f"/v1/models/{model.name}/predict"] = _post(
            tag="predictions",
            operation=f"predict_{model.name}",
            summary=f"Predict with {model.name}",
            description=model.description,
            request=f"{name}PredictRequest",
            response=f"{name}PredictResponse",
        )
    return {"paths": paths, "schemas": schemas}


def _service_paths(snapshot: Snapshot) -> Json:
    paths, schemas = {}, {}
    for service in snapshot.catalog.services:
        name = _type_name(service.name)
        schemas[f"{name}ServiceRow"] = _row(snapshot.schemas[service.name])
        schemas[f"{name}ReadRequest"] = _object(
            {"rows": _rows_of(f"{name}ServiceRow"), "event_times": {"type": "boolean", "default": False}},
            required=["rows"],
        )
        schemas[f"{name}ReadResponse"] = _read_response(snapshot.catalog, service)
        paths[f"/v1/features/{service.name}"] = _post(
            tag="features",
            operation=f"read_{service.name}",
            summary=f"Read the features of {service.name}",
            description=service.description,
            request=f"{name}ReadRequest",
            response=f"{name}ReadResponse",
        )
    return {"paths": paths, "schemas": schemas}


def _push_paths(catalog: Catalog) -> Json:
    paths, schemas = {}, {}
    schemas["PushResponse"] = _object(
        {
            "accepted": {"type": "integer"},
            "duplicates": {"type": "integer"},
            "rejected": _array(_object({"row": {"type": "integer"}, "reason": {"type": "string"}})),
            "ignored": _array({"type": "string"}) | {"description": "Columns that no view reads."},
        }
    )
    for stream in catalog.streams:
        name = _type_name(stream.name)
        columns = {column: _nullable(_value(dtype)) for column, dtype in pushed_types(catalog, stream).items()}
        schemas[f"{name}PushRow"] = {"type": "object", "properties": columns, "additionalProperties": True}
        target = {"type": "string", "enum": ["online", "offline", "both"], "default": "online"}
        schemas[f"{name}PushRequest"] = _object({"rows": _rows_of(f"{name}PushRow"), "to": target}, required=["rows"])
        paths[f"/v1/push/{stream.name}"] = _post(
            tag="push",
            operation=f"push_{stream.name}",
            summary=f"Push rows to {stream.name}",
            description="",
            request=f"{name}PushRequest",
            response="PushResponse",
        )
    return {"paths": paths, "schemas": schemas}


def _read_response(catalog: Catalog, service: Service) -> Json:
    types = service_types(catalog, service.name)
    by_feature = {name: _array(_answered(dtype)) for name, dtype in types.items()}
    statuses = {name: _array(_ref("FeatureStatus")) for name in types}
    times = {name: _array(_nullable(_INSTANT)) for name in types}
    stale = {name: _array({"type": "boolean"}) for name in types}
    return _object(
        {
            "service": {"type": "string", "const": service.name},
            "catalog_version": {"type": "integer"},
            "at": _INSTANT,
            "features": _object(by_feature),
            "statuses": _object(statuses),
            "stale": {"type": "object", "properties": stale},
            "event_times": _object(times),
        },
        required=["service", "catalog_version", "at", "features", "statuses", "stale"],
    )


def _prediction(name: str, model: Model) -> Json:
    return _object(
        {
            "id": {"type": ["string", "null"], "description": f"The row's `{model.spine.id_column}`, if it was given."},
            "prediction_id": {"type": "string"},
            "prediction": {"type": "number", "description": "Probability of the positive class."},
            "statuses": _ref(f"{name}Statuses"),
            "stale": {"type": "array", "items": {"type": "string"}},
            "features": _ref(f"{name}Features"),
        },
        required=["id", "prediction_id", "prediction", "statuses", "stale"],
    )


def _features(catalog: Catalog, service: str) -> Json:
    return _object({name: _answered(dtype) for name, dtype in service_types(catalog, service).items()})


def _statuses(catalog: Catalog, service: str) -> Json:
    return _object({name: _ref("FeatureStatus") for name in service_types(catalog, service)})


def _row(schema: RowSchema) -> Json:
    properties = {}
    for field in schema.fields:
        about = field.description or ("Join key." if field.is_key else "Known only to whoever asks.")
        properties[field.name] = _nullable(_value(field.dtype)) | {"description": about}
    required = list(properties)
    if schema.id_column is not None:
        properties.setdefault(schema.id_column, {"type": ["string", "null"], "description": "Names the row."})
    return _object(properties, required=required) | {"additionalProperties": False}


def _post(*, tag: str, operation: str, summary: str, description: str, request: str, response: str) -> Json:
    responses: Json = {"200": {"description": "OK", "content": _json_content(_ref(response))}}
    for status, text in _FAILURES.items():
        responses[status] = {"description": text, "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    operation_object: Json = {
        "tags": [tag],
        "operationId": re.sub(r"\W", "_", operation),
        "summary": summary,
        "requestBody": {"required": True, "content": _json_content(_ref(request))},
        "responses": responses,
    }
    if description:
        operation_object["description"] = description
    return {"post": operation_object}


def _object(properties: Json, *, required: list[str] | None = None) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _rows_of(name: str) -> Json:
    return {"type": "array", "minItems": 1, "items": _ref(name)}


def _json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _value(dtype: ValueType) -> Json:
    """What a value of the type is in a request."""
    if dtype.is_list:
        return _array(_nullable(_value(dtype.element)))
    return dict(_SCALARS.get(dtype, {}))


def _answered(dtype: ValueType) -> Json:
    """The same in an answer, where it may be missing and a float may be no number."""
    if dtype.element in (ValueType.DOUBLE, ValueType.FLOAT):
        scalar: Json = _ref("Float")
        return _nullable(_array(scalar) if dtype.is_list else scalar)
    return _nullable(_value(dtype))


def _nullable(schema: Json) -> Json:
    if not schema:
        return {}
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _type_name(name: str) -> str:
    """`arrival_delay` becomes `ArrivalDelay`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name) if part)
