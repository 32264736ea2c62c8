//! What goes out: the text formats, to scrapers of all kinds; the recorder of the `metrics` crate; `tracing`.

use std::convert::Infallible;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_keep::clock::Clock;
use tower_keep::metrics::{MetricNames, Metrics, MetricsConfig, MetricsLayer};

use crate::metrics::record_one_of_each;
use crate::prometheus_text::Scrape;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0");

/// Metrics of so many routes, with requests of every class to each, one of every event, and a gauge.
async fn busy(routes: usize, names: MetricNames) -> Metrics {
    let config = MetricsConfig {
        routes: (0..routes)
            .map(|route| format!("/route/{route}/{{id}}"))
            .collect(),
        names,
        ..MetricsConfig::default()
    };
    let (clock, hand) = Clock::manual();
    let metrics = Metrics::new(&config, clock).unwrap();
    let service = tower::service_fn(move |request: Request<u16>| {
        hand.advance(Duration::from_micros(u64::from(*request.body()).pow(2)));
        async move {
            let answer = Response::builder().status(*request.body());
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).unwrap())
        }
    });
    let service = MetricsLayer::new(metrics.clone()).layer(service);
    for route in 0..routes {
        for (method, status) in [("GET", 200), ("GET", 302), ("PUT", 404), ("PUT", 503)] {
            let path = format!("/route/{route}/7");
            let request = Request::builder().method(method).uri(path);
            let request = request.body(status).unwrap();
            service.clone().oneshot(request).await.unwrap();
        }
    }
    let lost = Request::builder().uri("/nowhere").body(404).unwrap();
    service.oneshot(lost).await.unwrap();
    record_one_of_each(&metrics);
    let help = "A \\ and a \"quote\".";
    metrics.gauge("odd_bytes", help, || 4096.5).unwrap();
    metrics
}

async fn scraped(metrics: &Metrics, accept: Option<&HeaderValue>) -> (String, String) {
    let response = metrics.scrape(accept).into_response();
    let content_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (content_type, String::from_utf8(text.to_vec()).unwrap())
}

/// Says what was not checked. Straight to the process' own error output: what a test that passes prints is not shown.
pub fn not_checked(program: &str, what: &str) {
    let line = format!(
        "not checked, {program} is missing (on Debian: apt-get install prometheus): {what}\n"
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// What `promtool` says; nothing where it is not installed, which leaves the strict reader.
pub fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        not_checked("promtool", &format!("promtool {}", arguments.join(" ")));
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Some((output.status.success(), said))
}

#[tokio::test]
async fn both_formats_tell_the_same_and_strict_readers_take_them() {
    for names in [MetricNames::Keep, MetricNames::OpenTelemetry] {
        let metrics = busy(20, names).await;
        let (content_type, text) = scraped(&metrics, None).await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        let (content_type, open) = scraped(&metrics, Some(&OPEN_METRICS)).await;
        assert_eq!(
            content_type,
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        assert_eq!(text, metrics.prometheus());
        assert!(open.contains("# UNIT odd_bytes bytes\n"));
        let (text_read, open_read) = (Scrape::of(&text), Scrape::of_open_metrics(&open));
        assert!(text_read.len() > 400, "{}", text_read.len());
        assert_eq!(text_read.samples(), open_read.samples());
        if let Some((right, said)) = promtool(&["check", "metrics"], &text) {
            assert!(right, "promtool says: {said}");
        }
    }
}

#[tokio::test]
async fn open_telemetrys_names_have_its_labels() {
    let metrics = busy(1, MetricNames::OpenTelemetry).await;
    let scrape = Scrape::of(&metrics.prometheus());
    let (route, get) = (
        r#"http_route="/route/0/{id}""#,
        r#"http_request_method="GET""#,
    );
    let put = r#"http_request_method="PUT""#;
    let failed = r#"http_response_status_code="5xx",error_type="5xx""#;
    for (series, value) in [
        (
            format!("keep_http_requests_total{{{route},{get},http_response_status_code=\"2xx\"}}"),
            1.0,
        ),
        (
            format!("keep_http_requests_total{{{route},{put},{failed}}}"),
            1.0,
        ),
        // What matched no template has no route.
        (
            format!("keep_http_requests_total{{{get},http_response_status_code=\"4xx\"}}"),
            1.0,
        ),
        (
            format!("http_server_request_duration_seconds_count{{{route},{get}}}"),
            2.0,
        ),
        // 200² + 302² µs.
        (
            format!("http_server_request_duration_seconds_sum{{{route},{get}}}"),
            0.131_204,
        ),
        (
            format!("http_server_request_duration_seconds_count{{{get}}}"),
            1.0,
        ),
    ] {
        assert!(scrape.samples().contains_key(&series), "{series}");
        assert_eq!(scrape.value(&series), value, "{series}");
    }
    assert_eq!(
        scrape.series("http_server_active_requests"),
        [
            format!("http_server_active_requests{{{get}}}"),
            format!("http_server_active_requests{{{put}}}")
        ]
    );
    let limits = scrape.series(&format!(
        "http_server_request_duration_seconds_bucket{{{route},{get}"
    ));
    assert_eq!(limits.len(), 15, "the fourteen advised ones, and +Inf");
    assert!(
        scrape
            .series("keep_http_request_duration_seconds")
            .is_empty()
    );
}

/// A thread has one worker: what a scrape does not give up, nobody else gets.
#[tokio::test(flavor = "current_thread")]
async fn others_run_while_a_large_text_is_written() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let metrics = busy(500, MetricNames::Keep).await;
    let turns = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&turns);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let mut body = metrics.scrape(None).into_body();
    let (mut pieces, mut longest, mut bytes) = (0, 0, 0);
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        (pieces, bytes) = (pieces + 1, bytes + piece.len());
        longest = longest.max(piece.len());
    }
    assert!(bytes > 1 << 20, "{bytes}");
    assert!(longest < 40 << 10, "{longest}");
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns + 1 >= pieces, "{turns} turns in {pieces} pieces");
}

