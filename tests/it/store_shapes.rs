//! The pool against Redis in its larger shapes: behind Sentinels, and as a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tower_keep::store::{
    Batch, Call, Command, DownKind, RedisConfig, RedisPool, RedisStatus, StoreError,
};

use crate::redis::{Answer, TestCluster, TestRedis, TestSentinel};
use crate::store::{ECHO, Heard, PUT, Store, open, settings, until, until_up};

fn get(key: impl AsRef<[u8]>) -> Command {
    Command::new("GET").key(key)
}

fn set(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Command {
    Command::new("SET").key(key).arg(value.as_ref())
}

/// A dozen servers and their tests share this machine, and what is asked here is where commands go, not
/// how soon.
fn patient(url: &str) -> RedisConfig {
    RedisConfig {
        command_timeout: Duration::from_millis(250),
        ..settings(url)
    }
}

async fn up(url: &str) -> Store {
    let store = open(&patient(url));
    until_up(&store).await;
    store
}

/// Callers that count up their own keys for as long as it lives.
struct Load {
    enough: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<Caller>>,
}

/// What became of one caller's commands.
struct Caller {
    key: String,
    counted: u64,
    errors: Vec<StoreError>,
}

impl Load {
    fn on(pool: &RedisPool, keys: impl IntoIterator<Item = String>) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let callers = keys.into_iter().map(|key| {
            let (pool, enough) = (pool.clone(), Arc::clone(&enough));
            tokio::spawn(async move {
                let (mut counted, mut errors) = (0, Vec::new());
                while !enough.load(Ordering::Relaxed) {
                    let one_more = Command::new("INCR").key(&key);
                    match pool.run::<u64>(&one_more).await {
                        Ok(_) => counted += 1,
                        Err(error) => errors.push(error),
                    }
                    // A command every 1 or 2 ms, so that the server has time for the test as well.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Caller {
                    key,
                    counted,
                    errors,
                }
            })
        });
        Self {
            callers: callers.collect(),
            enough,
        }
    }

    async fn end(self) -> Vec<Caller> {
        self.enough.store(true, Ordering::Relaxed);
        let mut ended = Vec::new();
        for caller in self.callers {
            ended.push(caller.await.unwrap());
        }
        ended
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_follow_the_primary_that_the_sentinels_name() {
    let servers = TestSentinel::start();
    let store = up(&servers.url()).await;
    let load = Load::on(&store, ["a".to_owned()]);
    // Both are well: the old primary says READONLY from one moment to the next.
    let new = servers.fail_over();
    until_up(&store).await;
    let answered = async || store.run::<()>(&set("b", "1")).await.is_ok();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !answered().await {
        assert!(Instant::now() < deadline, "still {}", store.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What the old one took between its successor's promotion and its own demotion is lost, as always
    // with Sentinel; from here on it counts at the new place.
    let counted = || match new.raw().command(&["GET", "a"]) {
        Answer::Nil => 0,
        count => count.text().parse::<u64>().unwrap(),
    };
    let before = counted();
    until("commands go to the new primary", || counted() > before + 5).await;
    let [caller] = <[Caller; 1]>::try_from(load.end().await).ok().unwrap();
    for error in &caller.errors {
        let refused = error.code() == Some("READONLY");
        assert!(error.is_unavailable() || refused, "{error}");
    }
    assert!(caller.errors.len() < 200, "{:?}", caller.errors.last());
    let old = servers.replica();
    assert_eq!(old.clients_named("tower-keep"), 0);
    assert_eq!(new.clients_named("tower-keep"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_comes_back_is_not_believed() {
    let servers = TestSentinel::start();
    let store = up(&servers.url()).await;
    let old = servers.primary();
    let load = Load::on(&store, ["a".to_owned()]);
    old.kill();
    let new = servers.await_other_primary(old);
    // They are quick to give a server up, also the new one. Once is enough here.
    for sentinel in servers.sentinels() {
        let patient = [
            "SENTINEL",
            "SET",
            "mymaster",
            "down-after-milliseconds",
            "60000",
        ];
        sentinel.raw().must(&patient);
    }
    until_up(&store).await;
    load.end().await;
    // For seconds it takes writes and calls itself primary, until the sentinels tell it what it is.
    old.restart();
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut n = 0;
    while Instant::now() < deadline {
        n += 1;
        store.run::<()>(&set("n", n.to_string())).await.unwrap();
        assert_eq!(old.clients_named("tower-keep"), 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let value = new.raw().command(&["GET", "n"]).text();
    assert_eq!(value, n.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_name_nobody_are_told_in_words() {
    let servers = TestSentinel::start();
    let url = servers.url();
    let store = open(&patient(&url.replace("/mymaster", "/nobody")));
    let down = |status: &RedisStatus| match status {
        RedisStatus::Down { reason } => {
            reason.kind() == DownKind::NoPrimary && reason.to_string().contains("`nobody`")
        }
        _ => false,
    };
    until("no primary", || down(&store.status())).await;
    // The Sentinels are gone, their primary is not: the pool stays with what it knows.
    let store = up(&url).await;
    servers.sentinels().iter().for_each(TestRedis::kill);
    let deadline = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < deadline {
        store.run::<()>(&set("a", "1")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_one_store() {
    let cluster = TestCluster::start();
    let store = up(&cluster.url()).await;
    for n in 0..300 {
        let (key, value) = (format!("k{n}"), n.to_string());
        store.run::<()>(&set(&key, &value)).await.unwrap();
        assert_eq!(store.run(&get(&key)).await, Ok(value));
    }
    for node in cluster.nodes() {
        let keys = node.raw().command(&["DBSIZE"]).integer();
        assert!((60..=140).contains(&keys), "{keys} of 300 keys");
        assert_eq!(node.clients_named("tower-keep"), 1);
    }
    assert_eq!(store.figures().connections, 3);

    let mut batch = Batch::new();
    for n in 0..300 {
        batch = batch.command(get(format!("k{n}")));
    }
    batch = batch.command(Command::new("LPUSH").key("k7").arg("x"));
    batch = batch.call(Call::new(&PUT).key("{t}1").arg("put"));
    batch = batch.call(Call::new(&ECHO).key("k8").arg("said"));
    let mut answers = store.run_all(&batch).await.unwrap();
    for n in 0..300 {
        let answer = answers.next().unwrap().unwrap().read::<u64>();
        assert_eq!(answer, Ok(n));
    }
    let refused = answers.next().unwrap().unwrap_err();
    assert_eq!(refused.code(), Some("WRONGTYPE"));
    let put = answers.next().unwrap().unwrap().read::<String>();
    assert_eq!(put.as_deref(), Ok("put"));
    let said = answers.next().unwrap().unwrap().read();
    assert_eq!(said, Ok(("k8".to_owned(), "said".to_owned(), 1_u64)));

    let tagged = Call::new(&PUT).key("{t}1").key("{t}2").arg("both");
    assert_eq!(store.call(&tagged).await, Ok("both".to_owned()));
    for node in cluster.nodes() {
        node.raw().must(&["FUNCTION", "FLUSH"]);
    }
    assert_eq!(store.call(&tagged).await, Ok("both".to_owned()));
    let apart = Call::new(&PUT).key("a").key("b").arg("x");
    let refused = store.call::<()>(&apart).await.unwrap_err();
    assert_eq!(refused.code(), Some("CROSSSLOT"), "{refused}");

    let large = vec![7_u8; 1 << 20];
    for n in 0..16 {
        store
            .run::<()>(&set(format!("large{n}"), &large))
            .await
            .unwrap();
        let read = store.run::<Vec<u8>>(&get(format!("large{n}")).bulk()).await;
        assert_eq!(read.unwrap().len(), large.len());
    }
    for node in cluster.nodes() {
        assert!(node.clients_named("tower-keep") <= 2);
    }
    assert!(store.figures().connections <= 6);
    assert!(store.status().is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_under_load_and_nobody_notices() {
    let cluster = TestCluster::start();
    let store = up(&cluster.url()).await;
    let slot = cluster.slot_of("{a}");
    let keys = (0..8).map(|n| format!("{{a}}{n}"));
    let others = (0..8).map(|n| format!("other-{n}"));
    let load = Load::on(&store, keys.chain(others));
    let counting = async || {
        let before: u64 = store.run(&get("{a}0")).await.unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = store.run::<Option<u64>>(&get("{a}0")).await.unwrap();
            if now.is_some_and(|now| now > before + 10) {
                return;
            }
            assert!(Instant::now() < deadline, "{before} and no more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    counting().await;
    let mut from = cluster.node_of_slot(slot);
    for _ in 0..2 {
        let to = (from + 1) % 3;
        cluster.begin_move(slot, from, to);
        counting().await;
        // A key that is not there is asked for elsewhere, also within a batch and by a script.
        let batch = Batch::new()
            .command(get("{a}nobody"))
            .command(get("other-nobody"))
            .call(Call::new(&ECHO).key("{a}nobody").arg("x"));
        let answers = store.run_all(&batch).await.unwrap();
        let answers: Vec<_> = answers.collect::<Result<_, _>>().unwrap();
        assert_eq!(answers.len(), 3);
        // New keys are born at the other end.
        let born = format!("{{a}}born-{to}");
        store.run::<()>(&set(&born, "x")).await.unwrap();
        assert_eq!(store.run(&get(&born)).await, Ok("x".to_owned()));
        // The script is lost there, and loaded again on the way.
        cluster.nodes()[to].raw().must(&["FUNCTION", "FLUSH"]);
        let put = Call::new(&PUT).key("{a}scripted").arg("y");
        assert_eq!(store.call(&put).await, Ok("y".to_owned()));
        // Keys of both kinds in one command: nobody can answer until the other has come as well.
        let both = Call::new(&ECHO).key("{a}0").key("{a}nobody").arg("x");
        let refused = store.call::<()>(&both).await.unwrap_err();
        assert_eq!(refused.code(), Some("TRYAGAIN"), "{refused}");
        cluster.move_keys(slot, from, to);
        counting().await;
        cluster.end_move(slot, from, to);
        counting().await;
        from = to;
    }
    for caller in load.end().await {
        let (key, counted, errors) = (&caller.key, caller.counted, &caller.errors);
        assert!(errors.is_empty(), "{key}: {errors:?}");
        assert!(counted > 0);
        assert_eq!(store.run(&get(key)).await, Ok(counted), "{key}");
    }
    assert!(store.status().is_up());
    for node in cluster.nodes() {
        assert!(node.clients_named("tower-keep") <= 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_is_found_and_one_that_leaves_is_let_go() {
    let cluster = TestCluster::start();
    let store = up(&cluster.url()).await;
    // Else it becomes a replica when it has given its only slot away.
    let stays = ["--cluster-allow-replica-migration", "no"];
    let joining = TestRedis::with(&[["--cluster-enabled", "yes"], stays].concat());
    let first = cluster.nodes()[0].port().to_string();
    let all = || cluster.nodes().iter().chain([&joining]);
    joining.raw().must(&["CLUSTER", "SET-CONFIG-EPOCH", "9"]);
    joining
        .raw()
        .must(&["CLUSTER", "MEET", "127.0.0.1", &first]);
    let id = |node: &TestRedis| node.raw().must(&["CLUSTER", "MYID"]).text();
    let joined = |node: &TestRedis| {
        let known = node
            .raw()
            .must(&["CLUSTER", "INFO"])
            .line("cluster_known_nodes");
        let state = node.raw().must(&["CLUSTER", "INFO"]).line("cluster_state");
        known.as_deref() == Some("4") && state.as_deref() == Some("ok")
    };
    until("it has joined", || all().all(joined)).await;

    let slot = cluster.slot_of("{a}");
    let home = &cluster.nodes()[cluster.node_of_slot(slot)];
    let load = Load::on(
        &store,
        ["{a}1".to_owned(), "{a}2".to_owned(), "b".to_owned()],
    );
    let text = slot.to_string();
    let hand_over = async |from: &TestRedis, to: &TestRedis| {
        let (ours, theirs) = (id(from), id(to));
        to.raw()
            .must(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &ours]);
        from.raw()
            .must(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &theirs]);
        // Sent on to a server that has no slot yet, and is on no map.
        let nobody = store.run::<Option<String>>(&get("{a}nobody")).await;
        assert_eq!(nobody, Ok(None));
        store.run::<()>(&set("{a}born", "x")).await.unwrap();
        let mut raw = from.raw();
        loop {
            let keys = raw.must(&["CLUSTER", "GETKEYSINSLOT", &text, "10"]);
            let Some(key) = keys.array().first().map(Answer::text) else {
                break;
            };
            raw.must(&[
                "MIGRATE",
                "127.0.0.1",
                &to.port().to_string(),
                &key,
                "0",
                "5000",
            ]);
        }
        for node in [to, from].into_iter().chain(all()) {
            node.raw()
                .must(&["CLUSTER", "SETSLOT", &text, "NODE", &theirs]);
        }
    };
    hand_over(home, &joining).await;
    until("it is used", || store.figures().connections == 4).await;
    assert!(store.status().is_up());
    store.run::<()>(&set("{a}there", "x")).await.unwrap();
    assert_eq!(joining.raw().command(&["GET", "{a}there"]).text(), "x");
    hand_over(&joining, home).await;
    until("it is let go", || joining.clients_named("tower-keep") == 0).await;
    for caller in load.end().await {
        let (key, errors) = (&caller.key, &caller.errors);
        assert!(errors.is_empty(), "{key}: {errors:?}");
        assert_eq!(store.run(&get(key)).await, Ok(caller.counted), "{key}");
    }
    assert!(store.status().is_up());
    assert_eq!(store.figures().connections, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_heard_where_its_slot_is() {
    let cluster = TestCluster::start();
    let store = up(&cluster.url()).await;
    let heard = Arc::new(Heard::default());
    let channels = ["{a}news", "{b}news", "{c}news"];
    for channel in channels {
        store.subscribe(channel, Arc::<Heard>::clone(&heard));
    }
    let says = |what: &str| heard.all().iter().filter(|said| *said == what).count();
    let confirmed = |times: usize| {
        let mut subscribed = channels.iter();
        subscribed.all(|channel| says(&format!("subscribed {channel}")) >= times)
    };
    until("subscribed", || confirmed(1)).await;
    let publish = |channel: &str, text: &str| {
        let node = &cluster.nodes()[cluster.node_of_slot(cluster.slot_of(channel))];
        node.raw().must(&["SPUBLISH", channel, text]).integer()
    };
    for channel in channels {
        assert_eq!(publish(channel, channel), 1);
        until("heard", || says(channel) == 1).await;
    }
    let slot = cluster.slot_of("{a}news");
    for round in 0..2 {
        let from = cluster.node_of_slot(slot);
        cluster.move_slot(slot, from, (from + 1) % 3);
        let text = format!("round {round}");
        until("heard at the new place", || {
            says(&text) > 0 || {
                publish("{a}news", &text);
                false
            }
        })
        .await;
        assert!(says("lost") > round, "who listened knows of the gap");
    }
    for channel in &channels[1..] {
        let text = format!("{channel} still");
        until("heard as before", || {
            says(&text) > 0 || {
                publish(channel, &text);
                false
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_master_that_hangs_takes_only_its_slots_with_it() {
    let cluster = TestCluster::with(&["--cluster-require-full-coverage", "no"]);
    let store = up(&cluster.url()).await;
    let key_of = |node: usize| {
        let mut keys = (0..).map(|n| format!("key-{n}"));
        let there = |key: &String| cluster.node_of_slot(cluster.slot_of(key)) == node;
        keys.find(there).unwrap()
    };
    let keys = [key_of(0), key_of(1), key_of(2)];
    cluster.nodes()[1].stop();
    let first = store.run::<()>(&set(&keys[1], "x")).await.unwrap_err();
    assert!(first.is_unavailable(), "{first}");
    let words = |status: RedisStatus| match status {
        RedisStatus::Down { reason } => reason.to_string(),
        up => up.to_string(),
    };
    let port = cluster.nodes()[1].port();
    let told = words(store.status());
    assert!(
        told.contains(&format!("master 127.0.0.1:{port} of 3")),
        "{told}"
    );
    // Longer than the others need to find out that it fails.
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut longest = Duration::ZERO;
    while Instant::now() < deadline {
        let began = Instant::now();
        let gone = store.run::<()>(&set(&keys[1], "x")).await.unwrap_err();
        longest = longest.max(began.elapsed());
        assert!(matches!(gone, StoreError::Unavailable(_)), "{gone}");
        for other in [&keys[0], &keys[2]] {
            store.run::<()>(&set(other, "x")).await.unwrap();
        }
        let batch = keys
            .iter()
            .fold(Batch::new(), |batch, key| batch.command(get(key)));
        let answers = store.run_all(&batch).await.unwrap();
        let fine: Vec<_> = answers.map(|answer| answer.is_ok()).collect();
        assert_eq!(fine, [true, false, true]);
        assert!(store.figures().connections <= 6);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("longest wait for slots that are gone: {longest:?}");
    let at_once = Duration::from_millis(100);
    assert!(
        longest < at_once,
        "{longest:?}: nobody waits for a node that is gone"
    );
    cluster.nodes()[1].cont();
    until_up(&store).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = store.run::<()>(&set(&keys[1], "x")).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_none_and_one_that_comes_late_are_told_apart() {
    let alone = TestRedis::start();
    let url = format!("redis-cluster://127.0.0.1:{}", alone.port());
    let store = open(&patient(&url));
    let words = "ERR This instance has cluster support disabled";
    until("no cluster", || store.status().to_string().contains(words)).await;

    let cluster = TestCluster::start();
    let first = &cluster.nodes()[0];
    cluster.nodes().iter().for_each(TestRedis::kill);
    let store = open(&patient(&cluster.url()));
    until("refused", || store.status().to_string().contains("refused")).await;
    let error = store.run::<()>(&set("a", "1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    // They find each other again by what they wrote down.
    cluster.nodes().iter().for_each(TestRedis::restart);
    cluster.await_ok();
    until_up(&store).await;
    store.run::<()>(&set("a", "1")).await.unwrap();
    drop(store);
    until("closed", || first.clients_named("tower-keep") == 0).await;
}
