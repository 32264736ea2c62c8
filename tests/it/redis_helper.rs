//! The servers that other tests start: they start, do as they are told, and are gone afterwards.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::redis::{Answer, Proxy, Raw, TestCluster, TestRedis, TestSentinel, TestTls, until};

/// No answer for so long, where one usually takes a tenth of a millisecond.
const SILENCE: Duration = Duration::from_millis(100);

fn ok() -> Answer {
    Answer::Simple("OK".to_owned())
}

fn bulk(text: &str) -> Answer {
    Answer::Bulk(text.as_bytes().to_vec())
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A connection on which a test sends and listens by itself.
fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream
}

fn says_nothing(stream: &mut TcpStream) -> bool {
    let silent = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
    matches!(stream.read(&mut [0]), Err(error) if silent(error.kind()))
}

fn is_closed(stream: &mut TcpStream) -> bool {
    until("it is closed", || match stream.read(&mut [0; 64]) {
        Ok(0) => Some(true),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(true),
        _ => None,
    })
}

fn hear(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream.read_exact(&mut heard).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    assert_eq!(heard, expected);
}

#[test]
fn a_server_answers_and_is_gone_with_its_owner() {
    let began = Instant::now();
    let server = TestRedis::with(&["--maxmemory", "2mb"]);
    println!("standalone: ready after {:?}", began.elapsed());
    let mut raw = server.raw();
    assert_eq!(raw.command(&["SET", "a", "1"]), ok());
    assert_eq!(raw.command(&["GET", "a"]), bulk("1"));
    assert_eq!(raw.command(&["GET", "b"]), Answer::Nil);
    assert_eq!(raw.command(&["INCRBY", "a", "-3"]), Answer::Integer(-2));
    assert_eq!(raw.command(&[b"SET".as_slice(), b"\r\n\0", b"\xff"]), ok());
    assert_eq!(
        raw.command(&[b"GET".as_slice(), b"\r\n\0"]),
        Answer::Bulk(vec![0xff])
    );
    assert!(matches!(raw.command(&["NONSENSE"]), Answer::Error(text) if text.starts_with("ERR")));
    let limit = raw.command(&["CONFIG", "GET", "maxmemory"]);
    assert_eq!(limit.array(), [bulk("maxmemory"), bulk("2097152")]);

    let (pid, socket) = (server.pid(), server.unix_url());
    let socket = Path::new(socket.strip_prefix("unix://").unwrap()).to_owned();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!((&pong, is_running(pid)), (b"+PONG\r\n", true));
    drop(server);
    assert!(!is_running(pid) && !socket.parent().unwrap().exists());
}

#[test]
fn a_stopped_server_says_nothing_until_it_goes_on() {
    let server = TestRedis::start();
    let mut stream = dial(server.port());
    server.stop();
    stream.write_all(b"PING\r\n").unwrap();
    assert!(says_nothing(&mut stream));
    server.cont();
    hear(&mut stream, b"+PONG\r\n");

    server.stop();
    let pid = server.pid();
    drop(server);
    assert!(!is_running(pid), "killed although it was stopped");
}

#[test]
fn a_killed_server_comes_back_where_it_was() {
    let server = TestRedis::with_password("open sesame");
    let (url, pid, mut raw) = (server.url(), server.pid(), server.raw());
    assert_eq!(
        url,
        format!("redis://:open%20sesame@127.0.0.1:{}", server.port())
    );
    server.kill();
    assert!(!is_running(pid));
    assert!(raw.try_command(&["PING"]).is_err());
    assert!(Raw::connect(server.port()).is_err());

    let began = Instant::now();
    server.restart();
    println!("restart: ready after {:?}", began.elapsed());
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.raw().command(&["SET", "a", "1"]), ok());
    let stranger = Raw::connect(server.port()).unwrap().command(&["GET", "a"]);
    assert!(matches!(stranger, Answer::Error(text) if text.starts_with("NOAUTH")));
}

