//! What is done to shared buckets inside of Redis, and how it is called.
//!
//! A bucket is a short string, which expires when the bucket is full, or the window is over:
//!
//! - `r`, and when it is full by the server's clock, until when nothing is given back, and how long it takes
//!   to fill, in µs;
//! - `w`, and the end of a window of the calendar in seconds, what is used of it, and how much it holds.
//!
//! The numbers are doubles, little end first. To write them as text, and their arguments, would take the
//! server as long again as all the rest. Anything else under the key is nobody's: the bucket is full, and
//! what lies there is overwritten.
//!
//! - **A quota that changed** is noticed by the time to fill: the used part of the bucket stays the same part,
//!   so that nobody gets a fresh burst. So it does where a quota goes by the calendar from now on, or no longer.
//!   The count of a window stays a count, also where windows are longer or shorter from now on.
//! - **From before the end of a lease** nothing is given back; `shared.rs` tells why.
//!
//! All numbers stay below 2^53: now is 2^51 µs, and no bucket takes longer than 2^43 to fill.

use std::fmt::{self, Display, Write};

use crate::rate_limit::ask::{Meter, Part};
use crate::rate_limit::period::Period;
use crate::store::{Call, RedisPool, Script};

/// What all scripts about buckets begin with.
macro_rules! buckets {
    () => {
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local floor, max, min = math.floor, math.max, math.min

-- The end in seconds of the hour (1), the day (2) or the month (3).
local function ending(period)
    local at = floor(now / 1000000)
    if period == 1 then
        return (floor(at / 3600) + 1) * 3600
    end
    local days = floor(at / 86400)
    if period == 2 then
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

-- The same part of `fill` as `part` is of `of`, rounded up. By digits of 8 bits, because the product
-- would not fit a number.
local function carried(part, of, fill)
    local whole = floor(part / of)
    local rest, quotient, over = part - whole * of, 0, 0
    for digit = 5, 0, -1 do
        local sum = over * 256 + rest * (floor(fill / 256 ^ digit) % 256)
        quotient = quotient * 256 + floor(sum / of)
        over = sum % of
    end
    return whole * fill + quotient + (over > 0 and 1 or 0)
end

-- What is used of `fill` by a bucket whose quota was of another kind, or of other windows.
local function former(value, kind, fill)
    local tag, first, count, of = struct.unpack('<c1ddd', value)
    if tag == 'r' and first < 2 ^ 53 then
        count = max(0, first - now)
    elseif tag ~= 'w' or not (first > now / 1000000 and first < 2 ^ 33) then
        return 0
    end
    if count > 0 and of >= 1 and of <= 2 ^ 43 then
        count = min(count, 2 * of)
        return tag == 'w' and kind > 0 and count or carried(count, of, fill)
    end
    return 0
end

-- What is used of a bucket, where nothing is given back from before, and what is used by what is
-- stored, each from now; and the end of its window. A comparison with what is no number is false.
local function look(value, kind, fill, most)
    local tag, size = value and string.byte(value), value and #value
    if kind > 0 then
        local window = ending(kind)
        if tag == 119 and size == 25 then
            local stored_window, count = struct.unpack('<dd', value, 2)
            if stored_window == window and count >= 0 then
                return min(count, most), 0, count, window
            end
        end
        local used = size == 25 and min(former(value, kind, fill), most) or 0
        return used, 0, used > 0 and -1 or 0, window
    end
    if tag == 119 and size == 25 then
        local used = min(former(value, kind, fill), most)
        return used, 0, used > 0 and -1 or 0, 0
    end
    if tag == 114 and size == 25 then
        local full, reach, of = struct.unpack('<ddd', value, 2)
        if full >= now and full < 2 ^ 53 and of >= 1 and of <= 2 ^ 43 then
            local used = full - now
            local till = reach > now and min(reach - now, used) or 0
            if of == fill then
                return min(used, most), min(till, most), used, 0
            end
            -- Stored anew in any case, since the same number would mean something else there.
            return min(carried(used, of, fill), most), min(carried(till, of, fill), most), -1, 0
        end
    end
    return 0, 0, 0, 0
end

-- Stores a bucket, unless that is what is stored.
local function keep(key, bucket)
    local kind, fill, used, reach, stored, window = unpack(bucket)
    if used == stored then
        return
    end
    if used == 0 then
        redis.call('DEL', key)
    elseif kind > 0 then
        local value = struct.pack('<c0ddd', 'w', window, used, fill)
        local left = window * 1000000 - now
        redis.call('SET', key, value, 'PX', math.ceil(left / 1000))
    else
        local till = reach > 0 and now + reach or 0
        local value = struct.pack('<c0ddd', 'r', now + used, till, fill)
        redis.call('SET', key, value, 'PX', math.ceil(used / 1000))
    end
end
"
    };
}

