-- Writes events into tiles, once.
--
-- KEYS   where the ids of events are remembered (one key, if there are ids), locks ..., tiles ...
-- ARGV   number of ids, seconds to remember them, 1 to write whether or not they are known, number of locks,
--        now (microseconds), ids ..., then for each layout: number of records, words of a record, merge operations,
--        seconds to keep tiles, oldest tile that counts, capacity in records, the records one after the other
--
-- Answers {0} when all is written, {1, positions of ids seen before} or {2, position of a lock that is held} when
-- nothing is. Redis runs a script as one step, so ids and tiles change together or not at all.
local unpack_, pack, sub, floor = struct.unpack, struct.pack, string.sub, math.floor
local call, spread = redis.call, unpack
local ids, remember, regardless = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local locks, now = tonumber(ARGV[4]), tonumber(ARGV[5])
local named = ids > 0 and 1 or 0
local HALF = 4503599627370496
local ZERO = string.rep('\0', 8)

for i = named + 1, named + locks do
  if call('EXISTS', KEYS[i]) == 1 then return {2, i - named} end
end

-- Ids lie in sets, one for each span of half the time for which they are remembered; a set is dropped as a whole when
-- the last of its ids may be forgotten. Spans change with the longest window, so the key holds a hash of those in use
-- (seconds, and until when sets of that length matter).
local function set_of(span, number) return KEYS[1] .. ':' .. span .. ':' .. string.format('%d', number) end
local function number_of(span) return floor(now / 1000000 / span) end

