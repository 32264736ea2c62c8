//! The figures of several instances over one real Redis: the sum of all, exactly, whatever becomes of writes.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::{Layer, ServiceExt};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::{Event, Recorder};
use tower_keep::fleet::Fleet;
use tower_keep::metrics::{Metrics, MetricsConfig, MetricsLayer, Window};
use tower_keep::store::{Command, RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;

use crate::coherence::chance::Chance;
use crate::redis::{Proxy, TestCluster, TestRedis};
use crate::store::{patient, until_up};

const STEP: Duration = Duration::from_secs(10);

/// One instance of a service. Dropping it is killing it.
struct Instance {
    metrics: Metrics,
    fleet: Fleet,
    pool: RedisPool,
    _tasks: Tasks,
}

fn metrics(clock: &Clock) -> Metrics {
    let config = MetricsConfig {
        routes: ["/contacts/{id}", "/reports/{id}", "/idle"]
            .map(str::to_owned)
            .to_vec(),
        slow_request: Duration::from_millis(100),
        ..MetricsConfig::default()
    };
    Metrics::new(&config, clock.clone()).unwrap()
}

impl Instance {
    async fn with(redis: &RedisConfig, clock: &Clock) -> Self {
        let tasks = Tasks::new().unwrap();
        let pool = RedisPool::new(redis, &StoreParts::new(tasks.spawner())).unwrap();
        until_up(&pool).await;
        let metrics = metrics(clock);
        Self {
            fleet: Fleet::shared(metrics.clone(), pool.clone(), clock.clone()),
            metrics,
            pool,
            _tasks: tasks,
        }
    }
}

/// Lets the same happen in all of `these`: a request and an event that `chance` decides.
async fn happens(chance: &mut Chance, hand: &ManualClock, these: [&Metrics; 2]) {
    let path = ["/contacts/7", "/reports/7", "/nowhere"][chance.below(3) as usize];
    let (status, took) = (
        [200, 200, 200, 404, 500][chance.below(5) as usize],
        Duration::from_micros(1 + chance.skewed(300_000)),
    );
    let event = match chance.below(6) {
        0 => Event::CacheHit { stale: false },
        1 => Event::CacheForwarded { reason: "uri-miss" },
        2 => Event::RateLimitDenied {
            rule: "login",
            shadow: false,
        },
        3 => Event::GuardAdmitted { waited: took },
        4 => Event::QueryFinished {
            name: "all",
            took,
            slow: false,
        },
        _ => Event::ConnectionOpened,
    };
    for metrics in these {
        let hand = hand.clone();
        let inner = tower::service_fn(move |_: Request<()>| {
            hand.advance(took);
            let body = Full::<Bytes>::from("answer");
            let answer = Response::builder().status(status).body(body).unwrap();
            async { Ok::<_, Infallible>(answer) }
        });
        let service = MetricsLayer::new(metrics.clone()).layer(inner);
        let request = Request::builder().uri(path).body(()).unwrap();
        let answer = service.oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
        metrics.record(&event);
    }
}

/// All figures of a window as JSON, and how much time they cover.
fn told(figures: impl serde::Serialize) -> Value {
    let mut told = serde_json::to_value(figures).unwrap();
    let object = told.as_object_mut().unwrap();
    object.remove("instances");
    object.remove("alone");
    told
}

/// For `steps` steps everything that happens happens in one of the instances and in `whole`; then they are
/// compared in every window.
async fn live(redis: &RedisConfig, steps: u64, compared_every: u64) {
    let (clock, hand) = Clock::manual();
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::with(redis, &clock).await);
    }
    let whole = metrics(&clock);
    let mut chance = Chance::new(steps);
    let began = clock.now();
    for step in 1..=steps {
        for _ in 0..chance.below(6) {
            let one = &instances[chance.below(3) as usize].metrics;
            happens(&mut chance, &hand, [one, &whole]).await;
        }
        // To the end of the step, however long what has happened took.
        let next = began.plus(STEP * u32::try_from(step).unwrap());
        hand.advance(next.since(clock.now()));
        for instance in &instances {
            instance.fleet.turn().await;
        }
        whole.turn();
        if step % compared_every > 0 {
            continue;
        }
        for window in Window::ALL {
            let fleet = instances[step as usize % 3].fleet.window(window).await;
            assert_eq!((fleet.instances, fleet.alone.as_deref()), (3, None));
            assert_eq!(
                told(&fleet),
                told(whole.window(window)),
                "{window:?} at {step}"
            );
        }
    }
}

#[tokio::test]
async fn several_instances_are_counted_as_one_in_every_window() {
    let server = TestRedis::start();
    live(&patient(&server.url()), 800, 7).await;
    // Nothing is left longer than somebody may ask for it.
    let mut raw = server.raw();
    for key in raw.must(&["KEYS", "*{fleet}*"]).array() {
        let key = key.text();
        let ends = raw.must(&["PTTL", &key]).integer();
        assert!((1..=14 * 300_000).contains(&ends), "{key} {ends}");
    }
}

#[tokio::test]
async fn a_cluster_does_it_as_well() {
    let cluster = TestCluster::start();
    live(&patient(&cluster.url()), 40, 9).await;
}

