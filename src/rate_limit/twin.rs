//! Shared buckets once more, in memory and without Redis: what the scripts are compared with.
//!
//! Written from the rules and not from the scripts, in integers that nothing overflows. Beside it stands
//! how tests reach a server of their own.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::time::Duration;

use crate::rate_limit::ask::{Answer, Ask, Meter, Part, Told};
use crate::rate_limit::script::Settle;
use crate::store::{RedisConfig, RedisPool, Script, StoreParts};
use crate::task::Tasks;

const SECOND: u64 = 1_000_000;

/// A bucket as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// What is used grows back until `full`; nothing is given back from before `reach`.
    Rolling {
        full: u64,
        fill: u64,
        reach: u64,
    },
    Window {
        end: u64,
        count: u64,
        of: u64,
    },
}

/// All buckets by owner and name, at a time of one's own.
#[derive(Debug, Default)]
pub(crate) struct Twin {
    buckets: HashMap<(String, String), Stored>,
    banned: HashMap<String, Duration>,
    /// Since 1970, in µs.
    pub(crate) now: u64,
}

/// A bucket while it is decided about.
#[derive(Clone, Copy, Debug)]
struct Open {
    used: u128,
    reach: u128,
    window: u64,
    /// Whether it says something else than what is stored.
    changed: bool,
}

impl Twin {
    pub(crate) fn take(&mut self, ask: &Ask, ban: Option<&str>) -> Answer {
        if let Some(lasts) = ban.and_then(|owner| self.banned.get(owner)) {
            return Answer {
                granted: 0,
                told: Vec::new(),
                banned: Some(*lasts),
            };
        }
        let mut open: Vec<Open> = ask.parts.iter().map(|part| self.open(part)).collect();
        let mut granted = ask.requests;
        for (part, bucket) in ask.parts.iter().zip(&mut open) {
            bucket.learn(part);
            // One request after the other, as somebody would count who has no division.
            let (mut fit, mut level) = (0, bucket.used);
            let worth = u128::from(part.worth());
            while fit < granted && level + worth.max(1) <= u128::from(part.meter.fill()) {
                (fit, level) = (fit + 1, level + worth);
            }
            granted = fit;
        }
        let mut told = Vec::new();
        for (part, bucket) in ask.parts.iter().zip(&mut open) {
            bucket.add(u128::from(granted) * u128::from(part.worth()));
            let window = match part.meter {
                Meter::Rolling { .. } => self.now + u64::try_from(bucket.used).unwrap(),
                Meter::Calendar { .. } => bucket.window,
            };
            let (interval, fill) = (part.meter.interval(), part.meter.fill());
            let free = u128::from(fill).saturating_sub(bucket.used) / u128::from(interval);
            let wanted = if granted == ask.requests {
                part.lease
            } else {
                0
            };
            let leased = (free / 2).min(u128::from(wanted));
            bucket.add(leased * u128::from(interval));
            if leased > 0 {
                bucket.reach = bucket.used;
            }
            self.close(part, *bucket);
            told.push(Told {
                ahead: u64::try_from(bucket.used).unwrap(),
                leased: u32::try_from(leased).unwrap(),
                window,
            });
        }
        Answer {
            granted,
            told,
            banned: None,
        }
    }

    pub(crate) fn settle(&mut self, way: Settle, parts: &[Part], tokens: &[u32]) {
        for (part, &tokens) in parts.iter().zip(tokens) {
            let mut bucket = self.open(part);
            let interval = u128::from(part.meter.interval());
            let worth = interval * u128::from(tokens);
            match way {
                Settle::Back if bucket.is_meant(part) => {
                    let mut worth = worth.min(u128::from(part.meter.fill()));
                    if let (Meter::Rolling { .. }, 1..) = (part.meter, part.window) {
                        worth = worth.min(part.window.saturating_sub(self.now).into());
                    }
                    let left = bucket.used.saturating_sub(worth).max(bucket.reach);
                    bucket.changed |= left != bucket.used;
                    bucket.used = left;
                }
                Settle::Back => {}
                Settle::Debit => {
                    let used = (bucket.used + worth).min(most(part.meter));
                    bucket.add(used.saturating_sub(bucket.used));
                }
            }
            self.close(part, bucket);
        }
    }

