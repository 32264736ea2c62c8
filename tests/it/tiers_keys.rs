//! Keys, tenants and types of the typed cache: whatever is in them, no value is taken for another one.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_keep::tiers::{
    CacheError, EntryKey, EntryOptions, KEY_BYTES_MAX, KeyText, MemoryCold, SealKeys, TypedCache,
};

use crate::redis::TestRedis;
use crate::store::until;
use crate::tiers_room::{Instance, Plan};
use crate::tiers_time::{NONE, Origin, stored};

/// A key of as many parts as it has.
#[derive(Clone, Debug)]
struct Parts(Vec<String>);

impl Parts {
    fn of(parts: &[&str]) -> Self {
        Self(parts.iter().map(|&part| part.to_owned()).collect())
    }
}

impl EntryKey for Parts {
    fn write(&self, text: &mut KeyText) {
        for part in &self.0 {
            text.part(part);
        }
    }
}

/// Keys that are easily taken for each other.
fn odd_keys() -> Vec<Parts> {
    let long = "x".repeat(10 << 10);
    let other = format!("{}y", &long[1..]);
    let longest = "z".repeat(KEY_BYTES_MAX);
    let mut keys: Vec<Parts> = [
        "",
        "a",
        "A",
        "a:b",
        "a%3Ab",
        "a%3ab",
        "a/b",
        "a/report:b",
        "{a}",
        "a}b",
        "}{",
        "a b",
        "a\tb",
        "a\r\nb",
        "a\0b",
        "a\0",
        "\u{7f}",
        "\u{1b}[0m",
        "é",
        "e\u{301}",
        "🦀",
        "\u{202e}",
        "*",
        "a*",
        "a?",
        "[a]",
        "#a",
        "a:lease",
        "..",
        "%",
        "%25",
        "\\",
        "'\"",
        &long,
        &other,
        &longest,
    ]
    .iter()
    .map(|part| Parts::of(&[part]))
    .collect();
    keys.extend([
        Parts::of(&["", ""]),
        Parts::of(&["a", "b"]),
        Parts::of(&["a", "", "b"]),
        Parts::of(&["a:", "b"]),
        Parts::of(&["a", ":b"]),
        Parts::of(&["a", "lease"]),
        Parts::of(&["a", "b", ""]),
    ]);
    keys
}

