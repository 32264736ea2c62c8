//! The cold stores: one suite over all of them, the same random calls to a database and to its twin in memory,
//! and what only a database can get wrong.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::sqlite::SqlitePool;
use tower_keep::clock::Clock;
use tower_keep::database::DatabaseConfig;
use tower_keep::event::Events;
use tower_keep::sqlx::{Database, SqliteCold, TableName};
use tower_keep::tiers::{BATCH_MAX, COLD_KEY_BYTES_MAX, ColdEntry, ColdStore, MemoryCold};

/// A store that is empty, and what it stands on, which goes with it.
struct Place {
    store: Arc<dyn ColdStore>,
    _ground: Box<dyn Any>,
}

fn database() -> Database {
    Database::new(&DatabaseConfig::default(), Clock::system(), Events::none()).unwrap()
}

/// A file that is gone again at the end of the test.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new() -> Self {
        let name = format!("tower-keep-cold-{}-{}.db", std::process::id(), number());
        Self(std::env::temp_dir().join(name))
    }

    async fn pool(&self) -> SqlitePool {
        let url = format!("sqlite:{}?mode=rwc", self.0.display());
        database().sqlite(&url).await.unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Another one each time.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn in_memory() -> Place {
    Place {
        store: Arc::new(MemoryCold::new(1 << 30)),
        _ground: Box::new(()),
    }
}

async fn sqlite_file() -> Place {
    let file = TempFile::new();
    Place {
        store: Arc::new(SqliteCold::new(file.pool().await).await.unwrap()),
        _ground: Box::new(file),
    }
}

async fn sqlite_memory() -> Place {
    let pool = database().sqlite("sqlite::memory:").await.unwrap();
    Place {
        store: Arc::new(SqliteCold::new(pool).await.unwrap()),
        _ground: Box::new(()),
    }
}

fn keys<K: AsRef<str>>(keys: &[K]) -> Vec<Arc<str>> {
    keys.iter().map(|key| Arc::from(key.as_ref())).collect()
}

fn entry(key: &str, bytes: impl Into<Bytes>, until_ms: u64) -> ColdEntry {
    ColdEntry {
        key: key.into(),
        bytes: bytes.into(),
        until_ms,
    }
}

async fn load<K: AsRef<str> + Sync>(
    store: &dyn ColdStore,
    asked: &[K],
    now_ms: u64,
) -> Vec<Option<Bytes>> {
    store.load(&keys(asked), now_ms).await.unwrap()
}

fn some(bytes: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(bytes.as_bytes()))
}

async fn answers_come_in_the_order_of_the_keys(store: &dyn ColdStore) {
    let entries = [entry("c", "3", 9), entry("a", "1", 9), entry("b", "2", 9)];
    store.store(&entries).await.unwrap();
    let found = load(store, &["b", "none", "a", "b", "c", ""], 0).await;
    assert_eq!(
        found,
        [some("2"), None, some("1"), some("2"), some("3"), None]
    );
}

async fn an_entry_is_gone_from_its_end_on_and_not_before(store: &dyn ColdStore) {
    let far = 1_767_225_600_000;
    let entries = [
        entry("a", "1", far),
        entry("zero", "2", 0),
        entry("ever", "3", u64::MAX),
    ];
    store.store(&entries).await.unwrap();
    let asked = ["a", "zero", "ever"];
    assert_eq!(
        load(store, &asked, far - 1).await,
        [some("1"), None, some("3")]
    );
    assert_eq!(load(store, &asked, far).await, [None, None, some("3")]);
    assert_eq!(
        load(store, &asked, i64::MAX as u64 - 1).await,
        [None, None, some("3")]
    );
    assert_eq!(load(store, &asked, u64::MAX).await, [None, None, None]);
}

