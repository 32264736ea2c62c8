//! The journal of several instances against real servers: what each of them may believe, and when.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tower_keep::clock::Clock;
use tower_keep::error::ConfigError;
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::journal::{
    Acknowledge, Checked, Journal, JournalConfig, JournalParts, JournalStatus, Marker, Pending,
    Receipt, Record, Stamp, Subject, Unverified, Verdict,
};
use tower_keep::pattern::Pattern;
use tower_keep::store::{Batch, Command, RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::redis::{Answer, Proxy, TestCluster, TestRedis, TestSentinel};
use crate::store::{patient, until};

/// One of a fleet. Dropped, it is as if it had crashed.
struct Instance {
    journal: Journal,
    pool: RedisPool,
    clock: Clock,
    tasks: Tasks,
    told: Arc<Told>,
}

/// What an instance has told; and the journal that is asked how it is with each event, if one is.
#[derive(Default)]
struct Told(Mutex<Vec<String>>, OnceLock<Journal>);

impl Recorder for Told {
    fn record(&self, event: &Event<'_>) {
        if let Some(journal) = self.1.get() {
            let _ = (journal.status(), journal.figures());
        }
        if !matches!(event, Event::Invalidated { .. }) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }
}

impl Told {
    fn heard(&self, words: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|told| told.contains(words))
    }
}

fn config() -> JournalConfig {
    JournalConfig {
        // Long enough for a machine with other things to do.
        acknowledge_within: Duration::from_secs(10),
        ..JournalConfig::default()
    }
}

impl Instance {
    fn start(redis: &RedisConfig, config: &JournalConfig) -> Self {
        Self::try_start(redis, config).unwrap()
    }

    fn try_start(redis: &RedisConfig, config: &JournalConfig) -> Result<Self, ConfigError> {
        let tasks = Tasks::new().unwrap();
        let parts = StoreParts {
            scripts: Journal::scripts().to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let (clock, told) = (Clock::system(), Arc::<Told>::default());
        let pool = RedisPool::new(redis, &parts)?;
        let parts = JournalParts {
            clock: clock.clone(),
            events: Events::to(vec![Arc::clone(&told) as _]),
            redis: pool.clone(),
            spawner: tasks.spawner(),
        };
        let journal = Journal::shared(config, parts)?;
        Ok(Self {
            journal,
            pool,
            clock,
            tasks,
            told,
        })
    }

    /// Has heard everything when this returns.
    async fn join(url: &str, config: &JournalConfig) -> Self {
        let instance = Self::start(&patient(url), config);
        instance.verified().await;
        instance
    }

    async fn verified(&self) {
        let verified = async {
            while !self.is_verified() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), verified)
            .await
            .is_err()
        {
            panic!(
                "{:?} {:?} {:?}",
                self.journal.status(),
                self.pool.status(),
                self.told.0
            );
        }
    }

    fn is_verified(&self) -> bool {
        self.journal.status() == JournalStatus::Verified
    }

    fn verdict(&self, born: Stamp, checked: &Checked, subject: &Subject) -> Verdict {
        self.journal.judge(born, checked, subject, self.clock.now())
    }

    /// What it says of an entry that it has in memory, and that was born there at `born`.
    fn of(&self, born: Stamp, key: &str) -> Verdict {
        self.verdict(born, &Checked::at(born), &subject(key))
    }

    /// Invalidates a key, and waits until everybody has heard.
    async fn purge(&self, key: &str) -> Result<Receipt, Pending> {
        self.journal.append([Marker::key(key)]).await
    }
}

fn subject(key: &str) -> Subject {
    Subject::of(key, &[Arc::from(format!("tag of {key}"))]).in_namespace("tests")
}

/// Leases that were given before the journal was begun are waited for; then everybody is known.
async fn past_the_beginning() {
    tokio::time::sleep(JournalConfig::default().lease).await;
}

