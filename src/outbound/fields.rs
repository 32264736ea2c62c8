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
            if whole <= EPOCH_SECONDS {
                return Some(Duration::from_secs(whole + up));
            }
            let since = if whole <= EPOCH_MILLIS {
                Duration::from_secs(whole + up)
            } else {
                Duration::from_millis(whole + up)
            };
            UNIX_EPOCH.checked_add(since)?
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: u64 = 1_767_225_600;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    /// Name, left, limit, seconds.
    type Plain<'a> = (&'a str, u64, Option<u64>, u64);

    #[track_caller]
    fn says(lines: &[(&str, &str)], expected: &[Plain<'_>]) {
        let headers = headers(lines);
        let heard = read(StatusCode::OK, &headers, wall);
        let plain = |word: &Word<'_>| (word.name.to_owned(), word.left, word.limit, word.lasts);
        let found: Vec<_> = heard.words.iter().map(plain).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, left, limit, secs)| {
                (
                    (*name).to_owned(),
                    *left,
                    *limit,
                    Duration::from_secs(*secs),
                )
            })
            .collect();
        assert_eq!(found, expected, "{lines:?}");
        assert_eq!(heard.stop, Stop::No);
    }

    #[test]
    fn the_standards_fields_are_read() {
        let policy = ("ratelimit-policy", "\"burst\";q=100;w=60,\"day\";q=1000");
        says(
            &[("ratelimit", "\"burst\";r=50;t=30")],
            &[("burst", 50, None, 30)],
        );
        says(
            &[("ratelimit", "\"burst\";r=50;t=30, \"day\";r=9"), policy],
            &[("burst", 50, Some(100), 30), ("day", 9, Some(1000), 1)],
        );
        // Without `t`, the policy's window is the longest it can be.
        says(
            &[policy, ("ratelimit", "\"burst\";r=0")],
            &[("burst", 0, Some(100), 60)],
        );
        // RFC 9110 §5.3: several lines are one list.
        says(
            &[("ratelimit", "\"a\";r=1;t=2"), ("ratelimit", "b;r=3;t=4")],
            &[("a", 1, None, 2), ("b", 3, None, 4)],
        );
        // `r` is required, and is no less than nothing.
        says(
            &[("ratelimit", "\"a\";t=2, \"b\";r=-1, \"c\";r=\"1\"")],
            &[],
        );
        // A policy that cannot be read leaves the rest as it is.
        says(
            &[
                ("ratelimit", "\"a\";r=1;t=2"),
                ("ratelimit-policy", "\"a\";q=,"),
            ],
            &[("a", 1, None, 2)],
        );
    }

    #[test]
    fn of_many_windows_those_with_the_least_left_are_kept() {
        let field = "a;r=9;t=1, b;r=8;t=1, c;r=7;t=1, d;r=6;t=1, e;r=5;t=1, f;r=99;t=1";
        says(
            &[("ratelimit", field)],
            &[
                ("e", 5, None, 1),
                ("b", 8, None, 1),
                ("c", 7, None, 1),
                ("d", 6, None, 1),
            ],
        );
    }

    #[test]
    fn a_malformed_field_is_ignored_as_a_whole_and_the_next_one_is_read() {
        let plain = [("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "3")];
        for field in ["\"a\";r=1;t=2,", "\"a\";r=1;t=2, (", "\"a;r=1", "\u{e9}"] {
            says(&[("ratelimit", field)], &[]);
            says(
                &[&[("ratelimit", field)], &plain[..]].concat(),
                &[("", 7, None, 3)],
            );
        }
    }

    #[test]
    fn earlier_drafts_and_the_industrys_fields_are_read() {
        says(
            &[("ratelimit", "limit=100, remaining=50, reset=30")],
            &[("", 50, Some(100), 30)],
        );
        says(&[("ratelimit", "limit=100, reset=30")], &[]);
        for prefix in ["ratelimit", "x-ratelimit", "x-rate-limit"] {
            let names = ["limit", "remaining", "reset"].map(|last| format!("{prefix}-{last}"));
            let lines = |reset| {
                let values = ["60, 60;w=60", "59", reset];
                let lines = names.iter().map(String::as_str).zip(values);
                lines.collect::<Vec<_>>()
            };
            for (reset, secs) in [
                ("0", 0),
                ("42", 42),
                ("42.5", 43),
                ("1000000000", 1_000_000_000),
                ("1767225660", 60),
                ("1767225660.25", 61),
                ("1767225661000", 61),
                // What is over is over, however it is told.
                ("1767225599", 0),
                ("1000000001", 0),
                ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
                // What cannot be read is as good as untold.
                ("soon", 1),
                ("-1", 1),
                ("9999999999999999", 1),
            ] {
                says(&lines(reset), &[("", 59, Some(60), secs)]);
            }
        }
        // Without a count there is nothing to go by; and some count in floats, or say that there is no end.
        says(
            &[("x-ratelimit-limit", "60"), ("x-ratelimit-reset", "1")],
            &[],
        );
        says(&[("x-ratelimit-remaining", "-1")], &[]);
        says(&[("x-ratelimit-remaining", "594.0")], &[("", 594, None, 1)]);
    }

    #[test]
    fn a_remotes_wrong_clock_does_no_harm() {
        let epoch = ("x-ratelimit-reset", "1893456060");
        let left = ("x-ratelimit-remaining", "0");
        let date = ("date", "Tue, 01 Jan 2030 00:00:00 GMT");
        says(&[left, epoch, date], &[("", 0, None, 60)]);
        let headers = headers(&[("retry-after", "Tue, 01 Jan 2030 00:00:09 GMT"), date]);
        let heard = read(StatusCode::TOO_MANY_REQUESTS, &headers, wall);
        assert_eq!(heard.stop, Stop::For(Duration::from_secs(9)));
    }

    #[test]
    fn what_a_cache_answers_was_said_to_somebody_else() {
        let field = ("ratelimit", "\"a\";r=0;t=60");
        says(&[field, ("age", "5")], &[]);
        says(&[field, ("age", "0")], &[("a", 0, None, 60)]);
    }

    #[test]
    fn who_wants_to_be_left_alone_says_so_in_these_ways() {
        let secs = |secs| Stop::For(Duration::from_secs(secs));
        let none_left = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "60")];
        let some_left = [("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "60")];
        let after = |value| [("retry-after", value)];
        for (status, lines, expected) in [
            (429, &after("7")[..], secs(7)),
            (429, &after(" 7 "), secs(7)),
            (429, &after("0.3"), secs(1)),
            (429, &after("Thu, 01 Jan 2026 00:00:05 GMT"), secs(5)),
            (429, &after("999999999999999"), secs(999_999_999_999_999)),
            // Not long at all, over, or not to be read: it is not said for how long.
            (429, &after("0"), Stop::Unhinted),
            (429, &after("Wed, 31 Dec 2025 23:59:59 GMT"), Stop::Unhinted),
            (429, &after("-1"), Stop::Unhinted),
            (429, &after("in a while"), Stop::Unhinted),
            (429, &[], Stop::Unhinted),
            (429, &some_left, Stop::Unhinted),
            (429, &none_left, Stop::No),
            (
                429,
                &[none_left[0], ("x-ratelimit-reset", "0")],
                Stop::Unhinted,
            ),
            (503, &after("7"), secs(7)),
            (503, &[], Stop::No),
            (403, &after("60"), secs(60)),
            (403, &none_left, Stop::No),
            (403, &[], Stop::No),
            // There it is about something else.
            (301, &after("7"), Stop::No),
            (200, &after("7"), Stop::No),
        ] {
            let headers = headers(lines);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                read(status, &headers, wall).stop,
                expected,
                "{status} {lines:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            status in prop::sample::select(vec![200_u16, 403, 429, 503]),
            lines in prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "retry-after", "date", "age", "ratelimit", "ratelimit-policy",
                        "ratelimit-remaining", "x-ratelimit-limit", "x-ratelimit-remaining",
                        "x-ratelimit-reset", "x-rate-limit-reset",
                    ]),
                    prop_oneof![
                        "[0-9.,;=\"a-z -]{0,24}",
                        "[ -~]{0,24}",
                        "[0-9]{0,24}",
                        "\"[a-z]\";[rqwt]=[0-9]{1,16};[rqwt]=[0-9]{1,16}",
                    ],
                ),
                0..6,
            ),
        ) {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let headers = headers(&lines);
            let heard = read(StatusCode::from_u16(status).unwrap(), &headers, wall);
            prop_assert!(heard.words.iter().count() <= WINDOWS_MAX);
            prop_assert!(heard.words.iter().all(|word| word.lasts != UNTOLD));
            prop_assert!(heard.stop != Stop::For(Duration::ZERO));
        }
    }
}
