"""The OpenAPI page, with the exact rows and answers of every model and service of the catalog in force.

Every schema has a name of its own under `components`, so that generated clients get named types.
"""

from __future__ import annotations

import re

from fastapi import FastAPI

from tidemill.definitions.catalog import AggregationFunction, Catalog, Model, Service, Stream
from tidemill_serving.frames import pushed_types
from tidemill_serving.openapi_fixed import fixed_paths, fixed_schemas
from tidemill_serving.openapi_words import (
    INSTANT,
    Json,
    answered,
    array_of,
    nullable,
    object_of,
    operation,
    ref,
    rows_of,
    value_of,
)
from tidemill_serving.predict import REQUEST_ID
from tidemill_serving.rows import RowSchema
from tidemill_serving.state import ServingState, Snapshot
from tidemill_serving.vectors import service_types

_REQUEST_NAME: Json = {
    "type": ["string", "null"],
    "pattern": f"^{REQUEST_ID.pattern}$",
    "description": "Names the request: sent again, its predictions have the same names and count once in the log.",
}
_MEASURES = frozenset(AggregationFunction) - {
    AggregationFunction.COUNT,
    AggregationFunction.COUNT_DISTINCT,
    AggregationFunction.FIRST,
    AggregationFunction.LAST,
}
_MEASURED: Json = {"type": ["number", "boolean", "null"]}
_EVENT_ID: Json = {"type": ["string", "integer", "null"], "description": "Of the same name is the same event."}


def describe(app: FastAPI, state: ServingState) -> None:
    """Make `app.openapi()` describe the catalog in force, rebuilt when that changes."""
    held: dict[int, Json] = {}

    def openapi() -> Json:
        version = 0 if state.trouble is not None else state.snapshot.version
        if version not in held:
            held.clear()
            held[version] = _document(app, state, state.snapshot if version else None)
        return held[version]

    app.openapi = openapi  # type: ignore[method-assign] - FastAPI documents this as the way


def _document(app: FastAPI, state: ServingState, snapshot: Snapshot | None) -> Json:
    paths, schemas = fixed_paths(), fixed_schemas()
    if snapshot is not None:
        most = state.limits.rows
        for part in (
            _model_paths(snapshot, most),
            _service_paths(snapshot, most),
            _push_paths(snapshot.catalog, most),
        ):
            paths |= part["paths"]
            schemas |= part["schemas"]
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": app.title, "version": "1", "description": app.description},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if state.project.settings.api_token is not None:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
    return document


def _model_paths(snapshot: Snapshot, most: int) -> Json:
    paths, schemas = {}, {}
    for model in snapshot.catalog.models:
        name = _type_name(model.name)
        schemas[f"{name}Row"] = _row(snapshot.model_schemas[model.name])
        schemas[f"{name}Features"] = _features(snapshot.catalog, model.service)
        schemas[f"{name}Statuses"] = _statuses(snapshot.catalog, model.service)
        schemas[f"{name}Prediction"] = _prediction(name, model)
        schemas[f"{name}PredictRequest"] = object_of(
            {
                "rows": rows_of(f"{name}Row", most=most),
                "explain": {"type": "boolean", "default": False},
                "request_id": _REQUEST_NAME,
            },
            required=["rows"],
        ) | {"additionalProperties": False}
        schemas[f"{name}PredictResponse"] = object_of(
            {
                "model": {"type": "string", "const": model.name},
                "version": {"type": "integer"},
                "at": INSTANT,
                "predictions": {"type": "array", "items": ref(f"{name}Prediction")},
            }
        )
        paths[f"/v1/models/{model.name}/predict"] = {
            "post": operation(
                f"predict_{model.name}",
                tag="predictions",
                summary=f"Predict with {model.name}",
                description=model.description,
                body=ref(f"{name}PredictRequest"),
                answer=ref(f"{name}PredictResponse"),
            )
        }
    return {"paths": paths, "schemas": schemas}


def _service_paths(snapshot: Snapshot, most: int) -> Json:
    paths, schemas = {}, {}
    for service in snapshot.catalog.services:
        name = _type_name(service.name)
        schemas[f"{name}ServiceRow"] = _row(snapshot.schemas[service.name])
        schemas[f"{name}ReadRequest"] = object_of(
            {"rows": rows_of(f"{name}ServiceRow", most=most), "event_times": {"type": "boolean", "default": False}},
            required=["rows"],
        ) | {"additionalProperties": False}
        schemas[f"{name}ReadResponse"] = _read_response(snapshot.catalog, service)
        paths[f"/v1/features/{service.name}"] = {
            "post": operation(
                f"read_{service.name}",
                tag="features",
                summary=f"Read the features of {service.name}",
                description=service.description,
                body=ref(f"{name}ReadRequest"),
                answer=ref(f"{name}ReadResponse"),
            )
        }
    return {"paths": paths, "schemas": schemas}