#[tokio::test]
async fn what_is_acknowledged_is_gone_from_the_memory_of_every_instance() {
    let server = TestRedis::start();
    let (a, b) = (
        Instance::join(&server.url(), &config()).await,
        Instance::join(&server.url(), &config()).await,
    );
    past_the_beginning().await;
    for n in 0..500 {
        let key = format!("k{}", n % 7);
        let (here, there) = (a.journal.position(), b.journal.position());
        let checked = Checked::at(there);
        let _ = b.verdict(there, &checked, &subject(&key));
        let receipt = a.purge(&key).await.unwrap();
        // At once, without waiting for anything.
        assert_eq!(
            b.verdict(there, &checked, &subject(&key)),
            Verdict::Gone,
            "{n}"
        );
        assert_eq!(a.of(here, &key), Verdict::Gone, "{n}");
        assert_eq!(b.of(there, "other"), Verdict::Fresh, "{n}");
        assert!(b.journal.position().seq >= receipt.0.seq);
        assert_eq!(b.of(b.journal.position(), &key), Verdict::Fresh);
    }
    assert!(!a.told.heard("Pending"), "{:?}", a.told.0);
}

/// What every journal does, whoever it is shared with: run for one in memory and one in Redis.
async fn a_journal_keeps_its_promises(journal: &Journal, clock: &Clock) {
    let judge = |born: Stamp, subject: &Subject| {
        journal.judge(born, &Checked::at(born), subject, clock.now())
    };
    let entry = subject("/contacts/7?page=2");
    let other = Subject::of("/other", &[]);
    let of_acme = subject("/contacts/7?page=2").of_tenant("acme");
    let pattern = |text: &str| Marker::pattern(Pattern::parse(text).unwrap());
    for (record, everybody, acme, others) in [
        (
            Record::of([Marker::key("/contacts/7?page=2")]),
            Verdict::Gone,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([Marker::tag("tag of /contacts/7?page=2")]),
            Verdict::Gone,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([pattern("/contacts/*page=2")]),
            Verdict::Gone,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([pattern("/contacts/8*")]),
            Verdict::Fresh,
            Verdict::Fresh,
            Verdict::Fresh,
        ),
        (
            Record::of([Marker::namespace("tests")]),
            Verdict::Gone,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([Marker::tenant("acme")]),
            Verdict::Fresh,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([pattern("/contacts/*")]).of_tenant("acme"),
            Verdict::Fresh,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([Marker::Everything]).of_tenant("acme"),
            Verdict::Fresh,
            Verdict::Gone,
            Verdict::Fresh,
        ),
        (
            Record::of([Marker::Everything]).of_tenant("zeta"),
            Verdict::Fresh,
            Verdict::Fresh,
            Verdict::Fresh,
        ),
        (
            Record::of([Marker::Everything]).soft(true),
            Verdict::Expired,
            Verdict::Expired,
            Verdict::Expired,
        ),
        (
            Record::of([Marker::Everything]),
            Verdict::Gone,
            Verdict::Gone,
            Verdict::Gone,
        ),
    ] {
        let born = journal.position();
        let said = format!("{record:?}");
        let receipt = journal.append(record).await.unwrap();
        assert!(receipt.0.seq > born.seq, "numbers only grow");
        assert_eq!(judge(born, &entry), everybody, "{said}");
        assert_eq!(judge(born, &of_acme), acme, "{said}");
        assert_eq!(judge(born, &other), others, "{said}");
        // What is computed from now on is not concerned, wherever it is stored.
        let reborn = journal.position();
        assert_eq!(reborn, receipt.0, "{said}");
        for stamp in [reborn, Stamp::from_bytes(reborn.to_bytes())] {
            assert_eq!(judge(stamp, &of_acme), Verdict::Fresh, "{said}");
        }
    }
    let before = journal.position();
    assert_eq!(
        journal.append([]).await.unwrap().0,
        before,
        "nothing is recorded for nothing"
    );
    let began = clock.now();
    let settling = Record::of([Marker::key("/s")]).settle(Duration::from_secs(60));
    journal.append(settling).await.unwrap();
    assert!(!journal.has_settled(clock.now(), &Subject::of("/s", &[])));
    assert!(journal.has_settled(clock.now().max(began), &other));
}