#[cfg(feature = "axum")]
mod served {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::HeaderMap;
    use http::header::ACCEPT;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    use super::*;

    /// A service that shows `metrics` at the returned address, for as long as the set lives.
    async fn serve(metrics: Metrics) -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
        let handler = get(async move |fields: HeaderMap| {
            metrics
                .scrape(fields.get(ACCEPT))
                .into_response()
                .map(Body::new)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = tokio::task::JoinSet::new();
        let router = Router::new().route("/metrics", handler);
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        (address, server)
    }

    #[tokio::test]
    async fn scrapers_get_the_format_they_ask_for_over_the_wire() {
        let metrics = busy(200, MetricNames::Keep).await;
        let expected = metrics.prometheus();
        let (address, _server) = serve(metrics).await;
        let site = format!("http://{address}/metrics");
        let client = Client::builder(TokioExecutor::new()).build_http();
        for (accept, open) in [
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            ("*/*", false),
            ("application/openmetrics-text;q=oops", false),
            (&*"a/b,".repeat(2_000), false),
        ] {
            let request = Request::builder().uri(&site).header("accept", accept);
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let response = client.request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["cache-control"], "no-store");
            let content_type = response.headers()["content-type"].to_str().unwrap();
            assert_eq!(
                content_type.starts_with("application/openmetrics-text"),
                open
            );
            let text = response.into_body().collect().await.unwrap().to_bytes();
            let text = std::str::from_utf8(&text).unwrap();
            if open {
                let read = Scrape::of_open_metrics(text);
                assert_eq!(read.samples(), Scrape::of(&expected).samples());
            } else {
                assert_eq!(text, expected);
            }
        }
    }

    /// A running Prometheus, which ends with its owner.
    struct Prometheus {
        process: std::process::Child,
        folder: std::path::PathBuf,
    }

    impl Drop for Prometheus {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    /// One that scrapes `target` every second and answers at `port`; nothing where it is not installed.
    fn prometheus(target: std::net::SocketAddr, port: u16) -> Option<Prometheus> {
        let name = format!("keep-prometheus-{}-{port}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "scrape_configs:\n- job_name: keep\n  scrape_interval: 1s\n  static_configs:\n  \
             - targets: ['{target}']\n"
        );
        let path = folder.join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            not_checked("prometheus", "that a running Prometheus reads every series");
            let _ = std::fs::remove_dir_all(&folder);
            return None;
        };
        Some(Prometheus { process, folder })
    }