async fn what_is_stored_again_is_replaced_with_its_end(store: &dyn ColdStore) {
    store
        .store(&[entry("a", "old", 100), entry("b", "other", 100)])
        .await
        .unwrap();
    store.store(&[entry("a", "new", 50)]).await.unwrap();
    assert_eq!(
        load(store, &["a", "b"], 49).await,
        [some("new"), some("other")]
    );
    assert_eq!(load(store, &["a", "b"], 50).await, [None, some("other")]);
    let twice = [
        entry("a", "first", 300),
        entry("b", "b", 300),
        entry("a", "last", 200),
    ];
    store.store(&twice).await.unwrap();
    assert_eq!(
        load(store, &["a", "b"], 199).await,
        [some("last"), some("b")]
    );
    assert_eq!(load(store, &["a"], 200).await, [None]);
}

async fn what_is_removed_is_gone_and_only_that(store: &dyn ColdStore) {
    let entries = [entry("a", "1", 9), entry("b", "2", 9), entry("c", "3", 9)];
    store.store(&entries).await.unwrap();
    for _ in 0..2 {
        store
            .remove(&keys(&["a", "c", "a", "never", "", "nul\0"]))
            .await
            .unwrap();
        assert_eq!(
            load(store, &["a", "b", "c"], 0).await,
            [None, some("2"), None]
        );
    }
    store.store(&[entry("a", "again", 9)]).await.unwrap();
    assert_eq!(load(store, &["a"], 0).await, [some("again")]);
}

async fn a_call_about_nothing_does_nothing(store: &dyn ColdStore) {
    store.store(&[entry("a", "1", 9)]).await.unwrap();
    store.store(&[]).await.unwrap();
    store.remove(&[]).await.unwrap();
    assert_eq!(store.load(&[], 0).await.unwrap(), []);
    assert_eq!(store.sweep(9, 0).await.unwrap(), 0);
    assert_eq!(load(store, &["a"], 0).await, [some("1")]);
}