#[tokio::test]
async fn in_memory_it_keeps_its_promises() {
    let clock = Clock::system();
    let journal = Journal::with_clock(&config(), clock.clone(), Events::none()).unwrap();
    a_journal_keeps_its_promises(&journal, &clock).await;
}

#[tokio::test]
async fn in_redis_it_keeps_its_promises() {
    let server = TestRedis::start();
    let instance = Instance::join(&server.url(), &config()).await;
    a_journal_keeps_its_promises(&instance.journal, &instance.clock).await;
}

#[tokio::test]
async fn in_redis_without_functions_it_keeps_its_promises() {
    let server = TestRedis::with(&["--rename-command", "FUNCTION", ""]);
    let instance = Instance::join(&server.url(), &config()).await;
    a_journal_keeps_its_promises(&instance.journal, &instance.clock).await;
}

#[tokio::test]
async fn in_a_cluster_it_keeps_its_promises_in_every_shard() {
    let cluster = TestCluster::start();
    for shards in [1, 5] {
        let config = JournalConfig { shards, ..config() };
        let a = Instance::join(&cluster.url(), &config).await;
        let b = Instance::join(&cluster.url(), &config).await;
        past_the_beginning().await;
        if shards == 1 {
            a_journal_keeps_its_promises(&a.journal, &a.clock).await;
        }
        for tenant in ["acme", "zeta", "kilo", "mike"] {
            let subject = subject("k").of_tenant(tenant);
            let born = b.journal.position_for(tenant);
            a.journal
                .append(Record::of([Marker::key("k")]).of_tenant(tenant))
                .await
                .unwrap();
            assert_eq!(
                b.verdict(born, &Checked::at(born), &subject),
                Verdict::Gone,
                "{tenant}"
            );
            let born = b.journal.position_for(tenant);
            a.journal.append([Marker::key("k")]).await.unwrap();
            assert_eq!(
                b.verdict(born, &Checked::at(born), &subject),
                Verdict::Gone,
                "{tenant}"
            );
        }
    }
}

#[tokio::test]
async fn a_value_in_redis_is_judged_by_all_that_was_acknowledged_before_it_was_read() {
    let server = TestRedis::start();
    let (a, b) = (
        Instance::join(&server.url(), &config()).await,
        Instance::join(&server.url(), &config()).await,
    );
    let write = |stamp: Stamp| Command::new("SET").key("value").arg(stamp.to_bytes());
    let read = || Batch::new().command(Command::new("GET").key("value"));
    let judged = async |instance: &Instance| {
        let (mut replies, barrier) = instance.journal.read(read(), None).await.unwrap();
        let stamp: Vec<u8> = replies.read().unwrap();
        assert!(replies.is_empty(), "what was added is not told");
        barrier.judge(
            Stamp::from_bytes(stamp.try_into().unwrap()),
            &subject("value"),
        )
    };
    for n in 0..200 {
        let born = a.journal.position();
        a.pool.run::<()>(&write(born)).await.unwrap();
        assert_eq!(judged(&b).await, Verdict::Fresh, "{n}");
        a.purge("value").await.unwrap();
        assert_eq!(judged(&b).await, Verdict::Gone, "{n}");
        // A late store of what was computed before is as old as it is.
        a.pool.run::<()>(&write(born)).await.unwrap();
        assert_eq!(judged(&b).await, Verdict::Gone, "{n}");
    }
}

