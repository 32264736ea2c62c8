//! What instances tell each other through Redis about one remote: one script, its call and its answer.
//!
//! A remote is one hash: until when it is blocked, a field for each window, and a field for each
//! instance with how many requests it holds, under way or allowed in advance. Everything that is written
//! is absolute, so that a call that ran without its answer being heard does no harm: the next one sets
//! it right, and what an instance holds that is gone for good lapses after [`HOLD_MILLIS`].
//!
//! What is left for all is what the remote told, less what all instances hold. Times are the server's,
//! in milliseconds.

use std::time::Duration;

use crate::store::{Call, Script};

/// The scripts of this room, for the pool to know: see
/// [`StoreParts::scripts`](crate::store::StoreParts).
pub static SCRIPTS: [&Script; 1] = [&SYNC];

/// For how long an instance is believed to hold what it said last: ten times as long as it takes to say
/// so again.
const HOLD_MILLIS: u64 = 10_000;

/// keys: the remote, the channel. args: the instance, the remote's name, the held, the wanted, how many
/// ahead, until when it is blocked or 0, how long a holding counts; then by sixes a window's name, what
/// was left, the whole or -1, when it ends, and when the request was sent and the answer heard.
///
/// Answers with its time, the granted, until when it is blocked or 0, and every window in the same form.
/// A window that has ended has 0 for its end, and its whole for what is left.
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
    if block > now and block > blocked + 100 then
        blocked, tell = block, block - now
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
            ends = tonumber(args[at + 3]),
            sent = tonumber(args[at + 4]), heard = tonumber(args[at + 5])
        }
        local old = windows[window]
        if new.ends <= now then
            -- It was true when it was written.
        elseif old then
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
    local answer = {digits(now), digits(grant), digits(blocked)}
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
        answer[#answer + 1] = digits(known.ends)
        answer[#answer + 1] = digits(known.sent)
        answer[#answer + 1] = digits(known.heard)
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

/// What an instance says of a remote. Times are the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// How many requests it holds: under way, given up without an answer, or allowed in advance.
    pub(crate) held: u64,
    /// How many it wants to send at once.
    pub(crate) want: u64,
    /// How many beyond that.
    pub(crate) ahead: u64,
    /// Until when the remote wants to be left alone, where that is news; else 0.
    pub(crate) block: u64,
    /// What it has heard of windows, where that is news.
    pub(crate) windows: Vec<Seen>,
}

/// A window, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) left: u64,
    pub(crate) limit: Option<u64>,
    /// 0 for one that has ended.
    pub(crate) ends: u64,
    pub(crate) sent: u64,
    pub(crate) heard: u64,
}

/// What all instances together know. Times are the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) now: u64,
    pub(crate) granted: u64,
    /// Until when the remote wants to be left alone, or 0.
    pub(crate) block: u64,
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
            .arg(self.block)
            .arg(HOLD_MILLIS);
        for window in &self.windows {
            let limit = window.limit.and_then(|limit| i64::try_from(limit).ok());
            call = call
                .arg(&window.name)
                .arg(window.left)
                .arg(limit.unwrap_or(-1))
                .arg(window.ends)
                .arg(window.sent)
                .arg(window.heard);
        }
        call
    }
}

impl Answer {
    /// Reads the script's words; `None` if they are none of its.
    pub(crate) fn read(words: &[String]) -> Option<Self> {
        let [now, granted, block, windows @ ..] = words else {
            return None;
        };
        let mut read = Vec::with_capacity(windows.len() / 6);
        for window in windows.chunks(6) {
            let [name, left, limit, ends, sent, heard] = window else {
                return None;
            };
            read.push(Seen {
                name: name.clone(),
                left: left.parse().ok()?,
                limit: limit.parse().ok(),
                ends: ends.parse().ok()?,
                sent: sent.parse().ok()?,
                heard: heard.parse().ok()?,
            });
        }
        Some(Self {
            now: now.parse().ok()?,
            granted: granted.parse().ok()?,
            block: block.parse().ok()?,
            windows: read,
        })
    }
}

/// A message of the channel: who says it, for how long the remote wants to be left alone, and which.
pub(crate) fn message(payload: &[u8]) -> Option<(&str, Duration, &str)> {
    let mut words = std::str::from_utf8(payload).ok()?.splitn(3, ' ');
    let (instance, block, remote) = (words.next()?, words.next()?, words.next()?);
    let block = Duration::from_millis(block.parse().ok()?);
    Some((instance, block, remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_another_scripts_is_not() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let answer =
            Answer::read(&words("1000 3 0 day 5 -1 2000 900 950 hour 9 10 0 1 2")).unwrap();
        let seen = |name: &str, left, limit, (ends, sent, heard)| Seen {
            name: name.to_owned(),
            left,
            limit,
            ends,
            sent,
            heard,
        };
        let expected = Answer {
            now: 1000,
            granted: 3,
            block: 0,
            windows: vec![
                seen("day", 5, None, (2000, 900, 950)),
                seen("hour", 9, Some(10), (0, 1, 2)),
            ],
        };
        assert_eq!(answer, expected);
        for text in [
            "",
            "1",
            "1 2",
            "1 2 x",
            "1 2 0 day",
            "1 2 0 day 5 -1 2000 900 never",
            "1 -2 0",
        ] {
            assert_eq!(Answer::read(&words(text)), None, "{text:?}");
        }
    }

    #[test]
    fn a_message_names_its_remote_whatever_that_is_called() {
        let minute = Duration::from_secs(60);
        let heard = message(b"0a 60000 a remote: {x}");
        assert_eq!(heard, Some(("0a", minute, "a remote: {x}")));
        for payload in ["", "0a", "0a 1", "0a soon a.test"] {
            assert_eq!(message(payload.as_bytes()), None, "{payload:?}");
        }
        assert_eq!(message(b"\xff 1 a.test"), None);
    }
}
