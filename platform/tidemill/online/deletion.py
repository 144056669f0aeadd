"""Removing data from Redis: exactly what belongs to a view or to a project, whoever else keeps data there.

Keys are found by scanning, which does not hold up readers, and each is taken apart before anything is deleted: the
project `prod` never touches a key of `my_prod`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.keys import hash_field, key_layout, known_field, packed_field, split_key, time_field
from tidemill.online.resp import RespClient

_SCANNED_AT_ONCE = 2_000
_OF_A_VIEW = (b"_ts:", b"_pk:")


def delete_view(client: RespClient, catalog: Catalog, view: View) -> int:
    """Remove a view's plain values; returns how many entities had some. Other views on the same keys keep theirs."""
    layout = key_layout(catalog, view)
    fields = [hash_field(view.name, feature.name) for feature in view.features]
    own = [time_field(view.name), packed_field(view.name)]
    fields += [*own, known_field(view.name)]
    deleted = 0
    for keys in _scan(client, _escaped(layout.head) + b"*" + _escaped(layout.tail)):
        mine = [key for key in keys if layout.decode(key) is not None]
        found = client.pipeline([("HMGET", key, *own) for key in mine])
        there = [key for key, marks in zip(mine, found, strict=True) if any(mark is not None for mark in marks)]
        client.pipeline([("HDEL", key, *fields) for key in there])
        _delete_leftovers(client, there)
        deleted += len(there)
    return deleted


def delete_project(client: RespClient, project: str) -> int:
    """Remove every entity's plain values of one project, of views long gone too; returns how many keys those were."""
    name, deleted = project.encode(), 0
    for keys in _scan(client, b"*" + _escaped(name)):
        mine = [key for key in keys if _project_of(key) == name]
        client.pipeline([("UNLINK", key) for key in mine])
        deleted += len(mine)
    return deleted


def _delete_leftovers(client: RespClient, keys: list[bytes]) -> None:
    """A hash in which no view has a time is nobody's: fields of features that were renamed long ago."""
    for key, fields in zip(keys, client.pipeline([("HKEYS", key) for key in keys]), strict=True):
        if fields and not any(name.startswith(_OF_A_VIEW) for name in fields):
            client.call("UNLINK", key)


def _project_of(key: bytes) -> bytes | None:
    found = split_key(key)
    return None if found is None else found[1]


def _scan(client: RespClient, pattern: bytes) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        cursor, keys = client.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED_AT_ONCE)
        if keys:
            yield keys
        if cursor == b"0":
            return


def _escaped(raw: bytes) -> bytes:
    """Bytes that a SCAN pattern takes literally."""
    return b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]\\^-" else bytes((byte,)) for byte in raw)
