"""The part of the OpenAPI page that is the same for every project."""

from __future__ import annotations

from tidemill_serving.openapi_words import (
    FLOAT,
    INSTANT,
    PROBLEM,
    STATUS,
    Json,
    array_of,
    nullable,
    object_of,
    operation,
    ref,
)

_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "integer"}
_FLAG: Json = {"type": "boolean", "default": False}
_COLUMNS: Json = {"type": "object", "additionalProperties": array_of({})}
_REFERENCE: Json = {"type": "string", "pattern": "^[^:]+:.+$", "description": "`view:feature`"}
_ROWS: Json = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_ROW_FIELD = object_of(
    {"name": _TEXT, "type": _TEXT, "role": {"type": "string", "enum": ["join key", "request field", "id"]}}
)
_MODEL = {
    "name": _TEXT,
    "description": _TEXT,
    "service": _TEXT,
    "version": nullable(_NUMBER) | {"description": "The version that is served; null before the first promotion."},
    "promoted_at": nullable(INSTANT),
    "trouble": nullable(_TEXT) | {"description": "Why a newer version cannot be served."},
    "row": array_of(ref("RowField")),
}
_EVALUATION = {
    "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
    "trained_at": INSTANT,
    "trained_on": object_of({"service": _TEXT, "catalog_digest": _TEXT}),
    "features": array_of(_TEXT),
    "digest": _TEXT,
}
_PART: Json = object_of({"ok": {"type": "boolean"}, "trouble": nullable(_TEXT)}) | {"additionalProperties": True}


def fixed_schemas() -> dict[str, Json]:
    """Schemas under their names."""
    words: dict[str, Json] = {"Problem": PROBLEM, "FeatureStatus": STATUS, "Float": FLOAT, "RowField": _ROW_FIELD}
    return words | _catalog_schemas() | _read_schemas() | _feast_schemas() | _health_schemas()


def _catalog_schemas() -> dict[str, Json]:
    return {
        "Model": object_of(_MODEL),
        "ModelDetails": object_of(_MODEL | _EVALUATION, required=[*_MODEL]),
        "FeatureServiceInfo": object_of(
            {
                "name": _TEXT,
                "description": _TEXT,
                "row": array_of(ref("RowField")),
                "features": {"type": "object", "additionalProperties": _TEXT, "description": "Types by feature."},
            }
        ),
    }


def _read_schemas() -> dict[str, Json]:
    by_feature: Json = {"type": "object", "additionalProperties": array_of({})}
    return {
        "ReadRequest": object_of(
            {
                "features": {"type": "array", "minItems": 1, "items": _REFERENCE},
                "rows": _ROWS,
                "event_times": _FLAG,
            },
            required=["features", "rows"],
        )
        | {"additionalProperties": False},
        "ReadResponse": object_of(
            {
                "service": nullable(_TEXT),
                "catalog_version": _NUMBER,
                "at": INSTANT,
                "features": by_feature,
                "statuses": {"type": "object", "additionalProperties": array_of(ref("FeatureStatus"))},
                "stale": {"type": "object", "additionalProperties": array_of({"type": "boolean"})},
                "event_times": {"type": "object", "additionalProperties": array_of(nullable(INSTANT))},
            },
            required=["service", "catalog_version", "at", "features", "statuses", "stale"],
        ),
    }


def _feast_schemas() -> dict[str, Json]:
    return {
        "GetOnlineFeaturesRequest": object_of(
            {
                "features": {"type": "array", "minItems": 1, "items": _REFERENCE},
                "feature_service": {"type": "string", "minLength": 1, "description": "In place of `features`."},
                "entities": _COLUMNS
                | {"minProperties": 1, "description": "Join keys and request fields: equally long arrays."},
                "full_feature_names": _FLAG,
            },
            required=["entities"],
        )
        | {"anyOf": [{"required": ["features"]}, {"required": ["feature_service"]}]},
        "GetOnlineFeaturesResponse": object_of(
            {
                "results": array_of(
                    object_of(
                        {
                            "values": array_of({}),
                            "statuses": array_of(ref("FeatureStatus")),
                            "event_timestamps": array_of(INSTANT),
                        }
                    )
                ),
                "metadata": object_of({"feature_names": array_of(_TEXT)}),
            }
        ),
        "PushFeaturesRequest": object_of(
            {
                "push_source_name": _TEXT,
                "df": _COLUMNS,
                "to": {"type": "string", "enum": ["online", "offline", "online_and_offline"], "default": "online"},
                "allow_registry_cache": _FLAG,
                "transform_on_write": _FLAG,
            },
            required=["push_source_name", "df"],
        ),
        "WriteToFeatureStoreRequest": object_of(
            {"feature_view_name": _TEXT, "df": _COLUMNS, "allow_registry_cache": _FLAG},
            required=["feature_view_name", "df"],
        ),
    }


