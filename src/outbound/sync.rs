//! What instances tell each other through Redis about one remote: one script, its call and its answer.
//!
//! A remote is one hash: until when it is blocked, a field for each window, and a field for each
//! instance with how many requests it holds, under way or allowed in advance. Everything that is written
//! is absolute, so that a call that ran without its answer being heard does no harm: the next one sets
//! it right, and what an instance holds that is gone for good lapses after [`HOLD_MILLIS`].
//!
//! What is left for all is what the remote told, less what all instances hold. Times are the server's;
//! callers tell theirs as distances from now.

use std::time::Duration;

use crate::store::{Call, Script};

/// The scripts of this room, for the pool to know: see
/// [`StoreParts::scripts`](crate::store::StoreParts).
pub static SCRIPTS: [&Script; 1] = [&SYNC];

/// For how long an instance is believed to hold what it said last: ten times as long as it takes to say
/// so again.
const HOLD_MILLIS: u64 = 10_000;

/// keys: the remote, the channel. args: the instance, the remote's name, the held, the wanted, how many
/// ahead, for how long it is blocked, how long a holding counts; then by sixes a window's name, what was
/// left, the whole or -1, and how far away are its end, the request, and the answer.
///
/// Answers with the granted, for how long it is blocked, and every window in the same form. A window
/// that has ended has -1 for its end, and its whole for what is left.
static SYNC: Script = Script::new(
    "outbound",
    r"
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local id, name = args[1], args[2]
    local held, want, ahead = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
    local block, hold = tonumber(args[6]), tonumber(args[7])

    local blocked, windows, count, others, instances = 0, {}, 0, 0, 1
    local before = redis.call('HGETALL', keys[1])
    local gone = {}
    for at = 1, #before, 2 do
        local field, value = before[at], before[at + 1]
        local kind, rest = string.sub(field, 1, 1), string.sub(field, 2)
        if kind == 'b' then
            blocked = tonumber(value)
        elseif kind == 'i' then
            local holds, said = string.match(value, '^(%d+) (%d+)$')
            if now - tonumber(said) > hold then
                gone[#gone + 1] = field
            elseif rest ~= id then
                others, instances = others + tonumber(holds), instances + 1
            end
        elseif kind == 'w' then
            local left, limit, ends, sent, heard =
                string.match(value, '^(%d+) (%-?%d+) (%d+) (%d+) (%d+)$')
            local known = {
                left = tonumber(left), limit = tonumber(limit), ends = tonumber(ends),
                sent = tonumber(sent), heard = tonumber(heard)
            }
            if known.ends > 0 and known.ends <= now then
                known.left, known.ends = known.limit, 0
            end
            if known.ends == 0 and known.limit < 0 then
                gone[#gone + 1] = field
            else
                windows[rest], count = known, count + 1
            end
        end
    end
    local unknown = count == 0

    local tell = 0
    if blocked <= now then
        blocked = 0
    end
    if block > 0 and now + block > blocked + 100 then
        blocked, tell = now + block, block
        for window in pairs(windows) do
            gone[#gone + 1] = 'w' .. window
        end
        windows, count = {}, 0
    end

    local function is_older(old, new)
        if old.ends == 0 then
            return true
        elseif new.sent > old.heard then
            return true
        elseif new.heard < old.sent or new.ends + 2000 < old.ends then
            return false
        end
        return new.ends > old.ends + 2000 or new.left <= old.left
    end
    for at = 8, #args, 6 do
        local window = args[at]
        local new = {
            left = tonumber(args[at + 1]), limit = tonumber(args[at + 2]),
            ends = now + tonumber(args[at + 3]),
            sent = math.max(now - tonumber(args[at + 4]), 0),
            heard = math.max(now - tonumber(args[at + 5]), 0)
        }
        local old = windows[window]
        if old then
            local limit = new.limit >= 0 and new.limit or old.limit
            if is_older(old, new) then
                windows[window] = new
            end
            windows[window].limit = limit
        else
            if count >= 4 then
                local most
                for other, known in pairs(windows) do
                    if not most or known.left > windows[most].left then
                        most = other
                    end
                end
                if windows[most].left > new.left then
                    gone[#gone + 1] = 'w' .. most
                    windows[most], count = nil, count - 1
                end
            end
            if count < 4 then
                windows[window], count = new, count + 1
            end
        end
    end

    local least
    for _, window in pairs(windows) do
        local left = window.left - others - held
        least = math.min(least or left, left)
    end
    local grant = want + ahead
    if blocked > 0 then
        grant = 0
    elseif least and least <= want then
        grant = math.max(least, 0)
    elseif least then
        grant = want + math.min(ahead, math.floor((least - want) / (2 * instances)))
    end

    local function digits(number)
        return string.format('%.0f', number)
    end
    local answer = {digits(grant), digits(math.max(blocked - now, 0))}
    if count == 0 and blocked == 0 then
        if #before > 0 then
            redis.call('DEL', keys[1])
        end
        return answer
    end
    for _, field in ipairs(gone) do
        redis.call('HDEL', keys[1], field)
    end
    local last = math.max(blocked, now)
    redis.call('HSET', keys[1], 'b', digits(blocked))
    for window, known in pairs(windows) do
        last = math.max(last, known.ends)
        redis.call('HSET', keys[1], 'w' .. window, string.format('%.0f %.0f %.0f %.0f %.0f',
            known.left, known.limit, known.ends, known.sent, known.heard))
        answer[#answer + 1] = window
        answer[#answer + 1] = digits(known.left)
        answer[#answer + 1] = digits(known.limit)
        answer[#answer + 1] = known.ends == 0 and '-1' or digits(known.ends - now)
        answer[#answer + 1] = digits(math.max(now - known.sent, 0))
        answer[#answer + 1] = digits(math.max(now - known.heard, 0))
    end
    if count > 0 and held + grant > 0 then
        redis.call('HSET', keys[1], 'i' .. id, string.format('%.0f %.0f', held + grant, now))
    else
        redis.call('HDEL', keys[1], 'i' .. id)
    end
    redis.call('PEXPIRE', keys[1], digits(last - now + 60000))
    if tell > 0 or (unknown and count > 0) then
        publish(keys[2], id .. ' ' .. digits(tell) .. ' ' .. name)
    end
    return answer
    ",
);

/// What an instance says of a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// How many requests it holds: under way, given up without an answer, or allowed in advance.
    pub(crate) held: u64,
    /// How many it wants to send at once.
    pub(crate) want: u64,
    /// How many beyond that.
    pub(crate) ahead: u64,
    /// For how long the remote wants to be left alone, where that is news; else nothing.
    pub(crate) block: Duration,
    /// What it has heard of windows, where that is news.
    pub(crate) windows: Vec<Seen>,
}

/// A window, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) left: u64,
    pub(crate) limit: Option<u64>,
    /// `None` for one that has ended.
    pub(crate) ends_in: Option<Duration>,
    pub(crate) sent_ago: Duration,
    pub(crate) heard_ago: Duration,
}

/// What all instances together know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) granted: u64,
    pub(crate) block: Duration,
    pub(crate) windows: Vec<Seen>,
}

/// Where a remote and the channel are kept, and who speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letterhead<'a> {
    pub(crate) key: &'a str,
    pub(crate) channel: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) remote: &'a str,
}

impl Report {
    pub(crate) fn call(&self, head: Letterhead<'_>) -> Call {
        let mut call = Call::new(&SYNC)
            .key(head.key)
            .key(head.channel)
            .arg(head.instance)
            .arg(head.remote)
            .arg(self.held)
            .arg(self.want)
            .arg(self.ahead)
            .arg(millis_up(self.block))
            .arg(HOLD_MILLIS);
        for window in &self.windows {
            // Rounded so that the word is true for at least as long as it was.
            call = call
                .arg(&window.name)
                .arg(window.left)
                .arg(limit_word(window.limit))
                .arg(millis_up(window.ends_in.unwrap_or_default()))
                .arg(millis_up(window.sent_ago))
                .arg(window.heard_ago.as_millis() as u64);
        }
        call
    }
}

impl Answer {
    /// Reads the script's words; `None` if they are none of its.
    pub(crate) fn read(words: &[String]) -> Option<Self> {
        let [granted, block, windows @ ..] = words else {
            return None;
        };
        let millis = |word: &String| word.parse().ok().map(Duration::from_millis);
        let mut read = Vec::with_capacity(windows.len() / 6);
        for window in windows.chunks(6) {
            let [name, left, limit, ends_in, sent_ago, heard_ago] = window else {
                return None;
            };
            read.push(Seen {
                name: name.clone(),
                left: left.parse().ok()?,
                limit: limit.parse().ok(),
                ends_in: millis(ends_in),
                sent_ago: millis(sent_ago)?,
                heard_ago: millis(heard_ago)?,
            });
        }
        Some(Self {
            granted: granted.parse().ok()?,
            block: millis(block)?,
            windows: read,
        })
    }
}

fn limit_word(limit: Option<u64>) -> i64 {
    limit
        .and_then(|limit| i64::try_from(limit).ok())
        .unwrap_or(-1)
}

fn millis_up(time: Duration) -> u64 {
    time.as_nanos().div_ceil(1_000_000) as u64
}

/// A message of the channel: who says it, for how long the remote wants to be left alone, and which.
pub(crate) fn message(payload: &[u8]) -> Option<(&str, Duration, &str)> {
    let mut words = std::str::from_utf8(payload).ok()?.splitn(3, ' ');
    let (instance, block, remote) = (words.next()?, words.next()?, words.next()?);
    Some((instance, Duration::from_millis(block.parse().ok()?), remote))
}
