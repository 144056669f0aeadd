-- What only records need that are not plain numbers for the newest tiles. It is made when first asked for, since Redis
-- runs all of this text for every push.
local function make_others(views, now)
local unpack_, pack, sub, floor, call = struct.unpack, struct.pack, string.sub, math.floor, redis.call
local HALF = 4503599627370496
local ZERO, NO_TILE = string.rep('\0', 8), string.rep('\0', 7) .. '\128'
local WIDE = NO_TILE

-- Lua's numbers hold 53 bits: larger sums are added by halves, with the carry. The least of all numbers stands for a sum
-- that 64 bits do not hold, and stays what it is.
local function add64(a, b, at)
  local x, y = unpack_('<i8', a, at), unpack_('<i8', b, at)
  if x < HALF and x > -HALF and y < HALF and y > -HALF then return pack('<i8', x + y) end
  if sub(a, at, at + 7) == WIDE or sub(b, at, at + 7) == WIDE then return WIDE end
  local low = unpack_('<I4', a, at) + unpack_('<I4', b, at)
  local high = unpack_('<i4', a, at + 4) + unpack_('<i4', b, at + 4)
  if low >= 4294967296 then low = low - 4294967296; high = high + 1 end
  if high >= 2147483648 or high < -2147483648 then return WIDE end
  return pack('<I4i4', low, high)
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

local parsed_before = {}

-- How each partial of a record is merged.
local function parsed(text)
  if parsed_before[text] then return parsed_before[text] end
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
  parsed_before[text] = ops
  return ops
end

local function merged(a, b, hop)
  local ops = parsed(hop.ops)
  local newest = unpack_('<i8', b, 17) > unpack_('<i8', a, 17) and b or a
  local parts = {word(a, 1), ZERO, word(newest, 17)}
  for i = 1, #ops do parts[i + 3] = ops[i].merge(a, b, ops[i]) end
  return table.concat(parts)
end

local function tile_of(record) return (unpack_('<i8', record)) end
local function has_come(record) return unpack_('<i8', record, 9) <= now end

-- How many of the records of `text` have a tile of at most `tile`.
local function upto(text, size, tile)
  local low, high = 0, #text / size
  while low < high do
    local middle = floor((low + high) / 2)
    if unpack_('<i8', text, middle * size + 1) <= tile then low = middle + 1 else high = middle end
  end
  return low
end

-- What is in a log: of each hop the newest record, how many older ones and room for how many from which byte. `over` are
-- those that are to be added to the older ones, `text` the older ones where they are to be written anew; `older` are they
-- as they were read, and `patches` by place what has been put over them in Redis since.
local function opened(key, header, view)
  local log = {key = key, heads = {}, count = {}, room = {}, from = {}, over = {}, text = {}, older = {}, patches = {}}
  local sound, from, length = #header == view.header, view.header, nil
  for i, hop in ipairs(view.hops) do
    log.over[i], log.from[i], log.patches[i] = '', from, {}
    if sound then
      log.count[i], log.room[i] = unpack_('<i8i8', header, view.counts + 16 * (i - 1))
      sound = log.count[i] >= 0 and log.count[i] <= log.room[i]
      length, from = from + log.count[i] * hop.size, from + log.room[i] * hop.size
      local head = sub(header, hop.at, hop.at + hop.size - 1)
      if sub(head, 1, 8) ~= NO_TILE then log.heads[i] = head end
    end
  end
  if sound and call('STRLEN', key) == length then return log end
  for i = 1, #view.hops do log.count[i], log.room[i], log.text[i] = 0, 0, '' end
  log.heads, log.is_fresh = {}, true
  return log
end

local function older_of(log, i, size)
  if not log.older[i] then
    log.all = log.all or call('GET', log.key)
    log.older[i] = sub(log.all, log.from[i] + 1, log.from[i] + log.count[i] * size)
  end
  return log.older[i]
end

