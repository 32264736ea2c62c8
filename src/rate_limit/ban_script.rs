//! What is done to bans inside of Redis.

use crate::store::Script;

/// Bans somebody for so many milliseconds, unless they are banned for longer.
///
/// The key holds `1` for a ban, and `0` for one that was lifted, until it would have ended: whoever has not
/// heard of that can tell it from a ban that the server has lost.
pub(crate) static BAN: Script = Script::new(
    "limiter_ban",
    r"
if redis.call('PTTL', keys[1]) < tonumber(args[1]) or redis.call('GET', keys[1]) == '0' then
    redis.call('SET', keys[1], '1', 'PX', args[1])
end
return 1
",
);

/// Lifts a ban, which those who have heard of it believe for no longer than so many milliseconds.
pub(crate) static PARDON: Script = Script::new(
    "limiter_pardon",
    r"
local lasts = math.max(redis.call('PTTL', keys[1]), tonumber(args[1]))
if lasts > 0 then
    redis.call('SET', keys[1], '0', 'PX', string.format('%.0f', lasts))
end
return 1
",
);

/// Whether a ban still holds (1) or was lifted (0). One that the server has lost is written anew if it is known
/// to last for so many milliseconds more, of which 0 are none.
pub(crate) static CONFIRM: Script = Script::new(
    "limiter_confirm",
    r"
local known = redis.call('GET', keys[1])
if not known and tonumber(args[1]) > 0 then
    redis.call('SET', keys[1], '1', 'PX', args[1])
end
return known == '0' and 0 or 1
",
);
