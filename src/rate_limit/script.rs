//! What is done to shared buckets inside of Redis, and how it is called.
//!
//! A bucket is a short string: `r<full at> <fill>` for one that grows back, in µs of the server's clock,
//! and `w<end> <count>` for a window of the calendar, whose end is in seconds. It expires when the bucket
//! is full, or the window at its end. Anything else under its key is nobody's: an empty bucket, and
//! overwritten.
//!
//! - **A quota that changed** is noticed by its `fill`: the used part of the bucket stays the same part, so
//!   that nobody gets a fresh burst. A window keeps its count.
//! - **Behind tokens taken in advance** a third number says until when they hold good, and nothing is given
//!   back from before it; `shared.rs` tells why.
//!
//! All numbers stay below 2^53: now is 2^51 µs, and no bucket takes longer than 2^43 to fill.

use std::fmt::{self, Display, Write};

use crate::rate_limit::ask::{Meter, Part};
use crate::rate_limit::period::Period;
use crate::store::{Call, RedisPool, Script};

/// What all scripts about buckets begin with. A bucket's first three words are the same for all: its kind,
/// what it holds, and the most that can be used of it.
macro_rules! buckets {
    () => {
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local floor = math.floor

-- The end in seconds of the hour, the day or the month.
local function ending(period)
    local at = floor(now / 1000000)
    if period == 'hour' then
        return (floor(at / 3600) + 1) * 3600
    end
    local days = floor(at / 86400)
    if period == 'day' then
        return (days + 1) * 86400
    end
    -- In eras of 400 years that begin in March, so that the leap day is the last of a year.
    local of_era = (days + 719468) % 146097
    local leaps = floor(of_era / 1460) - floor(of_era / 36524) + floor(of_era / 146096)
    local year = floor((of_era - leaps) / 365)
    local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
    local month = floor((5 * of_year + 2) / 153)
    local first = floor((153 * (month + 1) + 2) / 5)
    if month == 11 then
        local is_leap = (year + 1) % 4 == 0 and ((year + 1) % 100 ~= 0 or (year + 1) % 400 == 0)
        first = is_leap and 366 or 365
    end
    return (days + first - of_year) * 86400
end

-- The same part of `fill` as `part` is of `stored`, rounded up. By digits of 8 bits, because the product
-- would not fit a number.
local function carried(part, stored, fill)
    local whole = floor(part / stored)
    local rest, quotient, over = part - whole * stored, 0, 0
    for digit = 5, 0, -1 do
        local sum = over * 256 + rest * (floor(fill / 256 ^ digit) % 256)
        quotient = quotient * 256 + floor(sum / stored)
        over = sum % stored
    end
    return whole * fill + quotient + (over > 0 and 1 or 0)
end

-- Reads a bucket whose words begin at `at`. `stored` is what is used of it by what is stored.
local function look(key, at)
    local kind, fill, most = args[at], tonumber(args[at + 1]), tonumber(args[at + 2])
    local bucket = { key = key, kind = kind, fill = fill, most = most,
        used = 0, stored = 0, reach = 0, window = 0 }
    local value = redis.pcall('GET', key)
    if type(value) ~= 'string' or #value > 64 then
        value = ''
    end
    if kind ~= 'rolling' then
        bucket.window = ending(kind)
        local window, count = string.match(value, '^w(%d+) (%d+)$')
        if tonumber(window) == bucket.window then
            bucket.stored = tonumber(count)
            bucket.used = math.min(bucket.stored, most)
        end
        return bucket
    end
    local full, of, reach = string.match(value, '^r(%d+) (%d+) ?(%d*)$')
    of = tonumber(of) or 0
    if of < 1 or of > 2 ^ 43 then
        return bucket
    end
    bucket.stored = math.max(0, tonumber(full) - now)
    local used = math.min(bucket.stored, 2 * of)
    reach = math.max(0, math.min((tonumber(reach) or 0) - now, used))
    if of ~= fill and used > 0 then
        used, reach = carried(used, of, fill), carried(reach, of, fill)
        -- The same number would mean something else there.
        bucket.stored = -1
    end
    bucket.used, bucket.reach = math.min(used, most), math.min(reach, most)
    return bucket
end

-- Stores a bucket, unless that is what is stored.
local function keep(bucket)
    if bucket.used == bucket.stored then
        return
    end
    if bucket.used == 0 then
        redis.call('DEL', bucket.key)
        return
    end
    local value, left
    if bucket.kind == 'rolling' then
        value, left = string.format('r%.0f %.0f', now + bucket.used, bucket.fill), bucket.used
        if bucket.reach > 0 then
            value = value .. string.format(' %.0f', now + bucket.reach)
        end
    else
        value = string.format('w%.0f %.0f', bucket.window, bucket.used)
        left = bucket.window * 1000000 - now
    end
    redis.call('SET', bucket.key, value, 'PX', string.format('%.0f', math.ceil(left / 1000)))
end
"
    };
}

