-- Writes a few events into tiles, one after the other in order of time: what tile_push.lua does for many, with the same
-- result.
-- What is said about the views is put in where the words VIEWS, FRONTS and EVENTS stand, as numbers and texts wherever
-- that can be, since a call of one event is mostly what Redis takes to run this text.
--
-- KEYS   where ids are remembered and the sets of now, of later, of before and of long before (if the views have ids),
--        locks ..., then for each event the entity of each view
-- ARGV   now (microseconds), number of ids, the oldest tile that counts of each kind of tiles (int64), ids ...,
--        then for each event its records of each kind of tiles, one after the other, and, if some are not to be written
--        since their time is over, for each of them 1 or 0
--
-- Answers what tile_push.lua does.
local unpack_, pack, sub, call = struct.unpack, struct.pack, string.sub, redis.call
local now, ids = tonumber(ARGV[1]), tonumber(ARGV[2])
local first, events = 4 + ids, #ARGV - 3 - ids
local HALF = 4503599627370496

-- SEEN
-- MERGE
-- VIEWS

local function seen_in(set, seen)
  if ids == 1 then
    if call('SISMEMBER', set, ARGV[4]) == 1 then seen[1] = 1 end
    return
  end
  local found = call('SMISMEMBER', set, unpack(ARGV, 4, 3 + ids))
  for i = 1, ids do if found[i] == 1 then seen[#seen + 1] = i end end
end

local known, seen = nil, {}
if ids > 0 then
  if call('HLEN', KEYS[1]) == 1 and call('HEXISTS', KEYS[1], SPAN) == 1 then
    if ids > 1 then seen_in(KEYS[2], seen) end -- of one, adding it will tell
    if call('EXISTS', KEYS[3], KEYS[4], KEYS[5]) > 0 then
      for i = 3, 5 do seen_in(KEYS[i], seen) end
    end
  else -- nothing is remembered yet, or ids lie in sets of another length besides
    known = make_seen(4, ids, REMEMBER, now)
    seen = known.all_seen() or seen
  end
  if seen[1] then return {1, seen} end
end

-- Everything is read before anything is written: a key that is not ours stops the script here, and no id is remembered
-- of an event that is not counted.
local fronts, whole = {}, {}
local function front_of(key, last)
  if not fronts[key] then fronts[key] = call('GETRANGE', key, '0', last) end
end
for place = FIRST_ENTITY, #KEYS, VIEWS do
  -- FRONTS
end

if ids > 0 then
  local added = call('SADD', KEYS[2], unpack(ARGV, 4, 3 + ids))
  if ids == 1 and added == 0 then return {1, {1}} end
  if added == call('SCARD', KEYS[2]) then (known or make_seen(4, ids, REMEMBER, now)).begin_set() end
end

-- Newest tiles that are merged with several events are written once, after the last of them.
local changed = {}
local function keep(key, heads, front)
  if events == 1 then return call('SETRANGE', key, '0', heads) end
  if not whole[key] then changed[#changed + 1] = key end
  whole[key], fronts[key] = heads, heads .. sub(front, #heads + 1)
end

local made
local function others()
  made = made or make_others(views(), now)
  return made
end

-- Whatever has been written otherwise is read again by the next event.
local function written(key, number)
  whole[key] = nil
  fronts[key] = events > 1 and call('GETRANGE', key, '0', lasts[number]) or nil
end

local function write_slowly(number, key, front, blob)
  local records, at, counts, oldest, total = {}, {}, {}, {}, 0
  for i, part in ipairs(kinds()[number]) do
    records[i], at[i] = sub(blob, part.from, part.to), 0
    counts[i] = #blob == SIZE and 1 or tonumber(sub(blob, SIZE + part.number, SIZE + part.number))
    oldest[i] = unpack_('<i8', ARGV[3], 8 * part.number - 7)
    total = total + counts[i]
  end
  if total == 0 then return end
  if total < #counts or not others().meet(key, front, number, records, at) then
    others().write(key, front, number, oldest, records, at, counts)
  end
  written(key, number)
end

local place = FIRST_ENTITY - 1
for event = first, #ARGV do
  local blob = ARGV[event]
  -- EVENTS
  place = place + VIEWS
end
for i = 1, #changed do
  if whole[changed[i]] then call('SETRANGE', changed[i], '0', whole[changed[i]]) end
end
return {0}