#[tokio::test]
async fn keys_are_told_apart_whatever_is_in_them() {
    let server = TestRedis::start();
    let cold = Arc::new(MemoryCold::new(8 << 20));
    let mut plan = Plan::redis(&server.url());
    plan.cold = Some(Arc::<MemoryCold>::clone(&cold));
    let (one, two) = (plan.start().await, plan.start().await);
    let keys = odd_keys();
    let cache: TypedCache<u64> = one.tiers.cache("report");
    for (nth, key) in keys.iter().enumerate() {
        let compute = move || ready(Ok::<_, CacheError>(nth as u64));
        let value = cache.get_or_compute(key, &NONE, compute).await.unwrap();
        assert_eq!(*value, nth as u64, "{:?}", key.key_text());
        assert_eq!(cache.peek(key).as_deref(), Some(&(nth as u64)));
    }
    stored(&server, "report", keys.len()).await;
    until("all are cold", || cold.len() == keys.len()).await;
    let other: TypedCache<u64> = two.tiers.cache("report");
    for (nth, key) in keys.iter().enumerate() {
        let value = other.get(key).await;
        assert_eq!(
            value.as_deref(),
            Some(&(nth as u64)),
            "{:?}",
            key.key_text()
        );
    }
    assert_eq!(other.stats().hits_warm, keys.len() as u64);
    // And from the cold store.
    let entries = server.raw().must(&["KEYS", "*report*"]);
    for entry in entries.array() {
        server.raw().must(&["DEL", &entry.text()]);
    }
    two.tiers.clear();
    let many = other.get_many(&keys).await;
    for (nth, value) in many.iter().enumerate() {
        assert_eq!(value.as_deref(), Some(&(nth as u64)));
    }
    assert_eq!(other.stats().hits_cold, keys.len() as u64);
    assert_eq!(other.stats().unreadable, 0);
    // A purge of each reaches it, and no other.
    for (nth, key) in keys.iter().enumerate() {
        other.purge(key).await.unwrap();
        assert!(other.get(key).await.is_none(), "{:?}", key.key_text());
        let left = keys.iter().filter(|key| other.peek(key).is_some()).count();
        assert_eq!(left, keys.len() - nth - 1, "{:?}", key.key_text());
    }
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused_by_name_and_nothing_is_computed() {
    let server = TestRedis::start();
    let instance = Plan::redis(&server.url()).start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("report");
    let origin = Origin::default();
    for key in ["k".repeat(KEY_BYTES_MAX + 1), ":".repeat(KEY_BYTES_MAX / 2)] {
        let asking = cache.get_or_compute(key.as_str(), &NONE, origin.answer());
        let error = asking.await.unwrap_err();
        assert!(error.is_key_too_long(), "{error}");
        assert!(error.to_string().contains("65536"), "{error}");
        assert!(cache.peek(key.as_str()).is_none());
        assert!(cache.get(key.as_str()).await.is_none());
        assert!(cache.get_many([key.as_str()]).await[0].is_none());
        cache.purge(key.as_str()).await.unwrap();
    }
    assert_eq!(origin.asked(), 0);
}

#[tokio::test]
async fn tenants_have_nothing_in_common() {
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    let (one, two) = (plan.start().await, plan.start().await);
    let names = [
        "",
        "a",
        "b",
        "a/b",
        "a:b",
        "a/report",
        "a/report:7",
        "{a}",
        "a%2Fb",
        "a\0",
        "é",
        "..",
    ];
    let base: (TypedCache<u64>, TypedCache<u64>) =
        (one.tiers.cache("report"), two.tiers.cache("report"));
    let origin = Origin::default();
    let options = EntryOptions::new().tag("all");
    let fill = async || {
        let nobody = base.0.get_or_compute(7, &options, origin.answer());
        let mut values = vec![*nobody.await.unwrap()];
        for name in names {
            let cache = base.0.for_tenant(name);
            let asking = cache.get_or_compute(7, &options, origin.answer());
            values.push(*asking.await.unwrap());
        }
        stored(&server, "report", names.len() + 1).await;
        values
    };
    let mine = async |at: usize| match at {
        0 => (base.0.get(7).await, base.1.get(7).await),
        at => (
            base.0.for_tenant(names[at - 1]).get(7).await,
            base.1.for_tenant(names[at - 1]).get(7).await,
        ),
    };
    let values = fill().await;
    assert_eq!(origin.asked(), names.len() as u64 + 1, "each its own");
    for (at, value) in values.iter().enumerate() {
        let (near, far) = mine(at).await;
        assert_eq!(
            (near.as_deref(), far.as_deref()),
            (Some(value), Some(value))
        );
    }
    // Purged by its key, by a tag, and with the whole cache: nobody else is concerned.
    for how in 0..3 {
        let before = fill().await;
        for (at, name) in names.iter().enumerate() {
            let cache = base.1.for_tenant(name);
            match how {
                0 => cache.purge(7).await.unwrap(),
                1 => cache.purge_tag("all").await.unwrap(),
                _ => cache.purge_all().await.unwrap(),
            };
            for (other, value) in before.iter().enumerate() {
                let (near, far) = mine(other).await;
                let expected = (other == 0 || other > at + 1).then_some(value);
                assert_eq!(near.as_deref(), expected, "{how} of {name:?}: {other}");
                assert_eq!(far.as_deref(), expected, "{how} of {name:?}: {other}");
            }
        }
    }
    // What is purged for nobody in particular is purged for everybody.
    fill().await;
    base.0.purge(7).await.unwrap();
    for at in 0..=names.len() {
        assert_eq!(mine(at).await, (None, None), "{at}");
    }
}

/// They replace each other in Redis; what must not happen is that one is read as the other, or an error.
#[tokio::test]
async fn two_types_under_one_name_are_never_mixed() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Pair {
        left: String,
        right: Vec<u8>,
    }
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    let (one, two) = (plan.start().await, plan.start().await);
    let pair = Pair {
        left: "left".to_owned(),
        right: vec![1, 2, 3],
    };
    for round in 0..6 {
        for instance in [&one, &two] {
            let texts: TypedCache<String> = instance.tiers.cache("thing");
            let pairs: TypedCache<Pair> = instance.tiers.cache("thing");
            let text =
                texts.get_or_compute(7, &NONE, || ready(Ok::<_, CacheError>("text".to_owned())));
            assert_eq!(*text.await.unwrap(), "text");
            stored(&server, "thing", 1).await;
            let this = pair.clone();
            let found = pairs.get_or_compute(7, &NONE, || ready(Ok::<_, CacheError>(this)));
            assert_eq!(*found.await.unwrap(), pair);
            stored(&server, "thing", 1).await;
            assert_eq!(texts.peek(7).as_deref().map(String::as_str), Some("text"));
            if round == 3 {
                instance.tiers.clear();
                assert_eq!(texts.get(7).await, None, "the other type's bytes");
                assert!(texts.stats().unreadable > 0);
            }
        }
    }
}