/// Decides about requests, charges them, and takes tokens in advance.
///
/// `args`: how many requests, whether the first key is a ban's (0 or 1), and nine words for each bucket.
/// Returns how many pass, the milliseconds that a ban lasts, and three numbers for each bucket.
pub(crate) static TAKE: Script = Script::new(
    "limiter_take",
    concat!(
        buckets!(),
        r"
local requests, bans = tonumber(args[1]), tonumber(args[2])
if bans == 1 then
    local lasts = redis.call('PTTL', keys[1])
    if lasts > 0 then
        return { 0, lasts }
    end
end

local granted, buckets = requests, {}
for n = 1, #keys - bans do
    local at = 3 + (n - 1) * 9
    local bucket = look(keys[bans + n], at)
    bucket.worth, bucket.interval = tonumber(args[at + 3]), tonumber(args[at + 4])
    bucket.lease = tonumber(args[at + 5])
    local hint, debt, window = tonumber(args[at + 6]), tonumber(args[at + 7]), tonumber(args[at + 8])
    if window == 0 or window == bucket.window then
        bucket.used = math.max(bucket.used, hint)
        bucket.used = math.max(bucket.used, math.min(bucket.used + debt, bucket.fill))
    end
    if bucket.worth > 0 then
        local fit = floor((bucket.fill - bucket.used) / bucket.worth)
        granted = math.max(0, math.min(granted, fit))
    elseif bucket.used >= bucket.fill then
        -- What costs nothing passes as well only while there is something left.
        granted = 0
    end
    buckets[n] = bucket
end

local answer = { granted, 0 }
for _, bucket in ipairs(buckets) do
    bucket.used = bucket.used + granted * bucket.worth
    local leased = 0
    if granted == requests then
        -- At least half of what remains is left to the others.
        local half = floor(floor((bucket.fill - bucket.used) / bucket.interval) / 2)
        leased = math.max(0, math.min(bucket.lease, half))
    end
    if leased > 0 then
        bucket.used = bucket.used + leased * bucket.interval
        bucket.reach = bucket.used
    end
    keep(bucket)
    table.insert(answer, bucket.used)
    table.insert(answer, leased)
    table.insert(answer, bucket.window)
end
return answer
"
    ),
);

/// Gives tokens back, or charges what nobody can refuse any more.
///
/// `args`: which of the two, and five words for each bucket.
pub(crate) static SETTLE: Script = Script::new(
    "limiter_settle",
    concat!(
        buckets!(),
        r"
for n, key in ipairs(keys) do
    local at = 2 + (n - 1) * 5
    local bucket, worth, window = look(key, at), tonumber(args[at + 3]), tonumber(args[at + 4])
    if args[1] == 'debit' then
        bucket.used = math.min(bucket.used + worth, bucket.most)
    elseif window == 0 or window == bucket.window then
        bucket.used = math.max(bucket.used - worth, bucket.reach)
    end
    keep(bucket)
end
return 1
"
    ),
);

