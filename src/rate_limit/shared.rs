//! Buckets that all instances share: they live in Redis and go by its clock.
//!
//! A decision over any number of buckets is one script, so one round trip, and all or nothing. In a
//! cluster the buckets of one owner lie on one server; a decision over several owners asks all of them at
//! the same time, and gives back what was granted beyond what all agreed on.
//!
//! # Tokens taken in advance are never too many
//!
//! Let `full` be the time at which a bucket is full again, and `capacity` what it holds. A lease of `k`
//! tokens moves `full` on by `k` intervals, and these intervals are its own: charges only ever add to the
//! end, and nothing is given back from before the end of the latest lease. A holder uses a token only while
//! the token's interval is not over. So at any time the tokens that are held, by all holders together, have
//! no more intervals than lie between now and `full`, while the level of the bucket is what `capacity` has
//! beyond those:
//!
//! > level + tokens held ≤ capacity
//!
//! That sum grows by the quota's rate at most, and whatever passes takes from it. Hence whatever moment one
//! begins to count at, no more than `capacity` and what grows back since passes, however many instances
//! hold tokens and however many of them die. A holder counts from before it asked, so that the way back
//! shortens its time and never lengthens it. It may hold two leases of one bucket, but each has its own end.
//! Of a window of the calendar nothing grows back, and held tokens end with it.
//!
//! What this leaves open: clocks that run at another speed, a server that loses its data or whose clock is
//! put forward, and a quota that is changed while tokens of the old one are held.
//!
//! # Ghosts
//!
//! A `take` or a `debit` whose answer was lost may have been charged, and the tokens that it took in
//! advance are nobody's. That is the strict side: somebody waits longer, nobody gets too much. For the same
//! reason a `give_back` is never repeated. Bans and announcements may be repeated at will.

use std::time::Duration;

use crate::rate_limit::ask::{Answer, Ask, Meter, Part, Told};
use crate::rate_limit::ban_script::{BAN, CONFIRM, PARDON};
use crate::rate_limit::ban_talk::CHANNEL;
use crate::rate_limit::script::{self, ANNOUNCE, SETTLE, Settle, TAKE};
use crate::store::{Batch, Call, Command, RedisPool, Replies, Script, StoreError};
use crate::task::Spawner;

/// What the pool has to be built with.
pub(crate) static SCRIPTS: [&Script; 6] = [&TAKE, &SETTLE, &BAN, &PARDON, &CONFIRM, &ANNOUNCE];

/// No ban and no announcement lasts longer, so that all times can be reckoned with.
const LASTS_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The limiter's way to Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) pool: RedisPool,
    spawner: Spawner,
}

/// The parts of a decision that one server decides about, by their places among all parts.
struct Share<'a> {
    ban: Option<&'a str>,
    places: Vec<usize>,
}

impl Shared {
    /// Buckets in the Redis of a pool that knows the [`SCRIPTS`]. What nobody waits for is spawned.
    pub(crate) const fn new(pool: RedisPool, spawner: Spawner) -> Self {
        Self { pool, spawner }
    }

    /// Decides about requests and charges them, unless the owner named in `ban` is banned.
    ///
    /// One round trip; in a cluster a second one for tokens in advance from several owners' buckets.
    ///
    /// # Errors
    ///
    /// Those of the store; see the file's head for what may have been charged then. Where only some servers
    /// of a cluster answered, theirs is given back.
    ///
    /// # Cancellation
    ///
    /// As if the answer was lost.
    pub(crate) async fn take(&self, ask: &Ask, ban: Option<&str>) -> Result<Answer, StoreError> {
        let shares = self.shares(&ask.parts, ban);
        match shares.as_slice() {
            [] => Ok(nobody_asked(ask)),
            [only] => {
                let parts: Vec<&Part> = ask.parts.iter().collect();
                let call = script::take(&self.pool, &TAKE, (ask.requests, only.ban), &parts);
                read(&self.pool.call::<Vec<u64>>(&call).await?, parts.len())
            }
            several => Box::pin(self.agree(ask, several)).await,
        }
    }