#[tokio::test]
async fn whoever_comes_late_or_was_away_learns_what_was_invalidated() {
    let server = TestRedis::start();
    let a = Instance::join(&server.url(), &config()).await;
    let way = Proxy::to(server.port());
    let b = Instance::join(&way.url(), &config()).await;
    let born = b.journal.position();
    // More than are read at a time.
    for n in 0..2_500 {
        drop(a.purge(&format!("early{n}")));
        drop(a.journal.append([Marker::key(&format!("early{n}"))]));
    }
    a.purge("late").await.unwrap();
    way.cut();
    until("it has noticed", || b.told.heard("disconnected")).await;
    a.purge("away").await.unwrap();
    b.verified().await;
    let c = Instance::join(&server.url(), &config()).await;
    let stored = Stamp::from_bytes(born.to_bytes());
    for (name, instance) in [("b", &b), ("c", &c)] {
        for key in ["early0", "early1234", "early2499", "late", "away"] {
            assert_eq!(instance.of(stored, key), Verdict::Gone, "{name}: {key}");
        }
        assert_eq!(instance.of(stored, "never"), Verdict::Fresh, "{name}");
    }
}

#[tokio::test]
async fn whoever_was_away_for_longer_than_records_are_kept_takes_all_for_old() {
    let server = TestRedis::start();
    let config = JournalConfig {
        records_max: 128,
        ..config()
    };
    let a = Instance::join(&server.url(), &config).await;
    let stored = Stamp::from_bytes(a.journal.position().to_bytes());
    for n in 0..2_000 {
        drop(a.journal.append([Marker::key(&n.to_string())]));
    }
    a.purge("last").await.unwrap();
    let records = server.raw().command(&["XLEN", "keep:{cj:0}:j"]).integer();
    assert!(records < 1_000, "{records} are kept");
    let b = Instance::join(&server.url(), &config).await;
    assert_eq!(b.of(stored, "never"), Verdict::Gone);
    assert_eq!(
        a.of(stored, "never"),
        Verdict::Fresh,
        "which has heard them all"
    );
    assert_eq!(b.of(b.journal.position(), "never"), Verdict::Fresh);
}

#[tokio::test]
async fn while_redis_is_away_it_is_carried_out_here_and_everywhere_else_once_it_is_back() {
    let server = TestRedis::start();
    let (a, b) = (
        Instance::join(&server.url(), &config()).await,
        Instance::join(&server.url(), &config()).await,
    );
    let stored = Stamp::from_bytes(b.journal.position().to_bytes());
    server.kill();
    until("both have noticed", || !a.is_verified() && !b.is_verified()).await;
    let began = Instant::now();
    assert_eq!(a.purge("k").await, Err(Pending::Queued));
    assert_eq!(a.purge("l").await, Err(Pending::Queued));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "nobody waits for it"
    );
    assert_eq!(a.journal.figures().waiting, 2);
    assert_eq!(a.of(a.journal.position(), "other"), Verdict::Unverified);
    server.restart();
    a.verified().await;
    b.verified().await;
    assert_eq!(a.journal.figures().waiting, 0);
    // A server that was killed has lost the journal, so everything is old; and what waited is in the new one.
    assert_eq!(b.of(stored, "other"), Verdict::Gone);
    assert!(b.told.heard("Replaced"));
    let all = server.raw().command(&["XLEN", "keep:{cj:0}:j"]).integer();
    assert_eq!(all, 3, "the beginning and two");
}

#[tokio::test]
async fn what_waits_is_bounded_and_too_much_of_it_becomes_everything() {
    let server = TestRedis::start();
    let config = JournalConfig {
        queue_max: 16,
        ..config()
    };
    let a = Instance::join(&server.url(), &config).await;
    let b = Instance::join(&server.url(), &config).await;
    server.stop();
    until("it has noticed", || !a.is_verified()).await;
    let stored = Stamp::from_bytes(b.journal.position().to_bytes());
    for n in 0..1_000 {
        drop(a.journal.append([Marker::key(&n.to_string())]));
        assert!(a.journal.figures().waiting <= 17);
    }
    server.cont();
    a.verified().await;
    b.verified().await;
    until("it has heard", || {
        b.of(stored, "never named") == Verdict::Gone
    })
    .await;
    assert!(a.told.heard("queue_max"));
}