    pub(crate) fn ban(&mut self, owner: &str, lasts: Duration) {
        let ban = self.banned.entry(owner.to_owned()).or_default();
        *ban = lasts.max(*ban);
    }

    pub(crate) fn unban(&mut self, owner: &str) {
        self.banned.remove(owner);
    }

    /// What is stored there is lost, or was never a bucket.
    pub(crate) fn forget(&mut self, part: &Part) {
        self.buckets.remove(&place(part));
    }

    /// What stands under a bucket's key.
    pub(crate) fn stored(&self, part: &Part) -> Option<Vec<u8>> {
        Some(match *self.buckets.get(&place(part))? {
            Stored::Rolling { full, fill, reach } => text('r', &[full, reach, fill]),
            Stored::Window { end, count, of } => text('w', &[end, count, of]),
        })
    }

    fn open(&self, part: &Part) -> Open {
        let window = match part.meter {
            Meter::Rolling { .. } => 0,
            Meter::Calendar { period, .. } => period.end(self.now / SECOND),
        };
        let mut open = Open {
            used: 0,
            reach: 0,
            window,
            changed: false,
        };
        match (part.meter, self.buckets.get(&place(part))) {
            (Meter::Rolling { .. }, Some(&Stored::Rolling { full, fill, reach })) => {
                let ahead = |time: u64| u128::from(time.saturating_sub(self.now).min(2 * fill));
                let (old, new) = (u128::from(fill), u128::from(part.meter.fill()));
                let part_of = |used: u128| (used * new).div_ceil(old).min(most(part.meter));
                open.used = part_of(ahead(full));
                open.reach = part_of(ahead(reach));
                let stored = u128::from(full.saturating_sub(self.now));
                open.changed = stored != open.used || (old != new && open.used > 0);
            }
            (Meter::Calendar { .. }, Some(&Stored::Window { end, count, .. })) if end == window => {
                open.used = u128::from(count).min(most(part.meter));
                open.changed = open.used != u128::from(count);
            }
            (_, Some(&other)) => {
                let (used, of) = match other {
                    Stored::Rolling { full, fill, .. } => (full.saturating_sub(self.now), fill),
                    Stored::Window { end, count, of } if end * SECOND > self.now => (count, of),
                    Stored::Window { of, .. } => (0, of),
                };
                let used = u128::from(used.min(2 * of));
                let is_count = matches!(other, Stored::Window { .. }) && window > 0;
                let whole = if is_count { of } else { part.meter.fill() };
                let used = (used * u128::from(whole)).div_ceil(u128::from(of));
                open.used = used.min(most(part.meter));
                open.changed = open.used > 0;
            }
            (_, None) => {}
        }
        open
    }

    fn close(&mut self, part: &Part, open: Open) {
        if !open.changed {
            return;
        }
        let used = u64::try_from(open.used).unwrap();
        let reach = u64::try_from(open.reach).unwrap();
        let stored = match part.meter {
            Meter::Rolling { .. } => Stored::Rolling {
                full: self.now + used,
                fill: part.meter.fill(),
                reach: if reach == 0 { 0 } else { self.now + reach },
            },
            Meter::Calendar { .. } => Stored::Window {
                end: open.window,
                count: used,
                of: part.meter.fill(),
            },
        };
        match used {
            0 => self.buckets.remove(&place(part)),
            _ => self.buckets.insert(place(part), stored),
        };
    }
}

impl Open {
    fn add(&mut self, worth: u128) {
        self.used += worth;
        self.changed |= worth > 0;
    }

