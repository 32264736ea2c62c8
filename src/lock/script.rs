//! What is done to locks inside of Redis, and how it is called.
//!
//! A lock is a string that expires with it: its owner's name, a space, and its token. Beside it lies the
//! last token of its key, and, for a minute, the names of owners that have given up. All of them share the
//! key as their hash tag.
//!
//! **A token** is the server's time in microseconds, or one more than the last one where that is larger. So
//! a counter that is evicted, flushed, or lost in a failover does not begin anew: time has gone on. And a
//! clock that was put back does not matter while the counter is there. The numbers stay below 2^53, where
//! doubles end, until the year 2255.
//!
//! **An owner that gave up** must not get the lock afterwards: its question may have waited in a server
//! that was stopped, or come by a connection that was given up, and run only after the owner had sent word
//! on another connection that it gives up. So its name is remembered, and its late question is answered no.

use std::fmt::{self, Display};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::store::{RedisPool, Script};

/// What the pool has to be built with.
pub(crate) static SCRIPTS: [&Script; 3] = [&CLAIM, &EXTEND, &RELEASE];

/// Takes a lock that is free, or is the owner's already, which is no shorter then. Who repeats it does no
/// harm.
///
/// keys: the lock, its last token, the owner if it gave up. args: the owner, for how many milliseconds,
/// for how many the token is kept. Returns 1 and the token, or 0 and for how many milliseconds it is held.
pub(crate) static CLAIM: Script = Script::new(
    "lock_claim",
    r"
if redis.call('EXISTS', keys[3]) == 1 then
    -- Nobody waits for this answer.
    return { 0, '0' }
end
local held, mine = redis.call('GET', keys[1]), args[1] .. ' '
if held then
    local left = redis.call('PTTL', keys[1])
    if string.sub(held, 1, #mine) == mine then
        if left < tonumber(args[2]) then
            redis.call('PEXPIRE', keys[1], args[2])
        end
        return { 1, string.sub(held, #mine + 1) }
    end
    return { 0, string.format('%.0f', math.max(0, left)) }
end
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', keys[2]) or '0')
-- What is no number, or not one that can be counted on from, is smaller than nothing.
if not (last and last < 9007199254740991) then
    return redis.error_reply('ERR the key of the last token holds no token')
end
local token = math.max(last + 1, time[1] * 1000000 + time[2])
token = string.format('%.0f', token)
redis.call('SET', keys[2], token, 'PX', args[3])
redis.call('SET', keys[1], mine .. token, 'PX', args[2])
return { 1, token }
",
);

/// Puts a lock's end off, never forward: an answer that was lost may come to run after a later one.
///
/// keys: the lock. args: the owner, the token, for how many milliseconds. Returns whether it is the owner's.
pub(crate) static EXTEND: Script = Script::new(
    "lock_extend",
    r"
if redis.call('GET', keys[1]) ~= args[1] .. ' ' .. args[2] then
    return 0
end
if redis.call('PTTL', keys[1]) < tonumber(args[3]) then
    redis.call('PEXPIRE', keys[1], args[3])
end
return 1
",
);

/// Frees a lock if it is the owner's. Who repeats it does no harm.
///
/// keys: the lock, the owner if it gave up. args: the owner, the token or nothing, for how many milliseconds
/// it is remembered to have given up, or 0. Returns whether that owner with that token held it.
pub(crate) static RELEASE: Script = Script::new(
    "lock_release",
    r"
local held, mine = redis.call('GET', keys[1]), args[1] .. ' '
if args[3] ~= '0' then
    redis.call('SET', keys[2], '1', 'PX', args[3])
end
if held and string.sub(held, 1, #mine) == mine then
    redis.call('DEL', keys[1])
end
return held == mine .. args[2] and 1 or 0
",
);

/// The key of a lock.
pub(crate) fn lock_key(pool: &RedisPool, name: &str) -> String {
    pool.key(format_args!("lock:{{{}}}", Tag(name)))
}

/// The key of a lock's last token.
pub(crate) fn token_key(pool: &RedisPool, name: &str) -> String {
    pool.key(format_args!("lock:{{{}}}:token", Tag(name)))
}

/// The key under which it is remembered that an owner gave up.
pub(crate) fn gone_key(pool: &RedisPool, name: &str, owner: &str) -> String {
    pool.key(format_args!("lock:{{{}}}:gone:{owner}", Tag(name)))
}

/// A name as a hash tag, which no brace may end too early. No two names have the same one.
struct Tag<'a>(&'a str);

const BRACES: &AsciiSet = &CONTROLS.add(b'%').add(b'{').add(b'}');

impl Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&utf8_percent_encode(self.0, BRACES), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_hash_tag_or_meets_another_one() {
        let pool = RedisPool::disabled();
        assert_eq!(lock_key(&pool, "import:7"), ":lock:{import:7}");
        assert_eq!(token_key(&pool, "a}:token"), ":lock:{a%7D:token}:token");
        assert_eq!(gone_key(&pool, "}{", "0f"), ":lock:{%7D%7B}:gone:0f");
        assert_eq!(lock_key(&pool, "a%7D"), ":lock:{a%257D}");
    }
}
