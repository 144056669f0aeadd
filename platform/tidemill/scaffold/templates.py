"""The files of a new project, as text."""

from __future__ import annotations

import json
import keyword

import yaml

from tidemill.scaffold.guess import FEAST_TYPES, TableShape

_USED = frozenset(
    {"Entity", "FeatureService", "FeatureView", "Field", "FileSource", "ValueType", "feast", "tidemill", "timedelta"}
    | {"entities", "services", "sources", "views"}
    | set(FEAST_TYPES.values())
    | set(keyword.kwlist)
)
"""What a variable of the user's cannot be called in the files of a project."""


def project_files(name: str, shape: TableShape) -> dict[str, str]:
    """File names below the project's folder, and what is in them."""
    return {
        "feature_store.yaml": _feature_store(name),
        "entities.py": _entities(shape),
        "sources.py": _sources(shape),
        "views.py": _views(shape),
        "services.py": _services(shape),
        ".gitignore": ".tidemill/\n__pycache__/\n",
    }


def _feature_store(name: str) -> str:
    return f"""{yaml.safe_dump({"project": name}).strip()}
provider: local
registry:
  registry_type: sql
  path: sqlite:///.tidemill/registry.db
offline_store:
  type: tidemill.feast.offline.PolarsOfflineStore
online_store:
  type: tidemill.feast.online.TidemillRedisOnlineStore
batch_engine:
  type: tidemill.feast.engine.ArrowComputeEngine
entity_key_serialization_version: 3

# How this project runs; every setting can be overridden by TIDEMILL_<NAME> in the environment.
tidemill:
  state: .tidemill
"""


def _entities(shape: TableShape) -> str:
    value_type = {"Int32": "INT32", "Int64": "INT64", "String": "STRING"}[shape.key_type]
    return f"""from feast import Entity, ValueType

{_entity(shape)} = Entity(name="{shape.entity}", join_keys=[{_text(shape.key)}], value_type=ValueType.{value_type})
"""


def _sources(shape: TableShape) -> str:
    known = f"\n    created_timestamp_column={_text(shape.known)}," if shape.known else ""
    return f"""from feast import FileSource

{_source(shape)} = FileSource(
    name="{shape.name}",
    path="data/{shape.name}",
    timestamp_field={_text(shape.time)},{known}
)
"""


def _views(shape: TableShape) -> str:
    types = ", ".join(sorted({dtype for _, dtype in shape.features}))
    fields = "\n".join(f"        Field(name={_text(column)}, dtype={dtype})," for column, dtype in shape.features)
    return f"""from datetime import timedelta

from entities import {_entity(shape)}
from feast import FeatureView, Field
from feast.types import {types}
from sources import {_source(shape)}

import tidemill

# A ttl of 0 means that a value never grows too old; `schedule` says when the online store is brought up to date.
{shape.view} = FeatureView(
    name="{shape.view}",
    entities=[{_entity(shape)}],
    ttl=timedelta(0),
    schema=[
{fields}
    ],
    source={_source(shape)},
    tags=tidemill.tags(schedule="0 * * * *", lag="5m"),
)
"""


def _source(shape: TableShape) -> str:
    return f"{shape.name}_source" if shape.name in _USED else shape.name


def _entity(shape: TableShape) -> str:
    """A table is often called as what it is about: drivers by `driver_id` in `driver.csv`."""
    taken = _USED | {_source(shape), shape.view, shape.service}
    return f"{shape.entity}_entity" if shape.entity in taken else shape.entity


def _text(text: str) -> str:
    """A text as Python writes it in quotes."""
    return json.dumps(text, ensure_ascii=False)


def _services(shape: TableShape) -> str:
    return f"""from feast import FeatureService
from views import {shape.view}

{shape.service} = FeatureService(name="{shape.service}", features=[{shape.view}])
"""
