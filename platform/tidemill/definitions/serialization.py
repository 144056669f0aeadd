"""Definitions as JSON and back, and the digest of their content.

The JSON is canonical (sorted keys, no white space, durations as whole microseconds), so that equal definitions give
equal bytes on every machine.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Any

from tidemill.definitions import catalog as nouns
from tidemill.definitions.types import ValueType

_MICROSECOND = timedelta(microseconds=1)


def to_json(item: Any) -> str:
    """Canonical JSON of a catalog or one of its parts."""
    return json.dumps(to_plain(item), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(item: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(to_json(item).encode()).hexdigest()


def catalog_from_json(text: str) -> nouns.Catalog:
    return typing.cast("nouns.Catalog", _build(nouns.Catalog, json.loads(text)))


def to_plain(item: Any) -> Any:
    if is_dataclass(item):
        return {f.name: to_plain(getattr(item, f.name)) for f in fields(item)}
    if isinstance(item, ValueType):
        return item.name
    if isinstance(item, Enum):
        return item.value
    if isinstance(item, timedelta):
        return item // _MICROSECOND
    if isinstance(item, tuple | list):
        return [to_plain(part) for part in item]
    return item


def _build(annotation: Any, plain: Any) -> Any:
    if plain is None:
        return None
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _build_union(typing.get_args(annotation), plain)
    if origin is tuple:
        return _build_tuple(typing.get_args(annotation), plain)
    if isinstance(annotation, type):
        return _build_class(annotation, plain)
    return plain


def _build_union(options: tuple[Any, ...], plain: Any) -> Any:
    concrete = [option for option in options if option is not type(None)]
    return _build(concrete[0], plain) if len(concrete) == 1 else plain


def _build_tuple(parts: tuple[Any, ...], plain: Any) -> tuple[Any, ...]:
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_build(parts[0], item) for item in plain)
    return tuple(_build(part, item) for part, item in zip(parts, plain, strict=True))


def _build_class(cls: type, plain: Any) -> Any:
    if is_dataclass(cls):
        hints = _hints(cls)
        return cls(**{f.name: _build(hints[f.name], plain[f.name]) for f in fields(cls) if f.name in plain})
    if issubclass(cls, ValueType):
        return ValueType[plain]
    if issubclass(cls, Enum):
        return cls(plain)
    if issubclass(cls, timedelta):
        return timedelta(microseconds=plain)
    return plain


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, dict(vars(nouns)))
