-- Writes events into tiles, once. How tiles lie in a string is told in tile_log.py.
--
-- KEYS   where the ids of events are remembered (one key, if there are ids), locks ..., entities of each view ...
-- ARGV   number of ids, seconds to remember them, 1 to write whether or not they are known, number of locks,
--        now (microseconds), ids ..., then for each view: its number, how many entities, how many records each of them
--        has in each hop (uint32, entity by entity; empty: one in each), and for each hop: the oldest tile that counts,
--        the records one after the other
--
-- Answers {0} when all is written, {1, positions of ids seen before} or {2, position of a lock that is held} when
-- nothing is. Redis runs a script as one step, so ids and tiles change together or not at all. What is said about the
-- views themselves is put in where the word VIEWS stands, tile_seen.lua and tile_merge.lua where theirs do. A few events
-- have a script of their own, tile_push_few.lua.
local unpack_, pack, sub = struct.unpack, struct.pack, string.sub
local call, spread = redis.call, unpack
local ids, remember, regardless = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local locks, now = tonumber(ARGV[4]), tonumber(ARGV[5])
local named = ids > 0 and 1 or 0
local HALF = 4503599627370496

if locks > 0 and call('EXISTS', spread(KEYS, named + 1, named + locks)) > 0 then
  for i = 1, locks do
    if call('EXISTS', KEYS[named + i]) == 1 then return {2, i} end
  end
end

-- SEEN
-- MERGE
-- `hops` says how many hops the views have, `lasts` with which byte the front of their logs ends, and `meets` holds for
-- each view that has plain numbers only what `meet` is for the others.
local hops, lasts, meets, made = {}, {}, {}, nil
local function views() return {} end
local function others()
  made = made or make_others(views(), now)
  return made
end
-- VIEWS

-- Everything is read before anything is written: a key that is not ours stops the script here, and no id is remembered
-- of an event that is not counted.
local known = ids > 0 and make_seen(6, ids, remember, now)
local seen = known and known.all_seen(regardless)
if seen then return {1, seen} end

local fronts, key, arg = {}, named + locks, 6 + ids
while ARGV[arg] do
  local number = tonumber(ARGV[arg])
  local last = lasts[number]
  for _ = 1, tonumber(ARGV[arg + 1]) do
    key = key + 1
    fronts[key] = call('GETRANGE', KEYS[key], '0', last)
  end
  arg = arg + 3 + 2 * hops[number]
end

if known then known.remember_ids() end

key, arg = named + locks, 6 + ids
while ARGV[arg] do
  local number, entities, sizes = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1]), ARGV[arg + 2]
  local many, meet, oldest, records, at, counts = hops[number], meets[number], {}, {}, {}, {}
  for i = 1, many do
    oldest[i], records[i], at[i], counts[i] = ARGV[arg + 1 + 2 * i], ARGV[arg + 2 + 2 * i], 0, 1
  end
  for entity = 0, entities - 1 do
    local one_each = true
    if sizes ~= '' then
      for i = 1, many do
        counts[i] = unpack_('<I4', sizes, (entity * many + i - 1) * 4 + 1)
        one_each = one_each and counts[i] == 1
      end
    end
    key = key + 1
    local name, front, met = KEYS[key], fronts[key], false
    if one_each then
      if meet then met = meet(name, front, records, at) else met = others().meet(name, front, number, records, at) end
    end
    if not met then others().write(name, front, number, oldest, records, at, counts) end
    for i = 1, many do at[i] = at[i] + counts[i] end
  end
  arg = arg + 3 + 2 * many
end
return {0}
