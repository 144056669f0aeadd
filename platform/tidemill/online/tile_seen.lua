-- What a push knows of events that came before, by their ids: `ids` of them from ARGV[first] on are remembered for
-- `remember` seconds. What is asked rarely is made when it is asked, since Redis runs all of this text for every push.
local function make_seen(first, ids, remember, now)

-- Ids lie in sets, one for each span of half the time for which they are remembered; a set is dropped as a whole when
-- the last of its ids may be forgotten. Spans change with the longest window, so the key holds a hash of those in use
-- (seconds, and until when sets of that length matter).
local call, spread, floor = redis.call, unpack, math.floor
local function set_of(span, number) return KEYS[1] .. ':' .. span .. ':' .. string.format('%d', number) end
local function number_of(span) return floor(now / 1000000 / span) end

local function add_seen(set, seen)
  local found = call('SMISMEMBER', set, spread(ARGV, first, first + ids - 1))
  for i = 1, ids do if found[i] == 1 then seen[#seen + 1] = i end end
end

local function seen_before(span)
  local current, seen = number_of(span), {}
  local set, older, oldest = set_of(span, current), set_of(span, current - 1), set_of(span, current - 2)
  local newer = set_of(span, current + 1) -- another writer's clock may be ahead
  if call('EXISTS', set) == 1 then add_seen(set, seen) end
  if call('EXISTS', newer, older, oldest) > 0 then
    add_seen(newer, seen)
    add_seen(older, seen)
    add_seen(oldest, seen)
  end
  return seen
end

local function all_seen(regardless)
  local spans = regardless and {} or call('HGETALL', KEYS[1])
  for i = 1, #spans, 2 do
    local seen = tonumber(spans[i + 1]) > now and seen_before(tonumber(spans[i])) or {}
    if #seen > 0 then return seen end
  end
end

-- What is to be done once for a set of which these ids are the first.
local function begin_set()
  local span = math.ceil(remember / 2)
  local set = set_of(span, number_of(span))
  call('EXPIRE', set, 3 * span + 60)
  call('UNLINK', set_of(span, number_of(span) - 3), set_of(span, number_of(span) - 4))
  call('HSET', KEYS[1], span, string.format('%d', now + 3 * span * 1000000))
  local left = call('TTL', KEYS[1])
  if left < 3 * span + 60 then call('EXPIRE', KEYS[1], 3 * span + 60) end
end

local function remember_ids()
  local span = math.ceil(remember / 2)
  local set = set_of(span, number_of(span))
  if call('SADD', set, spread(ARGV, first, first + ids - 1)) == call('SCARD', set) then begin_set() end
end

return {all_seen = all_seen, begin_set = begin_set, remember_ids = remember_ids}

end