    /// Gives tokens back, so many to each part. From before the end of a lease, and to a window that is
    /// over, nothing is.
    ///
    /// # Errors
    ///
    /// Those of the store. Not to be repeated.
    pub(crate) async fn give_back(&self, parts: &[Part], tokens: &[u32]) -> Result<(), StoreError> {
        self.settle(Settle::Back, parts, tokens).await
    }

    /// Charges tokens after the fact, so many to each part: beyond what the bucket holds, up to as much
    /// again. A window that is over is not charged but the one that runs.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn debit(&self, parts: &[Part], tokens: &[u32]) -> Result<(), StoreError> {
        self.settle(Settle::Debit, parts, tokens).await
    }

    /// Says something to all instances about bans.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn say(&self, message: String) -> Result<(), StoreError> {
        let channel = self.pool.key(CHANNEL);
        self.pool.publish(channel, message).await.map(drop)
    }

    /// Says that this instance lives for `ttl` more. Returns how many do, this one included.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn announce(&self, instance: &str, ttl: Duration) -> Result<u32, StoreError> {
        let call = Call::new(&ANNOUNCE).key(script::instances_key(&self.pool));
        self.pool.call(&call.arg(instance).arg(millis(ttl))).await
    }

    /// Says that this instance ends.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let key = script::instances_key(&self.pool);
        let leave = Command::new("ZREM").key(key).arg(instance);
        self.pool.run(&leave).await
    }

    /// Who decides about what: one server about everything, but in a cluster each owner's about its own.
    fn shares<'a>(&self, parts: &'a [Part], ban: Option<&'a str>) -> Vec<Share<'a>> {
        let mut shares: Vec<Share<'a>> = Vec::new();
        if parts.is_empty() && ban.is_none() {
            return shares;
        }
        if !self.pool.is_cluster() {
            let places = (0..parts.len()).collect();
            return vec![Share { ban, places }];
        }
        let mut owners: Vec<&str> = Vec::new();
        if let Some(owner) = ban {
            owners.push(owner);
            let places = Vec::new();
            shares.push(Share { ban, places });
        }
        for (place, part) in parts.iter().enumerate() {
            let known = owners.iter().position(|owner| **owner == *part.owner);
            match known.and_then(|known| shares.get_mut(known)) {
                Some(share) => share.places.push(place),
                None => {
                    owners.push(&part.owner);
                    let places = vec![place];
                    shares.push(Share { ban: None, places });
                }
            }
        }
        shares
    }

    /// Asks several servers at once, and takes back what not all of them granted.
    async fn agree(&self, ask: &Ask, shares: &[Share<'_>]) -> Result<Answer, StoreError> {
        // In advance is taken only once all agree: what lies before a lease could not be given back.
        let bare = without_lease(&ask.parts);
        let answers = self.ask_all(ask.requests, &bare, shares).await?;
        let all = answers.iter().map(granted).min().unwrap_or(0);
        let mut told = vec![NOTHING; ask.parts.len()];
        let (mut surplus, mut debts) = (Vec::new(), Vec::new());
        for (share, answer) in shares.iter().zip(&answers) {
            let beyond = granted(answer) - all;
            let known = answer.as_ref().map_or(&[][..], |answer| &answer.told);
            for (&place, &known) in share.places.iter().zip(known) {
                let (Some(part), Some(slot)) = (bare.get(place), told.get_mut(place)) else {
                    continue;
                };
                *slot = known;
                debts.extend(part.debt_back(&known));
                let tokens = beyond.saturating_mul(part.cost);
                if tokens > 0 {
                    let worth = part.worth_of(tokens);
                    slot.ahead = slot.ahead.saturating_sub(worth);
                    if let Meter::Rolling { .. } = part.meter {
                        slot.window = slot.window.saturating_sub(worth);
                    }
                    let (window, part) = (known.window, part.clone());
                    surplus.push((Part { window, ..part }, tokens));
                }
            }
        }
        self.return_soon(surplus);
        let is_told = |answer| matches!(answer, &Ok(Answer { banned: None, .. }));
        if !debts.is_empty() && !answers.iter().all(is_told) {
            // They are told again with the next question, which must not meet them.
            self.return_now(debts).await;
        }
        let mut banned = None;
        for answer in answers {
            banned = banned.or(answer?.banned);
        }
        if banned.is_some() {
            told.clear();
        } else if all == ask.requests {
            self.advance(&ask.parts, &mut told).await;
        }
        Ok(Answer {
            granted: all,
            told,
            banned,
        })
    }

    /// Asks each server about its share; the errors are each server's own.
    async fn ask_all(
        &self,
        requests: u32,
        parts: &[Part],
        shares: &[Share<'_>],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let mut batch = Batch::new();
        for share in shares {
            let asked = (requests, share.ban);
            let parts: Vec<&Part> = share
                .places
                .iter()
                .filter_map(|&at| parts.get(at))
                .collect();
            batch = batch.call(script::take(&self.pool, &TAKE, asked, &parts));
        }
        let mut replies: Replies = self.pool.run_all(&batch).await?;
        let read = |share: &Share<'_>| read(&replies.read::<Vec<u64>>()?, share.places.len());
        Ok(shares.iter().map(read).collect())
    }

    /// Takes tokens in advance from buckets of several owners. Where that fails there are none.
    async fn advance(&self, parts: &[Part], told: &mut [Told]) {
        let (mut places, mut wanting) = (Vec::new(), Vec::new());
        for (place, part) in parts.iter().enumerate().filter(|(_, part)| part.lease > 0) {
            places.push(place);
            let (hint, debt) = (0, 0);
            let part = part.clone();
            wanting.push(Part { hint, debt, ..part });
        }
        if wanting.is_empty() {
            return;
        }
        let shares = self.shares(&wanting, None);
        let Ok(answers) = self.ask_all(0, &wanting, &shares).await else {
            return;
        };
        for (share, answer) in shares.iter().zip(answers) {
            let known = answer.map_or_else(|_| Vec::new(), |answer| answer.told);
            for (&at, known) in share.places.iter().zip(known) {
                let slot = places.get(at).and_then(|&place| told.get_mut(place));
                if let Some(slot) = slot {
                    // What was charged before grows back when it did.
                    let window = slot.window;
                    *slot = Told { window, ..known };
                }
            }
        }
    }

    /// Gives back what was charged for requests that others denied. Nobody waits for it.
    fn return_soon(&self, surplus: Vec<(Part, u32)>) {
        if surplus.is_empty() {
            return;
        }
        let shared = self.clone();
        let back = async move { shared.return_now(surplus).await };
        self.spawner.spawn(back);
    }

    async fn return_now(&self, surplus: Vec<(Part, u32)>) {
        let (parts, tokens): (Vec<Part>, Vec<u32>) = surplus.into_iter().unzip();
        if let Err(error) = self.give_back(&parts, &tokens).await {
            tracing::debug!(target: "tower_keep", %error, "what counted nowhere else remains charged");
        }
    }

    async fn settle(&self, way: Settle, parts: &[Part], tokens: &[u32]) -> Result<(), StoreError> {
        let call = |share: &Share<'_>| {
            let at = share.places.iter();
            let parts: Vec<(&Part, u32)> = at
                .filter_map(|&at| Some((parts.get(at)?, *tokens.get(at)?)))
                .collect();
            script::settle(&self.pool, &SETTLE, way, &parts)
        };
        match self.shares(parts, None).as_slice() {
            [] => Ok(()),
            [only] => self.pool.call(&call(only)).await,
            several => {
                let batch = several.iter().map(call).fold(Batch::new(), Batch::call);
                self.pool
                    .run_all(&batch)
                    .await?
                    .try_for_each(|reply| reply.map(drop))
            }
        }
    }
}

