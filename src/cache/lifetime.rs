//! How old an answer is when it arrives, and how long it may live: RFC 9111 §4.2 as pure functions.
//!
//! Time comes in as values; nothing here reads a clock or a store.

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

use crate::cache::control::{CacheControl, DELTA_SECONDS_MAX};

/// The lifetime that the fields give (RFC 9111 §4.2.1): s-maxage, max-age, Expires - Date. `expires` says
/// whether `Expires` counts: beside a targeted field it does not (RFC 9213 §2.2).
pub(crate) fn explicit_lifetime(
    headers: &HeaderMap,
    control: &CacheControl,
    expires: bool,
    arrived: SystemTime,
) -> Option<Duration> {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some(Duration::from_secs(seconds));
    }
    let mut lines = headers.get_all(EXPIRES).iter().filter(|_| expires);
    let expires = lines.next()?;
    // §5.3: "A cache recipient MUST interpret invalid date formats, especially the value "0", as
    // representing a time in the past"; two different lines are no date either.
    let Some(expires) = http_date(expires).filter(|_| lines.next().is_none()) else {
        return Some(Duration::ZERO);
    };
    let date = date_of(headers).unwrap_or(arrived);
    Some(expires.duration_since(date).unwrap_or(Duration::ZERO))
}

/// RFC 9111 §4.2.2: "if the response has a Last-Modified header field, caches are encouraged to use a
/// heuristic expiration value that is no more than some fraction of the interval since that time. A
/// typical setting of this fraction might be 10%." And no more than a day, as all caches of note hold it.
pub(crate) fn heuristic_lifetime(headers: &HeaderMap, arrived: SystemTime) -> Option<Duration> {
    let modified = http_date(headers.get(LAST_MODIFIED)?)?;
    let date = date_of(headers).unwrap_or(arrived);
    let since = date.duration_since(modified).ok()?;
    Some((since / 10).min(HEURISTIC_MAX))
}

/// RFC 9111 §4.2.3, `corrected_initial_age`.
pub(crate) fn initial_age(headers: &HeaderMap, arrived: SystemTime, delay: Duration) -> Duration {
    let date = date_of(headers).unwrap_or(arrived);
    let apparent = arrived.duration_since(date).unwrap_or(Duration::ZERO);
    apparent.max(age_value(headers).saturating_add(delay))
}

/// §5.1: "a cache encountering a message with a list-based Age field value SHOULD use the first member of
/// the field value, discarding subsequent ones. If the field value .. is invalid .. a cache SHOULD ignore
/// the field."
fn age_value(headers: &HeaderMap) -> Duration {
    let Some(line) = headers.get(AGE) else {
        return Duration::ZERO;
    };
    let first = line
        .as_bytes()
        .split(|byte| *byte == b',')
        .next()
        .unwrap_or_default();
    let digits = std::str::from_utf8(first.trim_ascii()).unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if plain {
        digits.parse().unwrap_or(DELTA_SECONDS_MAX)
    } else {
        0
    };
    Duration::from_secs(seconds.min(DELTA_SECONDS_MAX))
}

fn date_of(headers: &HeaderMap) -> Option<SystemTime> {
    headers.get(DATE).and_then(http_date)
}

/// A date of RFC 9110 §5.6.7 in any of its three forms.
pub(crate) fn http_date(value: &HeaderValue) -> Option<SystemTime> {
    let text = value.to_str().ok()?;
    httpdate::parse_http_date(text)
        .ok()
        .or_else(|| lenient(text))
}

/// RFC 9111 §4.2: "Although all date formats are specified to be case-sensitive, a cache recipient SHOULD
/// match the field value case-insensitively." The day of the week is passed over as well: the date says it.
fn lenient(text: &str) -> Option<SystemTime> {
    if text.len() > DATE_BYTES_MAX {
        return None;
    }
    let (day, rest) = text.split_at(text.find(|byte: char| !byte.is_ascii_alphabetic())?);
    let mut cased = String::with_capacity(rest.len());
    for letter in rest.chars() {
        let begins = !cased.ends_with(|before: char| before.is_ascii_alphabetic());
        cased.push(if begins {
            letter.to_ascii_uppercase()
        } else {
            letter.to_ascii_lowercase()
        });
    }
    let rest = cased.replace("Gmt", "GMT");
    let mut days = DAYS
        .iter()
        .map(|name| if day.len() > 3 { name } else { &name[..3] });
    days.find_map(|name| httpdate::parse_http_date(&format!("{name}{rest}")).ok())
}

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// Longer than any date of the three forms.
const DATE_BYTES_MAX: usize = 40;

const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 §5.6.7 and RFC 9111 §4.2: "a cache recipient SHOULD consider a date with a zone abbreviation
    /// other than "GMT" to be invalid".
    #[test]
    fn dates_are_read_in_three_forms_and_any_case() {
        let date = |text| http_date(&HeaderValue::from_static(text));
        let aug = date("Thu, 18 Aug 2050 02:01:18 GMT").unwrap();
        for same in [
            "Thursday, 18-Aug-50 02:01:18 GMT",
            "Thu Aug 18 02:01:18 2050",
            "THU, 18 aug 2050 02:01:18 gMT",
            "thursday, 18-AUG-50 02:01:18 gmt",
            "Mon, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(date(same), Some(aug), "{same}");
        }
        for none in [
            "0",
            "",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 32 Aug 2050 02:01:18 GMT",
            "Wednesday, a very long time after the end of all days there are",
        ] {
            assert_eq!(date(none), None, "{none}");
        }
    }

    /// RFC 9111 §4.2.2: a tenth of the time since it was modified, and no more than a day.
    #[test]
    fn a_lifetime_is_guessed_from_the_last_change() {
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let guess = |ago: u64| {
            let then = arrived - Duration::from_secs(ago);
            let value = HeaderValue::try_from(httpdate::fmt_http_date(then)).unwrap();
            heuristic_lifetime(&HeaderMap::from_iter([(LAST_MODIFIED, value)]), arrived)
        };
        assert_eq!(guess(600), Some(Duration::from_secs(60)));
        assert_eq!(guess(0), Some(Duration::ZERO));
        assert_eq!(guess(30 * 24 * 60 * 60), Some(HEURISTIC_MAX));
        assert_eq!(heuristic_lifetime(&HeaderMap::new(), arrived), None);
        let ahead = HeaderValue::from_static("Fri, 02 Jan 2026 00:00:00 GMT");
        let ahead = HeaderMap::from_iter([(LAST_MODIFIED, ahead)]);
        assert_eq!(heuristic_lifetime(&ahead, arrived), None);
    }
}
