//! What is done to the journal inside of Redis.
//!
//! The server's run id is asked for each time: after a failover the hash is still there, with the run id of
//! the server that is gone, and the last records of that one may be missing. Numbers stay below 2^53.

use crate::store::Script;

/// What the scripts begin with. `keys`: hash, stream, channel. `args`: the run id as the client knows it, a
/// new incarnation, the instance, its lease in ms, the version.
///
/// The leases are fields of the hash, `L` and the instance, so that they cannot be lost alone.
macro_rules! journal {
    () => {
        r"
local meta, stream, channel = keys[1], keys[2], keys[3]
local run, inc, me, lease = args[1], args[2], args[3], tonumber(args[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then
    run = string.match(info, 'run_id:(%x+)') or run
end

local seq, began, leases = 0, now, {}
local function digits(number)
    return string.format('%.0f', number)
end

-- Begins a new incarnation. Its first record says nothing: so there is always a stream, and one that is
-- gone is missed.
local function begin()
    redis.call('DEL', meta, stream)
    inc, seq, began, leases = args[2], 1, now, {}
    redis.call('XADD', stream, '1-1', 'r', '')
    redis.call('HSET', meta, 'inc', inc, 'seq', '1', 'run', run, 'began', digits(now), 'v', args[5])
    publish(channel, 'N' .. inc)
end

-- Finds the incarnation, if there is one that can be believed.
local function find()
    local fields, known, held = redis.pcall('HGETALL', meta), {}, {}
    if fields.err then
        return false
    end
    for n = 1, #fields, 2 do
        local name = fields[n]
        if #name == 9 and string.sub(name, 1, 1) == 'L' then
            held[string.sub(name, 2)] = tonumber(fields[n + 1]) or 0
        else
            known[name] = fields[n + 1]
        end
    end
    local last, since = tonumber(known.seq or ''), tonumber(known.began or '')
    if not known.inc or #known.inc ~= 8 or known.run ~= run or known.v ~= args[5] or not last or not since then
        return false
    end
    if redis.call('TYPE', stream).ok ~= 'stream' then
        return false
    end
    inc, seq, began, leases = known.inc, last, since, held
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
for instance, ends in pairs(leases) do
    if ends <= now then
        redis.call('HDEL', meta, 'L' .. instance)
    end
end
redis.call('HSET', meta, 'L' .. me, digits(now + lease))
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
for instance, ends in pairs(leases) do
    if ends > now then
        left[#left + 1] = instance
        left[#left + 1] = ends - now
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
redis.pcall('HDEL', keys[1], 'L' .. args[1])
return 1
",
);