    /// Prometheus asks for OpenMetrics, so this is that format's real reader.
    #[tokio::test]
    async fn prometheus_itself_reads_every_series_where_it_is_installed() {
        let metrics = busy(20, MetricNames::Keep).await;
        let series = Scrape::of(&metrics.prometheus()).len();
        let (address, _server) = serve(metrics).await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let Some(_prometheus) = prometheus(address, port) else {
            return;
        };
        let client = Client::builder(TokioExecutor::new()).build_http();
        let ask = async |query: &str| {
            let site = format!("http://127.0.0.1:{port}/api/v1/{query}");
            let request = Request::builder().uri(site).body(Full::<Bytes>::default());
            let response = client.request(request.unwrap()).await.ok()?;
            let body = response.into_body().collect().await.ok()?.to_bytes();
            serde_json::from_slice::<serde_json::Value>(&body).ok()
        };
        let until_there = async |query: &str, pointer: &str| {
            let deadline = tokio::time::timeout(Duration::from_secs(60), async {
                loop {
                    let answer = ask(query).await.unwrap_or_default();
                    if let Some(value) = answer.pointer(pointer) {
                        return value.clone();
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            deadline
                .await
                .unwrap_or_else(|_| panic!("nothing at {pointer} for {query}"))
        };
        let value = "/data/result/0/value/1";
        let scraped = until_there("query?query=scrape_samples_scraped", value).await;
        assert_eq!(scraped, series.to_string());
        // 200² + 302² µs, at most 3 s: both of them.
        let below = "query?query=keep_http_request_duration_seconds_bucket%7Ble%3D%223.0%22%2Cmethod%3D%22GET%22%2C\
                     route%3D~%22.*%2F7%2F.*%22%7D";
        assert_eq!(until_there(below, value).await, "2");
        let unit = until_there("targets/metadata?metric=odd_bytes", "/data/0/unit").await;
        assert_eq!(unit, "bytes", "only OpenMetrics tells units");
    }
}

#[cfg(feature = "metrics-facade")]
mod facade {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use ::metrics::{
        Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
    use tower_keep::event::Event;
    use tower_keep::metrics::FacadeBridge;
    use tower_keep::{Keep, Profile};

    use super::*;

    /// What the recorder was told since it was last asked: single figures, and the records of histograms.
    #[derive(Debug, Default)]
    struct Told {
        figures: BTreeMap<String, f64>,
        records: BTreeMap<String, Vec<f64>>,
    }

    fn told(snapshotter: &Snapshotter) -> Told {
        let mut told = Told::default();
        for (key, unit, help, value) in snapshotter.snapshot().into_vec() {
            let labels = key.key().labels();
            let labels: Vec<_> = labels
                .map(|l| format!("{}={:?}", l.key(), l.value()))
                .collect();
            let name = key.key().name();
            let series = if labels.is_empty() {
                name.to_owned()
            } else {
                format!("{name}{{{}}}", labels.join(","))
            };
            assert!(help.is_some() && unit.is_none(), "{series}");
            match value {
                DebugValue::Counter(count) => told.figures.insert(series, count as f64),
                DebugValue::Gauge(level) => told.figures.insert(series, level.into_inner()),
                DebugValue::Histogram(values) => {
                    let values = values.into_iter().map(f64::from).collect();
                    told.records.insert(series, values);
                    None
                }
            };
        }
        told
    }

    fn publish(bridge: &mut FacadeBridge, recorder: &DebuggingRecorder) {
        ::metrics::with_local_recorder(recorder, || bridge.publish());
    }

    #[tokio::test]
    async fn every_tick_tells_what_is_new_and_nothing_twice() {
        // More rows than are told in one turn.
        let metrics = busy(40, MetricNames::Keep).await;
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let mut bridge = FacadeBridge::new(&metrics);
        let mut records = BTreeMap::<String, Vec<f64>>::new();
        for round in 0..5 {
            publish(&mut bridge, &recorder);
            let told = told(&snapshotter);
            let scrape = Scrape::of(&metrics.prometheus());
            // Every figure that is written is told, by the same name, labels and value.
            let of_histograms = |series: &str| {
                told.records.keys().any(|key| {
                    let name = key.split('{').next().unwrap();
                    series.starts_with(name)
                })
            };
            let figures = scrape
                .samples()
                .iter()
                .filter(|(series, _)| !of_histograms(series));
            let figures: BTreeMap<_, _> = figures.map(|(k, v)| (k.clone(), *v)).collect();
            assert!(figures.len() > 60);
            assert_eq!(told.figures, figures, "in round {round}");
            for (series, new) in told.records {
                records.entry(series).or_default().extend(new);
            }
            for (series, values) in &records {
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let labels = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{labels}")
                };
                let count = scrape.value(&format!("{name}_count{labels}"));
                let sum = scrape.value(&format!("{name}_sum{labels}"));
                assert_eq!(values.len() as f64, count, "{series}");
                let told: f64 = values.iter().sum();
                assert!(
                    (told - sum).abs() <= sum * 0.05 + count * 1e-6,
                    "{told} for {sum}: {series}"
                );
            }
            if round < 3 {
                record_one_of_each(&metrics);
            }
        }
    }

    /// Counts the records of all histograms.
    #[derive(Debug, Default)]
    struct Records(AtomicUsize);

    impl HistogramFn for Records {
        fn record(&self, _: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Counting(Arc<Records>);

    impl Recorder for Counting {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
            ::metrics::Histogram::from_arc(Arc::clone(&self.0))
        }
    }

    /// Recorders take the records of a bucket one by one.
    #[tokio::test(flavor = "current_thread")]
    async fn others_run_while_a_recorder_takes_many_records() {
        const WAITS: usize = 100_000;
        let metrics = busy(0, MetricNames::Keep).await;
        let admitted = Event::GuardAdmitted {
            waited: Duration::from_millis(1),
        };
        for _ in 0..WAITS {
            tower_keep::event::Recorder::record(&metrics, &admitted);
        }
        let counting = Counting(Arc::default());
        let records = Arc::clone(&counting.0);
        let _local = ::metrics::set_default_local_recorder(&counting);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(FacadeBridge::new(&metrics).run(Duration::from_secs(60)));
        let (mut told, mut most) = (0, 0);
        while told < WAITS {
            tokio::task::yield_now().await;
            let now = records.0.load(Ordering::Relaxed);
            most = most.max(now - told);
            told = now;
        }
        assert!(most <= 2_000, "{most} at once");
    }

    /// Panics at the first series that it is to register, and wherever a histogram's record is told.
    struct Moody(DebuggingRecorder, AtomicBool);

    struct Hates;

    impl HistogramFn for Hates {
        fn record(&self, _: f64) {
            panic!("no record is welcome");
        }
    }

    impl Recorder for Moody {
        fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
            self.0.describe_counter(name, unit, help);
        }
        fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
            self.0.describe_gauge(name, unit, help);
        }
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
            assert!(self.1.swap(true, Ordering::Relaxed), "the first one");
            self.0.register_counter(key, metadata)
        }
        fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
            self.0.register_gauge(key, metadata)
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
            ::metrics::Histogram::from_arc(Arc::new(Hates))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_recorder_or_of_a_gauge_takes_no_figure_away_for_good() {
        let metrics = busy(1, MetricNames::Keep).await;
        let read = AtomicBool::default();
        let moody = move || {
            assert!(read.swap(true, Ordering::Relaxed), "at first");
            1.0
        };
        metrics.gauge("moody", "Panics once.", moody).unwrap();
        let never = || panic!("again and again");
        metrics.gauge("always", "Panics.", never).unwrap();
        let recorder = Moody(DebuggingRecorder::new(), AtomicBool::default());
        let snapshotter = recorder.0.snapshotter();
        let _local = ::metrics::set_default_local_recorder(&recorder);
        let mut tasks = tokio::task::JoinSet::new();
        // As often as a timer can: not at all is no period.
        tasks.spawn(FacadeBridge::new(&metrics).run(Duration::ZERO));
        // What panicked is told at the next tick, if it does not panic then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = told(&snapshotter).figures;
        assert_eq!(told["moody"], 1.0);
        assert_eq!(told["keep_cache_collapsed_total"], 1.0);
        let first = "keep_http_requests_total";
        assert!(told.keys().any(|series| series.starts_with(first)));
    }

    #[tokio::test]
    async fn a_recorder_that_comes_late_gets_counters_whole_and_no_old_records() {
        let metrics = busy(1, MetricNames::Keep).await;
        let mut bridge = FacadeBridge::new(&metrics);
        // Nobody listens.
        bridge.publish();
        let recorder = DebuggingRecorder::new();
        publish(&mut bridge, &recorder);
        let first = told(&recorder.snapshotter());
        assert_eq!(first.figures["keep_cache_collapsed_total"], 1.0);
        assert!(first.records.values().all(Vec::is_empty));
        record_one_of_each(&metrics);
        publish(&mut bridge, &recorder);
        let second = told(&recorder.snapshotter());
        assert_eq!(second.figures["keep_cache_collapsed_total"], 2.0);
        assert_eq!(second.records["keep_database_wait_seconds"].len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_keep_tells_the_recorder_every_ten_seconds() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _local = ::metrics::set_default_local_recorder(&recorder);
        let keep = Keep::builder(Profile::development())
            .metrics(|metrics| metrics.facade = true)
            .build()
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = told(&snapshotter).figures["keep_warnings_total"];
        keep.events().emit(Event::Warning { text: "odd" });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(
            told(&snapshotter).figures["keep_warnings_total"],
            0.0,
            "drained, not told again"
        );
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(
            told(&snapshotter).figures["keep_warnings_total"],
            before + 1.0
        );
        keep.shutdown().await;
    }
}
