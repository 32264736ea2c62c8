//! Progress streams over real sockets, spoken by hand: what a browser's `EventSource` would read.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::identity::RequestView;
use tower_keep::progress::{ProgressConfig, ProgressHub, ProgressUpdate};

/// Long enough that only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(20);

async fn serve(config: ProgressConfig) -> (ProgressHub, SocketAddr) {
    let hub = ProgressHub::new(&config, Clock::system(), Events::none()).unwrap();
    let watch = |State(hub): State<ProgressHub>, Path(id): Path<String>, request: Request| async move {
        hub.respond(&RequestView::of(&request), &id)
    };
    let app = Router::new()
        .route("/jobs/{id}", get(watch))
        .with_state(hub.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the server of a test ends with its runtime"
    )]
    tokio::spawn(async move { axum::serve(listener, app).await });
    (hub, address)
}

/// A connection on which an answer is read piece by piece. HTTP/1.0, so that the body comes as it is
/// and ends with the connection.
struct Watcher {
    socket: TcpStream,
    read: String,
}

impl Watcher {
    async fn of(address: SocketAddr, job: &str, last_event_id: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let field = last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!("GET /jobs/{job} HTTP/1.0\r\nHost: keep\r\n{field}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        Self {
            socket,
            read: String::new(),
        }
    }

    /// Reads on until `text` has come, and returns everything up to its end.
    async fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.read.find(text) {
                let rest = self.read.split_off(at + text.len());
                return std::mem::replace(&mut self.read, rest);
            }
            assert!(self.more().await, "ended before {text:?}: {:?}", self.read);
        }
    }

    /// Reads on to the end of the connection.
    async fn rest(mut self) -> String {
        while self.more().await {}
        self.read
    }

    async fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        let count = timeout(DEADLINE, self.socket.read(&mut piece))
            .await
            .unwrap()
            .unwrap();
        self.read
            .push_str(std::str::from_utf8(&piece[..count]).unwrap());
        count > 0
    }
}

fn event(id: &str, kind: &str, json: &str) -> String {
    format!("id: {id}\nevent: {kind}\ndata: {json}\n\n")
}

fn update(percent: f32) -> ProgressUpdate {
    ProgressUpdate::at(percent)
}

#[tokio::test]
async fn watchers_read_all_events_in_order_and_the_end_closes_the_body() {
    let (hub, address) = serve(ProgressConfig::default()).await;
    let job = hub.open("export").unwrap();
    let before = job
        .publish(ProgressUpdate::stage("counting\nrows"))
        .unwrap()
        .to_string();
    let mut early = Watcher::of(address, "export", None).await;
    let head = early.until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.0 200"), "{head}");
    for field in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
    }
    let first = event(&before, "progress", r#"{"message":"counting\nrows"}"#);
    assert_eq!(early.until("\n\n").await, first);

    let mut expected = String::new();
    for step in 1..=20_u8 {
        let percent = f32::from(step) * 5.0;
        let id = job.publish(update(percent)).unwrap().to_string();
        expected += &event(&id, "progress", &format!(r#"{{"percent":{percent:?}}}"#));
    }
    let result = serde_json::json!({ "href": "/exports/1" });
    let id = job
        .finish(ProgressUpdate::default().data(result))
        .unwrap()
        .to_string();
    expected += &event(&id, "finished", r#"{"data":{"href":"/exports/1"}}"#);
    assert_eq!(early.rest().await, expected);

    // Whoever comes after the end still gets everything.
    let mut late = Watcher::of(address, "export", None).await;
    late.until("\r\n\r\n").await;
    assert_eq!(late.rest().await, first + &expected);
}

#[tokio::test]
async fn a_watcher_that_comes_back_gets_exactly_the_rest() {
    let (hub, address) = serve(ProgressConfig::default()).await;
    let job = hub.open("import").unwrap();
    let ids: Vec<String> = (0..5_u8)
        .map(|step| job.publish(update(step.into())).unwrap().to_string())
        .collect();
    let mut first = Watcher::of(address, "import", None).await;
    first
        .until(&event(&ids[1], "progress", r#"{"percent":1.0}"#))
        .await;
    drop(first);
    let mut expected = String::new();
    for (step, id) in ids.iter().enumerate().skip(2) {
        expected += &event(id, "progress", &format!(r#"{{"percent":{step}.0}}"#));
    }
    let back = Watcher::of(address, "import", Some(&ids[1])).await;
    let end = job.fail("the file is no CSV").unwrap().to_string();
    expected += &event(&end, "failed", r#"{"message":"the file is no CSV"}"#);
    let answer = back.rest().await;
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, expected);
    // An `EventSource` comes back even after the end; 204 is how it is told to stop.
    let answer = Watcher::of(address, "import", Some(&end))
        .await
        .rest()
        .await;
    assert!(answer.starts_with("HTTP/1.0 204"), "{answer}");
}

#[tokio::test]
async fn a_cursor_that_was_trimmed_is_told_to_resync_and_a_bad_one_gets_everything() {
    let config = ProgressConfig {
        replay_max: 2,
        ..ProgressConfig::default()
    };
    let (hub, address) = serve(config).await;
    let job = hub.open("long").unwrap();
    let ids: Vec<String> = (0..5_u8)
        .map(|step| job.publish(update(step.into())).unwrap().to_string())
        .collect();
    drop(job);
    let trimmed = Watcher::of(address, "long", Some(&ids[0]))
        .await
        .rest()
        .await;
    let resync = event(&ids[3], "resync", "{}");
    assert!(trimmed.contains(&resync), "{trimmed}");
    let kept = trimmed.split_once(&resync).unwrap().1;
    assert!(
        kept.starts_with(&event(&ids[4], "progress", r#"{"percent":4.0}"#)),
        "{kept}"
    );
    assert!(kept.ends_with("event: aborted\ndata: {}\n\n"), "{kept}");
    for bad in ["yesterday", "1-", "-", "1-2-3", "'; DROP TABLE jobs"] {
        let answer = Watcher::of(address, "long", Some(bad)).await.rest().await;
        assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, kept, "{bad}");
    }
}

#[tokio::test]
async fn an_unknown_stream_is_not_found_and_the_answer_is_not_kept() {
    let (hub, address) = serve(ProgressConfig::default()).await;
    let answer = Watcher::of(address, "nothing", None)
        .await
        .rest()
        .await
        .to_ascii_lowercase();
    assert!(answer.starts_with("http/1.0 404"), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    assert_eq!(hub.streams(), 0, "asking makes no stream");
}

#[tokio::test]
async fn closing_the_hub_ends_open_bodies() {
    let (hub, address) = serve(ProgressConfig::default()).await;
    let job = hub.open("endless").unwrap();
    job.publish(update(1.0)).unwrap();
    let mut watcher = Watcher::of(address, "endless", None).await;
    watcher.until("event: progress").await;
    hub.close();
    watcher.rest().await;
    assert!(job.publish(update(2.0)).is_err());
}

// The handler has long returned and nothing is published any more: only the body's drop can tell.
#[tokio::test]
async fn a_watcher_that_hangs_up_frees_its_place() {
    let (hub, address) = serve(ProgressConfig::default()).await;
    let job = hub.open("one").unwrap();
    job.publish(update(1.0)).unwrap();
    let mut watcher = Watcher::of(address, "one", None).await;
    watcher.until("event: progress").await;
    assert_eq!(hub.watchers("one"), Some(1));
    drop(watcher);
    let freed = async {
        while hub.watchers("one") != Some(0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, freed).await.unwrap();
}
