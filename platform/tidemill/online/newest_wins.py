"""The scripts that hold the rule: a row is compared with what is stored and written or not, in one step.

`compare_script` knows every case and takes the row's values one by one. `replace_script` knows the usual case of a run
over entities that are there: the row is newer, and their hash holds this view and nothing else. It takes the finished
image of the hash (see `creation`) and puts it in the place of the old one, which costs Redis a third less than looking
for each field; whatever else it meets it leaves as it is and says so.

That a hash holds this view's fields and no others is told by their number and by the last four bytes of `_kt:{view}`,
which name the definition that wrote it: whoever writes them writes all of its fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tidemill.definitions.catalog import View
from tidemill.online.creation import FIXED_END
from tidemill.online.keys import hash_field, known_field, packed_field, time_field
from tidemill.online.packed import PackedSchema
from tidemill.online.resp import Script


@lru_cache(maxsize=512)
def compare_script(view: str, features: tuple[str, ...], layout: str, *, writes: bool = True) -> Script:
    """`KEYS` and, as one blob, their rows; the reply counts the written, the unchanged and the older ones, and how many
    of them were looked up twice. With `writes=False` it counts what it would do, and does nothing."""
    text = _packed_script(view) if layout == "packed" else _feast_script(view, features)
    return Script(text if writes else _ONLY_READS + text)


@lru_cache(maxsize=512)
def replace_script(view: View) -> Script:
    """`KEYS`, and after the expiry in milliseconds the image of each, for Feast's layout.

    The reply is how many were written, how many older than what is stored, and the places (from 1) of those that are
    left as they were, to be compared.
    """
    return Script(_replace_script(view.name, len(view.features) + 2, PackedSchema(view.features).digest))


def reads_of_compare(reply: Any) -> int:
    """How often the compare script read, by its reply; 0 where it failed."""
    return sum(reply) if isinstance(reply, list) else 0


def reads_of_replace(reply: Any) -> int:
    """The same of the replace script."""
    return reply[0] + reply[1] + len(reply) - 2 if isinstance(reply, list) else 0


def _literal(raw: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in raw) + '"'


_ONLY_READS = """
local reads = {HGET = true, HMGET = true}
local redis = {call = function(name, ...) if reads[name] then return redis.call(name, ...) end end}
"""

_HEAD = """
local unpack_row, call = struct.unpack, redis.call
local blob, spelled, expiry = ARGV[1], ARGV[2], tonumber(ARGV[3])
local place, written, unchanged, older, again = 1, 0, 0, 0, 0

local function renew(key)
  if expiry > 0 then call('EXPIRE', key, expiry) else call('PERSIST', key) end
end
"""

_EVENT_OF = """
local function any_event_of(stamp)
  local parts, i = {[8] = 0, [16] = 0}, 1
  while i <= #stamp do
    local field, value, inverse, scale, byte = stamp:byte(i), 0, 0, 1, 0
    repeat
      i = i + 1
      byte = stamp:byte(i) or 0
      value = value + byte % 128 * scale
      if scale < 2 ^ 63 then inverse = inverse + (127 - byte % 128) * scale end
      scale = scale * 128
    until byte < 128
    if scale == 2 ^ 70 then value = -inverse - 1 end
    parts[field] = value
    i = i + 1
  end
  return parts[8] * 1000000 + math.floor(parts[16] / 1000)
end

local function event_of(stamp)
  local head, a, b, c, d, e = stamp:byte(1, 6)
  if #stamp == 6 and head == 8 and a > 127 and b > 127 and c > 127 and d > 127 and e < 128 then
    return (a - 128 + (b - 128) * 128 + (c - 128) * 16384 + (d - 128) * 2097152 + e * 268435456) * 1000000
  end
  return any_event_of(stamp)
end
"""

_VERDICT = """
    if event < old_event or (event == old_event and known < old_known) then
      older, keep = older + 1, false
    elseif event == old_event and known == old_known then
      if %(same)s then
        if learned > old_learned then %(relearn)s end
        unchanged, keep = unchanged + 1, false
        renew(key)
      elseif learned < old_learned then
        older, keep = older + 1, false
      end
    end