def _health_schemas() -> dict[str, Json]:
    return {
        "ServerStatus": object_of(
            {
                "project": _TEXT,
                "now": INSTANT,
                "catalog": object_of({"version": _NUMBER, "digest": _TEXT}),
                "models": array_of(ref("Model")),
                "limits": object_of(
                    {"body_bytes": _NUMBER, "rows": _NUMBER, "pending": _NUMBER, "request_seconds": {"type": "number"}}
                ),
            }
        ),
        "Readiness": object_of(
            {
                "status": {"type": "string", "enum": ["ready", "not ready"]},
                "parts": {"type": "object", "additionalProperties": _PART},
            }
        ),
    }


def fixed_paths() -> dict[str, Json]:
    """Operations by path and method."""
    return _catalog_paths() | _feast_paths() | _admin_paths() | _health_paths()


def _catalog_paths() -> dict[str, Json]:
    name: Json = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    models, services = object_of({"models": array_of(ref("Model"))}), array_of(ref("FeatureServiceInfo"))
    return {
        "/v1/models": {
            "get": operation(
                "list_models", tag="catalog", summary="The models and the version of each that is served", answer=models
            )
        },
        "/v1/models/{model}": {
            "get": operation(
                "get_model",
                tag="catalog",
                summary="One model: what it reads and how good it was",
                answer=ref("ModelDetails"),
                parameters=[name],
                also=[404],
            )
        },
        "/v1/features": {
            "get": operation(
                "list_feature_services",
                tag="catalog",
                summary="The feature services: what a row holds and what comes back",
                answer=object_of({"services": services}),
            ),
            "post": operation(
                "read_feature_references",
                tag="features",
                summary="Read features named one by one",
                body=ref("ReadRequest"),
                answer=ref("ReadResponse"),
            ),
        },
    }


def _feast_paths() -> dict[str, Json]:
    read = operation(
        "feast_get_online_features",
        tag="feast",
        summary="Feast: feature vectors by column",
        body=ref("GetOnlineFeaturesRequest"),
        answer=ref("GetOnlineFeaturesResponse"),
    )
    push = operation(
        "feast_push",
        tag="feast",
        summary="Feast: push rows to a push source",
        body=ref("PushFeaturesRequest"),
        answer=None,
        also=[409],
    )
    write = operation(
        "feast_write_to_online_store",
        tag="feast",
        summary="Feast: write rows of one feature view",
        body=ref("WriteToFeatureStoreRequest"),
        answer={"type": "null"},
        also=[409],
    )
    return {
        "/get-online-features": {"post": read},
        "/push": {"post": push},
        "/write-to-online-store": {"post": write},
    }


def _admin_paths() -> dict[str, Json]:
    runs = object_of({"runs": array_of({"type": "object"})})
    return {
        "/v1/admin/status": {
            "get": operation(
                "server_status", tag="admin", summary="What this process serves", answer=ref("ServerStatus")
            )
        },
        "/v1/admin/refresh": {
            "post": operation(
                "refresh",
                tag="admin",
                summary="Look for a new catalog and new models now",
                answer=ref("ServerStatus"),
            )
        },
        "/v1/admin/materialize": {
            "post": operation(
                "materialize", tag="admin", summary="Bring the online store up to now", answer=runs, also=[409, 422]
            )
        },
    }


def _health_paths() -> dict[str, Json]:
    alive = object_of({"status": {"type": "string", "const": "alive"}})
    health = operation("is_alive", tag="health", summary="Whether the process answers", answer=alive)
    ready = operation(
        "is_ready",
        tag="health",
        summary="Whether requests can be answered, part by part",
        answer=ref("Readiness"),
    )
    ready["responses"]["503"] = ready["responses"]["200"] | {"description": "Not ready; the parts say why"}
    metrics = operation("metrics", tag="health", summary="Counts and times for Prometheus", answer=None)
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": _TEXT}}
    for open_to_all in (health, ready):
        open_to_all["security"] = []
        del open_to_all["responses"]["401"]
    return {"/healthz": {"get": health}, "/readyz": {"get": ready}, "/metrics": {"get": metrics}}
