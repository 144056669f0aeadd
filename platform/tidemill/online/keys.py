"""Where an entity's features lie in Redis: Feast's entity-key serialization, version 3, followed by the project's name.

    <number of keys> { <STRING> <length> <join key> } { <type> <length> <value> } <project>

All numbers are 32-bit little-endian; keys are in the order of their names. Within the hash, a feature's field is the
murmur3 hash of `view:feature`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache, partial
from typing import Any

import mmh3

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Catalog, View
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError

ENTITY_LESS = "__dummy_id"
"""The join key that Feast gives to a view without entities; its value is the empty string."""

_U32 = struct.Struct("<I")
_TWO_U32 = struct.Struct("<II")
_FIXED = {ValueType.INT32: struct.Struct("<i"), ValueType.INT64: struct.Struct("<q")}
_FIXED[ValueType.UNIX_TIMESTAMP] = _FIXED[ValueType.INT64]
_INT = {int}
_Encoder = Callable[[str, Sequence[Any]], "list[bytes | None]"]
_ALLOWED = {ValueType.STRING, ValueType.BYTES, *_FIXED}


@dataclass(frozen=True, kw_only=True)
class KeyLayout:
    """The shape of one kind of entity's keys. Two views with equal layouts share one Redis hash for each entity.

    `join_keys` are as the definitions order them; `head` is everything before the first value.
    """

    project: str
    join_keys: tuple[str, ...]
    types: tuple[ValueType, ...]

    def __post_init__(self) -> None:
        for name, dtype in zip(self.join_keys, self.types, strict=True):
            if dtype not in _ALLOWED:
                raise DefinitionError(
                    f"The join key {name!r} is {dtype.name}; Feast's wire format has no key of that type.",
                    hint=f"Use one of {', '.join(sorted(item.name for item in _ALLOWED))}.",
                )

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Positions of the join keys in the order in which their values are written: by name."""
        return tuple(sorted(range(len(self.join_keys)), key=lambda place: self.join_keys[place]))

    @cached_property
    def _encoders(self) -> tuple[tuple[_Encoder, str, int], ...]:
        """How each value is written, its join key's name and position, in the order in which they are written."""
        return tuple((_ENCODERS[self.types[place]], self.join_keys[place], place) for place in self.order)

    @cached_property
    def head(self) -> bytes:
        names = [self.join_keys[place].encode() for place in self.order]
        return _U32.pack(len(names)) + b"".join(_TWO_U32.pack(ValueType.STRING, len(name)) + name for name in names)

    @cached_property
    def tail(self) -> bytes:
        return self.project.encode()

    def encode(self, values: Sequence[Any]) -> bytes:
        """The Redis key of one entity; `values` in the order of `join_keys`. Raises InputError for a wrong type."""
        columns = [[value] for value in values]
        key = self.encode_columns(columns)[0]
        if key is None:
            raise InputError(f"A null key matches nothing: {dict(zip(self.join_keys, values, strict=True))}.")
        return key

    def encode_columns(self, columns: Sequence[Sequence[Any]]) -> list[bytes | None]:
        """The Redis keys of many entities, None for a row with a null key. Raises InputError for a wrong type."""
        head, tail = self.head, self.tail
        return [None if part is None else head + part + tail for part in self.parts(columns)]

    def parts(self, columns: Sequence[Sequence[Any]]) -> list[bytes | None]:
        """What lies between `head` and `tail` in each key: the values. None for a row with a null key."""
        parts = [encode(name, columns[place]) for encode, name, place in self._encoders]
        if len(parts) == 1:
            return parts[0]
        return [None if None in row else b"".join(row) for row in zip(*parts, strict=True)]  # type: ignore[arg-type]

    def usual_part(self, values: Sequence[Any]) -> bytes | None:
        """`parts` for one row, its values in the order of `join_keys`; None for whatever is unusual, which `parts` can
        tell apart."""
        out = b""
        for encode, place in self._usual_encoders:
            raw = encode(values[place])
            if raw is None:
                return None
            out += raw
        return out

    @cached_property
    def _usual_encoders(self) -> tuple[tuple[Callable[[Any], bytes | None], int], ...]:
        return tuple((_usual_encoder(self.types[place]), place) for place in self.order)

    @cached_property
    def whole_number(self) -> ValueType | None:
        """The type of the only join key, if that is a whole number."""
        return self.types[0] if len(self.types) == 1 and self.types[0] in _FIXED else None

    def encode_rows(self, count: int) -> list[bytes]:
        """The one key of an entity-less view, once for each row."""
        return [self.encode([""])] * count

    def decode(self, key: bytes) -> tuple[Any, ...] | None:
        """The values in a Redis key, in the order of `join_keys`; None if the key is of another shape or project."""
        head = self.head
        if not key.startswith(head):
            return None
        values: list[Any] = [None] * len(self.join_keys)
        position = len(head)
        for place in self.order:
            found = _decode_part(key, position)
            if found is None or found[0] != self.types[place]:
                return None
            values[place], position = found[1], found[2]
        return tuple(values) if key[position:] == self.tail else None


