//! A primary, its replica, and the sentinels that choose between them.

use std::time::Duration;

use super::folder::Folder;
use super::raw::{Answer, Raw};
use super::server::{Plan, TestRedis};
use super::wait::{PATIENCE, until, within};

/// The name under which the sentinels know the two.
const NAME: &str = "mymaster";
const SENTINELS: usize = 3;

/// Two servers and three sentinels, of which two must agree. Dropping it kills them all.
pub struct TestSentinel {
    sentinels: Vec<TestRedis>,
    servers: [TestRedis; 2],
}

impl TestSentinel {
    /// Ready when every sentinel knows the replica and the other sentinels.
    pub fn start() -> Self {
        let primary = TestRedis::start();
        let replica = primary.replica();
        let watch = |_| {
            let make = |folder: &Folder, port| arguments(folder, port, primary.port());
            let sentinel = TestRedis::launch_as(Plan::default(), make);
            hasten(&sentinel);
            sentinel
        };
        let sentinels = (0..SENTINELS).map(watch).collect();
        let all = Self {
            sentinels,
            servers: [primary, replica],
        };
        for sentinel in &all.sentinels {
            let mut raw = sentinel.raw();
            until("the sentinels know all", || {
                knows_all(&mut raw).then_some(())
            });
        }
        all.sentinels.iter().for_each(calm);
        all
    }

    /// `redis-sentinel://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT/mymaster`
    pub fn url(&self) -> String {
        let place = |sentinel: &TestRedis| format!("127.0.0.1:{}", sentinel.port());
        let places: Vec<_> = self.sentinels.iter().map(place).collect();
        format!("redis-sentinel://{}/{NAME}", places.join(","))
    }

    /// The sentinels themselves, in the order of [`url`](Self::url).
    pub fn sentinels(&self) -> &[TestRedis] {
        &self.sentinels
    }

    /// The server that the sentinels name at this moment.
    pub fn primary(&self) -> &TestRedis {
        let named = self
            .sentinels
            .iter()
            .find_map(|sentinel| named(&mut sentinel.try_raw().ok()?));
        self.at(named.expect("a sentinel that answers"))
    }

    /// The other one.
    pub fn replica(&self) -> &TestRedis {
        let primary = self.primary().port();
        let other = self.servers.iter().find(|server| server.port() != primary);
        other.expect("there are two")
    }

    /// Waits until every sentinel that answers names another server than this one, and that server
    /// calls itself primary. After SIGKILL or SIGSTOP this takes about a second.
    pub fn await_other_primary(&self, than: &TestRedis) -> &TestRedis {
        let other = within(PATIENCE, &mut || {
            let named = |sentinel: &TestRedis| named(&mut sentinel.try_raw().ok()?);
            let named: Vec<_> = self.sentinels.iter().filter_map(named).collect();
            let first = *named.first()?;
            let agreed = first != than.port() && named.iter().all(|&port| port == first);
            let server = agreed.then(|| self.at(first))?;
            (role(server)? == "master").then_some(server)
        });
        other.unwrap_or_else(|| {
            let logs: Vec<_> = self.sentinels.iter().map(TestRedis::log).collect();
            panic!(
                "{PATIENCE:?} and still no other primary:\n{}",
                logs.join("\n")
            )
        })
    }

    /// Lets the sentinels exchange the two although both are well; returns the new primary when the
    /// old one is a replica that refuses writes. Takes a second and a half.
    pub fn fail_over(&self) -> &TestRedis {
        let old = self.primary();
        self.sentinels[0]
            .raw()
            .must(&["SENTINEL", "FAILOVER", NAME]);
        let new = self.await_other_primary(old);
        self.sentinels.iter().for_each(hasten);
        until("the old primary is a replica", || {
            (role(old)? == "slave").then_some(())
        });
        self.sentinels.iter().for_each(calm);
        new
    }