#[tokio::test]
async fn an_instance_that_does_not_hear_stops_serving_before_the_others_stop_waiting_for_it() {
    let server = TestRedis::start();
    let way = Proxy::to(server.port());
    let a = Instance::join(&server.url(), &config()).await;
    let b = Instance::join(&way.url(), &config()).await;
    past_the_beginning().await;
    for _ in 0..5 {
        b.verified().await;
        let born = b.journal.position();
        assert_eq!(b.of(born, "k"), Verdict::Fresh);
        way.blackhole();
        // Whatever this waits for: once it is acknowledged, the one that is cut off serves nothing.
        a.purge("k").await.unwrap();
        assert_ne!(b.of(born, "k"), Verdict::Fresh);
        way.forward();
    }
}

#[tokio::test]
async fn a_pending_invalidation_says_what_it_waits_for() {
    let server = TestRedis::start();
    let way = Proxy::to(server.port());
    let brisk = JournalConfig {
        lease: Duration::from_secs(30),
        acknowledge_within: Duration::from_millis(300),
        ..JournalConfig::default()
    };
    let a = Instance::join(&server.url(), &brisk).await;
    assert_eq!(
        a.purge("k").await,
        Err(Pending::Unconfirmed),
        "of leases that nobody knows"
    );
    let recorded = JournalConfig {
        acknowledge: Acknowledge::Recorded,
        ..brisk.clone()
    };
    let b = Instance::join(&way.url(), &recorded).await;
    b.purge("k").await.unwrap();
    way.hang();
    assert_eq!(b.purge("k").await, Err(Pending::Unanswered));
    assert!(b.told.heard("unanswered"));
}

#[tokio::test]
async fn whatever_becomes_of_the_keys_in_redis_nothing_old_is_served_again() {
    let server = TestRedis::start();
    let (a, b) = (
        Instance::join(&server.url(), &config()).await,
        Instance::join(&server.url(), &config()).await,
    );
    let harm: [&[&[&str]]; 8] = [
        &[&["FLUSHALL"]],
        &[&["DEL", "keep:{cj:0}:m"]],
        &[&["DEL", "keep:{cj:0}:j"]],
        &[&["SET", "keep:{cj:0}:m", "x"]],
        &[&["SET", "keep:{cj:0}:j", "x"]],
        &[&["HSET", "keep:{cj:0}:m", "v", "2"]],
        &[&["HSET", "keep:{cj:0}:m", "run", "0123"]],
        &[
            &["HSET", "keep:{cj:0}:m", "seq", "many"],
            &["HSET", "keep:{cj:0}:m", "Lodd", "x"],
        ],
    ];
    for commands in harm {
        a.verified().await;
        b.verified().await;
        let (before, inc) = (b.journal.position(), b.journal.position().inc);
        let stored = Stamp::from_bytes(before.to_bytes());
        for command in commands {
            server.raw().command(command);
        }
        a.purge("k").await.unwrap();
        assert_ne!(b.of(before, "k"), Verdict::Fresh, "{commands:?}");
        a.verified().await;
        b.verified().await;
        assert_ne!(b.journal.position().inc, inc, "{commands:?}");
        assert_eq!(b.of(stored, "other"), Verdict::Gone, "{commands:?}");
        assert_eq!(a.journal.position(), b.journal.position(), "{commands:?}");
    }
}

#[tokio::test]
async fn a_failover_begins_a_new_incarnation() {
    let servers = TestSentinel::start();
    let a = Instance::join(&servers.url(), &config()).await;
    let b = Instance::join(&servers.url(), &config()).await;
    let (stored, inc) = (
        Stamp::from_bytes(b.journal.position().to_bytes()),
        b.journal.position().inc,
    );
    servers.fail_over();
    until("both follow the new one", || {
        [&a, &b]
            .iter()
            .all(|one| one.is_verified() && one.journal.position().inc != inc)
    })
    .await;
    assert_eq!(a.journal.position().inc, b.journal.position().inc);
    assert_eq!(b.of(stored, "other"), Verdict::Gone);
    let born = b.journal.position();
    a.purge("k").await.unwrap();
    assert_eq!(b.of(born, "k"), Verdict::Gone);
}