#[test]
fn clients_are_counted_without_the_one_that_asks() {
    let server = TestRedis::start();
    assert_eq!(server.clients(), 0);
    let mut clients: Vec<_> = (0..3).map(|_| server.raw()).collect();
    assert_eq!(clients[0].command(&["CLIENT", "SETNAME", "keep-1"]), ok());
    assert_eq!(clients[1].command(&["CLIENT", "SETNAME", "keep-2"]), ok());
    assert_eq!(clients[2].command(&["CLIENT", "SETNAME", "else"]), ok());
    assert_eq!((server.clients(), server.clients_named("keep-")), (3, 2));
    clients.truncate(1);
    until("the server sees them go", || {
        (server.clients() == 1).then_some(())
    });
}

#[test]
fn a_server_that_will_not_start_says_why() {
    let failed = std::panic::catch_unwind(|| TestRedis::with(&["--maxmemory", "plenty"]));
    let text = failed.err().unwrap().downcast::<String>().unwrap();
    assert!(
        text.contains("plenty") && text.contains("must be a memory value"),
        "{text}"
    );
}

#[test]
fn no_server_outlives_its_process_even_if_nothing_is_dropped() {
    const CHILD: &str = "TEST_REDIS_LEAVES_ONE_BEHIND";
    const NAME: &str = "redis_helper::no_server_outlives_its_process_even_if_nothing_is_dropped";
    if std::env::var_os(CHILD).is_some() {
        let server = TestRedis::start();
        println!("left {} {}", server.pid(), server.unix_url());
        std::process::abort();
    }
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this)
        .args([NAME, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output();
    let out = String::from_utf8(child.unwrap().stdout).unwrap();
    let left = out.lines().find_map(|line| line.split_once("left "));
    let (_, left) = left.expect(&out);
    let (pid, socket) = left.split_once(" unix://").expect(&out);
    let (pid, folder) = (pid.parse().unwrap(), Path::new(socket).parent().unwrap());
    until("the server and its folder are gone", || {
        (!is_running(pid) && !folder.exists()).then_some(())
    });
}

#[test]
fn sentinels_name_the_replica_when_the_primary_is_gone() {
    let began = Instant::now();
    let sentinel = TestSentinel::start();
    println!("sentinel: ready after {:?}", began.elapsed());
    let (first, second) = (sentinel.primary().port(), sentinel.replica().port());
    assert_ne!(first, second);
    assert_eq!(sentinel.primary().raw().command(&["SET", "a", "1"]), ok());
    let ports: Vec<_> = sentinel.sentinels().iter().map(TestRedis::port).collect();
    let [a, b, c] = ports[..] else {
        panic!("three")
    };
    let url = format!("redis-sentinel://127.0.0.1:{a},127.0.0.1:{b},127.0.0.1:{c}/mymaster");
    assert_eq!(sentinel.url(), url);
    until("it is copied", || {
        (sentinel.replica().raw().command(&["GET", "a"]) == bulk("1")).then_some(())
    });

    let (old, began) = (sentinel.primary(), Instant::now());
    old.kill();
    let new = sentinel.await_other_primary(old);
    println!("sentinel: another primary after {:?}", began.elapsed());
    assert_eq!(new.port(), second);
    assert_eq!(new.raw().command(&["GET", "a"]), bulk("1"));
    assert_eq!(new.raw().command(&["SET", "a", "2"]), ok());
}

#[test]
fn sentinels_exchange_two_servers_that_are_well() {
    let sentinel = TestSentinel::start();
    let (old, began) = (sentinel.primary(), Instant::now());
    let new = sentinel.fail_over();
    println!("sentinel: exchanged after {:?}", began.elapsed());
    assert_ne!(new.port(), old.port());
    assert_eq!(sentinel.replica().port(), old.port());
    let refused = old.raw().command(&["SET", "a", "1"]);
    assert!(matches!(refused, Answer::Error(text) if text.starts_with("READONLY")));
    assert_eq!(new.raw().command(&["SET", "a", "1"]), ok());
    let pids: Vec<_> = sentinel
        .sentinels()
        .iter()
        .chain([old, new])
        .map(TestRedis::pid)
        .collect();
    drop(sentinel);
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
}

#[test]
fn a_slot_moves_between_the_nodes_of_a_cluster() {
    let began = Instant::now();
    let cluster = TestCluster::start();
    println!("cluster: ready after {:?}", began.elapsed());
    let slot = cluster.slot_of("{a}1");
    assert_eq!((slot, cluster.node_of_slot(slot)), (15495, 2));
    assert_eq!(
        (cluster.node_of_slot(0), cluster.node_of_slot(16383)),
        (0, 2)
    );
    let port = |node: usize| cluster.nodes()[node].port();
    let to = |kind: &str, node| format!("{kind} {slot} 127.0.0.1:{}", port(node));
    let ask = |node: usize, words: &[&str]| match cluster.nodes()[node].raw().command(words) {
        Answer::Error(text) => text,
        answer => answer.text(),
    };
    assert_eq!(ask(2, &["MSET", "{a}1", "x", "{a}2", "y"]), "OK");
    assert_eq!(ask(0, &["GET", "{a}1"]), to("MOVED", 2));

    cluster.begin_move(slot, 2, 0);
    assert_eq!(ask(2, &["GET", "{a}1"]), "x");
    assert_eq!(ask(2, &["GET", "{a}3"]), to("ASK", 0));
    assert!(ask(2, &["MGET", "{a}1", "{a}3"]).starts_with("TRYAGAIN"));
    cluster.move_keys(slot, 2, 0);
    assert_eq!(ask(2, &["GET", "{a}1"]), to("ASK", 0));
    assert_eq!(ask(0, &["GET", "{a}1"]), to("MOVED", 2));
    let mut asking = cluster.nodes()[0].raw();
    assert_eq!(asking.command(&["ASKING"]), ok());
    assert_eq!(asking.command(&["GET", "{a}1"]), bulk("x"));
    cluster.end_move(slot, 2, 0);
    assert_eq!(
        (ask(0, &["GET", "{a}1"]), ask(0, &["GET", "{a}2"])),
        ("x".into(), "y".into())
    );
    assert_eq!(
        (ask(1, &["GET", "{a}1"]), ask(2, &["GET", "{a}1"])),
        (to("MOVED", 0), to("MOVED", 0))
    );

    let began = Instant::now();
    cluster.move_slot(slot, 0, 1);
    println!("cluster: a slot moved in {:?}", began.elapsed());
    assert_eq!(cluster.node_of_slot(slot), 1);
    assert_eq!(ask(1, &["GET", "{a}1"]), "x");

    let pids: Vec<_> = cluster.nodes().iter().map(TestRedis::pid).collect();
    drop(cluster);
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
}

#[test]
fn a_server_behind_tls_speaks_nothing_else() {
    let began = Instant::now();
    let server = TestTls::start();
    println!("TLS: ready after {:?}", began.elapsed());
    assert_eq!(
        server.url(),
        format!("rediss://127.0.0.1:{}", server.port())
    );
    // Through rustls, with the authority's certificate and no other.
    assert_eq!(server.raw().command(&["SET", "a", "1"]), ok());
    assert!(
        std::fs::read_to_string(server.ca_path())
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    let plain = Raw::connect(server.port()).unwrap().try_command(&["PING"]);
    assert!(plain.is_err(), "{plain:?}");
    server.restart();
    assert_eq!(server.raw().command(&["GET", "a"]), Answer::Nil);
}

#[test]
fn a_proxy_that_hangs_goes_on_where_it_was() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    assert_eq!(proxy.url(), format!("redis://127.0.0.1:{}", proxy.port()));
    let mut stream = dial(proxy.port());
    stream.write_all(b"PING\r\n").unwrap();
    hear(&mut stream, b"+PONG\r\n");
    assert_eq!((proxy.connections(), server.clients()), (1, 1));

    proxy.hang();
    let mut late = dial(proxy.port());
    stream.write_all(b"PING one\r\n").unwrap();
    late.write_all(b"PING two\r\n").unwrap();
    assert!(says_nothing(&mut stream) && says_nothing(&mut late));
    let gone = dial(proxy.port());
    until("all are accepted", || {
        (proxy.connections() == 3).then_some(())
    });
    (&gone).write_all(b"PING three\r\n").unwrap();
    drop(gone);
    until("who leaves is missed", || {
        (proxy.connections() == 2).then_some(())
    });
    proxy.forward();
    hear(&mut stream, b"$3\r\none\r\n");
    hear(&mut late, b"$3\r\ntwo\r\n");
    drop((stream, late));
    until("all are closed", || {
        (server.clients() == 0 && proxy.connections() == 0).then_some(())
    });
}

#[test]
fn what_a_blackhole_swallowed_stays_dead() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let mut old = dial(proxy.port());
    old.write_all(b"PING\r\n").unwrap();
    hear(&mut old, b"+PONG\r\n");
    proxy.blackhole();
    old.write_all(b"PING\r\n").unwrap();
    let mut new = dial(proxy.port());
    new.write_all(b"PING\r\n").unwrap();
    assert!(says_nothing(&mut new));
    proxy.forward();
    hear(&mut new, b"+PONG\r\n");
    assert!(says_nothing(&mut old));
    assert_eq!((proxy.connections(), server.clients()), (2, 2));
    drop(old);
    until("who leaves is missed", || {
        (server.clients() == 1 && proxy.connections() == 1).then_some(())
    });
}