    /// For how long a server may be silent before the sentinels take it for dead: 300 ms from the start. With
    /// a longer time than it ever is, nobody is promoted because the machine is busy.
    pub fn set_patience(&self, patience: Duration) {
        let millis = patience.as_millis().to_string();
        let words = ["SENTINEL", "SET", NAME, "down-after-milliseconds", &millis];
        for sentinel in &self.sentinels {
            sentinel.raw().must(&words);
        }
    }

    fn at(&self, port: u16) -> &TestRedis {
        let server = self.servers.iter().find(|server| server.port() == port);
        server.expect("one of the two")
    }
}

/// A sentinel reads and rewrites a file of its own.
fn arguments(folder: &Folder, port: u16, primary: u16) -> Vec<String> {
    let text = format!(
        "port {port}\n\
         bind 127.0.0.1\n\
         dir {dir}\n\
         sentinel monitor {NAME} 127.0.0.1 {primary} {quorum}\n\
         sentinel down-after-milliseconds {NAME} 300\n\
         sentinel failover-timeout {NAME} 2000\n",
        dir = folder.file(""),
        quorum = SENTINELS / 2 + 1,
    );
    let file = folder.file("sentinel.conf");
    std::fs::write(&file, text).expect("its configuration");
    vec![file, "--sentinel".to_owned()]
}

/// Shortens the periods that are seconds by default, so that they soon see what is, and each other.
/// Redis 7 can; an older one takes its time.
fn hasten(sentinel: &TestRedis) {
    set(
        sentinel,
        &[("info-period", "100"), ("publish-period", "100")],
    );
}

/// Lengthens what must be short only while they look.
///
/// Whom they choose must have told of itself within three info periods, and a server that calls itself
/// primary without being chosen is made a replica after four publish periods. While they exchange two
/// servers they ask once a second, whatever the periods: with shorter ones nobody is good enough, or
/// the others undo what the first has done. So an old primary that comes back takes writes for 4 s,
/// where it is 8 s by default.
fn calm(sentinel: &TestRedis) {
    set(
        sentinel,
        &[("info-period", "1000"), ("publish-period", "1000")],
    );
}

fn set(sentinel: &TestRedis, periods: &[(&str, &str)]) {
    // They ask each other soon whether the primary is gone. One that was starved for 2 s trusts nothing
    // for a while, 30 s by default: too long for a busy machine.
    let mut words = vec![
        "SENTINEL",
        "DEBUG",
        "ask-period",
        "100",
        "tilt-period",
        "1000",
    ];
    words.extend(periods.iter().flat_map(|&(name, value)| [name, value]));
    if let Ok(mut raw) = sentinel.try_raw() {
        let _ = raw.try_command(&words);
    }
}

/// Whether a sentinel sees the primary, the other sentinels, and a replica that could take over.
fn knows_all(raw: &mut Raw) -> bool {
    let field = |answer: &Answer, name: &str| {
        let words = answer.array();
        let pair = words.chunks_exact(2).find(|pair| pair[0].text() == name);
        pair.map(|pair| pair[1].text()).unwrap_or_default()
    };
    let primary = raw.must(&["SENTINEL", "MASTER", NAME]);
    let replicas = raw.must(&["SENTINEL", "REPLICAS", NAME]);
    field(&primary, "flags") == "master"
        && field(&primary, "num-other-sentinels") == (SENTINELS - 1).to_string()
        && replicas.array().iter().any(|replica| {
            field(replica, "flags") == "slave" && field(replica, "master-link-status") == "ok"
        })
}

/// The port of the primary, in the words of a sentinel.
fn named(raw: &mut Raw) -> Option<u16> {
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
    raw.try_command(&words)
        .ok()?
        .array()
        .get(1)?
        .text()
        .parse()
        .ok()
}

/// What a server is, in its own words.
fn role(server: &TestRedis) -> Option<String> {
    let role = server.try_raw().ok()?.try_command(&["ROLE"]).ok()?;
    Some(role.array().first()?.text())
}