def key_layout(catalog: Catalog, view: View) -> KeyLayout:
    """The layout of a view's keys. An entity-less view has Feast's dummy key."""
    if not view.join_keys:
        return KeyLayout(project=catalog.project, join_keys=(ENTITY_LESS,), types=(ValueType.STRING,))
    return KeyLayout(project=catalog.project, join_keys=view.join_keys, types=catalog.key_types(view))


def split_key(key: bytes) -> tuple[tuple[str, ...], bytes] | None:
    """The join keys' names and the project of any entity key, or None if these bytes are no entity key."""
    try:
        (count,) = _U32.unpack_from(key, 0)
        position, names = 4, []
        if not 0 < count <= 64:
            return None
        for _ in range(count):
            dtype, length = _TWO_U32.unpack_from(key, position)
            if dtype != ValueType.STRING:
                return None
            names.append(key[position + 8 : position + 8 + length].decode())
            position += 8 + length
        for _ in range(count):
            found = _decode_part(key, position)
            if found is None:
                return None
            position = found[2]
    except (struct.error, UnicodeDecodeError):
        return None
    return tuple(names), key[position:]


@lru_cache(maxsize=65_536)
def hash_field(view: str, feature: str) -> bytes:
    """The field of a feature in its entity's hash: four bytes, so two may collide; see `check_field_hashes`."""
    return _U32.pack(mmh3.hash(f"{view}:{feature}", signed=False))


def time_field(view: str) -> bytes:
    """The field of the event time, a Timestamp message."""
    return f"_ts:{view}".encode()


def known_field(view: str) -> bytes:
    """The field that decides between writers, which Feast ignores. See `writer`."""
    return f"_kt:{view}".encode()


def packed_field(view: str) -> bytes:
    """The one field of a view in the packed layout. See `packed`."""
    return f"_pk:{view}".encode()


def check_field_hashes(catalog: Catalog) -> None:
    """Refuse a catalog in which two features of one hash would overwrite each other. Called by apply.

    Raises DefinitionError naming both: the field is a 32-bit hash, and Feast lets collisions pass silently.
    """
    taken: dict[tuple[KeyLayout, bytes], str] = {}
    for view in catalog.views:
        layout = key_layout(catalog, view)
        for feature in view.features:
            name = f"{view.name}:{feature.name}"
            other = taken.setdefault((layout, hash_field(view.name, feature.name)), name)
            if other != name:
                raise DefinitionError(
                    f"The features {other} and {name} have the same 32-bit field hash in Redis, so one would overwrite "
                    "the other.",
                    hint="Rename either feature.",
                )


def packer_between(dtype: ValueType, before: bytes, after: bytes) -> Callable[[int], bytes]:
    """A function of a whole number: its type, length and value between these bytes. It raises struct.error where the
    number does not fit the type."""
    before += _TWO_U32.pack(dtype, _FIXED[dtype].size)
    pack = struct.Struct(f"<{len(before)}s{_FIXED[dtype].format[1:]}{len(after)}s").pack
    return lambda value: pack(before, value, after)