#[tokio::test]
async fn a_server_that_tells_scripts_no_run_id_is_asked_by_the_client() {
    let server = TestRedis::start();
    // Neither scripts nor clients are told.
    server.raw().must(&["ACL", "SETUSER", "default", "-info"]);
    let a = Instance::join(&server.url(), &config()).await;
    let inc = a.journal.position().inc;
    let born = a.journal.position();
    a.purge("k").await.unwrap();
    assert_eq!(a.of(born, "k"), Verdict::Gone);
    // So each connection may lead to another server, and begins anew.
    let b = Instance::join(&server.url(), &config()).await;
    assert_ne!(b.journal.position().inc, inc);
    until("the first follows", || {
        a.journal.position().inc == b.journal.position().inc
    })
    .await;
    let born = b.journal.position();
    a.verified().await;
    a.purge("k").await.unwrap();
    assert_eq!(b.of(born, "k"), Verdict::Gone);
}

#[tokio::test]
async fn with_a_grace_what_is_stored_is_served_for_a_while_without_the_journal() {
    let server = TestRedis::start();
    let config = JournalConfig {
        max_unverified: Duration::from_secs(3600),
        ..config()
    };
    let a = Instance::join(&server.url(), &config).await;
    let born = a.journal.position();
    server.kill();
    until("it has noticed", || !a.is_verified()).await;
    assert_eq!(a.of(born, "k"), Verdict::Fresh);
    assert_eq!(a.purge("k").await, Err(Pending::Queued));
    assert_eq!(a.of(born, "k"), Verdict::Gone, "what is invalidated here");
    assert_eq!(
        a.of(a.journal.position(), "k"),
        Verdict::Fresh,
        "what was computed since"
    );
}

#[tokio::test]
async fn an_instance_that_ends_is_not_waited_for() {
    let server = TestRedis::start();
    let config = JournalConfig {
        lease: Duration::from_secs(30),
        ..config()
    };
    let first = Instance::join(&server.url(), &config).await;
    first.tasks.shutdown(Duration::from_secs(5)).await;
    let left = server.raw().command(&["HLEN", "keep:{cj:0}:m"]).integer();
    assert_eq!(left, 5, "what there is without a lease");
    assert!(matches!(
        first.journal.status(),
        JournalStatus::Unverified {
            why: Unverified::Stopped,
            ..
        }
    ));
    assert_eq!(first.of(first.journal.position(), "k"), Verdict::Unverified);
}

#[tokio::test]
async fn what_was_invalidated_just_before_the_end_is_recorded() {
    for sending in [false, true] {
        let server = TestRedis::start();
        let a = Instance::join(&server.url(), &config()).await;
        for n in 0..100 {
            drop(a.journal.append([Marker::key(&n.to_string())]));
        }
        while sending && a.journal.figures().waiting > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(a.tasks.shutdown(Duration::from_secs(5)).await, 0);
        assert_eq!(a.journal.figures().waiting, 0);
        let last = server.raw().command(&["HGET", "keep:{cj:0}:m", "seq"]);
        let last: u64 = last.text().parse().unwrap();
        // What is interrupted may be sent twice.
        assert!(last >= 101, "the beginning and a hundred, not {last}");
    }
}

/// A refusal is an answer, and a server that answers is up: there is no coming back that could be waited for.
#[tokio::test]
async fn a_server_that_takes_no_writes_is_asked_again_with_pauses() {
    let server = TestRedis::start();
    let a = Instance::join(&server.url(), &config()).await;
    let mut raw = server.raw();
    let mut refused = || {
        let stats = raw.must(&["INFO", "commandstats"]);
        let stats = stats.line("cmdstat_fcall").unwrap();
        let mut stats = stats.split(',');
        let refused = stats.find_map(|stat| stat.strip_prefix("rejected_calls="));
        refused.unwrap().parse::<u128>().unwrap()
    };
    let began = Instant::now();
    server.raw().must(&["CONFIG", "SET", "maxmemory", "1"]);
    drop(a.journal.append([Marker::key("k")]));
    let mut asked = 0;
    until("it was refused again and again", || {
        asked = refused();
        asked >= 50
    })
    .await;
    // One rests for 50 ms each time, and the other for 20 ms; however slow the machine is, that is the least.
    let most = began.elapsed().as_millis() / 10 + 20;
    assert!(asked <= most, "{asked} calls, {most} at most");
    server.raw().must(&["CONFIG", "SET", "maxmemory", "0"]);
    until("it is recorded", || a.journal.figures().waiting == 0).await;
    a.verified().await;
}