    /// Whether what a part says is about the window that runs.
    fn is_meant(&self, part: &Part) -> bool {
        part.window == 0 || self.window == 0 || part.window == self.window
    }

    fn learn(&mut self, part: &Part) {
        if !self.is_meant(part) {
            return;
        }
        let (most, hint) = (most(part.meter), u128::from(part.hint));
        self.add(hint.min(most).saturating_sub(self.used));
        let owed = (self.used + u128::from(part.debt)).min(most);
        self.add(owed.saturating_sub(self.used));
    }
}

/// Twice what the bucket holds, as far as times can be kept.
fn most(meter: Meter) -> u128 {
    let limit = match meter {
        Meter::Rolling { .. } => u128::from(crate::rate_limit::slot::FILL_MAX),
        Meter::Calendar { .. } => u128::MAX,
    };
    limit.min(2 * u128::from(meter.fill()))
}

/// A letter and some doubles.
fn text(tag: char, numbers: &[u64]) -> Vec<u8> {
    let bytes = numbers
        .iter()
        .flat_map(|&number| (number as f64).to_le_bytes());
    tag.to_string()
        .into_bytes()
        .into_iter()
        .chain(bytes)
        .collect()
}

fn place(part: &Part) -> (String, String) {
    (part.owner.to_string(), part.bucket.to_string())
}

/// A pool of a test's own. Dropping it ends its connections.
pub(crate) struct Opened {
    pub(crate) pool: RedisPool,
    pub(crate) tasks: Tasks,
}