/// How many requests a server let through; none if it did not answer.
fn granted(answer: &Result<Answer, StoreError>) -> u32 {
    answer.as_ref().map_or(0, |answer| answer.granted)
}

const NOTHING: Told = Told {
    ahead: 0,
    leased: 0,
    window: 0,
};

/// Without a bucket there is nothing to decide.
const fn nobody_asked(ask: &Ask) -> Answer {
    Answer {
        granted: ask.requests,
        told: Vec::new(),
        banned: None,
    }
}

fn without_lease(parts: &[Part]) -> Vec<Part> {
    let bare = |part: &Part| {
        let (lease, part) = (0, part.clone());
        Part { lease, ..part }
    };
    parts.iter().map(bare).collect()
}

/// In milliseconds, of which there is at least one.
pub(crate) fn millis(time: Duration) -> u64 {
    let millis = time.min(LASTS_MAX).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX).max(1)
}

/// Reads what [`TAKE`] returned for so many parts.
///
/// # Errors
///
/// [`StoreError::Unreadable`] if it cannot have returned that.
pub(crate) fn read(reply: &[u64], parts: usize) -> Result<Answer, StoreError> {
    const ODD: StoreError = StoreError::Unreadable {
        expected: "what the buckets decided",
        found: "other numbers",
    };
    let [granted, banned, told @ ..] = reply else {
        return Err(ODD);
    };
    let count = |number: u64| u32::try_from(number).map_err(|_| ODD);
    let granted = count(*granted)?;
    if *banned > 0 {
        return Ok(Answer {
            granted,
            told: Vec::new(),
            banned: Some(Duration::from_millis(*banned)),
        });
    }
    let (told, rest) = told.as_chunks::<3>();
    if told.len() != parts || !rest.is_empty() {
        return Err(ODD);
    }
    let one = |&[ahead, leased, window]: &[u64; 3]| {
        let leased = count(leased)?;
        Ok(Told {
            ahead,
            leased,
            window,
        })
    };
    let told = told.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Answer {
        granted,
        told,
        banned: None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rate_limit::period::Period;
    use crate::rate_limit::test_redis::{Answer as Raw, TestCluster, TestRedis, until};
    use crate::rate_limit::twin::{Opened, open};

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: u64 = 3_600_000_000;
    /// 10 at once, and so slow that none grows back while a test runs.
    const SLOW: Meter = Meter::Rolling {
        interval: HOUR,
        fill: 10 * HOUR,
    };

    struct Client {
        shared: Shared,
        /// Ends the connections with the client.
        _opened: Opened,
    }

    impl std::ops::Deref for Client {
        type Target = Shared;

        fn deref(&self) -> &Shared {
            &self.shared
        }
    }

    async fn client(url: &str) -> Client {
        let opened = open(url, &SCRIPTS).await;
        let shared = Shared::new(opened.pool.clone(), opened.tasks.spawner());
        Client {
            shared,
            _opened: opened,
        }
    }

    impl Client {
        async fn decide(&self, requests: u32, parts: &[Part], ban: Option<&str>) -> Answer {
            let ask = ask(requests, parts);
            self.take(&ask, ban).await.unwrap()
        }
    }

    fn part(owner: &str, bucket: &str, meter: Meter) -> Part {
        Part {
            owner: owner.into(),
            bucket: bucket.into(),
            meter,
            cost: 1,
            lease: 0,
            hint: 0,
            debt: 0,
            window: 0,
        }
    }

    fn ask(requests: u32, parts: &[Part]) -> Ask {
        let parts = parts.to_vec();
        Ask { requests, parts }
    }

    /// What is used of each part, in whole tokens.
    async fn used(client: &Shared, parts: &[Part]) -> Vec<u64> {
        let look = Ask {
            requests: 0,
            parts: without_lease(parts),
        };
        let told = client.take(&look, None).await.unwrap().told;
        let tokens = |(told, part): (&Told, &Part)| told.ahead.div_ceil(part.meter.interval());
        told.iter().zip(parts).map(tokens).collect()
    }

    /// The microseconds on a server's clock.
    fn time(server: &TestRedis) -> u64 {
        let time = server.raw().must(&["TIME"]);
        let word = |at: usize| time.array()[at].text().parse::<u64>().unwrap();
        word(0) * 1_000_000 + word(1)
    }

    /// How often each command was called since the last look.
    fn commands(server: &TestRedis, names: &[&str]) -> Vec<u64> {
        let mut raw = server.raw();
        let stats = raw.must(&["INFO", "commandstats"]);
        raw.must(&["CONFIG", "RESETSTAT"]);
        let calls = |name: &&str| {
            let line = stats.line(&format!("cmdstat_{name}"))?;
            line.strip_prefix("calls=")?.split(',').next()?.parse().ok()
        };
        names.iter().map(|name| calls(name).unwrap_or(0)).collect()
    }

    #[tokio::test]
    async fn a_decision_over_five_buckets_is_one_call() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        let daily = Meter::Calendar {
            period: Period::Month,
            requests: 1000,
        };
        let parts = [
            part("ip:203.0.113.7", "login", SLOW),
            part("ip:203.0.113.7", "default", SLOW),
            part("caller:alice", "default", SLOW),
            part("tenant:t", "plan", daily),
            part("all", "all", SLOW),
        ];
        commands(&server, &[]);
        let answer = client.decide(2, &parts, Some("ip:203.0.113.7")).await;
        let names = ["fcall", "pttl", "time", "mget", "set", "evalsha"];
        assert_eq!(commands(&server, &names), [1, 1, 1, 1, 5, 0]);
        assert_eq!((answer.granted, answer.banned), (2, None));
        let ahead: Vec<u64> = answer.told.iter().map(|told| told.ahead).collect();
        assert_eq!(ahead, [2 * HOUR, 2 * HOUR, 2 * HOUR, 2, 2 * HOUR]);
        let end = Period::Month.end(time(&server) / 1_000_000);
        let windows: Vec<u64> = answer.told.iter().map(|told| told.window).collect();
        assert_eq!(windows[3], end);
        // A denial writes nothing: neither here nor, as it would be copied, to replicas.
        let many = client.decide(2, &[part("all", "all", SLOW)], None).await;
        assert_eq!(many.granted, 2);
        let mut parts = parts;
        parts[4].cost = 9;
        commands(&server, &[]);
        assert_eq!(client.decide(1, &parts, None).await.granted, 0);
        assert_eq!(commands(&server, &names), [1, 0, 1, 1, 0, 0]);
        assert_eq!(used(&client, &parts).await, [2, 2, 2, 2, 4]);
    }

    async fn eight_tasks_pass_no_more_than_the_quota(options: &[&str]) {
        const INTERVAL: u64 = 1_000;
        let server = Arc::new(TestRedis::with(options));
        let meter = Meter::Rolling {
            interval: INTERVAL,
            fill: 50 * INTERVAL,
        };
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(Arc::new(client(&server.url()).await));
        }
        let began = time(&server);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let client = Arc::clone(&clients[task % 4]);
            tasks.spawn(async move {
                let (mut tokens, mut denied) = (0, 0);
                for turn in 0..400 {
                    let mut part = part("caller:alice", "default", meter);
                    part.lease = turn % 3;
                    let wanted = 1 + turn % 2;
                    let answer = client.decide(wanted, &[part], None).await;
                    tokens += u64::from(answer.granted + answer.told[0].leased);
                    denied += wanted - answer.granted;
                }
                (tokens, denied)
            });
        }
        let (mut tokens, mut denied) = (0, 0);
        for (took, missed) in tasks.join_all().await {
            tokens += took;
            denied += missed;
        }
        let ended = time(&server);
        assert!(denied > 100, "{denied} denied: not much of a race");
        assert!(tokens <= 50 + (ended - began) / INTERVAL);
        // Nothing was lost either: since the first one the bucket has never been full, so that its time is
        // the first one's, and an interval for each token.
        let key = "keep:rl:{caller:alice}:default";
        let Raw::Bulk(stored) = server.raw().must(&["GET", key]) else {
            panic!("nothing is stored");
        };
        let full = f64::from_le_bytes(stored[1..9].try_into().unwrap()) as u64;
        assert!((began..=ended).contains(&(full - tokens * INTERVAL)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn together_all_connections_get_the_quota_and_no_more() {
        eight_tasks_pass_no_more_than_the_quota(&[]).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_functions_they_get_the_same() {
        eight_tasks_pass_no_more_than_the_quota(&["--rename-command", "FUNCTION", ""]).await;
    }

    #[tokio::test]
    async fn what_is_full_again_leaves_no_key_behind() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        let quick = Meter::Rolling {
            interval: 2_000,
            fill: 100_000,
        };
        let hour = Meter::Calendar {
            period: Period::Hour,
            requests: 10,
        };
        let parts = [part("all", "quick", quick), part("all", "hour", hour)];
        let told = client.decide(5, &parts, None).await.told;
        let mut raw = server.raw();
        let left = raw.must(&["PTTL", "keep:rl:{all}:quick"]).integer();
        assert!((-2..=10).contains(&left), "{left}");
        let left = raw.must(&["PTTL", "keep:rl:{all}:hour"]).integer();
        let expected = i64::try_from(told[1].window * 1000 - time(&server) / 1000).unwrap();
        assert!(
            (expected..expected + 5_000).contains(&left),
            "{left} for {expected}"
        );
        until("the quick one is gone", || {
            let exists = raw.must(&["EXISTS", "keep:rl:{all}:quick"]);
            (exists.integer() == 0).then_some(())
        });
        // One that is given back whole leaves none either, at once.
        client.give_back(&parts[1..], &[5]).await.unwrap();
        assert!(raw.must(&["KEYS", "keep:rl:*"]).array().is_empty());
    }

    #[tokio::test]
    async fn a_server_that_lost_everything_is_told_what_is_known() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        let mut part = part("caller:alice", "default", SLOW);
        let first = client.decide(8, std::slice::from_ref(&part), None).await;
        let known = first.told[0].ahead;
        server.raw().must(&["FLUSHALL"]);
        server.raw().must(&["FUNCTION", "FLUSH"]);
        (part.hint, part.debt) = (known, HOUR);
        let next = client.decide(3, std::slice::from_ref(&part), None).await;
        assert_eq!((next.granted, next.told[0].ahead), (1, 10 * HOUR));
        // Nor does a flood of what somebody remembers make it emptier than a debt can.
        part.hint = u64::MAX;
        let told = client.decide(1, &[part], None).await;
        assert_eq!((told.granted, told.told[0].ahead), (0, 20 * HOUR));
    }

    #[tokio::test]
    async fn keys_that_hold_something_else_are_overwritten() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        let mut raw = server.raw();
        for (key, junk) in [("a", "RPUSH"), ("b", "SADD"), ("c", "SET")] {
            raw.must(&[junk, &format!("keep:rl:{{all}}:{key}"), "junk"]);
        }
        raw.must(&["RPUSH", "keep:rl:ban:{all}", "junk"]);
        raw.must(&["RPUSH", "keep:rl:instances", "junk"]);
        let parts = ["a", "b", "c"].map(|bucket| part("all", bucket, SLOW));
        let answer = client.decide(10, &parts, Some("all")).await;
        assert_eq!((answer.granted, answer.banned), (10, None));
        assert_eq!(client.decide(1, &parts, None).await.granted, 0);
        assert_eq!(client.announce("one", MINUTE).await, Ok(1));
        client.ban("all", MINUTE).await.unwrap();
        let banned = client.decide(1, &parts, Some("all")).await;
        assert!(banned.banned.is_some());
    }

    #[tokio::test]
    async fn a_debit_may_exceed_the_quota_and_is_waited_for() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        let parts = [part("caller:alice", "tokens", SLOW)];
        client.debit(&parts, &[14]).await.unwrap();
        assert_eq!(used(&client, &parts).await, [14]);
        assert_eq!(client.decide(1, &parts, None).await.granted, 0);
        client.debit(&parts, &[u32::MAX]).await.unwrap();
        assert_eq!(used(&client, &parts).await, [20]);
        client.give_back(&parts, &[4]).await.unwrap();
        assert_eq!(used(&client, &parts).await, [16]);
    }

    #[tokio::test]
    async fn bans_are_seen_first_never_shortened_and_ended_by_hand() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        // A bucket of that name is no ban.
        let parts = [part("ip:203.0.113.7", "ban", SLOW)];
        let take = || client.decide(1, &parts, Some("ip:203.0.113.7"));
        assert_eq!(take().await.banned, None);
        client.ban("ip:203.0.113.7", MINUTE).await.unwrap();
        client.ban("ip:203.0.113.7", Duration::ZERO).await.unwrap();
        let left = take().await.banned.unwrap();
        assert!((MINUTE / 2..=MINUTE).contains(&left), "{left:?}");
        assert_eq!(used(&client, &parts).await, [1]);
        client.ban("ip:203.0.113.7", Duration::MAX).await.unwrap();
        assert!(take().await.banned.unwrap() > LASTS_MAX - MINUTE);
        client.unban("ip:203.0.113.7", MINUTE).await.unwrap();
        assert_eq!(take().await.granted, 1);
    }

    /// Of those whom nobody knows by name, one may be another one's twin in a table of hashes.
    #[tokio::test]
    async fn a_ban_that_is_lost_is_spoken_anew_only_by_who_knows_whose_it_is() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        let mut raw = server.raw();
        let mut known = || raw.must(&["EXISTS", "keep:rl:ban:{caller:bob}"]).integer();
        assert_eq!(client.confirm("caller:bob", None).await, Ok(true));
        assert_eq!(known(), 0);
        assert_eq!(client.confirm("caller:bob", Some(MINUTE)).await, Ok(true));
        assert_eq!(known(), 1);
        client.unban("caller:bob", MINUTE).await.unwrap();
        for lasts in [None, Some(MINUTE)] {
            assert_eq!(client.confirm("caller:bob", lasts).await, Ok(false));
        }
    }

    #[tokio::test]
    async fn instances_count_each_other_while_they_live() {
        let server = TestRedis::start();
        let client = client(&server.url()).await;
        assert_eq!(client.announce("one", MINUTE).await, Ok(1));
        assert_eq!(client.announce("two", MINUTE).await, Ok(2));
        assert_eq!(client.announce("one", MINUTE).await, Ok(2));
        client.leave("two").await.unwrap();
        client.leave("nobody").await.unwrap();
        // One that dies says nothing more.
        let brief = Duration::from_millis(20);
        assert_eq!(client.announce("three", brief).await, Ok(2));
        let mut raw = server.raw();
        until("it is forgotten", || {
            let now = time(&server) / 1000;
            let live = ["ZCOUNT", "keep:rl:instances", &now.to_string(), "+inf"];
            (raw.must(&live).integer() == 1).then_some(())
        });
        assert_eq!(client.announce("one", MINUTE).await, Ok(1));
        let left = raw.must(&["PTTL", "keep:rl:instances"]).integer();
        assert!((30_000..=60_000).contains(&left), "{left}");
    }

    /// Three owners, each on a master of its own.
    fn owners(cluster: &TestCluster) -> [String; 3] {
        [0, 1, 2].map(|node| {
            let mut names = (0..).map(|number| format!("caller:{number}"));
            let there = |name: &String| {
                let slot = cluster.slot_of(&format!("{{{name}}}"));
                cluster.node_of_slot(slot) == node
            };
            names.find(there).unwrap()
        })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_a_cluster_what_one_owner_denies_is_given_back_to_the_others() {
        let cluster = TestCluster::start();
        let client = client(&cluster.url()).await;
        let owners = owners(&cluster);
        let parts: Vec<Part> = owners
            .iter()
            .map(|owner| part(owner, "default", SLOW))
            .collect();
        assert_eq!(client.decide(4, &parts, None).await.granted, 4);
        client.debit(&parts[1..], &[5, 4]).await.unwrap();
        assert_eq!(used(&client, &parts).await, [4, 9, 8]);
        // Of three requests one fits everywhere.
        let some = client.decide(3, &parts, None).await;
        assert_eq!(some.granted, 1);
        let tokens = |told: &Told| told.ahead.div_ceil(HOUR);
        assert_eq!(some.told.iter().map(tokens).collect::<Vec<_>>(), [5, 10, 9]);
        until_used(&client, &parts, &[5, 10, 9]).await;
        assert_eq!(client.decide(3, &parts, None).await.granted, 0);
        until_used(&client, &parts, &[5, 10, 9]).await;
        client.give_back(&parts, &[5, 10, 9]).await.unwrap();
        assert_eq!(used(&client, &parts).await, [0, 0, 0]);

        // A ban on one server holds what lies on the others.
        client.ban(&owners[2], MINUTE).await.unwrap();
        let banned = client.decide(3, &parts[..2], Some(&owners[2])).await;
        assert!(banned.banned.is_some() && banned.granted == 0 && banned.told.is_empty());
        until_used(&client, &parts, &[0, 0, 0]).await;
        client.unban(&owners[2], MINUTE).await.unwrap();

        // Tokens in advance are taken where all agree.
        let mut leasing = parts.clone();
        (leasing[0].lease, leasing[2].lease) = (3, 100);
        let all = client.decide(2, &leasing, Some(&owners[2])).await;
        let leased: Vec<u32> = all.told.iter().map(|told| told.leased).collect();
        assert_eq!((all.granted, leased), (2, vec![3, 0, 4]));
        assert_eq!(used(&client, &parts).await, [5, 2, 6]);
        leasing[1].cost = 9;
        let none = client.decide(1, &leasing, None).await;
        assert_eq!(none.granted, 0);
        assert!(none.told.iter().all(|told| told.leased == 0));
        // What was charged after a lease is given back, and what lies before it is not.
        until_used(&client, &parts, &[5, 2, 6]).await;
        client.give_back(&parts, &[2, 2, 2]).await.unwrap();
        assert_eq!(used(&client, &parts).await, [5, 0, 6]);

        // Where one cannot be asked, nobody is charged.
        cluster.nodes()[1].kill();
        client.take(&ask(2, &parts), None).await.unwrap_err();
        until_used(&client, &[parts[0].clone(), parts[2].clone()], &[5, 6]).await;
        // Nor does a debt count that is told again.
        let mut owing = parts.clone();
        (owing[0].debt, owing[2].debt) = (3 * HOUR, 15 * HOUR);
        for _ in 0..3 {
            client.take(&ask(2, &owing), None).await.unwrap_err();
        }
        until_used(&client, &[parts[0].clone()], &[5]).await;
        // One that cannot be told from what was there is the strict side's.
        assert_eq!(used(&client, &parts[2..]).await, [20]);
    }

    /// What is given back in the background is there soon.
    async fn until_used(client: &Shared, parts: &[Part], expected: &[u64]) {
        let mut last = Vec::new();
        for _ in 0..2_000 {
            last = used(client, parts).await;
            if last == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{last:?} are used, not {expected:?}");
    }

    #[test]
    fn numbers_that_no_script_returns_are_unreadable() {
        let too_many = u64::from(u32::MAX) + 1;
        for reply in [
            &[][..],
            &[1],
            &[1, 0],
            &[1, 0, 5, 0],
            &[1, 0, 5, too_many, 0],
            &[too_many, 5],
        ] {
            let error = read(reply, 1).unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{reply:?}");
        }
        assert!(read(&[1, 0, 5, 0, 0, 9], 1).is_err());
        assert_eq!(read(&[1, 0, 5, 2, 9], 1).unwrap().told[0].leased, 2);
        let banned = read(&[0, 1500], 1).unwrap().banned;
        assert_eq!(banned, Some(Duration::from_millis(1500)));
    }

    #[tokio::test]
    async fn an_owner_cannot_leave_its_hash_tag() {
        let pool = RedisPool::disabled();
        let key = |owner: &str| script::bucket_key(&pool, &part(owner, "b}{", SLOW));
        assert_eq!(key("ip:2001:db8::7"), ":rl:{ip:2001:db8::7}:b}{");
        assert_eq!(key("a}b{c"), ":rl:{a%7Db%7Bc}:b}{");
        assert_eq!(key("}}"), ":rl:{%7D%7D}:b}{");
        assert_eq!(key(""), ":rl:{%}:b}{");
        assert_eq!(script::ban_key(&pool, "{ä"), ":rl:ban:{%7Bä}");
    }
}