-- The older records of a hop, which are to be written anew.
local function text_of(log, i, size)
  if not log.text[i] then
    if next(log.patches[i]) then log.all, log.older[i], log.patches[i] = nil, nil, {} end
    log.text[i] = older_of(log, i, size)
  end
  log.text[i] = log.text[i] .. log.over[i]
  log.over[i] = ''
  return log.text[i]
end

local function replace(log, i, size, records)
  log.text[i], log.heads[i] = sub(records, 1, -size - 1), sub(records, -size)
end

-- A record whose time has not come joins its tile as a record of its own; those whose time has come become one.
local function insert_early(log, i, hop, record)
  local size, tile, all = hop.size, tile_of(record), text_of(log, i, hop.size) .. log.heads[i]
  local stop, start = upto(all, size, tile), upto(all, size, tile - 1)
  local come, early = nil, {}
  for j = start, stop - 1 do
    local one = sub(all, j * size + 1, (j + 1) * size)
    if not has_come(one) then early[#early + 1] = one
    elseif come then come = merged(come, one, hop)
    else come = one end
  end
  early[#early + 1] = record
  local added = (come or '') .. table.concat(early)
  replace(log, i, size, sub(all, 1, start * size) .. added .. sub(all, stop * size + 1))
end

-- Merges a record into the older one of its tile where it lies; false if there is none.
local function patched(log, i, hop, record)
  local size, tile, older = hop.size, tile_of(record), older_of(log, i, hop.size)
  local place = upto(older, size, tile)
  while place > 0 do
    local one = log.patches[i][place] or sub(older, (place - 1) * size + 1, place * size)
    if tile_of(one) ~= tile then return false end
    if has_come(one) then
      local both = merged(one, record, hop)
      log.patches[i][place] = both
      call('SETRANGE', log.key, log.from[i] + (place - 1) * size, both)
      return true
    end
    place = place - 1
  end
  return false
end

-- The record may be older than the newest one: find its tile, or the place where it belongs.
local function insert_late(log, i, hop, record)
  if not log.text[i] and log.over[i] == '' and patched(log, i, hop, record) then return end
  local size, tile, all = hop.size, tile_of(record), text_of(log, i, hop.size) .. log.heads[i]
  local stop = upto(all, size, tile)
  local place = stop
  while place > 0 do
    local one = sub(all, (place - 1) * size + 1, place * size)
    if tile_of(one) ~= tile then break end
    if has_come(one) then
      local both = merged(one, record, hop)
      replace(log, i, size, sub(all, 1, (place - 1) * size) .. both .. sub(all, place * size + 1))
      return
    end
    place = place - 1
  end
  replace(log, i, size, sub(all, 1, stop * size) .. record .. sub(all, stop * size + 1))
end

local function insert(log, i, hop, record)
  local last = log.heads[i]
  local apart = last and tile_of(record) - tile_of(last) or 1
  if apart > 0 then
    log.over[i], log.heads[i], log.is_new = log.over[i] .. (last or ''), record, true
  elseif not has_come(record) then insert_early(log, i, hop, record)
  elseif apart == 0 and has_come(last) then log.heads[i] = merged(last, record, hop)
  else insert_late(log, i, hop, record) end
end

local function front(log, hops)
  local parts = {}
  for i, hop in ipairs(hops) do
    parts[i] = log.heads[i] or NO_TILE .. string.rep('\0', hop.size - 8)
    parts[#hops + i] = pack('<i8i8', log.count[i], log.room[i])
  end
  return table.concat(parts)
end

-- See `TileLog._room`.
local function room_for(count, capacity, is_last)
  local most = math.max(capacity, count + floor(count / 4) + 4)
  if is_last then return most end
  return count == 0 and 0 or math.max(4, math.min(2 * count, most))
end

-- Everything once more, without the tiles that no longer count.
local function write_anew(log, view, oldest)
  local parts = {}
  for i, hop in ipairs(view.hops) do
    local text = text_of(log, i, hop.size)
    text = sub(text, upto(text, hop.size, tonumber(oldest[i]) - 1) * hop.size + 1)
    local count = #text / hop.size
    if count > log.room[i] or log.is_fresh then log.room[i] = room_for(count, hop.capacity, i == #view.hops) end
    parts[2 * i - 1], log.count[i] = text, count
    parts[2 * i] = i < #view.hops and string.rep('\0', (log.room[i] - count) * hop.size) or ''
  end
  call('SET', log.key, front(log, view.hops) .. table.concat(parts), 'EX', view.expiry)
end

local function save(log, view, oldest)
  for i, hop in ipairs(view.hops) do
    if log.text[i] or log.count[i] + #log.over[i] / hop.size > log.room[i] then return write_anew(log, view, oldest) end
  end
  for i, hop in ipairs(view.hops) do
    if log.over[i] ~= '' then
      call('SETRANGE', log.key, log.from[i] + log.count[i] * hop.size, log.over[i])
      log.count[i] = log.count[i] + #log.over[i] / hop.size
    end
  end
  call('SETRANGE', log.key, '0', front(log, view.hops))
  if log.is_new then call('EXPIRE', log.key, view.expiry) end
end

-- The records of one entity, `counts[i]` of them in hop i from `at[i]` on.
local function write(key, header, number, oldest, records, at, counts)
  local view = views[number]
  local log = opened(key, header, view)
  for i, hop in ipairs(view.hops) do
    for j = at[i], at[i] + counts[i] - 1 do
      insert(log, i, hop, sub(records[i], j * hop.size + 1, (j + 1) * hop.size))
    end
  end
  save(log, view, oldest)
end

-- The log of a new entity, with one record in each hop.
local function create(key, number, records, at)
  local view, parts = views[number], {}
  local hops = view.hops
  for i, hop in ipairs(hops) do
    parts[i] = sub(records[i], at[i] * hop.size + 1, (at[i] + 1) * hop.size)
    parts[#hops + i] = pack('<i8i8', 0, room_for(0, hop.capacity, i == #hops))
  end
  call('SET', key, table.concat(parts), 'EX', view.expiry)
  return true
end

-- Puts new newest records in front, some of them (`new`) of tiles that follow the ones there, which join the older ones;
-- false where there is no room for them.
local function advance(key, header, number, heads, new)
  local view, counts, over, from, length = views[number], {}, {}, nil, nil
  from = view.header
  for i, hop in ipairs(view.hops) do
    local count, room = unpack_('<i8i8', header, view.counts + 16 * (i - 1))
    if count < 0 or count > room then return false end
    length = from + count * hop.size
    if new[i] and sub(header, hop.at, hop.at + 7) ~= NO_TILE then
      if count == room then return false end
      over[i], count = length, count + 1
    end
    counts[i] = pack('<i8i8', count, room)
    from = from + room * hop.size
  end
  if call('STRLEN', key) ~= length then return false end
  for i, hop in ipairs(view.hops) do
    if over[i] then call('SETRANGE', key, over[i], sub(header, hop.at, hop.at + hop.size - 1)) end
  end
  call('SETRANGE', key, '0', table.concat(heads) .. table.concat(counts))
  call('EXPIRE', key, view.expiry)
  return true
end

-- Merges one record of each hop into an entity's newest tiles, or makes them the newest; false where that takes more.
local function meet(key, header, number, records, at)
  if header == '' then return create(key, number, records, at) end
  local view, heads, new, is_new = views[number], {}, {}, false
  if #header ~= view.header then return false end
  for i, hop in ipairs(view.hops) do
    local from = at[i] * hop.size
    local a, b = sub(header, hop.at, hop.at + hop.size - 1), sub(records[i], from + 1, from + hop.size)
    local apart = tile_of(b) - tile_of(a)
    if apart > 0 then heads[i], new[i], is_new = b, true, true
    elseif apart == 0 and has_come(a) and has_come(b) then heads[i] = merged(a, b, hop)
    else return false end
  end
  if is_new then return advance(key, header, number, heads, new) end
  call('SETRANGE', key, '0', table.concat(heads))
  return true
end

return {write = write, meet = meet, create = create, advance = advance}

end