/// Bans somebody for so many milliseconds, unless they are banned for longer.
pub(crate) static BAN: Script = Script::new(
    "limiter_ban",
    r"
if redis.call('PTTL', keys[1]) < tonumber(args[1]) then
    redis.call('SET', keys[1], '1', 'PX', args[1])
end
return 1
",
);

/// Says that an instance lives for so many milliseconds more. Returns how many do.
pub(crate) static ANNOUNCE: Script = Script::new(
    "limiter_announce",
    r"
local time = redis.call('TIME')
local now, lasts = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(args[2])
local gone = redis.pcall('ZREMRANGEBYSCORE', keys[1], '-inf', string.format('%.0f', now))
if type(gone) == 'table' then
    -- Something else lies there.
    redis.call('DEL', keys[1])
end
redis.call('ZADD', keys[1], string.format('%.0f', now + lasts), args[1])
if redis.call('PTTL', keys[1]) < lasts then
    redis.call('PEXPIRE', keys[1], args[2])
end
return redis.call('ZCARD', keys[1])
",
);

/// The key of a bucket.
pub(crate) fn bucket_key(pool: &RedisPool, part: &Part) -> String {
    let tag = Tag(&part.owner);
    pool.key(format_args!("rl:{{{tag}}}:{}", part.bucket))
}

/// The key of a ban. It shares the slot of its owner's buckets, and is the key of none of them.
pub(crate) fn ban_key(pool: &RedisPool, owner: &str) -> String {
    pool.key(format_args!("rl:ban:{{{}}}", Tag(owner)))
}

/// The key of the set of instances.
pub(crate) fn instances_key(pool: &RedisPool) -> String {
    pool.key("rl:instances")
}

/// An owner as a hash tag, which neither a brace nor nothing at all may end too early.
struct Tag<'a>(&'a str);

impl Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_char('%');
        }
        let mut rest = self.0;
        while let Some(at) = rest.find(['{', '}']) {
            let (plain, brace) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_str(if brace.starts_with('{') { "%7B" } else { "%7D" })?;
            rest = brace.get(1..).unwrap_or_default();
        }
        f.write_str(rest)
    }
}

/// A call of [`TAKE`], or of a script that is written like it.
pub(crate) fn take(
    pool: &RedisPool,
    script: &'static Script,
    (requests, ban): (u32, Option<&str>),
    parts: &[&Part],
) -> Call {
    let mut call = Call::new(script);
    if let Some(owner) = ban {
        call = call.key(ban_key(pool, owner));
    }
    call = call.arg(requests).arg(u8::from(ban.is_some()));
    for part in parts {
        call = bucket(call.key(bucket_key(pool, part)), part)
            .arg(part.worth())
            .arg(part.meter.interval())
            .arg(part.lease)
            .arg(part.hint.min(part.meter.most()))
            .arg(part.debt.min(part.meter.most()))
            .arg(window(part));
    }
    call
}

/// Which way tokens go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Back,
    Debit,
}

/// A call of [`SETTLE`], or of a script that is written like it.
pub(crate) fn settle(
    pool: &RedisPool,
    script: &'static Script,
    way: Settle,
    parts: &[(&Part, u32)],
) -> Call {
    let mut call = Call::new(script).arg(match way {
        Settle::Back => "back",
        Settle::Debit => "debit",
    });
    for &(part, tokens) in parts {
        let worth = match way {
            Settle::Back => part.worth_of(tokens),
            Settle::Debit => part.debit_of(tokens),
        };
        call = bucket(call.key(bucket_key(pool, part)), part);
        call = call.arg(worth).arg(window(part));
    }
    call
}

/// The words that every bucket begins with.
fn bucket(call: Call, part: &Part) -> Call {
    let kind = match part.meter {
        Meter::Rolling { .. } => "rolling",
        Meter::Calendar { period, .. } => match period {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
        },
    };
    call.arg(kind).arg(part.meter.fill()).arg(part.meter.most())
}

fn window(part: &Part) -> u64 {
    match part.meter {
        Meter::Rolling { .. } => 0,
        Meter::Calendar { .. } => part.window,
    }
}
