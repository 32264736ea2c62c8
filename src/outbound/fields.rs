//! What a remote says about its quota, in whichever of the usual ways it says it.
//!
//! | told by | meaning |
//! |---|---|
//! | `Retry-After` with 429, 503 or 403 | not before; RFC 9110 §10.2.3; beats all others |
//! | `RateLimit`, `RateLimit-Policy` | what is left, by name; draft-ietf-httpapi-ratelimit-headers |
//! | `RateLimit: limit=, remaining=, reset=` | an earlier draft's, which widespread servers still send |
//! | `RateLimit-Remaining`, `X-RateLimit-Remaining`, `X-Rate-Limit-Remaining`, with `-Limit`, `-Reset` | what is left |
//!
//! Only the first of the last three that is there and makes sense is believed. All of it comes from
//! outside: what cannot be read is as good as absent, and every number has a bound.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AGE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::outbound::list;

/// How many windows of a remote are told apart. Remotes have one or two: a second's and a day's.
pub(crate) const WINDOWS_MAX: usize = 4;

/// How much of a window's name counts, in bytes.
const NAME_MAX: usize = 64;

/// How long a count holds that came without a time: no longer than it takes to ask again.
const UNTIMED: Duration = Duration::from_secs(1);

/// An answer, as far as it speaks of quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard<'a> {
    pub(crate) stop: Stop,
    pub(crate) words: Words<'a>,
}

/// Whether the remote wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It does not, or what it says is left says for how long.
    No,
    /// For so long, which is more than nothing.
    For(Duration),
    /// It does, and does not say for how long.
    Unhinted,
}

/// What is left of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) name: &'a str,
    pub(crate) left: u64,
    /// The whole, where it is told.
    pub(crate) limit: Option<u64>,
    /// How long this holds.
    pub(crate) lasts: Duration,
}

/// At most [`WINDOWS_MAX`] words: of more, those with the least left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words<'a> {
    words: [Option<Word<'a>>; WINDOWS_MAX],
}

impl<'a> Words<'a> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Word<'a>> {
        self.words.iter().flatten()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Word<'a>> {
        self.words.iter_mut().flatten()
    }

    pub(crate) fn add(&mut self, word: Word<'a>) {
        if let Some(free) = self.words.iter_mut().find(|place| place.is_none()) {
            *free = Some(word);
        } else if let Some(most) = self.iter_mut().max_by_key(|known| known.left)
            && word.left < most.left
        {
            *most = word;
        }
    }

    fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Reads an answer. `wall` is the time of day here, for remotes that tell theirs and not how long.
pub(crate) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    wall: impl Fn() -> SystemTime,
) -> Heard<'_> {
    // A remote whose clock goes wrong is as wrong in what it tells: only the difference counts.
    let now = || {
        first(headers, &DATE)
            .and_then(http_date)
            .unwrap_or_else(&wall)
    };
    let words = words(headers, &now);
    Heard {
        stop: stop(status, headers, &words, &now),
        words,
    }
}

/// RFC 6585 §4 for 429, RFC 9110 §15.6.4 for 503; GitHub says 403 for both of its limits. In other
/// answers `Retry-After` is about something else: how long until a redirection leads somewhere.
fn stop(
    status: StatusCode,
    headers: &HeaderMap,
    words: &Words<'_>,
    now: &impl Fn() -> SystemTime,
) -> Stop {
    let refused = status == StatusCode::TOO_MANY_REQUESTS;
    if !refused && status != StatusCode::SERVICE_UNAVAILABLE && status != StatusCode::FORBIDDEN {
        return Stop::No;
    }
    let wait = first(headers, &RETRY_AFTER).and_then(|value| retry_after(value, now));
    let nothing_left = || {
        words
            .iter()
            .any(|word| word.left == 0 && !word.lasts.is_zero())
    };
    match wait.filter(|wait| !wait.is_zero()) {
        Some(wait) => Stop::For(wait),
        None if refused && !nothing_left() => Stop::Unhinted,
        None => Stop::No,
    }
}

fn words<'a>(headers: &'a HeaderMap, now: &impl Fn() -> SystemTime) -> Words<'a> {
    // RFC 9111 §5.1: "The presence of an Age header field implies that the response was not generated
    // or validated by the origin server for this request". What it says was said to somebody else.
    if first(headers, &AGE).is_some_and(|age| age.trim() != "0") {
        return Words::default();
    }
    let standard = by_list(headers)
        .or_else(|| by_dictionary(headers))
        .filter(|words| !words.is_empty());
    let word = || {
        SEPARATE
            .iter()
            .find_map(|names| separate(headers, names, now))
    };
    standard.unwrap_or_else(|| {
        let mut words = Words::default();
        if let Some(word) = word() {
            words.add(word);
        }
        words
    })
}

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Remaining, limit and reset in fields of their own.
static SEPARATE: [[HeaderName; 3]; 3] = [
    [
        HeaderName::from_static("ratelimit-remaining"),
        HeaderName::from_static("ratelimit-limit"),
        HeaderName::from_static("ratelimit-reset"),
    ],
    [
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderName::from_static("x-ratelimit-limit"),
        HeaderName::from_static("x-ratelimit-reset"),
    ],
    [
        HeaderName::from_static("x-rate-limit-remaining"),
        HeaderName::from_static("x-rate-limit-limit"),
        HeaderName::from_static("x-rate-limit-reset"),
    ],
];