#[tokio::test]
async fn many_are_answered_in_their_order_however_often_they_are_named() {
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    for instance in [Plan::default().start().await, plan.start().await] {
        let cache: TypedCache<u64> = instance.tiers.cache("number");
        assert!(cache.get_many(Vec::<u64>::new()).await.is_empty());
        for key in [1_u64, 2, 3] {
            let compute = move || ready(Ok::<_, CacheError>(key * 10));
            cache.get_or_compute(key, &NONE, compute).await.unwrap();
        }
        if instance.pool.status().is_up() {
            stored(&server, "number", 3).await;
        }
        for forget in [false, true] {
            if forget && instance.pool.status().is_up() {
                instance.tiers.clear();
            }
            let many = cache.get_many([3_u64, 9, 1, 3, 3, 9, 2, 1]).await;
            let many: Vec<Option<u64>> = many.iter().map(|one| one.as_deref().copied()).collect();
            let [a, b, c] = [Some(10), Some(20), Some(30)];
            assert_eq!(many, [c, None, a, c, c, None, b, a]);
        }
    }
}

#[tokio::test]
async fn a_thousand_are_read_in_a_few_round_trips() {
    let server = TestRedis::start();
    let plan = Plan::redis(&server.url());
    let (one, two) = (plan.start().await, plan.start().await);
    let cache: TypedCache<u64> = one.tiers.cache("number");
    let all = (0..1_000_u64)
        .map(|key| cache.get_or_compute(key, &NONE, move || ready(Ok::<_, CacheError>(key * 10))));
    for value in futures_util::future::join_all(all).await {
        value.unwrap();
    }
    stored(&server, "number", 1_000).await;
    server.raw().must(&["CONFIG", "RESETSTAT"]);
    let cache: TypedCache<u64> = two.tiers.cache("number");
    let many = cache.get_many(0..1_000_u64).await;
    for (key, value) in many.iter().enumerate() {
        assert_eq!(value.as_deref(), Some(&(key as u64 * 10)));
    }
    let stats = server.raw().must(&["INFO", "commandstats"]);
    let calls = |command: &str| -> u64 {
        let line = stats
            .line(&format!("cmdstat_{command}"))
            .unwrap_or_default();
        let calls = line.split(',').find_map(|part| part.strip_prefix("calls="));
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    // Each question ends with where the journal stands.
    assert!((1..=8).contains(&calls("hmget")), "{stats:?}");
    assert!((1..=8).contains(&calls("mget")), "{stats:?}");
    assert_eq!((calls("getrange"), calls("get")), (0, 0), "{stats:?}");
    assert_eq!(cache.stats().hits_warm, 1_000);
}

fn sealing(keys: SealKeys, url: &str) -> Plan {
    Plan {
        seals: Some(keys),
        ..Plan::redis(url)
    }
}

/// Everything that Redis holds, names included.
fn everything(server: &TestRedis) -> Vec<u8> {
    let mut raw = server.raw();
    let mut all = Vec::new();
    for key in raw.must(&["KEYS", "*"]).array().to_vec() {
        let key = key.text();
        all.extend(key.as_bytes());
        all.push(b'\n');
        if let crate::redis::Answer::Bulk(dump) = raw.command(&["DUMP", &key]) {
            all.extend(dump);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sealed_can_be_read_in_redis_or_in_the_cold_store() {
    const WORDS: [&str; 4] = [
        "ada.lovelace",
        "acme-corporation",
        "her-diagnosis",
        "ward-seven",
    ];
    let server = TestRedis::start();
    let cold = Arc::new(MemoryCold::new(1 << 20));
    let mut plan = sealing(SealKeys::new(1, [7; 32]), &server.url());
    plan.cold = Some(Arc::<MemoryCold>::clone(&cold));
    let instance = plan.start().await;
    let open: TypedCache<String> = instance.tiers.cache("patient").for_tenant(WORDS[1]);
    let options = EntryOptions::new().tag(WORDS[3]);
    let readable = || {
        let all = everything(&server);
        let has = |word: &&str| all.windows(word.len()).any(|part| part == word.as_bytes());
        WORDS.iter().filter(|word| has(word)).count()
    };
    let sealed = open.clone().sealed().unwrap();
    let value = || ready(Ok::<_, CacheError>(WORDS[2].repeat(100)));
    // While it is computed there is a lease.
    let seen = Arc::new(AtomicBool::new(false));
    let (saw, go) = (Arc::clone(&seen), Arc::new(tokio::sync::Notify::new()));
    let going = Arc::clone(&go);
    let asking = sealed.get_or_compute(WORDS[0], &options, move || async move {
        saw.store(true, Ordering::SeqCst);
        going.notified().await;
        value().await
    });
    let asking = tokio::spawn(asking);
    until("it is being computed", || seen.load(Ordering::SeqCst)).await;
    let leases = server.raw().must(&["KEYS", "*:lease"]);
    assert_eq!(leases.array().len(), 1);
    assert_eq!(readable(), 0);
    go.notify_one();
    asking.await.unwrap().unwrap();
    stored(&server, "patient", 1).await;
    until("it is cold", || cold.len() == 1).await;
    assert_eq!(readable(), 0);
    sealed.purge_tag(WORDS[3]).await.unwrap();
    sealed.purge(WORDS[0]).await.unwrap();
    assert_eq!(readable(), 0, "nor are invalidations");
    let asking = sealed.get_or_compute(WORDS[0], &options, value);
    asking.await.unwrap();
    stored(&server, "patient", 1).await;
    // What is not sealed can be read, so this test can fail.
    let asking = open.get_or_compute("not.sealed", &options, value);
    asking.await.unwrap();
    stored(&server, "patient", 2).await;
    assert!(readable() >= 2);
}

#[tokio::test]
async fn keys_are_rotated_and_a_wrong_one_is_a_miss() {
    let server = TestRedis::start();
    let (old, new) = ([1; 32], [2; 32]);
    let plans = [
        SealKeys::new(1, old),
        SealKeys::new(1, old).also_opening(2, new).unwrap(),
        SealKeys::new(2, new).also_opening(1, old).unwrap(),
        SealKeys::new(2, new),
        // The right number, and another key.
        SealKeys::new(1, [9; 32]),
    ];
    let mut instances = Vec::new();
    for keys in plans {
        instances.push(sealing(keys, &server.url()).start().await);
    }
    let cache = |at: usize| -> TypedCache<u64> {
        let instance: &Instance = &instances[at];
        instance.tiers.cache("secret").sealed().unwrap()
    };
    let origin = Origin::default();
    cache(0)
        .get_or_compute("of the old one", &NONE, origin.answer())
        .await
        .unwrap();
    cache(2)
        .get_or_compute("of the new one", &NONE, origin.answer())
        .await
        .unwrap();
    stored(&server, "secret", 2).await;
    for (at, reads_old, reads_new) in [
        (0, true, false),
        (1, true, true),
        (2, true, true),
        (3, false, true),
        (4, false, false),
    ] {
        assert_eq!(
            cache(at).get("of the old one").await.is_some(),
            reads_old,
            "{at}"
        );
        assert_eq!(
            cache(at).get("of the new one").await.is_some(),
            reads_new,
            "{at}"
        );
        let unreadable = u64::from(!reads_old) + u64::from(!reads_new);
        assert_eq!(cache(at).stats().unreadable, unreadable, "{at}");
    }
    // Whoever cannot read it computes it, and others find what it has written.
    let value = cache(4).get_or_compute("of the old one", &NONE, origin.answer());
    assert_eq!(*value.await.unwrap(), 3);
    loop {
        instances[0].tiers.clear();
        if cache(0).get("of the old one").await.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(cache(4).peek("of the old one").is_some());
    // Without keys nothing is sealed by mistake.
    let none = Plan::redis(&server.url()).start().await;
    let plain: TypedCache<u64> = none.tiers.cache("secret");
    assert!(plain.clone().sealed().is_err());
    assert!(plain.get("of the new one").await.is_none());
    tokio::time::timeout(Duration::from_secs(5), plain.purge_all())
        .await
        .unwrap()
        .unwrap();
}

/// The port takes a thousand keys at a time.
#[tokio::test]
async fn more_than_a_thousand_are_found_in_the_cold_store() {
    #[derive(Debug)]
    struct Strict(MemoryCold);

    use tower_keep::tiers::{BATCH_MAX, ColdEntry, ColdError, ColdFuture, ColdStore};

    impl ColdStore for Strict {
        fn load<'a>(
            &'a self,
            keys: &'a [Arc<str>],
            now_ms: u64,
        ) -> ColdFuture<'a, Vec<Option<bytes::Bytes>>> {
            if keys.len() > BATCH_MAX {
                return Box::pin(ready(Err(ColdError::new("too many keys"))));
            }
            self.0.load(keys, now_ms)
        }

        fn store<'a>(&'a self, entries: &'a [ColdEntry]) -> ColdFuture<'a, ()> {
            self.0.store(entries)
        }

        fn remove<'a>(&'a self, keys: &'a [Arc<str>]) -> ColdFuture<'a, ()> {
            self.0.remove(keys)
        }

        fn sweep<'a>(&'a self, now_ms: u64, most: u32) -> ColdFuture<'a, u64> {
            self.0.sweep(now_ms, most)
        }
    }

    let cold = Arc::new(Strict(MemoryCold::new(8 << 20)));
    let plan = Plan {
        cold: Some(Arc::<Strict>::clone(&cold)),
        ..Plan::default()
    };
    let instance = plan.start().await;
    let cache: TypedCache<u64> = instance.tiers.cache("number");
    for key in 0..2_500_u64 {
        let compute = move || ready(Ok::<_, CacheError>(key * 10));
        cache.get_or_compute(key, &NONE, compute).await.unwrap();
    }
    until("all are cold", || cold.0.len() == 2_500).await;
    instance.tiers.clear();
    let many = cache.get_many(0..2_500_u64).await;
    let found = many.iter().flatten().count();
    assert_eq!(found, 2_500);
    for (key, value) in many.iter().enumerate() {
        assert_eq!(value.as_deref(), Some(&(key as u64 * 10)));
    }
}