/// Reaches a server with these scripts, without a deadline that a busy machine could miss.
pub(crate) async fn open(url: &str, scripts: &[&'static Script]) -> Opened {
    let tasks = Tasks::new().unwrap();
    let config = RedisConfig {
        url: Some(url.to_owned()),
        command_timeout: Duration::from_secs(5),
        ..RedisConfig::default()
    };
    let parts = StoreParts {
        scripts: scripts.to_vec(),
        ..StoreParts::new(tasks.spawner())
    };
    let pool = RedisPool::new(&config, &parts).unwrap();
    let mut status = pool.watch();
    let up = tokio::time::timeout(Duration::from_secs(10), status.until_up()).await;
    assert!(up.is_ok_and(|up| up), "still {}", pool.status());
    Opened { pool, tasks }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ops::Range;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestCaseError, TestRunner};

    use super::*;
    use crate::rate_limit::ban_script::BAN;
    use crate::rate_limit::period::Period;
    use crate::rate_limit::script::{self, SETTLE, TAKE, ban_key, bucket_key};
    use crate::rate_limit::shared::read;
    use crate::rate_limit::slot::FILL_MAX;
    use crate::rate_limit::test_redis::TestRedis;
    use crate::store::{Batch, Call, Command};

    const OWNERS: [&str; 3] = ["all", "ip:203.0.113.7", "caller:a}b{c"];
    const BUCKETS: [&str; 4] = ["login", "default", "plan", "search@free"];
    const fn rolling(interval: u64, fill: u64) -> Meter {
        Meter::Rolling { interval, fill }
    }
    const fn calendar(period: Period, requests: u32) -> Meter {
        Meter::Calendar { period, requests }
    }
    /// The first four are the buckets' own; sometimes a bucket is asked under another.
    const METERS: [Meter; 12] = [
        rolling(1_000, 10_000),
        rolling(600_000, 60_000_000),
        calendar(Period::Hour, 20),
        rolling(333_333, 7 * 333_333),
        rolling(7, 21),
        rolling(1, 1),
        rolling(1_000, 2_500),
        rolling(FILL_MAX / 97, FILL_MAX),
        rolling(FILL_MAX / 3, FILL_MAX - 1),
        calendar(Period::Day, 5),
        calendar(Period::Month, 50),
        calendar(Period::Hour, u32::MAX),
    ];
    const KINDS_OF_JUNK: usize = 16;

    /// What somebody else might store while an hour's window ends then; beyond these, a list.
    fn junk(kind: usize, end: u64) -> Option<Vec<u8>> {
        let later = 9_000_000_000_000_000;
        let doubles = |tag: &str, numbers: &[f64]| {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            tag.bytes().chain(bytes).collect()
        };
        let (later_us, hour) = (9e15, 3.6e9);
        Some(match kind {
            0 => Vec::new(),
            1 => b"junk".to_vec(),
            2 => b"r".to_vec(),
            3 => b"r1790000000000000 60000000".to_vec(),
            4 => text('r', &[later, 0, 0]),
            5 => text('r', &[later, 0, 1 << 44]),
            6 => text('x', &[later, 0, 3_600_000_000]),
            7 => text('r', &[later, 0]),
            8 => doubles("r", &[f64::NAN, 0.0, hour]),
            9 => doubles("r", &[f64::INFINITY, 0.0, hour]),
            10 => doubles("r", &[-later_us, 0.0, hour]),
            11 => doubles("r", &[later_us, 0.0, f64::NAN]),
            12 => doubles("r", &[later_us, 0.0, -hour]),
            13 => text('w', &[1_000_000_000, 5, 10]),
            14 => text('w', &[1_790_000_000, 5]),
            15 => doubles("w", &[end as f64, f64::NAN, 5.0]),
            _ => return None,
        })
    }

    /// The same script on a clock of ours: the last argument is the time, and what is stored stays stored,
    /// whatever time it is for the server.
    fn on_our_clock(script: &Script) -> &'static Script {
        let exchange = |body: &str, old: &str, new: &str| {
            assert_eq!(body.matches(old).count(), 1, "{old}");
            body.replace(old, new)
        };
        let clock = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]";
        let body = exchange(script.body(), clock, "local now = tonumber(args[#args])");
        let body = exchange(&body, "ceil(left / 1000)", "ceil(left / 1000 + 1e9)");
        let body = exchange(&body, "ceil(used / 1000)", "ceil(used / 1000 + 1e9)");
        Box::leak(Box::new(Script::new(script.name(), body.leak())))
    }

    #[derive(Clone, Debug)]
    enum Deed {
        /// The clock moves by so many µs, sometimes back.
        Wait(i64),
        Take(Ask, Option<usize>),
        Settle(Settle, Vec<(Part, u32)>),
        Ban(usize),
        Unban(usize),
        /// Somebody else stores something under a bucket's key.
        Spoil(Part, usize),
    }

    fn part() -> impl Strategy<Value = Part> {
        let of = (0..OWNERS.len(), 0..BUCKETS.len());
        let meter = prop_oneof![8 => Just(None), 1 => (0..METERS.len()).prop_map(Some)];
        let cost = prop_oneof![1 => Just(0_u32), 6 => 1_u32..4, 1 => Just(1_000_u32)];
        let lease = prop_oneof![3 => Just(0_u32), 1 => 1_u32..30];
        let far = |most: u64| prop_oneof![6 => Just(0_u64), 1 => 1..most, 1 => 1_u64..30];
        let known = (far(3 * FILL_MAX), far(FILL_MAX), 0_u64..3);
        (of, meter, (cost, lease), known).prop_map(|((owner, bucket), meter, tokens, known)| Part {
            owner: OWNERS[owner].into(),
            bucket: BUCKETS[bucket].into(),
            meter: METERS[meter.unwrap_or(bucket)],
            cost: tokens.0,
            lease: tokens.1,
            // Of all sizes: most buckets are small.
            hint: known.0 >> (known.0 % 44),
            debt: known.1 >> (known.1 % 44),
            window: known.2,
        })
    }

    fn parts(count: Range<usize>) -> impl Strategy<Value = Vec<Part>> {
        proptest::collection::vec(part(), count).prop_map(|mut parts| {
            let mut seen = HashSet::new();
            parts.retain(|part| seen.insert(place(part)));
            parts
        })
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let wait = prop_oneof![
            6 => 0_i64..5_000,
            4 => 0_i64..2_000_000,
            2 => 0_i64..100_000_000,
            1 => 0_i64..4_000_000_000,
            1 => 0_i64..3_500_000_000_000,
            1 => -20_000_000_i64..0,
        ];
        let requests = prop_oneof![1 => Just(0_u32), 8 => 1_u32..4, 1 => Just(60_u32)];
        let ban = prop_oneof![4 => Just(None), 1 => (0..OWNERS.len()).prop_map(Some)];
        let take = (requests, parts(1..5), ban);
        let way = prop_oneof![Just(Settle::Back), Just(Settle::Debit)];
        let tokens = prop_oneof![4 => 0_u32..5, 1 => Just(u32::MAX)];
        let settled = proptest::collection::vec(tokens, 4);
        let settle = (way, parts(1..4), settled);
        prop_oneof![
            6 => wait.prop_map(Deed::Wait),
            9 => take.prop_map(|(requests, parts, ban)| Deed::Take(Ask { requests, parts }, ban)),
            3 => settle.prop_map(|(way, parts, tokens)| {
                Deed::Settle(way, parts.into_iter().zip(tokens).collect())
            }),
            1 => (0..OWNERS.len()).prop_map(Deed::Ban),
            2 => (0..OWNERS.len()).prop_map(Deed::Unban),
            1 => (part(), 0..=KINDS_OF_JUNK).prop_map(|(part, junk)| Deed::Spoil(part, junk)),
        ]
    }

    /// Both of them, side by side.
    struct Pair {
        pool: RedisPool,
        take: &'static Script,
        settle: &'static Script,
        twin: Twin,
        /// Whether deeds came to pass that a test which is worth its name must have seen.
        seen: HashSet<&'static str>,
    }

    impl Pair {
        /// A part's window is drawn as none, the one that runs, or another.
        fn set_window(&self, part: &mut Part) {
            let end = match part.meter {
                // One token has not grown back yet.
                Meter::Rolling { interval, .. } => self.twin.now + interval,
                Meter::Calendar { period, .. } => period.end(self.twin.now / SECOND),
            };
            part.window = [0, end, end - 1][usize::try_from(part.window).unwrap()];
        }

        async fn run(&mut self, deed: Deed) -> Result<(), TestCaseError> {
            match deed {
                Deed::Wait(time) => self.twin.now = self.twin.now.saturating_add_signed(time),
                Deed::Take(ask, ban) => self.take(ask, ban.map(|owner| OWNERS[owner])).await?,
                Deed::Settle(way, mut parts) => {
                    parts.iter_mut().for_each(|(part, _)| self.set_window(part));
                    let (alone, tokens): (Vec<_>, Vec<_>) = parts.iter().cloned().unzip();
                    let parts: Vec<_> = parts.iter().map(|(part, n)| (part, *n)).collect();
                    let call = script::settle(&self.pool, self.settle, way, &parts);
                    self.pool
                        .call::<()>(&call.arg(self.twin.now))
                        .await
                        .unwrap();
                    self.twin.settle(way, &alone, &tokens);
                    self.compare(&alone).await?;
                }
                Deed::Ban(owner) => {
                    let lasts = Duration::from_secs(3600);
                    let call = Call::new(&BAN).key(ban_key(&self.pool, OWNERS[owner]));
                    self.pool
                        .call::<()>(&call.arg(3_600_000_u64))
                        .await
                        .unwrap();
                    self.twin.ban(OWNERS[owner], lasts);
                }
                Deed::Unban(owner) => {
                    let del = Command::new("DEL").key(ban_key(&self.pool, OWNERS[owner]));
                    self.pool.run::<()>(&del).await.unwrap();
                    self.twin.unban(OWNERS[owner]);
                }
                Deed::Spoil(part, kind) => {
                    let key = bucket_key(&self.pool, &part);
                    self.pool
                        .run::<()>(&Command::new("DEL").key(&key))
                        .await
                        .unwrap();
                    let put = match junk(kind, Period::Hour.end(self.twin.now / SECOND)) {
                        Some(junk) => Command::new("SET").key(&key).arg(junk),
                        None => Command::new("RPUSH").key(&key).arg("x"),
                    };
                    self.pool.run::<()>(&put).await.unwrap();
                    self.twin.forget(&part);
                }
            }
            Ok(())
        }

        async fn take(&mut self, mut ask: Ask, ban: Option<&str>) -> Result<(), TestCaseError> {
            ask.parts.iter_mut().for_each(|part| self.set_window(part));
            let parts: Vec<&Part> = ask.parts.iter().collect();
            let call = script::take(&self.pool, self.take, (ask.requests, ban), &parts);
            let reply: Vec<u64> = self.pool.call(&call.arg(self.twin.now)).await.unwrap();
            let answer = read(&reply, parts.len()).unwrap();
            let expected = self.twin.take(&ask, ban);
            prop_assert_eq!(answer.granted, expected.granted);
            prop_assert_eq!(&answer.told, &expected.told);
            prop_assert_eq!(answer.banned.is_some(), expected.banned.is_some());
            let seen = [
                ("a ban", answer.banned.is_some()),
                ("a denial", answer.granted == 0 && ask.requests > 0),
                (
                    "some of several",
                    (1..ask.requests).contains(&answer.granted),
                ),
                ("a lease", answer.told.iter().any(|told| told.leased > 0)),
            ];
            self.seen
                .extend(seen.iter().filter(|seen| seen.1).map(|seen| seen.0));
            self.compare(&ask.parts).await
        }

        /// What is stored is the same to the letter, but for what was spoiled and never written since.
        async fn compare(&self, parts: &[Part]) -> Result<(), TestCaseError> {
            for part in parts {
                let get = Command::new("GET").key(bucket_key(&self.pool, part));
                let stored = self.pool.run::<Option<Vec<u8>>>(&get).await;
                match self.twin.stored(part) {
                    Some(expected) => prop_assert_eq!(stored, Ok(Some(expected))),
                    None => {
                        let is_junk = |stored: Vec<u8>| {
                            let same = |kind| junk(kind, 0).as_ref() == Some(&stored);
                            (0..KINDS_OF_JUNK).any(same)
                                || stored.get(9..17) == Some(&f64::NAN.to_le_bytes())
                                || stored.ends_with(&f64::NAN.to_le_bytes())
                        };
                        let something = stored.ok().flatten().is_some_and(|text| !is_junk(text));
                        prop_assert!(!something, "{:?} should hold nothing", part);
                    }
                }
            }
            Ok(())
        }
    }

    /// A server whose buckets go by our clock.
    struct Arena {
        server: TestRedis,
        runtime: tokio::runtime::Runtime,
        opened: Opened,
        take: &'static Script,
        settle: &'static Script,
    }

    impl Arena {
        fn new(options: &[&str]) -> Self {
            let server = TestRedis::with(options);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (take, settle) = (on_our_clock(&TAKE), on_our_clock(&SETTLE));
            let opened = runtime.block_on(open(&server.url(), &[take, settle, &BAN]));
            Self {
                server,
                runtime,
                opened,
                take,
                settle,
            }
        }

        /// Does everything twice, beginning with nothing, and compares. Returns what was seen.
        fn run(&self, now: u64, deeds: Vec<Deed>) -> Result<HashSet<&'static str>, TestCaseError> {
            self.server.raw().must(&["FLUSHALL"]);
            let twin = Twin {
                now,
                ..Twin::default()
            };
            let mut pair = Pair {
                pool: self.opened.pool.clone(),
                take: self.take,
                settle: self.settle,
                twin,
                seen: HashSet::new(),
            };
            self.runtime.block_on(async {
                for deed in deeds {
                    pair.run(deed).await?;
                }
                Ok(pair.seen)
            })
        }
    }

    /// Some thousand deeds over both; `options` are the server's.
    fn memory_and_redis_agree(options: &[&str]) {
        let arena = Arena::new(options);
        let seen = std::cell::RefCell::new(HashSet::new());
        let begin = 1_790_000_000 * SECOND..4_200_000_000 * SECOND;
        let deeds = (begin, proptest::collection::vec(deed(), 1..120));
        let outcome = TestRunner::new(Config::with_cases(64)).run(&deeds, |(now, deeds)| {
            seen.borrow_mut().extend(arena.run(now, deeds)?);
            Ok(())
        });
        outcome.unwrap();
        assert_eq!(seen.borrow().len(), 4, "{:?}", seen.borrow());
    }

    #[test]
    fn a_number_is_written_anew_where_another_quota_gives_it_another_meaning() {
        let mut part = shared_by_all(3).parts.remove(0);
        (part.meter, part.cost) = (rolling(1_000, 10_000), 2);
        let ask = Ask {
            requests: 1,
            parts: vec![part.clone()],
        };
        // Half of it is used. Under the other quota that is 1250 µs, and with the debit 5000 again.
        part.meter = rolling(1_000, 2_500);
        let debit = Deed::Settle(Settle::Debit, vec![(part, 4)]);
        let deeds = vec![Deed::Take(ask, None), debit];
        Arena::new(&[]).run(1_790_000_000 * SECOND, deeds).unwrap();
    }

    #[test]
    fn memory_and_redis_decide_alike() {
        memory_and_redis_agree(&[]);
    }

    #[test]
    fn memory_and_a_redis_without_functions_decide_alike() {
        memory_and_redis_agree(&["--rename-command", "FUNCTION", ""]);
    }

    #[tokio::test]
    async fn the_server_knows_the_calendar() {
        let server = TestRedis::start();
        let take = on_our_clock(&TAKE);
        let opened = open(&server.url(), &[take]).await;
        let periods = [Period::Hour, Period::Day, Period::Month];
        let parts = periods.map(|period| Part {
            meter: calendar(period, 1),
            owner: "all".into(),
            bucket: "plan".into(),
            cost: 0,
            lease: 0,
            hint: 0,
            debt: 0,
            window: 0,
        });
        let parts: Vec<&Part> = parts.iter().collect();
        // The last and the first second of every month until 2250, and a moment in between.
        let (mut times, mut at) = (Vec::new(), 0);
        while at < 280 * 365 * 86_400 {
            let end = Period::Month.end(at);
            times.extend([at, at + (end - at) * (at / 86_400 % 97) / 97, end - 1]);
            at = end;
        }
        assert!(times.len() > 10_000);
        for times in times.chunks(500) {
            let call = |time: &u64| {
                let call = script::take(&opened.pool, take, (0, None), &parts);
                call.arg(time * SECOND + 999_999)
            };
            let batch = times.iter().map(call).fold(Batch::new(), Batch::call);
            let mut replies = opened.pool.run_all(&batch).await.unwrap();
            for time in times {
                let reply: Vec<u64> = replies.read().unwrap();
                let told = read(&reply, 3).unwrap().told;
                let ends: Vec<u64> = told.iter().map(|told| told.window).collect();
                assert_eq!(ends, periods.map(|period| period.end(*time)), "at {time}");
            }
        }
    }

    /// Tokens that an instance holds, each until its interval is over.
    struct Lease {
        left: u64,
        end: u64,
    }

    #[derive(Clone, Debug)]
    enum Turn {
        Wait(u64),
        /// An instance asks, with an answer that is so long on its way; it wants tokens in advance.
        Ask(usize, u64, u32),
        /// An instance lets a request through that it holds a token for.
        Use(usize),
        /// A request that was charged turns out not to count.
        Back(u32),
    }

    const INTERVAL: u64 = 10;
    const BURST: u64 = 40;

    fn turn() -> impl Strategy<Value = Turn> {
        prop_oneof![
            3 => (0..4 * INTERVAL).prop_map(Turn::Wait),
            1 => (0..BURST * INTERVAL).prop_map(Turn::Wait),
            4 => (0..4_usize, 0..3 * INTERVAL, 0..30_u32).prop_map(|(i, d, k)| Turn::Ask(i, d, k)),
            6 => (0..4_usize).prop_map(Turn::Use),
            1 => (1..4_u32).prop_map(Turn::Back),
        ]
    }

    fn shared_by_all(lease: u32) -> Ask {
        let part = Part {
            owner: "all".into(),
            bucket: "default".into(),
            meter: rolling(INTERVAL, INTERVAL * BURST),
            cost: 1,
            lease,
            hint: 0,
            debt: 0,
            window: 0,
        };
        let (requests, parts) = (1, vec![part]);
        Ask { requests, parts }
    }

    /// Four instances with tokens in advance, told as the head of `shared.rs` says. Returns when requests
    /// passed.
    fn run_fleet(turns: &[Turn]) -> Result<Vec<u64>, TestCaseError> {
        let mut twin = Twin {
            now: 1_000_000,
            ..Twin::default()
        };
        let mut fleet: [Vec<Lease>; 4] = Default::default();
        let (mut passed, mut charged) = (Vec::new(), 0);
        let usable =
            |lease: &Lease, now: u64| lease.left.min(lease.end.saturating_sub(now) / INTERVAL);
        for turn in turns {
            match *turn {
                Turn::Wait(time) => twin.now += time,
                Turn::Ask(instance, delay, wanted) => {
                    let asked = twin.now - delay;
                    let answer = twin.take(&shared_by_all(wanted), None);
                    passed.extend((answer.granted == 1).then_some(twin.now));
                    charged += answer.granted;
                    fleet[instance].push(Lease {
                        left: u64::from(answer.told[0].leased),
                        end: asked + answer.told[0].ahead,
                    });
                }
                Turn::Use(instance) => {
                    let mut leases = fleet[instance].iter_mut();
                    if let Some(lease) = leases.find(|lease| usable(lease, twin.now) > 0) {
                        lease.left -= 1;
                        passed.push(twin.now);
                    }
                }
                Turn::Back(tokens) => {
                    let tokens = tokens.min(charged);
                    charged -= tokens;
                    twin.settle(Settle::Back, &shared_by_all(0).parts, &[tokens]);
                }
            }
            let held: u64 = fleet
                .iter()
                .flatten()
                .map(|lease| usable(lease, twin.now))
                .sum();
            let used = twin.open(&shared_by_all(0).parts[0]).used;
            // The level and what is held are together what the bucket holds, at most.
            prop_assert!(
                u128::from(held * INTERVAL) <= used,
                "{held} held, {used} used"
            );
        }
        Ok(passed)
    }

    proptest! {
        #[test]
        fn tokens_in_advance_and_the_level_are_never_more_than_the_bucket_holds(
            turns in proptest::collection::vec(turn(), 1..200),
        ) {
            run_fleet(&turns)?;
        }

        #[test]
        fn no_window_sees_more_than_the_burst_and_what_grows_back(
            turns in proptest::collection::vec(turn(), 1..200),
        ) {
            let counted = |turn: &&Turn| !matches!(turn, Turn::Back(_));
            let turns: Vec<Turn> = turns.iter().filter(counted).cloned().collect();
            let passed = run_fleet(&turns)?;
            for (first, &begin) in passed.iter().enumerate() {
                for (count, &end) in (1..).zip(&passed[first..]) {
                    prop_assert!(count <= BURST + (end - begin) / INTERVAL);
                }
            }
        }
    }
}