/// The draft's lists: `RateLimit: "burst";r=50;t=30`, and the policies of the same names.
fn by_list(headers: &HeaderMap) -> Option<Words<'_>> {
    let mut words = Words::default();
    for value in headers.get_all(&RATELIMIT) {
        list::items(text(value)?, |member| {
            let left = member.integer("r").and_then(|r| u64::try_from(r).ok());
            if let Some(left) = left {
                let time = member.integer("t").and_then(|t| u64::try_from(t).ok());
                words.add(Word {
                    name: short(member.name),
                    left,
                    limit: None,
                    lasts: time.map_or(UNTOLD, Duration::from_secs),
                });
            }
        })?;
    }
    let words = with_policies(headers, words).unwrap_or(words);
    Some(timed(words))
}

/// Adds what the policies tell; `None` if they cannot be read.
fn with_policies<'a>(headers: &'a HeaderMap, mut words: Words<'a>) -> Option<Words<'a>> {
    for value in headers.get_all(&RATELIMIT_POLICY) {
        list::items(text(value)?, |policy| {
            let number = |key| policy.integer(key).and_then(|n| u64::try_from(n).ok());
            let name = short(policy.name);
            for word in words.iter_mut().filter(|word| word.name == name) {
                word.limit = number("q");
                if word.lasts == UNTOLD {
                    word.lasts = number("w").map_or(UNTOLD, Duration::from_secs);
                }
            }
        })?;
    }
    Some(words)
}

/// Stands for a time until it is known that none is told.
const UNTOLD: Duration = Duration::MAX;

fn timed(mut words: Words<'_>) -> Words<'_> {
    for word in words.iter_mut().filter(|word| word.lasts == UNTOLD) {
        word.lasts = UNTIMED;
    }
    words
}

/// An earlier draft's dictionary: `RateLimit: limit=100, remaining=50, reset=30`.
fn by_dictionary(headers: &HeaderMap) -> Option<Words<'_>> {
    let (mut limit, mut left, mut reset) = (None, None, None);
    for value in headers.get_all(&RATELIMIT) {
        list::integers(text(value)?, |key, number| {
            let number = u64::try_from(number).ok();
            match key {
                "limit" => limit = number,
                "remaining" => left = number,
                "reset" => reset = number,
                _ => {}
            }
        })?;
    }
    let mut words = Words::default();
    words.add(Word {
        name: "",
        left: left?,
        limit,
        lasts: reset.map_or(UNTIMED, Duration::from_secs),
    });
    Some(words)
}

/// Fields of their own. Without a count there is nothing to go by.
fn separate(
    headers: &HeaderMap,
    [remaining, limit, reset]: &[HeaderName; 3],
    now: &impl Fn() -> SystemTime,
) -> Option<Word<'static>> {
    let (left, _) = number(first(headers, remaining)?)?;
    // Several policies may follow the limit: `100, 100;w=60`.
    let limit = first(headers, limit).and_then(|field| {
        let digits = field.split([',', ';']).next()?;
        number(digits).map(|(limit, _)| limit)
    });
    let lasts = first(headers, reset).and_then(|field| resets_in(field, now));
    Some(Word {
        name: "",
        left,
        limit,
        lasts: lasts.unwrap_or(UNTIMED),
    })
}

/// How long until a reset that is told in seconds, or as a point in time. Nobody resets after 31 years,
/// so a larger number is the Unix time, and nobody means the year 5138, so a still larger one is that
/// in milliseconds.
fn resets_in(field: &str, now: &impl Fn() -> SystemTime) -> Option<Duration> {
    let at = match number(field) {
        Some((whole, fraction)) => {
            let up = u64::from(fraction);
            match whole {
                0..=EPOCH_SECONDS => return Some(Duration::from_secs(whole + up)),
                ..=EPOCH_MILLIS => UNIX_EPOCH.checked_add(Duration::from_secs(whole + up))?,
                _ => UNIX_EPOCH.checked_add(Duration::from_millis(whole + up))?,
            }
        }
        None => http_date(field)?,
    };
    Some(at.duration_since(now()).unwrap_or_default())
}

const EPOCH_SECONDS: u64 = 1_000_000_000;
const EPOCH_MILLIS: u64 = 100_000_000_000;

/// RFC 9110 §10.2.3: "either an HTTP-date or a number of seconds to delay after receiving the response".
/// Some write the seconds with a fraction, which is rounded up.
fn retry_after(field: &str, now: &impl Fn() -> SystemTime) -> Option<Duration> {
    match number(field) {
        Some((whole, fraction)) => Some(Duration::from_secs(whole + u64::from(fraction))),
        None => {
            let at = http_date(field)?;
            Some(at.duration_since(now()).unwrap_or_default())
        }
    }
}

/// A whole number, and whether a fraction goes with it: some remotes count in floats.
fn number(field: &str) -> Option<(u64, bool)> {
    let field = field.trim();
    let (whole, fraction) = field.split_once('.').unwrap_or((field, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = whole.len() <= list::DIGITS_MAX && digits(whole) && digits(fraction);
    let whole = whole.parse().ok().filter(|_| fits)?;
    Some((whole, fraction.bytes().any(|digit| digit != b'0')))
}

fn http_date(field: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(field.trim()).ok()
}

fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(text)
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

fn short(name: &str) -> &str {
    name.get(..NAME_MAX).unwrap_or(name)
}