def _packer(dtype: ValueType) -> Callable[[int], bytes]:
    """A function of a whole number: its type, length and value. It raises struct.error where that does not fit."""
    fixed = _FIXED[dtype]
    return partial(struct.Struct(f"<8s{fixed.format[1:]}").pack, _TWO_U32.pack(dtype, fixed.size))


def _encode_fixed(dtype: ValueType) -> _Encoder:
    pack = _packer(dtype)

    def encode(name: str, column: Sequence[Any]) -> list[bytes | None]:
        try:
            if set(map(type, column)) == _INT:
                return [*map(pack, column)]
            return [None if value is None else pack(_whole_number(name, dtype, value)) for value in column]
        except struct.error:
            raise InputError(f"The key {name!r} holds a number that does not fit {dtype.name}.") from None

    return encode


def _encode_text(name: str, column: Sequence[Any]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for value in column:
        if value is None:
            found.append(None)
            continue
        if type(value) is not str:
            raise _wrong_type(name, ValueType.STRING, value)
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise InputError(f"The key {name!r} holds text that is not valid Unicode.") from None
        found.append(_TWO_U32.pack(ValueType.STRING, len(text)) + text)
    return found


def _usual_encoder(dtype: ValueType) -> Callable[[Any], bytes | None]:
    """Encodes one key of the plainest kind, None for any other: the way for single rows, of which many are read."""
    if dtype is ValueType.STRING:
        return _usual_text
    if dtype is ValueType.BYTES:
        return lambda _: None
    pack = _packer(dtype)

    def encode(value: Any) -> bytes | None:
        if type(value) is not int:
            return None
        try:
            return pack(value)
        except struct.error:
            return None

    return encode


def _usual_text(value: Any) -> bytes | None:
    if type(value) is not str:
        return None
    try:
        text = value.encode()
    except UnicodeEncodeError:
        return None
    return _TWO_U32.pack(ValueType.STRING, len(text)) + text


def _encode_binary(name: str, column: Sequence[Any]) -> list[bytes | None]:
    for value in column:
        if not isinstance(value, bytes | None):
            raise _wrong_type(name, ValueType.BYTES, value)
    return [None if value is None else _TWO_U32.pack(ValueType.BYTES, len(value)) + value for value in column]


_ENCODERS: dict[ValueType, Callable[[str, Sequence[Any]], list[bytes | None]]] = {
    ValueType.STRING: _encode_text,
    ValueType.BYTES: _encode_binary,
    **{dtype: _encode_fixed(dtype) for dtype in _FIXED},
}


def _whole_number(name: str, dtype: ValueType, value: Any) -> int:
    if dtype is ValueType.UNIX_TIMESTAMP and isinstance(value, datetime):
        return to_micros(value) // 1_000_000
    if isinstance(value, bool | str | bytes):
        raise _wrong_type(name, dtype, value)
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int):
        raise _wrong_type(name, dtype, value)
    return value


def _wrong_type(name: str, dtype: ValueType, value: Any) -> InputError:
    shown = repr(value)
    return InputError(
        f"The key {name!r} is {dtype.name}, but {shown[:80]} ({type(value).__name__}) was given.",
        hint=f"Give {'text' if dtype is ValueType.STRING else 'a value'} of type {dtype.name}.",
    )


def _decode_part(key: bytes, position: int) -> tuple[ValueType, Any, int] | None:
    try:
        number, length = _TWO_U32.unpack_from(key, position)
        dtype = ValueType(number)
        raw = key[position + 8 : position + 8 + length]
        if len(raw) != length or dtype not in _ALLOWED:
            return None
        if dtype in _FIXED:
            return dtype, _FIXED[dtype].unpack(raw)[0], position + 8 + length
        return dtype, raw.decode() if dtype is ValueType.STRING else raw, position + 8 + length
    except (struct.error, ValueError):
        return None