/// Decides about requests, charges them, and takes tokens in advance.
///
/// `args[1]` are numbers: how many requests, whether the first key is a ban's (0 or 1), and nine for each
/// bucket. Returns how many pass, the milliseconds that a ban lasts, and three numbers for each bucket.
pub(crate) static TAKE: Script = Script::new(
    "limiter_take",
    concat!(
        buckets!(),
        r"
local requests, bans = struct.unpack('<dd', args[1])
if bans == 1 then
    local lasts = redis.call('PTTL', keys[1])
    if lasts > 0 and redis.call('GET', keys[1]) ~= '0' then
        return { 0, lasts }
    end
end

local count, granted, buckets = #keys - bans, requests, {}
local values = count > 0 and redis.call('MGET', unpack(keys, bans + 1))
for n = 1, count do
    local kind, fill, most, worth, interval, lease, hint, debt, meant =
        struct.unpack('<ddddddddd', args[1], 72 * n - 55)
    local used, reach, stored, window = look(values[n], kind, fill, most)
    if meant == 0 or meant == window then
        if hint > used then
            used = hint
        end
        used = min(used + debt, most)
    end
    if worth > 0 and granted * worth > fill - used then
        granted = max(0, floor((fill - used) / worth))
    elseif worth == 0 and used >= fill then
        -- What costs nothing passes as well only while there is something left.
        granted = 0
    end
    buckets[n] = { kind, fill, used, reach, stored, window, worth, interval, lease }
end

local answer = { granted, 0 }
for n, bucket in ipairs(buckets) do
    local kind, fill, used, _, _, window, worth, interval, lease = unpack(bucket)
    used = used + granted * worth
    -- When all that is charged so far will have grown back.
    window = kind == 0 and now + used or window
    local leased = 0
    if lease > 0 and granted == requests then
        -- At least half of what remains is left to the others.
        leased = max(0, min(lease, floor(floor((fill - used) / interval) / 2)))
        if leased > 0 then
            used = used + leased * interval
            bucket[4] = used
        end
    end
    bucket[3] = used
    keep(keys[bans + n], bucket)
    answer[3 * n], answer[3 * n + 1], answer[3 * n + 2] = used, leased, window
end
return answer
"
    ),
);

/// Gives tokens back, or charges what nobody can refuse any more.
///
/// `args`: which of the two, and five numbers for each bucket.
pub(crate) static SETTLE: Script = Script::new(
    "limiter_settle",
    concat!(
        buckets!(),
        r"
local values = redis.call('MGET', unpack(keys))
for n, key in ipairs(keys) do
    local kind, fill, most, worth, meant = struct.unpack('<ddddd', args[2], 40 * n - 39)
    local used, reach, stored, window = look(values[n], kind, fill, most)
    if args[1] == 'debit' then
        used = min(used + worth, most)
    elseif kind == 0 then
        -- What has grown back meanwhile is not charged any more.
        local left = meant > 0 and max(0, meant - now) or worth
        used = max(used - min(worth, left), reach)
    elseif meant == 0 or meant == window then
        used = max(used - worth, reach)
    end
    keep(key, { kind, fill, used, reach, stored, window })
end
return 1
"
    ),
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
    let mut numbers = Numbers::of(2 + 9 * parts.len());
    if let Some(owner) = ban {
        call = call.key(ban_key(pool, owner));
    }
    numbers.add([u64::from(requests), u64::from(ban.is_some())]);
    for part in parts {
        call = call.key(bucket_key(pool, part));
        let most = part.meter.most();
        numbers.add(bucket(part));
        numbers.add([part.worth(), part.meter.interval(), u64::from(part.lease)]);
        let window = match part.meter {
            Meter::Rolling { .. } => 0,
            Meter::Calendar { .. } => part.window,
        };
        numbers.add([part.hint.min(most), part.debt.min(most), window]);
    }
    call.arg(numbers.0)
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
    let mut numbers = Numbers::of(5 * parts.len());
    for &(part, tokens) in parts {
        let worth = match way {
            Settle::Back => part.worth_of(tokens),
            Settle::Debit => part.debit_of(tokens),
        };
        call = call.key(bucket_key(pool, part));
        numbers.add(bucket(part));
        numbers.add([worth, part.window]);
    }
    call.arg(numbers.0)
}

/// Numbers as a script unpacks them.
struct Numbers(Vec<u8>);

impl Numbers {
    fn of(count: usize) -> Self {
        Self(Vec::with_capacity(8 * count))
    }

    /// None of them is beyond 2^53 but by mistake, and then the nearest double will do.
    fn add<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.0.extend((number as f64).to_le_bytes());
        }
    }
}

/// What a bucket's numbers begin with: its kind, what it holds, and the most that can be used of it.
fn bucket(part: &Part) -> [u64; 3] {
    let kind = match part.meter {
        Meter::Rolling { .. } => 0,
        Meter::Calendar { period, .. } => match period {
            Period::Hour => 1,
            Period::Day => 2,
            Period::Month => 3,
        },
    };
    [kind, part.meter.fill(), part.meter.most()]
}
