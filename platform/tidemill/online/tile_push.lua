-- Writes events into tiles, once.
--
-- KEYS   locks ..., ids of events ..., tiles ...
-- ARGV   number of locks, number of ids, seconds to remember ids, now (microseconds), then for each layout:
--        number of records, words of a record, merge operations, seconds to keep tiles, oldest tile that counts,
--        capacity in records, the records one after the other
--
-- Answers {0} when all is written, {1, positions of ids seen before} or {2, position of a lock that is held} when
-- nothing is. Redis runs a script as one step, so ids and tiles change together or not at all.
local unpack_, pack, sub, floor = struct.unpack, struct.pack, string.sub, math.floor
local locks, ids = tonumber(ARGV[1]), tonumber(ARGV[2])
local remember, now = ARGV[3], tonumber(ARGV[4])
local HALF = 4503599627370496
local ZERO = string.rep('\0', 8)

for i = 1, locks do
  if redis.call('EXISTS', KEYS[i]) == 1 then return {2, i} end
end
local seen = {}
for i = 1, ids do
  if redis.call('EXISTS', KEYS[locks + i]) == 1 then seen[#seen + 1] = i end
end
if #seen > 0 then return {1, seen} end

-- Lua's numbers hold 53 bits: larger sums are added by halves, with the carry.
local function add64(a, b, at)
  local x, y = unpack_('<i8', a, at), unpack_('<i8', b, at)
  if x < HALF and x > -HALF and y < HALF and y > -HALF then return pack('<i8', x + y) end
  local low = unpack_('<I4', a, at) + unpack_('<I4', b, at)
  local high = unpack_('<I4', a, at + 4) + unpack_('<I4', b, at + 4)
  if low >= 4294967296 then low = low - 4294967296; high = high + 1 end
  if high >= 4294967296 then high = high - 4294967296 end
  return pack('<I4I4', low, high)
end

local function less64(a, b, at)
  local x, y = unpack_('<i8', a, at), unpack_('<i8', b, at)
  if x ~= y then return x < y end
  x, y = unpack_('<i4', a, at + 4), unpack_('<i4', b, at + 4)
  if x ~= y then return x < y end
  return unpack_('<I4', a, at) < unpack_('<I4', b, at)
end

local function word(record, at) return sub(record, at, at + 7) end

local function greater_sketch(a, b, at)
  local run, parts, done = sub(b, at, at + 255), {}, 0
  local place = string.find(run, '[^%z]', 1)
  while place do
    local mine, other = string.byte(a, at + place - 1), string.byte(run, place)
    if other > mine then
      parts[#parts + 1] = sub(a, at + done, at + place - 2)
      parts[#parts + 1] = string.char(other)
      done = place
    end
    place = string.find(run, '[^%z]', place + 1)
  end
  parts[#parts + 1] = sub(a, at + done, at + 255)
  return table.concat(parts)
end

-- One merge for each kind of partial; `a` was there first.
local merges = {
  i = function(a, b, op) return add64(a, b, op.at) end,
  f = function(a, b, op) return pack('<d', unpack_('<d', a, op.at) + unpack_('<d', b, op.at)) end,
  a = function(a, b, op) return word(less64(b, a, op.at) and b or a, op.at) end,
  b = function(a, b, op) return word(less64(a, b, op.at) and b or a, op.at) end,
  A = function(a, b, op)
    local x, y = unpack_('<d', a, op.at), unpack_('<d', b, op.at)
    return word((y < x or y ~= y) and b or a, op.at)
  end,
  B = function(a, b, op)
    local x, y = unpack_('<d', a, op.at), unpack_('<d', b, op.at)
    return word((y > x or y ~= y) and b or a, op.at)
  end,
  q = function(a, b, op)
    local n, m = unpack_('<i8', a, op.count), unpack_('<i8', b, op.count)
    if n == 0 then return word(b, op.at) end
    if m == 0 then return word(a, op.at) end
    local apart = unpack_(op.number, b, op.total) / m - unpack_(op.number, a, op.total) / n
    return pack('<d', unpack_('<d', a, op.at) + unpack_('<d', b, op.at) + apart * apart * n * m / (n + m))
  end,
  x = function(a, b, op)
    local at = op.at
    local mine, other = unpack_('<i8', a, at), unpack_('<i8', b, at)
    if mine == other then mine, other = unpack_('<i8', a, at + 8), unpack_('<i8', b, at + 8) end
    return sub(other < mine and b or a, at, at + 23)
  end,
  y = function(a, b, op)
    local at = op.at
    local mine, other = unpack_('<i8', a, at), unpack_('<i8', b, at)
    if mine == other then mine, other = unpack_('<i8', a, at + 8), unpack_('<i8', b, at + 8) end
    return sub(other >= mine and b or a, at, at + 23)
  end,
  h = function(a, b, op) return greater_sketch(a, b, op.at) end,
}

local function parsed(text)
  local ops = {}
  for part in string.gmatch(text, '%S+') do
    local kind, at, rest = string.match(part, '^(%a):(%d+):?(.*)$')
    local op = {at = tonumber(at), merge = merges[kind]}
    local count, total, number = string.match(rest, '^(%d+):(%d+):(%a)$')
    if count then
      op.count, op.total = tonumber(count), tonumber(total)
      op.number = number == 'i' and '<i8' or '<d'
    end
    ops[#ops + 1] = op
  end
  return ops
end

local function merged(a, b, ops)
  local newest = unpack_('<i8', b, 17) > unpack_('<i8', a, 17) and b or a
  local parts = {word(a, 1), ZERO, word(newest, 17)}
  for i = 1, #ops do parts[i + 3] = ops[i].merge(a, b, ops[i]) end
  return table.concat(parts)
end

local function tile_of(record) return (unpack_('<i8', record)) end
local function has_come(record) return unpack_('<i8', record, 9) <= now end

-- How many of the records of `blob` have a tile of at most `tile`.
local function upto(blob, size, count, tile)
  local low, high = 0, count
  while low < high do
    local middle = floor((low + high) / 2)
    if unpack_('<i8', blob, middle * size + 1) <= tile then low = middle + 1 else high = middle end
  end
  return low
end

-- A record whose time has not come joins its tile as a record of its own; those whose time has come become one.
local function insert_early(key, record, layout)
  local size, blob = layout.size, redis.call('GET', key)
  local count, tile = #blob / size, tile_of(record)
  local stop = upto(blob, size, count, tile)
  local start = upto(blob, size, count, tile - 1)
  local come, early = nil, {}
  for i = start, stop - 1 do
    local one = sub(blob, i * size + 1, (i + 1) * size)
    if not has_come(one) then early[#early + 1] = one
    elseif come then come = merged(come, one, layout.ops)
    else come = one end
  end
  early[#early + 1] = record
  local all = sub(blob, 1, start * size) .. (come or '') .. table.concat(early) .. sub(blob, stop * size + 1)
  redis.call('SET', key, all, 'EX', layout.expiry)
end

-- The record may be older than the newest one: find its tile, or the place where it belongs.
local function insert_late(key, record, layout)
  local size, blob = layout.size, redis.call('GET', key)
  local count, tile = #blob / size, tile_of(record)
  local stop = upto(blob, size, count, tile)
  local place = stop
  while place > 0 do
    local one = sub(blob, (place - 1) * size + 1, place * size)
    if tile_of(one) ~= tile then break end
    if has_come(one) then
      redis.call('SETRANGE', key, (place - 1) * size, merged(one, record, layout.ops))
      return
    end
    place = place - 1
  end
  redis.call('SET', key, sub(blob, 1, stop * size) .. record .. sub(blob, stop * size + 1), 'EX', layout.expiry)
end

local function append(key, record, layout, count)
  redis.call('APPEND', key, record)
  if count + 1 > layout.capacity then
    local blob = redis.call('GET', key)
    local old = upto(blob, layout.size, count + 1, layout.oldest - 1)
    if old > 0 then redis.call('SET', key, sub(blob, old * layout.size + 1)) end
  end
  redis.call('EXPIRE', key, layout.expiry)
end

local function place(key, record, layout)
  local size = layout.size
  local length = redis.call('STRLEN', key)
  if length == 0 or length % size ~= 0 then
    redis.call('SET', key, record, 'EX', layout.expiry)
    return
  end
  local last = redis.call('GETRANGE', key, length - size, length - 1)
  local apart = tile_of(record) - tile_of(last)
  if apart > 0 then append(key, record, layout, length / size)
  elseif not has_come(record) then insert_early(key, record, layout)
  elseif apart == 0 and has_come(last) then redis.call('SETRANGE', key, length - size, merged(last, record, layout.ops))
  else insert_late(key, record, layout) end
end

for i = 1, ids do redis.call('SET', KEYS[locks + i], '1', 'EX', remember) end
local key, arg = locks + ids, 5
while ARGV[arg] do
  local layout = {
    size = tonumber(ARGV[arg + 1]) * 8, ops = parsed(ARGV[arg + 2]), expiry = ARGV[arg + 3],
    oldest = tonumber(ARGV[arg + 4]), capacity = tonumber(ARGV[arg + 5]),
  }
  local records, size = ARGV[arg + 6], layout.size
  for i = 1, tonumber(ARGV[arg]) do
    key = key + 1
    place(KEYS[key], sub(records, (i - 1) * size + 1, i * size), layout)
  end
  arg = arg + 7
end
return {0}