"""


def _feast_script(view: str, features: Sequence[str]) -> str:
    fields = [_literal(hash_field(view, feature)) for feature in features]
    few = len(fields) <= 40  # Lua allows 200 local names and 250 registers
    values = [f"v{place}" for place in range(len(fields))] if few else []
    pairs = ", ".join(f"{field}, {value}" for field, value in zip(fields, values, strict=False))
    stamps = f"{_literal(time_field(view))}, stamp, {_literal(known_field(view))}, instants"
    new = f"{{{', '.join(values)}}}, 0" if few else "row, 2"
    verdict = _VERDICT % {
        "same": f"same(call('HMGET', key, unpack(fields)), {new})",
        "relearn": f"call('HSET', key, {_literal(known_field(view))}, instants)",
    }
    take = (
        f"local instants, stamp, {', '.join(values)}, after = unpack_row(spelled, blob, place)"
        if few
        else """local row = {unpack_row(spelled, blob, place)}
  local instants, stamp, after = row[1], row[2], table.remove(row)"""
    )
    put = (
        f"call('HSET', key, {stamps}, {pairs})"
        if few
        else f"""local pairs_of = {{{stamps}}}
    for i = 1, #fields do pairs_of[#pairs_of + 1] = fields[i] pairs_of[#pairs_of + 1] = row[i + 2] end
    call('HSET', key, unpack(pairs_of))"""
    )
    return f"""{_HEAD}{_EVENT_OF}
local fields = {{{", ".join(fields)}}}
local function same(old, new, before)
  again = again + 1
  for i = 1, #fields do if old[i] ~= new[i + before] then return false end end
  return true
end

for i = 1, #KEYS do
  local key, keep = KEYS[i], true
  {take}
  place = after
  local old = call('HMGET', key, {_literal(time_field(view))}, {_literal(known_field(view))})
  if old[1] then
    local event, known, learned = unpack_row('>i8i8i8', instants)
    local old_event, old_known, old_learned = event_of(old[1]), -(2 ^ 63), -(2 ^ 63)
    if old[2] and #old[2] >= 24 then
      local noted, old_known_noted, old_learned_noted = unpack_row('>i8i8i8', old[2])
      if noted == old_event then old_known, old_learned = old_known_noted, old_learned_noted end
    end
{verdict}
  end
  if keep then
    {put}
    renew(key)
    written = written + 1
  end
end
return {{written, unchanged, older, again}}
"""


def _packed_script(view: str) -> str:
    field = _literal(packed_field(view))
    verdict = _VERDICT % {
        "same": "old:sub(25) == values",
        "relearn": f"call('HSET', key, {field}, instants .. values)",
    }
    return f"""{_HEAD}
for i = 1, #KEYS do
  local key, keep = KEYS[i], true
  local instants, values, after = unpack_row(spelled, blob, place)
  place = after
  local old = call('HGET', key, {field})
  if old and #old >= 24 then
    local event, known, learned = unpack_row('>i8i8i8', instants)
    local old_event, old_known, old_learned = unpack_row('>i8i8i8', old)
{verdict}
  end
  if keep then
    call('HSET', key, {field}, instants .. values)
    renew(key)
    written = written + 1
  end
end
return {{written, unchanged, older, again}}
"""


def _replace_script(view: str, fields: int, definition: bytes) -> str:
    noted = int.from_bytes(definition, "big")
    return f"""
local unpack_row, call, try = struct.unpack, redis.call, redis.pcall
local expiry, written, older, left = ARGV[1], 0, 0, {{}}
{_EVENT_OF}
local function put(key, image, ...)
  local reply = try('RESTORE', key, expiry, image, ...)
  if reply.ok then written = written + 1 end
  return reply.ok
end

for i = 1, #KEYS do
  local key, image, settled = KEYS[i], ARGV[i + 1], false
  local old = call('HMGET', key, {_literal(time_field(view))}, {_literal(known_field(view))})
  local stamp, times = old[1], old[2]
  if stamp and times and #times == 28 then
    local event, known = unpack_row('>i8i8', image, #image - {FIXED_END - 1})
    local old_event, old_known, _, definition = unpack_row('>i8i8i8I4', times)
    if definition == {noted} and event_of(stamp) == old_event then
      if event < old_event or (event == old_event and known < old_known) then
        older, settled = older + 1, true
      elseif (event > old_event or known > old_known) and call('HLEN', key) == {fields} then
        settled = put(key, image, 'REPLACE')
      end
    end
  elseif not stamp and call('EXISTS', key) == 0 then
    settled = put(key, image)
  end
  if not settled then left[#left + 1] = i end
end
return {{written, older, unpack(left)}}
"""