def _push_paths(catalog: Catalog, most: int) -> Json:
    paths, schemas = {}, {}
    schemas["PushResponse"] = object_of(
        {
            "accepted": {"type": "integer"},
            "duplicates": {"type": "integer"},
            "rejected": array_of(object_of({"row": {"type": "integer"}, "reason": {"type": "string"}})),
            "ignored": array_of({"type": "string"}) | {"description": "Columns that no view reads."},
        }
    )
    for stream in catalog.streams:
        name = _type_name(stream.name)
        schemas[f"{name}PushRow"] = _pushed_row(catalog, stream)
        target = {"type": "string", "enum": ["online", "offline", "both"], "default": "online"}
        schemas[f"{name}PushRequest"] = object_of(
            {"rows": rows_of(f"{name}PushRow", most=most), "to": target}, required=["rows"]
        ) | {"additionalProperties": False}
        paths[f"/v1/push/{stream.name}"] = {
            "post": operation(
                f"push_{stream.name}",
                tag="push",
                summary=f"Push rows to {stream.name}",
                body=ref(f"{name}PushRequest"),
                answer=ref("PushResponse"),
                also=[409],
            )
        }
    return {"paths": paths, "schemas": schemas}


def _pushed_row(catalog: Catalog, stream: Stream) -> Json:
    """What is declared of a row, and what windows read of it, of which only the use is known."""
    declared = pushed_types(catalog, stream)
    columns: Json = {}
    for view in catalog.views_of_stream(stream.name):
        for one in view.aggregations:
            if one.column:
                columns[one.column] = _MEASURED if one.function in _MEASURES else columns.get(one.column, {})
        if view.event_id is not None:
            columns.setdefault(view.event_id, _EVENT_ID)
    columns |= {column: nullable(value_of(dtype)) for column, dtype in declared.items()}
    known = catalog.source(stream.source).known_field
    return object_of(columns, required=[column for column in columns if column != known])


def _read_response(catalog: Catalog, service: Service) -> Json:
    types = service_types(catalog, service.name)
    by_feature = {name: array_of(answered(dtype)) for name, dtype in types.items()}
    statuses = {name: array_of(ref("FeatureStatus")) for name in types}
    times = {name: array_of(nullable(INSTANT)) for name in types}
    stale = {name: array_of({"type": "boolean"}) for name in types}
    return object_of(
        {
            "service": {"type": "string", "const": service.name},
            "catalog_version": {"type": "integer"},
            "at": INSTANT,
            "features": object_of(by_feature),
            "statuses": object_of(statuses),
            "stale": {"type": "object", "properties": stale},
            "event_times": object_of(times),
        },
        required=["service", "catalog_version", "at", "features", "statuses", "stale"],
    )


def _prediction(name: str, model: Model) -> Json:
    return object_of(
        {
            "id": {"type": ["string", "null"], "description": f"The row's `{model.spine.id_column}`, if it was given."},
            "prediction_id": {"type": "string"},
            "prediction": {"type": "number", "description": "Probability of the positive class."},
            "statuses": ref(f"{name}Statuses"),
            "stale": {"type": "array", "items": {"type": "string"}},
            "features": ref(f"{name}Features"),
        },
        required=["id", "prediction_id", "prediction", "statuses", "stale"],
    )


def _features(catalog: Catalog, service: str) -> Json:
    return object_of({name: answered(dtype) for name, dtype in service_types(catalog, service).items()})


def _statuses(catalog: Catalog, service: str) -> Json:
    return object_of({name: ref("FeatureStatus") for name in service_types(catalog, service)})


def _row(schema: RowSchema) -> Json:
    properties = {}
    for field in schema.fields:
        about = field.description or ("Join key." if field.is_key else "Known only to whoever asks.")
        properties[field.name] = nullable(value_of(field.dtype)) | {"description": about}
    required = list(properties)
    if schema.id_column is not None:
        properties.setdefault(
            schema.id_column, {"type": ["string", "integer", "null"], "description": "Names the row."}
        )
    return object_of(properties, required=required) | {"additionalProperties": False}


def _type_name(name: str) -> str:
    """`arrival_delay` becomes `ArrivalDelay`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name) if part)
