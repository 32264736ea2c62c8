//! What is done to warm entries inside of Redis, in one step each.
//!
//! An entry is a string under its key; beside it, while somebody computes it, lies the lease: a string of the
//! holder's name that ends by itself. Both share a hash tag, so that a cluster keeps them together. A holder
//! that works for long puts the end off; one that is gone does not, so the next one need not wait for longer
//! than the lease lasts, however long the work.
//!
//! **Stamps fence.** A lease says who should compute, not who may write: a holder that was stopped for an hour
//! still writes. So what is written must not be older, by its stamp, than what is there, and must be younger
//! if the lease is not the writer's any more, unless what is there has ended. Readers judge by the stamp in any case.

use crate::store::Script;

/// What the pool has to be built with.
pub(crate) static SCRIPTS: [&Script; 4] = [&CLAIM, &EXTEND, &FILL, &RELEASE];

/// Asks who computes an entry that was not found, or was not fit for use. Who repeats it does no harm.
///
/// keys: the entry, its lease. args: the asker, for how many milliseconds, the beginning of the unfit entry or
/// nothing, and 1 if that cannot be read: then it goes, because its stamp may say anything, and would keep out
/// what is to take its place. Returns 2: an entry has come meanwhile; 1: the asker does; 0 and for how many milliseconds
/// somebody else's lease lasts.
pub(crate) static CLAIM: Script = Script::new(
    "tiers_claim",
    r"
-- What is no string is not ours: as good as nothing, and an error only to those who do not expect it.
local entry = redis.pcall('GET', keys[1])
local is = type(entry) == 'string' and #entry > 0
if is and (#args[3] == 0 or string.sub(entry, 1, #args[3]) ~= args[3]) then
    return { 2, '' }
end
local holder = redis.pcall('GET', keys[2])
if type(holder) == 'string' and holder ~= args[1] then
    return { 0, string.format('%.0f', math.max(0, redis.call('PTTL', keys[2]))) }
end
if args[4] == '1' then
    redis.call('DEL', keys[1])
end
redis.call('SET', keys[2], args[1], 'PX', args[2])
return { 1, '' }
",
);

/// Puts the end of a lease off. keys: the lease. args: the holder, for how many milliseconds. Returns whether it
/// is still the holder's.
pub(crate) static EXTEND: Script = Script::new(
    "tiers_extend",
    r"
if redis.call('GET', keys[1]) ~= args[1] then
    return 0
end
redis.call('PEXPIRE', keys[1], args[2])
return 1
",
);

/// Writes an entry, unless what is there is younger, and gives the lease back.
///
/// keys: the entry, its lease. args: the holder, or nothing for who has none; the entry; for how many
/// milliseconds; 1 if the journal of its stamp is known to be the present one. Returns whether it was written.
pub(crate) static FILL: Script = Script::new(
    "tiers_fill",
    r"
local function number(frame, first)
    local sum = 0
    for at = first + 8, first + 1, -1 do
        sum = sum * 256 + string.byte(frame, at)
    end
    return sum
end
local mine = #args[1] > 0 and redis.pcall('GET', keys[2]) == args[1]
local new, old = args[2], redis.pcall('GETRANGE', keys[1], 0, 39)
local writes = true
if type(old) == 'string' and #old == 40 then
    if string.sub(old, 9, 16) == string.sub(new, 9, 16) then
        local newer = number(new, 16) - number(old, 16)
        -- As young as what is there, it may take its place if nobody else has to say so: what is there had
        -- ended when this was made, or this is a list of fields, which has no end of its own.
        local over = number(old, 32) <= number(new, 24) or string.byte(new, 7) == 4
        writes = newer > 0 or (newer == 0 and (mine or over))
    else
        -- Of another journal: which one is over, not everybody knows.
        writes = mine or args[4] == '1'
    end
end
if writes then
    redis.call('SET', keys[1], args[2], 'PX', args[3])
end
if mine then
    redis.call('DEL', keys[2])
end
return writes and 1 or 0
",
);

/// Gives a lease back. keys: the lease. args: the holder.
pub(crate) static RELEASE: Script = Script::new(
    "tiers_release",
    r"
if redis.call('GET', keys[1]) == args[1] then
    redis.call('DEL', keys[1])
end
return 1
",
);