async fn frames_come_back_as_they_were(store: &dyn ColdStore) {
    let large: Vec<u8> = (0..1024 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let every: Vec<u8> = (0..=255).collect();
    let frames = [
        large.clone(),
        Vec::new(),
        every,
        vec![0; 3],
        large[1..].to_vec(),
        b"'\"\\".to_vec(),
    ];
    let names: Vec<String> = (0..frames.len()).map(|number| number.to_string()).collect();
    let named = frames.iter().zip(&names);
    let entries: Vec<ColdEntry> = named
        .map(|(frame, name)| entry(name, frame.clone(), 9))
        .collect();
    store.store(&entries).await.unwrap();
    let found = load(store, &names, 0).await;
    for (found, frame) in found.into_iter().zip(frames) {
        let found = found.unwrap();
        assert!(
            found == frame,
            "{} bytes became {}",
            frame.len(),
            found.len()
        );
    }
}

const STRANGE: &[&str] = &[
    "a",
    "A",
    "a ",
    " a",
    "ä",
    "a\u{308}",
    "\u{e4}\u{301}",
    "'",
    "''",
    "\"",
    "\\",
    "\\u0041",
    "%",
    "_",
    "*",
    "'; DROP TABLE keep_cold; --",
    "\") OR (1=1",
    "$1",
    "?1",
    "{}",
    "{a,b}",
    "[\"a\"]",
    "NULL",
    "null",
    "1",
    "01",
    "1.0",
    "true",
    "\u{1}\u{2}\u{1f}",
    "\n",
    "\r\n",
    "\t",
    "\u{7f}",
    "\u{85}",
    "\u{feff}a",
    "\u{fffd}",
    "\u{ffff}",
    "😀",
    "日本語",
    "\u{202e}abc",
    "\u{10ffff}",
];

async fn keys_are_compared_byte_by_byte_whatever_is_in_them(store: &dyn ColdStore) {
    let longest = "k".repeat(COLD_KEY_BYTES_MAX);
    // Without a repetition that an index could compress.
    let motley: String = (0..COLD_KEY_BYTES_MAX as u32)
        .map(|at| char::from(33 + (at.wrapping_mul(2_654_435_761) >> 16) as u8 % 90))
        .collect();
    let mut strange = STRANGE.to_vec();
    strange.extend([&*longest, &motley]);
    let entries: Vec<ColdEntry> = strange
        .iter()
        .map(|key| {
            entry(
                key,
                Bytes::copy_from_slice(format!("of {key}").as_bytes()),
                9,
            )
        })
        .collect();
    store.store(&entries).await.unwrap();
    let found = load(store, &strange, 0).await;
    for (key, found) in strange.iter().zip(found) {
        assert_eq!(
            found.as_deref(),
            Some(format!("of {key}").as_bytes()),
            "{key:?}"
        );
    }
    for (left, key) in strange.iter().enumerate() {
        store.remove(&keys(&[key])).await.unwrap();
        let found = load(store, &strange, 0).await;
        let gone = found.iter().take_while(|found| found.is_none()).count();
        let there = found.iter().flatten().count();
        assert_eq!(
            (gone, there),
            (left + 1, strange.len() - left - 1),
            "{key:?}"
        );
    }
}

async fn a_key_that_cannot_be_stored_spoils_nothing_for_the_others(store: &dyn ColdStore) {
    let longer = "k".repeat(COLD_KEY_BYTES_MAX + 1);
    let bad = ["", "\0", "a\0b", &longer];
    let mut entries: Vec<ColdEntry> = bad.iter().map(|key| entry(key, "bad", 9)).collect();
    store.store(&entries).await.unwrap();
    entries.insert(2, entry("good", "good", 9));
    store.store(&entries).await.unwrap();
    let asked = ["", "\0", "good", "a\0b", &longer];
    assert_eq!(
        load(store, &asked, 0).await,
        [None, None, some("good"), None, None]
    );
    assert_eq!(load(store, &bad, 0).await, [None, None, None, None]);
    store.remove(&keys(&bad)).await.unwrap();
    assert_eq!(load(store, &["good"], 0).await, [some("good")]);
}

async fn a_thousand_entries_are_one_call(store: &dyn ColdStore) {
    let names: Vec<String> = (0..BATCH_MAX)
        .map(|number| format!("row {number}"))
        .collect();
    for round in ["first", "second"] {
        let entries: Vec<ColdEntry> = names
            .iter()
            .map(|name| entry(name, format!("{round} {name}"), 9))
            .collect();
        store.store(&entries).await.unwrap();
        let found = load(store, &names, 0).await;
        for (name, found) in names.iter().zip(found) {
            assert_eq!(found.unwrap(), format!("{round} {name}"));
        }
    }
    store.remove(&keys(&names[1..])).await.unwrap();
    assert_eq!(load(store, &names, 0).await.iter().flatten().count(), 1);
}

async fn a_sweep_deletes_what_has_run_out_up_to_its_bound(store: &dyn ColdStore) {
    let dead: Vec<String> = (0..25).map(|number| format!("dead {number}")).collect();
    let mut entries: Vec<ColdEntry> = dead.iter().map(|key| entry(key, "x", 100)).collect();
    entries.push(entry("alive", "1", 101));
    store.store(&entries).await.unwrap();
    assert_eq!(store.sweep(99, 10).await.unwrap(), 0);
    assert_eq!(load(store, &dead, 99).await.iter().flatten().count(), 25);
    let mut swept = Vec::new();
    for _ in 0..4 {
        swept.push(store.sweep(100, 10).await.unwrap());
    }
    assert_eq!(swept, [10, 10, 5, 0]);
    assert_eq!(
        load(store, &dead, 0).await.iter().flatten().count(),
        0,
        "really deleted"
    );
    assert_eq!(load(store, &["alive"], 100).await, [some("1")]);
}

/// Eight writers, whose batches overlap and name the same keys in other orders, while others remove and sweep.
/// Nobody fails, as whoever waits for another in a circle would, and no frame is a mixture of two.
async fn writers_who_meet_do_not_fail_and_do_not_mix(store: &Arc<dyn ColdStore>) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8_u8 {
        let store = Arc::clone(store);
        writers.spawn(async move {
            for round in 0..15_u8 {
                let mut names: Vec<u8> = (0..20)
                    .map(|at| (at * 7 + writer * 3 + round) % 20)
                    .collect();
                if writer % 2 == 0 {
                    names.reverse();
                }
                let frame = vec![writer * 16 + round; 200 + usize::from(writer)];
                let until_ms = if round % 3 == 0 { 100 } else { 200 };
                let entries: Vec<ColdEntry> = names
                    .iter()
                    .map(|name| entry(&name.to_string(), frame.clone(), until_ms))
                    .collect();
                store.store(&entries).await.unwrap();
                let names: Vec<String> = names.iter().map(u8::to_string).collect();
                let names = keys(&names);
                match writer {
                    0 | 1 => store.remove(&names).await.unwrap(),
                    2 | 3 => assert!(store.sweep(150, 7).await.unwrap() <= 7),
                    _ => {}
                }
                for found in store.load(&names, 0).await.unwrap().into_iter().flatten() {
                    let whole = found.iter().all(|&byte| byte == found[0]);
                    assert!(whole && found.len() == 200 + usize::from(found[0] / 16));
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
}

macro_rules! suite {
    ($($name:ident: $place:path;)+) => { $(
        mod $name {
            suite! { @cases $place:
                answers_come_in_the_order_of_the_keys
                an_entry_is_gone_from_its_end_on_and_not_before
                what_is_stored_again_is_replaced_with_its_end
                what_is_removed_is_gone_and_only_that
                a_call_about_nothing_does_nothing
                frames_come_back_as_they_were
                keys_are_compared_byte_by_byte_whatever_is_in_them
                a_key_that_cannot_be_stored_spoils_nothing_for_the_others
                a_thousand_entries_are_one_call
                a_sweep_deletes_what_has_run_out_up_to_its_bound
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn writers_who_meet_do_not_fail_and_do_not_mix() {
                let place = $place().await;
                super::writers_who_meet_do_not_fail_and_do_not_mix(&place.store).await;
            }
        }
    )+ };
    (@cases $place:path: $($case:ident)+) => { $(
        #[tokio::test]
        async fn $case() {
            let place = $place().await;
            super::$case(&*place.store).await;
        }
    )+ };
}

suite! {
    memory: super::in_memory;
    sqlite_in_a_file: super::sqlite_file;
    sqlite_in_memory: super::sqlite_memory;
}

#[cfg(feature = "sqlx-postgres")]
suite! {
    postgres: super::of_postgres::place;
}

#[derive(Clone, Debug)]
enum Call {
    Store(Vec<(u8, u8, u64)>),
    Load(Vec<u8>, u64),
    Remove(Vec<u8>),
    Sweep(u64, u32),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let row = (0..8u8, any::<u8>(), 0..20u64);
    let call = prop_oneof![
        3 => prop::collection::vec(row, 0..6).prop_map(Call::Store),
        3 => (prop::collection::vec(0..8u8, 0..6), 0..20u64).prop_map(|(keys, now)| Call::Load(keys, now)),
        1 => prop::collection::vec(0..8u8, 0..4).prop_map(Call::Remove),
        1 => (0..20u64, 0..4u32).prop_map(|(now, most)| Call::Sweep(now, most)),
    ];
    prop::collection::vec(call, 1..30)
}

/// No two ends are the same, since of those it would be open which is swept first.
const UNIT: u64 = 1_000;

async fn answers(store: &dyn ColdStore, calls: &[Call]) -> Vec<String> {
    let names = |named: &[u8]| keys(&named.iter().map(u8::to_string).collect::<Vec<_>>());
    let (mut answers, mut count) = (Vec::new(), 0);
    for call in calls {
        answers.push(match call {
            Call::Store(rows) => {
                let rows = rows.iter().map(|(key, byte, until)| {
                    count += 1;
                    entry(&key.to_string(), vec![*byte; 3], until * UNIT + count)
                });
                let rows: Vec<ColdEntry> = rows.collect();
                format!("{:?}", store.store(&rows).await.unwrap())
            }
            Call::Load(named, now) => {
                format!("{:?}", store.load(&names(named), now * UNIT).await.unwrap())
            }
            Call::Remove(named) => format!("{:?}", store.remove(&names(named)).await.unwrap()),
            Call::Sweep(now, most) => store.sweep(now * UNIT, *most).await.unwrap().to_string(),
        });
    }
    answers
}

/// Asks a database and its twin the same, and compares what they say.
fn twins<F: Future<Output = Place>>(cases: u32, place: impl Fn() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&calls(), |calls| {
        runtime.block_on(async {
            let (one, other) = (place().await, in_memory().await);
            let (one, other) = (
                answers(&*one.store, &calls).await,
                answers(&*other.store, &calls).await,
            );
            prop_assert_eq!(one, other);
            Ok(())
        })
    });
    outcome.unwrap();
}

#[test]
fn sqlite_and_memory_answer_the_same_calls_the_same() {
    twins(100, sqlite_memory);
}

#[tokio::test]
async fn what_sqlite_holds_outlives_the_pool_and_tables_keep_apart() {
    let file = TempFile::new();
    let pool = file.pool().await;
    let store = SqliteCold::new(pool.clone()).await.unwrap();
    store.store(&[entry("a", "1", 9)]).await.unwrap();
    let table = TableName::new("another").unwrap();
    let other = SqliteCold::in_table(pool.clone(), &table).await.unwrap();
    assert_eq!(load(&other, &["a"], 0).await, [None]);
    pool.close().await;
    let error = store.load(&keys(&["a"]), 0).await.unwrap_err();
    assert!(
        error.to_string().contains("the cold store failed"),
        "{error}"
    );
    let again = SqliteCold::new(file.pool().await).await.unwrap();
    assert_eq!(load(&again, &["a"], 0).await, [some("1")]);
}

#[tokio::test]
async fn a_call_to_sqlite_that_is_given_up_leaves_nothing_behind() {
    let file = TempFile::new();
    let pool = file.pool().await;
    let store = SqliteCold::new(pool.clone()).await.unwrap();
    // Somebody writes and does not come to an end, so that nobody else can write.
    let mut writer = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    for _ in 0..5 {
        let rows = [entry("a", "1", 9), entry("b", "1", 9)];
        let given_up = tokio::time::timeout(Duration::from_millis(20), store.store(&rows)).await;
        assert!(given_up.is_err(), "{given_up:?}");
    }
    sqlx::query("SELECT 1").execute(&mut *writer).await.unwrap();
    writer.rollback().await.unwrap();
    store
        .store(&[entry("a", "2", 9), entry("b", "2", 9)])
        .await
        .unwrap();
    let found = load(&store, &["a", "b"], 0).await;
    let kinds: HashSet<_> = found.iter().collect();
    assert_eq!(kinds.len(), 1, "both or none: {found:?}");
}

#[cfg(feature = "sqlx-postgres")]
mod of_postgres {
    use sqlx::AssertSqlSafe;
    use sqlx::postgres::{PgPool, PgPoolOptions};
    use tower_keep::sqlx::PostgresCold;

    use crate::postgres::TestPostgres;

    use super::*;

    fn new_table() -> TableName {
        TableName::new(&format!("cold_{}", number())).unwrap()
    }

    async fn pool() -> PgPool {
        database()
            .postgres(&TestPostgres::shared().url())
            .await
            .unwrap()
    }

    pub(super) async fn place() -> Place {
        let store = PostgresCold::in_table(pool().await, &new_table())
            .await
            .unwrap();
        Place {
            store: Arc::new(store),
            _ground: Box::new(()),
        }
    }

    async fn run(pool: &PgPool, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(pool)
            .await
            .unwrap();
    }

    #[test]
    fn postgres_and_memory_answer_the_same_calls_the_same() {
        twins(25, place);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn instances_that_start_together_make_one_table() {
        let (table, pool) = (new_table(), pool().await);
        let mut instances = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (table, pool) = (table.clone(), pool.clone());
            instances.spawn(async move { PostgresCold::in_table(pool, &table).await.map(drop) });
        }
        while let Some(made) = instances.join_next().await {
            made.unwrap().unwrap();
        }
        pool.close().await;
        let again = PostgresCold::new(self::pool().await).await.unwrap();
        again.store(&[entry("a", "1", 9)]).await.unwrap();
        let other = PostgresCold::new(self::pool().await).await.unwrap();
        assert_eq!(
            load(&other, &["a"], 0).await,
            [some("1")],
            "it outlives the pool"
        );
    }

    #[tokio::test]
    async fn where_the_table_is_there_no_right_to_make_one_is_needed() {
        let (table, pool) = (new_table(), pool().await);
        PostgresCold::in_table(pool.clone(), &table).await.unwrap();
        let role = format!("guest_{table}");
        run(
            &pool,
            format!("CREATE ROLE {role} LOGIN; GRANT ALL ON {table} TO {role}"),
        )
        .await;
        run(
            &pool,
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned(),
        )
        .await;
        let guest = database()
            .postgres(&TestPostgres::shared().url_of(&role))
            .await
            .unwrap();
        let store = PostgresCold::in_table(guest.clone(), &table).await.unwrap();
        store.store(&[entry("a", "1", 9)]).await.unwrap();
        assert_eq!(load(&store, &["a"], 0).await, [some("1")]);
        let refused = PostgresCold::in_table(guest, &new_table())
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("permission denied"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_call_to_postgres_that_is_given_up_takes_no_connection_with_it() {
        let (table, pool) = (new_table(), pool().await);
        let single = PgPoolOptions::new().max_connections(1);
        let single = single.connect(&TestPostgres::shared().url()).await.unwrap();
        let store = PostgresCold::in_table(single, &table).await.unwrap();
        let mut lock = pool.begin().await.unwrap();
        let sql = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *lock)
            .await
            .unwrap();
        let rows = [entry("a", "1", 9), entry("b", "1", 9)];
        let given_up = tokio::time::timeout(Duration::from_millis(50), store.store(&rows)).await;
        assert!(given_up.is_err(), "{given_up:?}");
        let asked = keys(&["a", "b"]);
        let given_up = tokio::time::timeout(Duration::from_millis(50), store.load(&asked, 0)).await;
        assert!(given_up.is_err(), "{given_up:?}");
        lock.rollback().await.unwrap();
        store.store(&[entry("a", "2", 9)]).await.unwrap();
        assert_eq!(load(&store, &["a"], 0).await, [some("2")]);
        let found = load(&store, &["b"], 0).await;
        assert!(found == [some("1")] || found == [None], "{found:?}");
    }

    #[tokio::test]
    async fn a_sweep_passes_over_what_somebody_is_changing() {
        let (table, pool) = (new_table(), pool().await);
        let store = PostgresCold::in_table(pool.clone(), &table).await.unwrap();
        store
            .store(&[entry("a", "1", 1), entry("b", "1", 1)])
            .await
            .unwrap();
        let mut change = pool.begin().await.unwrap();
        let sql = format!("UPDATE {table} SET until_ms = 9 WHERE key = 'a'");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *change)
            .await
            .unwrap();
        assert_eq!(store.sweep(5, 10).await.unwrap(), 1, "without waiting");
        change.commit().await.unwrap();
        assert_eq!(load(&store, &["a", "b"], 5).await, [some("1"), None]);
    }
}