#[test]
fn a_proxy_delays_each_answer_and_stops_doing_so() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let mut raw = Raw::connect(proxy.port()).unwrap();
    let mut ping = |times: u32| {
        let began = Instant::now();
        for _ in 0..times {
            raw.must(&["PING"]);
        }
        began.elapsed()
    };
    ping(1);
    proxy.delay(Duration::from_millis(30));
    assert!(ping(3) >= Duration::from_millis(90));
    let pings = || {
        let stats = server.raw().must(&["INFO", "commandstats"]);
        let calls = stats.line("cmdstat_ping").unwrap();
        let calls = calls.strip_prefix("calls=").unwrap().split(',').next();
        calls.unwrap().parse::<u32>().unwrap()
    };
    let before = pings();
    proxy.delay(Duration::from_secs(3_600));
    // A `Raw` waits for 5 s: it hears the answer only because the delay ends, also while it is on.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ping(1));
        until("the server has answered", || {
            (pings() > before).then_some(())
        });
        proxy.forward();
        waiting.join().unwrap();
    });
    ping(3);
}

#[test]
fn a_proxy_answers_nonsense_cuts_and_refuses() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let mut raw = Raw::connect(proxy.port()).unwrap();
    raw.must(&["PING"]);
    proxy.garbage();
    let error = raw.try_command(&["SET", "a", "1"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(server.raw().command(&["GET", "a"]), Answer::Nil);

    proxy.forward();
    let mut stream = dial(proxy.port());
    stream.write_all(b"PING\r\n").unwrap();
    hear(&mut stream, b"+PONG\r\n");
    proxy.cut();
    assert_eq!(proxy.connections(), 0);
    assert!(is_closed(&mut stream));

    let mut old = dial(proxy.port());
    old.write_all(b"PING\r\n").unwrap();
    hear(&mut old, b"+PONG\r\n");
    proxy.refuse();
    assert!(is_closed(&mut dial(proxy.port())));
    old.write_all(b"PING\r\n").unwrap();
    hear(&mut old, b"+PONG\r\n");

    server.kill();
    assert!(is_closed(&mut old));
    proxy.forward();
    assert!(is_closed(&mut dial(proxy.port())));
    server.restart();
    let mut again = dial(proxy.port());
    again.write_all(b"PING\r\n").unwrap();
    hear(&mut again, b"+PONG\r\n");
    drop(proxy);
    assert!(is_closed(&mut again));
}
