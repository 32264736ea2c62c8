//! Faults that a server tells of, or that it is told to make.

use std::time::Duration;

use tower_keep::store::{Batch, Call, Command, StoreError};

use crate::redis::{Answer, Raw, TestRedis};
use crate::store::{PUT, settings, until};
use crate::store_faults::drill::Drill;
use crate::store_faults::observer::ours;
use crate::store_faults::process::{blocking, direct, pause, unhurried};
use crate::store_faults::report::Report;

/// Closes our connections, and nobody else's.
fn kill_ours(raw: &mut Raw) {
    for id in ours(&raw.must(&["CLIENT", "LIST"]).text()) {
        raw.command(&["CLIENT", "KILL", "ID", &id]);
    }
}

pub(super) async fn client_kill(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = direct("CLIENT KILL, again and again", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    for _ in 0..length.as_millis() / 50 {
        blocking(|| kill_ours(&mut raw));
        pause(Duration::from_millis(50)).await;
    }
    until("noticed", || drill.failed() > 0).await;
    drill.mend();
    drill.end().await
}

/// A server that lets us in and throws us out as fast as it can. Knocking is to remain bearable.
pub(super) async fn thrown_out(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = direct("thrown out at once", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    blocking(|| {
        let began = std::time::Instant::now();
        while began.elapsed() < length {
            if drill.pool.status().is_up() {
                kill_ours(&mut raw);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    drill.mend();
    drill.end().await
}

pub(super) async fn pause_all(length: Duration) -> Report {
    paused("CLIENT PAUSE ALL", length, "ALL").await
}

pub(super) async fn pause_writes(length: Duration) -> Report {
    paused("CLIENT PAUSE WRITE", length, "WRITE").await
}

async fn paused(fault: &'static str, length: Duration, what: &str) -> Report {
    let server = TestRedis::start();
    let drill = direct(fault, &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    let millis = length.as_millis().to_string();
    blocking(|| raw.must(&["CLIENT", "PAUSE", &millis, what]));
    pause(length).await;
    drill.mend();
    drill.end().await
}

/// A server that has to read its keys before it can answer, slowly.
pub(super) async fn loading(length: Duration) -> Report {
    const KEYS: u128 = 2_000;
    let delay = (length.as_micros() / KEYS).to_string();
    let server = TestRedis::with(&[
        "--key-load-delay",
        &delay,
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    blocking(|| {
        let fill = "for n = 1, tonumber(ARGV[1]) do redis.call('SET', 'filler:' .. n, n) end";
        let mut raw = server.raw();
        raw.must(&["EVAL", fill, "0", &KEYS.to_string()]);
        raw.must(&["SAVE"]);
    });
    let drill = direct("LOADING", &server).await;
    drill.strike();
    blocking(|| server.launch());
    drill.mend();
    blocking(|| server.ready());
    drill.end().await
}

/// The primary becomes a replica under our feet, and then a primary again.
pub(super) async fn readonly(length: Duration) -> Report {
    let (server, other) = (TestRedis::start(), TestRedis::start());
    let drill = direct("READONLY", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    let port = other.port().to_string();
    blocking(|| raw.must(&["REPLICAOF", "127.0.0.1", &port]));
    pause(length).await;
    blocking(|| raw.must(&["REPLICAOF", "NO", "ONE"]));
    drill.mend();
    drill.end().await
}

/// No memory for writes. Reads go on, so the status stays `Up`, and the figures tell.
pub(super) async fn out_of_memory(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = unhurried("OOM", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    blocking(|| raw.must(&["CONFIG", "SET", "maxmemory", "1"]));
    let refuses = || drill.pool.figures().refuses_writes;
    until("the figures tell of it", || {
        refuses().as_deref() == Some("OOM")
    })
    .await;
    pause(length).await;
    assert!(drill.pool.status().is_up());
    let get = Command::new("GET").key("caller:0");
    drill
        .pool
        .run::<Option<String>>(&get)
        .await
        .expect("reads go on");
    blocking(|| raw.must(&["CONFIG", "SET", "maxmemory", "0"]));
    drill.mend();
    until("writes pass again, and the figures tell", || {
        refuses().is_none()
    })
    .await;
    drill.end().await
}

/// A connection that is lost while there is no memory is replaced all the same.
pub(super) async fn lost_without_memory(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = unhurried("OOM, and CLIENT KILL", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    blocking(|| {
        raw.must(&["CONFIG", "SET", "maxmemory", "1"]);
        kill_ours(&mut raw);
    });
    until("noticed", || drill.trips() > 0).await;
    let figures = || drill.pool.figures();
    let refuses = || figures().refuses_writes.as_deref() == Some("OOM");
    until("up again, and the figures tell", || {
        figures().status.is_up() && refuses()
    })
    .await;
    pause(length).await;
    assert!(figures().status.is_up());
    blocking(|| raw.must(&["CONFIG", "SET", "maxmemory", "0"]));
    drill.mend();
    until("writes pass again", || figures().refuses_writes.is_none()).await;
    drill.end().await
}

/// A script that does not end. The server answers nothing at first, and then that it is busy.
pub(super) async fn busy(length: Duration) -> Report {
    let server = TestRedis::with(&["--busy-reply-threshold", "20"]);
    let drill = direct("BUSY script", &server).await;
    let mut raw = blocking(|| (server.raw(), server.raw()));
    drill.strike();
    let endless =
        std::thread::spawn(move || raw.0.try_command(&["EVAL", "while true do end", "0"]));
    pause(length).await;
    drill.mend();
    blocking(|| raw.1.must(&["SCRIPT", "KILL"]));
    let killed = blocking(|| endless.join().unwrap());
    assert!(matches!(killed, Ok(Answer::Error(_)) | Err(_)));
    drill.end().await
}

/// No place left, and the one that we had is lost.
pub(super) async fn max_clients(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = direct("max clients", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    blocking(|| {
        raw.must(&["CONFIG", "SET", "maxclients", "1"]);
        kill_ours(&mut raw);
    });
    pause(length).await;
    blocking(|| raw.must(&["CONFIG", "SET", "maxclients", "10000"]));
    drill.mend();
    drill.end().await
}

pub(super) async fn wrong_password(length: Duration) -> Report {
    const PASSWORD: &str = "open-sesame";
    let server = TestRedis::with_password(PASSWORD);
    let mut config = settings(&format!("redis://127.0.0.1:{}", server.port()));
    config.password = Some(PASSWORD.to_owned());
    let port = server.port();
    let drill = Drill::begin("wrong password", &config, port, &[port]).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    blocking(|| {
        raw.must(&["CONFIG", "SET", "requirepass", "another"]);
        kill_ours(&mut raw);
    });
    pause(length).await;
    let error = drill.pool.run::<()>(&Command::new("PING")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    for shown in [
        format!("{error} {error:?}"),
        format!("{:?}", drill.pool.figures()),
        format!("{:?} {}", drill.pool, drill.pool.status()),
    ] {
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    blocking(|| raw.must(&["CONFIG", "SET", "requirepass", PASSWORD]));
    drill.mend();
    let report = drill.end().await;
    assert!(!format!("{report:?}").contains(PASSWORD), "{report:#?}");
    report
}

pub(super) async fn flush_all(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = unhurried("FLUSHALL", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    for _ in 0..length.as_millis() / 10 {
        blocking(|| raw.must(&["FLUSHALL"]));
        pause(Duration::from_millis(10)).await;
    }
    drill.mend();
    drill.end().await
}

/// Scripts vanish again and again while many call them, alone and in batches.
pub(super) async fn scripts_flushed(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = unhurried("SCRIPT and FUNCTION FLUSH", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    for n in 0..length.as_millis() / 10 {
        blocking(|| {
            raw.must(&["SCRIPT", "FLUSH"]);
            raw.must(&["FUNCTION", "FLUSH"]);
        });
        let callers = (0..16).map(|caller| {
            let pool = drill.pool.clone();
            tokio::spawn(async move {
                let call = Call::new(&PUT).key(format!("put:{caller}")).arg(n as i64);
                let set = Command::new("SET").key("plain").arg(1);
                let batch = Batch::new().command(set).call(call.clone()).call(call);
                let answers = pool.run_all(&batch).await?;
                let texts = answers.into_iter().skip(1);
                texts
                    .map(|text| text?.read::<String>())
                    .collect::<Result<Vec<_>, _>>()
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            let texts = caller.await.unwrap().unwrap();
            assert_eq!(texts, [n.to_string(), n.to_string()]);
        }
        pause(Duration::from_millis(5)).await;
    }
    drill.mend();
    drill.end().await
}

/// The same, while somebody empties both libraries as fast as he can.
pub(super) async fn scripts_flushed_madly(length: Duration) -> Report {
    let server = TestRedis::start();
    let drill = unhurried("FLUSH without a pause", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    blocking(|| {
        let began = std::time::Instant::now();
        while began.elapsed() < length {
            raw.must(&["SCRIPT", "FLUSH"]);
            raw.must(&["FUNCTION", "FLUSH"]);
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    drill.mend();
    drill.end().await
}

/// The server drops what was used least, all the time.
pub(super) async fn eviction(length: Duration) -> Report {
    let server = TestRedis::with(&["--maxmemory-policy", "allkeys-lru"]);
    let drill = unhurried("maxmemory eviction", &server).await;
    drill.strike();
    let mut raw = blocking(|| server.raw());
    let used = raw.must(&["INFO", "memory"]).line("used_memory").unwrap();
    let most = (used.parse::<u64>().unwrap() + (2 << 20)).to_string();
    blocking(|| raw.must(&["CONFIG", "SET", "maxmemory", &most]));
    let value = vec![7_u8; 64 << 10];
    for n in 0..length.as_millis() / 5 {
        let set = Command::new("SET").key(format!("large:{n}")).arg(&value);
        drill.pool.run::<()>(&set).await.unwrap();
        pause(Duration::from_millis(5)).await;
    }
    drill.mend();
    let evicted = blocking(|| raw.must(&["INFO", "stats"]).line("evicted_keys").unwrap());
    assert_ne!(evicted, "0");
    drill.end().await
}