#[tokio::test]
async fn what_could_not_be_left_is_left_later_and_counts_once() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let (clock, hand) = Clock::manual();
    let cut_off = Instance::with(&patient(&proxy.url()), &clock).await;
    let other = Instance::with(&patient(&server.url()), &clock).await;
    let whole = metrics(&clock);
    let mut chance = Chance::new(5);
    let began = clock.now();
    for step in 0..120 {
        for instance in [&cut_off, &other] {
            happens(&mut chance, &hand, [&instance.metrics, &whole]).await;
        }
        hand.advance(began.plus(STEP * (step + 1)).since(clock.now()));
        match step % 10 {
            // Its answers are lost, its commands are not, or they are; nobody knows.
            3 => proxy.cut(),
            5 => {
                let alone = cut_off.fleet.window(Window::Minute).await;
                assert_eq!(alone.instances, 1);
                assert!(alone.alone.is_some(), "says why");
                assert_eq!(told(alone), told(cut_off.metrics.window(Window::Minute)));
            }
            6 => {
                proxy.forward();
                until_up(&cut_off.pool).await;
            }
            _ => {}
        }
        cut_off.fleet.turn().await;
        other.fleet.turn().await;
        whole.turn();
        if !matches!(step % 10, 2 | 6..) {
            continue;
        }
        for window in Window::ALL {
            let fleet = other.fleet.window(window).await;
            let (fleet, whole) = (told(fleet), told(whole.window(window)));
            assert_eq!(fleet, whole, "{window:?} at {step}");
        }
    }
}

/// Who is gone has left a frame that was not yet full of each length, and for a while nobody but it has counted.
#[tokio::test]
async fn an_instance_that_is_gone_counts_until_the_window_has_passed_it() {
    const LIVED: u64 = 40;
    let server = TestRedis::start();
    let (clock, hand) = Clock::manual();
    let gone = Instance::with(&patient(&server.url()), &clock).await;
    let stays = Instance::with(&patient(&server.url()), &clock).await;
    for _ in 0..LIVED {
        gone.metrics.record(&Event::CacheCollapsed);
        hand.advance(STEP);
        gone.fleet.turn().await;
        stays.fleet.turn().await;
    }
    drop(gone);
    for step in LIVED..LIVED + 370 {
        // All that it counted in frames that end within the window.
        let left = |frame: u64, window: u64| {
            let within = |end: u64| (end + window > step).then(|| end - (end - 1) / frame * frame);
            let ends = (1..=LIVED).filter(|end| end % frame == 0 || *end == LIVED);
            ends.filter_map(within).sum::<u64>()
        };
        for (window, counted) in
            Window::ALL
                .into_iter()
                .zip([left(1, 6), left(6, 30), left(30, 360)])
        {
            let fleet = stays.fleet.window(window).await;
            let instances = if counted > 0 { 2 } else { 1 };
            let own = stays.metrics.window(window).figures.cache.collapsed;
            assert_eq!(
                (fleet.instances, fleet.figures.figures.cache.collapsed),
                (instances, counted + own),
                "{window:?} at {step}"
            );
        }
        stays.metrics.record(&Event::CacheCollapsed);
        hand.advance(STEP);
        stays.fleet.turn().await;
    }
}

#[tokio::test]
async fn what_others_have_written_there_is_left_aside() {
    let server = TestRedis::start();
    let (clock, hand) = Clock::manual();
    let instance = Instance::with(&patient(&server.url()), &clock).await;
    instance.metrics.record(&Event::CacheCollapsed);
    hand.advance(STEP);
    instance.fleet.turn().await;
    let key = server.raw().must(&["KEYS", "*{fleet}*:0:*"]).array()[0].text();
    for (field, bytes) in [("a", &b""[..]), ("b", b"\xff\xff\xff"), ("c", &[0x80; 300])] {
        let set = Command::new("HSET").key(&key).arg(field).arg(bytes);
        instance.pool.run::<u64>(&set).await.unwrap();
    }
    let minute = instance.fleet.window(Window::Minute).await;
    assert_eq!(
        (minute.instances, minute.figures.figures.cache.collapsed),
        (1, 1)
    );
    // A value of another kind under the key: the figures are our own, and say why.
    let set = Command::new("SET").key(&key).arg("text");
    instance.pool.run::<()>(&set).await.unwrap();
    let minute = instance.fleet.window(Window::Minute).await;
    assert!(minute.alone.is_some_and(|why| why.contains("WRONGTYPE")));
}

#[tokio::test]
async fn keeps_find_each_other() {
    use tower_keep::{Keep, Profile};
    let server = TestRedis::start();
    let keep = || {
        let builder = Keep::builder(Profile::development());
        builder
            .redis(|redis| *redis = patient(&server.url()))
            .build()
            .unwrap()
    };
    let (one, two) = (keep(), keep());
    for keep in [&one, &two] {
        until_up(keep.redis()).await;
        keep.events().emit(Event::CacheCollapsed);
        keep.fleet().turn().await;
    }
    let minute = one.fleet().window(Window::Minute).await;
    assert_eq!(
        (minute.instances, minute.figures.figures.cache.collapsed),
        (2, 2)
    );
}