#[tokio::test]
async fn while_there_is_always_more_to_invalidate_the_lease_is_renewed() {
    let server = TestRedis::start();
    let a = Instance::join(&server.url(), &config()).await;
    let journal = a.journal.clone();
    a.tasks.spawner().spawn_until_stopped(async move {
        loop {
            while journal.figures().waiting < 8 {
                drop(journal.append([Marker::key("k")]));
            }
            tokio::task::yield_now().await;
        }
    });
    let mut raw = server.raw();
    let names = raw.must(&["HKEYS", "keep:{cj:0}:m"]);
    let lease = names.array().iter().find_map(|name| match name {
        Answer::Bulk(name) if name.len() == 9 && name[0] == b'L' => Some(name.clone()),
        _ => None,
    });
    let lease = lease.expect("it has one");
    let mut ends = Vec::new();
    until("it is renewed again and again", || {
        let end = raw.must(&[b"HGET", &b"keep:{cj:0}:m"[..], &lease]).text();
        if ends.last() != Some(&end) {
            ends.push(end);
        }
        ends.len() > 4
    })
    .await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_taken_for_one_of_everything() {
    let server = TestRedis::start();
    let a = Instance::join(&server.url(), &config()).await;
    let stored = Stamp::from_bytes(a.journal.position().to_bytes());
    let mut raw = server.raw();
    raw.must(&["XADD", "keep:{cj:0}:j", "1-2", "r", "\x7fnonsense"]);
    raw.must(&["HSET", "keep:{cj:0}:m", "seq", "2"]);
    let b = Instance::join(&server.url(), &config()).await;
    assert_eq!(b.of(stored, "other"), Verdict::Gone);
    assert!(b.told.heard("cannot read"));
    until("the other has read it as well", || {
        a.of(stored, "other") == Verdict::Gone
    })
    .await;
}

/// A recorder that asks would wait for itself if it were told while a lock is held, so all of it is on a thread of
/// its own.
#[test]
fn whoever_hears_of_anything_may_ask_the_journal_how_it_is() {
    let (done, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let server = TestRedis::start();
            let first = Instance::join(&server.url(), &config()).await;
            let mut raw = server.raw();
            raw.must(&["XADD", "keep:{cj:0}:j", "1-2", "r", "\x7fnonsense"]);
            raw.must(&["HSET", "keep:{cj:0}:m", "seq", "2"]);
            let asks = Instance::start(&patient(&server.url()), &config());
            assert!(asks.told.1.set(asks.journal.clone()).is_ok());
            asks.verified().await;
            assert!(asks.told.heard("cannot read") && asks.told.heard("JournalVerified"));
            assert!(first.purge("k").await.is_ok());
            server.kill();
            until("the loss is told", || asks.told.heard("JournalUnverified")).await;
        });
        let _ = done.send(());
    });
    let within = Duration::from_secs(60);
    assert_eq!(seen.recv_timeout(within), Ok(()), "it waits for itself");
}

/// That no future of the room is too large or cannot be sent is a matter of types.
#[test]
fn what_is_awaited_can_be_sent() {
    fn sends<T: Future + Send>(_: impl Fn(&'static Journal) -> T) {}
    sends(|journal| journal.append([Marker::Everything]));
    sends(|journal| journal.read(Batch::new(), None));
    sends(|journal| journal.reverified(None, Duration::ZERO));
}
