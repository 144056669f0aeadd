"""Removing data from Redis: exactly what belongs to a view or to a project, whoever else keeps data there.

Keys are found by scanning, which does not hold up readers, and each is taken apart before anything is deleted: the
project `prod` never touches a key of `my_prod`. What goes from a hash that views share, and whether the hash goes with
it, is one step in Redis, so that nothing is lost that another view writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidemill.definitions.catalog import Catalog, View
from tidemill.online.keys import hash_field, key_layout, known_field, packed_field, split_key, time_field
from tidemill.online.resp import RespClient, Script

_SCANNED_AT_ONCE = 2_000
_HASHES_AT_ONCE = 100  # in one step of Redis, in which readers wait

_DELETE = Script("""
local call, marks, before, deleted = redis.call, tonumber(ARGV[1]), tonumber(ARGV[2]), 0

local function belongs_to_a_view(key)
  for _, name in ipairs(call('HKEYS', key)) do
    local start = name:sub(1, 4)
    if start == '_ts:' or start == '_pk:' then return true end
  end
  return false
end

local function learned(key)
  for i = marks + 2, marks + 3 do  -- of the packed layout, and of Feast's
    local times = call('HGET', key, ARGV[i])
    if times and #times >= 24 then return (select(3, struct.unpack('>i8i8i8', times))) end
  end
  return before
end

for _, key in ipairs(KEYS) do
  local there = false
  for i = 3, marks + 2 do there = there or call('HEXISTS', key, ARGV[i]) == 1 end
  if there and (before == 0 or learned(key) < before) then
    for i = 3, #ARGV, 1000 do call('HDEL', key, unpack(ARGV, i, math.min(i + 999, #ARGV))) end
    if not belongs_to_a_view(key) then call('UNLINK', key) end
    deleted = deleted + 1
  end
end
return deleted
""")
"""`KEYS` are hashes; after the number of the fields that mark the view, and the instant before which its values were
learned (0 for whenever), come those fields, and its other ones.

A hash in which no view has a time is nobody's then: it holds fields of features that were renamed long ago, and goes
with the view."""


def delete_view(client: RespClient, catalog: Catalog, view: View, *, learned_before: int = 0) -> int:
    """Remove a view's plain values; returns how many entities had some. Other views on the same keys keep theirs.

    With `learned_before` (microseconds) only those that were learned before then; such as tell nothing of it stay.
    """
    layout = key_layout(catalog, view)
    marks = [time_field(view.name), packed_field(view.name)]
    others = [known_field(view.name), *(hash_field(view.name, feature.name) for feature in view.features)]
    arguments = [len(marks), learned_before, *marks, *others]
    deleted = 0
    for keys in _scan(client, _escaped(layout.head) + b"*" + _escaped(layout.tail)):
        mine = [key for key in keys if layout.decode(key) is not None]
        for first in range(0, len(mine), _HASHES_AT_ONCE):
            deleted += _DELETE.run(client, mine[first : first + _HASHES_AT_ONCE], arguments)
    return deleted


def delete_project(client: RespClient, project: str) -> int:
    """Remove every entity's plain values of one project, of views long gone too; returns how many keys those were."""
    name, deleted = project.encode(), 0
    for keys in _scan(client, b"*" + _escaped(name)):
        mine = [key for key in keys if _project_of(key) == name]
        client.pipeline([("UNLINK", key) for key in mine])
        deleted += len(mine)
    return deleted


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
