//! What is done to the journal inside of Redis.
//!
//! The server's run id is asked for each time: after a failover the hash is still there, with the run id of
//! the server that is gone, and the last records of that one may be missing. Numbers stay below 2^53.

use crate::store::Script;

/// What both scripts begin with. `keys`: hash, stream, leases, channel. `args`: the run id as the client
/// knows it, a new incarnation, the instance, its lease in ms, the version.
macro_rules! journal {
    () => {
        r"
local meta, stream, leases, channel = keys[1], keys[2], keys[3], keys[4]
local run, inc, me, lease = args[1], args[2], args[3], tonumber(args[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then
    run = string.match(info, 'run_id:(%x+)') or run
end

local seq, began = 0, now
local function digits(number)
    return string.format('%.0f', number)
end

-- Begins a new incarnation. Its first record says nothing: so there is always a stream, and one that is
-- gone is missed.
local function begin()
    redis.call('DEL', meta, stream)
    inc, seq, began = args[2], 1, now
    redis.call('XADD', stream, '1-1', 'r', '')
    redis.call('HSET', meta, 'inc', inc, 'seq', '1', 'run', run, 'began', digits(now), 'v', args[5])
    publish(channel, 'N' .. inc)
end

-- Finds the incarnation, if there is one that can be believed.
local function find()
    local known = redis.pcall('HMGET', meta, 'inc', 'seq', 'run', 'began', 'v')
    if known.err or not known[1] or #known[1] ~= 8 or known[3] ~= run or known[5] ~= args[5] then
        return false
    end
    local last, since = tonumber(known[2] or ''), tonumber(known[4] or '')
    if not last or not since or redis.call('TYPE', stream).ok ~= 'stream' then
        return false
    end
    inc, seq, began = known[1], last, since
    return true
end
"
    };
}

/// Asks where the journal stands, and renews a lease. `args[6]`: whether a new incarnation is to begin.
/// Returns the incarnation, the last number, and whether the run id is known; without that nothing was done.
pub(crate) static MEET: Script = Script::new(
    "journal_meet",
    concat!(
        journal!(),
        r"
if run == '' then
    return { '', '0', 0 }
end
if args[6] == '1' or not find() then
    begin()
end
if type(redis.pcall('ZREMRANGEBYSCORE', leases, '-inf', digits(now))) == 'table' then
    -- Something else lies there.
    redis.call('DEL', leases)
end
redis.call('ZADD', leases, digits(now + lease), me)
return { inc, digits(seq), 1 }
"
    ),
);

/// Appends a record. `args[6]`: the record, `args[7]`: how many are kept, `args[8]`: the kind of message.
/// Returns the incarnation, the record's number, for how long leases may be out that were given by another
/// server or are lost, and the leases there are with the time they have left, in ms.
pub(crate) static APPEND: Script = Script::new(
    "journal_append",
    concat!(
        journal!(),
        r"
if not find() then
    begin()
end
local function add()
    return redis.pcall('XADD', stream, 'MAXLEN', '~', args[7], '1-' .. digits(seq + 1), 'r', args[6])
end
if type(add()) == 'table' then
    begin()
    add()
end
seq = seq + 1
redis.call('HSET', meta, 'seq', digits(seq))
publish(channel, args[8] .. inc .. struct.pack('<d', seq) .. me .. args[6])

local left = {}
local held = redis.pcall('ZRANGEBYSCORE', leases, '(' .. digits(now), '+inf', 'WITHSCORES')
if not held.err then
    for n = 1, #held, 2 do
        left[n], left[n + 1] = held[n], held[n + 1] - now
    end
end
return { inc, digits(seq), math.max(0, began + lease - now), left }
"
    ),
);

/// Gives a lease back.
pub(crate) static LEAVE: Script = Script::new(
    "journal_leave",
    r"
redis.pcall('ZREM', keys[1], args[1])
return 1
",
);