local function seen_before(span)
  local current, seen = number_of(span), {}
  for number = current + 1, current - 2, -1 do -- the next one: another writer's clock may be ahead
    local set = set_of(span, number)
    if call('EXISTS', set) == 1 then
      local found = call('SMISMEMBER', set, spread(ARGV, 6, 5 + ids))
      for i = 1, ids do if found[i] == 1 then seen[#seen + 1] = i end end
    end
  end
  return seen
end

local function remember_ids()
  local span = math.ceil(remember / 2)
  local spans, known = call('HGETALL', KEYS[1]), nil
  if not regardless then
    for i = 1, #spans, 2 do
      local seen = tonumber(spans[i + 1]) > now and seen_before(tonumber(spans[i])) or {}
      if #seen > 0 then return seen end
    end
  end
  local set = set_of(span, number_of(span))
  local is_new = call('EXISTS', set) == 0
  call('SADD', set, spread(ARGV, 6, 5 + ids))
  if is_new then
    call('EXPIRE', set, 3 * span + 60)
    call('UNLINK', set_of(span, number_of(span) - 3), set_of(span, number_of(span) - 4))
    call('HSET', KEYS[1], span, string.format('%d', now + 3 * span * 1000000))
    local left = call('TTL', KEYS[1])
    if left < 3 * span + 60 then call('EXPIRE', KEYS[1], 3 * span + 60) end
  end
end

if ids > 0 then
  local seen = remember_ids()
  if seen then return {1, seen} end
end

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

local formats = {i = 'i8', a = 'i8', b = 'i8', f = 'd', A = 'd', B = 'd'}

-- How to read a whole record as numbers, if that is all it holds, and how each word is merged.
local function number_format(ops)
  local format, kinds = {'<i8i8i8'}, {}
  for i = 1, #ops do
    if not formats[ops[i].kind] then return end
    format[i + 1], kinds[i + 3] = formats[ops[i].kind], ops[i].kind
  end
  return table.concat(format), kinds
end

local parsed_before = {}

local function parsed(text)
  if parsed_before[text] then return parsed_before[text] end
  local ops = {}
  for part in string.gmatch(text, '%S+') do
    local kind, at, rest = string.match(part, '^(%a):(%d+):?(.*)$')
    local op = {kind = kind, at = tonumber(at), merge = merges[kind]}
    local count, total, number = string.match(rest, '^(%d+):(%d+):(%a)$')
    if count then
      op.count, op.total = tonumber(count), tonumber(total)
      op.number = number == 'i' and '<i8' or '<d'
    end
    ops[#ops + 1] = op
  end
  ops.format, ops.kinds = number_format(ops)
  parsed_before[text] = ops
  return ops
end

local function merged(a, b, ops)
  local newest = unpack_('<i8', b, 17) > unpack_('<i8', a, 17) and b or a
  local parts = {word(a, 1), ZERO, word(newest, 17)}
  for i = 1, #ops do parts[i + 3] = ops[i].merge(a, b, ops[i]) end
  return table.concat(parts)
end

-- Most records are numbers that are added or compared, one word each: those are merged all at once. `a` and `b` are
-- their words as numbers; nil where one is too large for Lua to be exact.
local function merged_numbers(a, b, layout)
  local kinds, words = layout.ops.kinds, layout.words
  for i = 4, words do
    local kind, x, y = kinds[i], a[i], b[i]
    if kind == 'f' then a[i] = x + y
    elseif kind == 'A' then if y < x or y ~= y then a[i] = y end
    elseif kind == 'B' then if y > x or y ~= y then a[i] = y end
    else
      if x >= HALF or x <= -HALF or y >= HALF or y <= -HALF then return nil end
      if kind == 'i' then a[i] = x + y
      elseif kind == 'a' then if y < x then a[i] = y end
      elseif y > x then a[i] = y end
    end
  end
  a[2] = 0
  if b[3] > a[3] then a[3] = b[3] end
  return pack(layout.ops.format, spread(a, 1, words))
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
  local size, blob = layout.size, call('GET', key)
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
  call('SET', key, all, 'EX', layout.expiry)
end

-- The record may be older than the newest one: find its tile, or the place where it belongs.
local function insert_late(key, record, layout)
  local size, blob = layout.size, call('GET', key)
  local count, tile = #blob / size, tile_of(record)
  local stop = upto(blob, size, count, tile)
  local place = stop
  while place > 0 do
    local one = sub(blob, (place - 1) * size + 1, place * size)
    if tile_of(one) ~= tile then break end
    if has_come(one) then
      call('SETRANGE', key, (place - 1) * size, merged(one, record, layout.ops))
      return
    end
    place = place - 1
  end
  call('SET', key, sub(blob, 1, stop * size) .. record .. sub(blob, stop * size + 1), 'EX', layout.expiry)
end

local function append(key, record, layout, count)
  call('APPEND', key, record)
  if count + 1 > layout.capacity then
    local blob = call('GET', key)
    local old = upto(blob, layout.size, count + 1, layout.oldest - 1)
    if old > 0 then call('SET', key, sub(blob, old * layout.size + 1)) end
  end
  call('EXPIRE', key, layout.expiry)
end

-- `length` is that of the key's log, and `last` its last record.
local function place(key, record, layout, length, last)
  local size = layout.size
  if not last then
    call('SET', key, record, 'EX', layout.expiry)
    return
  end
  local apart = tile_of(record) - tile_of(last)
  if apart > 0 then append(key, record, layout, length / size)
  elseif not has_come(record) then insert_early(key, record, layout)
  elseif apart == 0 and has_come(last) then call('SETRANGE', key, length - size, merged(last, record, layout.ops))
  else insert_late(key, record, layout) end
end

local function write(key, records, at, layout)
  local size, length, last = layout.size, call('STRLEN', key), nil
  if length > 0 and length % size == 0 then
    last = call('GETRANGE', key, layout.minus_size, '-1')
    local format = layout.ops.format
    if format then
      local a, b = {unpack_(format, last)}, {unpack_(format, records, at)}
      if a[1] == b[1] and a[2] <= now and b[2] <= now then
        local both = merged_numbers(a, b, layout)
        if both then
          call('SETRANGE', key, length - size, both)
          return
        end
      end
    end
  end
  place(key, sub(records, at, at + size - 1), layout, length, last)
end

local key, arg = named + locks, 6 + ids
while ARGV[arg] do
  local layout = {
    words = tonumber(ARGV[arg + 1]), ops = parsed(ARGV[arg + 2]), expiry = ARGV[arg + 3],
    oldest = tonumber(ARGV[arg + 4]), capacity = tonumber(ARGV[arg + 5]),
  }
  layout.size = layout.words * 8
  layout.minus_size = tostring(-layout.size)
  local records, size = ARGV[arg + 6], layout.size
  for i = 1, tonumber(ARGV[arg]) do
    key = key + 1
    write(KEYS[key], records, (i - 1) * size + 1, layout)
  end
  arg = arg + 7
end
return {0}
