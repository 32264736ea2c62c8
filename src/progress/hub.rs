//! All streams of a process, by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderName, Response, StatusCode};

use crate::clock::{Clock, Moment};
use crate::connections::{ConnectionSlot, Connections};
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::identity::{CallerResolver, RequestView};
use crate::progress::config::ProgressConfig;
use crate::progress::error::ProgressError;
use crate::progress::id::EventId;
use crate::progress::publisher::{Progress, wall_ms};
use crate::progress::sse::{SseBody, empty_response, refused_response, sse_response};
use crate::progress::stream::Stream;
use crate::progress::subscription::Subscription;
use crate::refusal::Refusal;

/// Opens streams and finds them again. Cheap to clone; all clones hold the same streams.
#[derive(Clone)]
pub struct ProgressHub {
    shared: Arc<Shared>,
    /// Where watchers take a slot, if anywhere, and who they are.
    connections: Option<(Connections, CallerResolver)>,
}

struct Shared {
    config: ProgressConfig,
    clock: Clock,
    events: Events,
    streams: Mutex<Streams>,
}

struct Streams {
    by_name: HashMap<Arc<str>, Arc<Stream>>,
    swept: Moment,
    closed: bool,
}

impl ProgressHub {
    /// A hub without streams.
    ///
    /// # Errors
    ///
    /// Every number in `config` that cannot be meant.
    pub fn new(config: &ProgressConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("progress", &mut faults);
        faults.into_result()?;
        let streams = Streams {
            by_name: HashMap::new(),
            swept: clock.now(),
            closed: false,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                clock,
                events,
                streams: Mutex::new(streams),
            }),
            connections: None,
        })
    }

    /// Opens the stream `id` for one publisher. Open it before the watcher is told its name.
    ///
    /// The name of a stream that has ended may be used again: its watchers are sent home, and those
    /// who come back find a resync and the new events. Where all places are taken, the stream gives
    /// way that ended longest ago and that nobody watches.
    ///
    /// # Errors
    ///
    /// [`Disabled`](ProgressError::Disabled), [`Closed`](ProgressError::Closed),
    /// [`BadName`](ProgressError::BadName) (1 to 256 bytes), [`Taken`](ProgressError::Taken) while
    /// the stream has a publisher, [`TooManyStreams`](ProgressError::TooManyStreams).
    pub fn open(&self, id: impl Into<Arc<str>>) -> Result<Progress, ProgressError> {
        let id = id.into();
        let Shared {
            config,
            clock,
            events,
            ..
        } = &*self.shared;
        if !config.enabled {
            return Err(ProgressError::Disabled);
        }
        if id.is_empty() || id.len() > NAME_BYTES_MAX {
            return Err(ProgressError::BadName {
                bytes: id.len(),
                max: NAME_BYTES_MAX,
            });
        }
        let now = clock.now();
        let mut gone = Gone::default();
        let mut streams = self.lock();
        if streams.closed {
            return Err(ProgressError::Closed);
        }
        // Twice per `idle` is often enough for memory, and rare enough to cost nothing.
        if now.since(streams.swept) >= config.idle / 2 {
            streams.sweep(now, config, &mut gone);
        }
        let mut floor = EventId {
            ms: wall_ms(clock),
            n: 0,
        };
        match streams.by_name.get(&id).cloned() {
            Some(earlier) if earlier.ended().is_none() => return Err(ProgressError::Taken { id }),
            Some(earlier) => {
                floor = floor.max(earlier.last().next(floor.ms));
                streams.remove(&id, &mut gone);
            }
            None => streams.make_room(now, config, &mut gone)?,
        }
        let stream = Arc::new(Stream::new(floor, config.replay_max));
        streams.by_name.insert(Arc::clone(&id), Arc::clone(&stream));
        drop(streams);
        let (clock, events) = (clock.clone(), events.clone());
        Ok(Progress::new(
            id,
            stream,
            clock,
            events,
            config.event_bytes_max,
        ))
    }

    /// Watches the stream `id` from the event after `last_event_id` on; `None` if there is no such
    /// stream (any more).
    ///
    /// Without an id, or with text that is none, everything that is kept comes first. If events
    /// after the id are gone, or the id is of an earlier life of the stream, a
    /// [`Resync`](crate::progress::ProgressKind::Resync) comes first and then everything kept.
    #[must_use]
    pub fn subscribe(&self, id: &str, last_event_id: Option<&str>) -> Option<Subscription> {
        let config = &self.shared.config;
        let mut gone = Gone::default();
        let mut streams = self.lock();
        let stream = Arc::clone(streams.by_name.get(id)?);
        if stream.has_expired(self.shared.clock.now(), config) {
            streams.remove(id, &mut gone);
            return None;
        }
        let seen = last_event_id.and_then(|text| text.parse().ok());
        Some(Subscription::new(stream, seen, config.heartbeat))
    }

    /// Has each watcher that [`respond`](Self::respond) answers take one of these slots, for as long as its
    /// stream goes on: as one of the tenant of its caller, of whom `callers` knows; a caller without a tenant is one
    /// himself.
    #[must_use]
    pub fn counted_by(mut self, connections: Connections, callers: CallerResolver) -> Self {
        self.connections = Some((connections, callers));
        self
    }

    /// Answers a watcher's request: an event stream that goes on after its `Last-Event-ID`; 204 to
    /// one that has seen the end, which stops an `EventSource` from coming back; 404 where there is
    /// no such stream; 503 where the watchers are [counted](Self::counted_by) and there are too many, all together or
    /// of one tenant. Whether the caller may watch it is for the caller of this method to decide.
    #[must_use]
    pub fn respond(&self, request: &RequestView<'_>, id: &str) -> Response<SseBody> {
        let seen = request
            .headers
            .get(LAST_EVENT_ID)
            .and_then(|value| value.to_str().ok());
        match self.subscribe(id, seen) {
            None => empty_response(StatusCode::NOT_FOUND),
            Some(watcher) if watcher.is_over() => empty_response(StatusCode::NO_CONTENT),
            Some(watcher) => match self.slot(request) {
                None => sse_response(watcher),
                Some(Ok(slot)) => sse_response(watcher).map(|body| body.holding(slot)),
                Some(Err(refusal)) => refused_response(refusal),
            },
        }
    }

    /// A slot for a watcher, where they are counted.
    fn slot(&self, request: &RequestView<'_>) -> Option<Result<ConnectionSlot, Refusal>> {
        let (connections, callers) = self.connections.as_ref()?;
        Some(match callers.caller(request) {
            Some(caller) => connections.open_for(caller.tenant.as_ref().unwrap_or(&caller.id)),
            None => connections.open(),
        })
    }

    /// Drops the streams that ended longer ago than `idle`.
    ///
    /// [`open`](Self::open) does so by itself from time to time; a process that opens streams
    /// rarely may want a timer to do it.
    pub fn sweep(&self) {
        let mut gone = Gone::default();
        self.lock()
            .sweep(self.shared.clock.now(), &self.shared.config, &mut gone);
    }

    /// How many streams are held, ended ones included.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.lock().by_name.len()
    }

    /// How many watch the stream `id`; `None` if there is no such stream.
    #[must_use]
    pub fn watchers(&self, id: &str) -> Option<usize> {
        self.lock().by_name.get(id).map(|stream| stream.watchers())
    }

    /// Sends every watcher home and opens nothing any more, so that a graceful shutdown need not
    /// wait for bodies that would go on for minutes. Publishers are told at their next update.
    pub fn close(&self) {
        let mut gone = Gone::default();
        let mut streams = self.lock();
        streams.closed = true;
        gone.streams
            .extend(streams.by_name.drain().map(|(_, stream)| stream));
    }

    /// A panic cannot leave the map half-changed, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.shared
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams on their way out: closed when this is dropped. Declared before the lock is taken, so that
/// it is dropped after the lock is given back and no waker runs under it.
#[derive(Default)]
struct Gone {
    streams: Vec<Arc<Stream>>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        for stream in &self.streams {
            stream.close();
        }
    }
}

impl Streams {
    fn remove(&mut self, id: &str, gone: &mut Gone) {
        gone.streams.extend(self.by_name.remove(id));
    }

    fn sweep(&mut self, now: Moment, config: &ProgressConfig, gone: &mut Gone) {
        self.swept = now;
        let expired = self
            .by_name
            .extract_if(|_, stream| stream.has_expired(now, config));
        gone.streams.extend(expired.map(|(_, stream)| stream));
    }

    /// Sees to it that one more stream fits. Looks at every stream when all places are taken.
    fn make_room(
        &mut self,
        now: Moment,
        config: &ProgressConfig,
        gone: &mut Gone,
    ) -> Result<(), ProgressError> {
        let max = config.streams_max;
        if self.by_name.len() < max {
            return Ok(());
        }
        self.sweep(now, config, gone);
        if self.by_name.len() < max {
            return Ok(());
        }
        let unwatched = self
            .by_name
            .iter()
            .filter(|(_, stream)| stream.watchers() == 0);
        let first = unwatched
            .filter_map(|(id, stream)| Some((stream.ended()?, id)))
            .min_by_key(|(ended, _)| *ended)
            .map(|(_, id)| Arc::clone(id))
            .ok_or(ProgressError::TooManyStreams { max })?;
        self.remove(&first, gone);
        Ok(())
    }
}

impl fmt::Debug for ProgressHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressHub")
            .field("streams", &self.lock().by_name.len())
            .finish()
    }
}

/// Names come from requests as often as not, and are kept as long as their stream.
const NAME_BYTES_MAX: usize = 256;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use crate::clock::ManualClock;
    use crate::connections::ConnectionsConfig;
    use crate::identity::Caller;
    use crate::progress::update::{ProgressKind, ProgressUpdate};

    use super::*;

    fn hub(change: impl FnOnce(&mut ProgressConfig)) -> (ProgressHub, ManualClock) {
        let mut config = ProgressConfig::default();
        change(&mut config);
        let (clock, hand) = Clock::manual();
        (
            ProgressHub::new(&config, clock, Events::none()).unwrap(),
            hand,
        )
    }

    fn bare() -> ProgressUpdate {
        ProgressUpdate::default()
    }

    /// What is there to be read right now.
    fn kinds(watcher: &mut Subscription) -> Vec<&'static str> {
        let cx = Context::from_waker(Waker::noop());
        let mut found = Vec::new();
        loop {
            match watcher.poll_next(&cx) {
                Poll::Ready(Some(event)) => found.push(event.kind().name()),
                Poll::Ready(None) => return [found, vec!["end"]].concat(),
                Poll::Pending => return found,
            }
        }
    }

    #[test]
    fn a_tenant_watches_no_more_streams_than_it_may_have_connections() {
        let config = ConnectionsConfig {
            per_tenant_max: Some(1),
            ..ConnectionsConfig::default()
        };
        let connections = Connections::new(&config, Clock::system(), Events::none()).unwrap();
        // One whom the request's extensions tell, and one whom the service knows by a field.
        let known = CallerResolver::new(|request| {
            let name = request.headers.get("x-name")?.to_str().ok()?;
            Some(Caller::new(name))
        });
        let hub = hub(|_| {}).0.counted_by(connections.clone(), known);
        let _job = hub.open("job").unwrap();
        let respond = |caller: Option<Caller>| {
            let mut request = http::Request::new(());
            caller.map(|caller| request.extensions_mut().insert(caller));
            hub.respond(&RequestView::of(&request), "job")
        };
        let named = |name: &'static str| {
            let request = http::Request::builder().header("x-name", name);
            hub.respond(&RequestView::of(&request.body(()).unwrap()), "job")
        };
        let acme = |id: &str| Some(Caller::new(id).tenant("acme"));
        let watching = [None, None, acme("ada"), Some(Caller::new("bob"))].map(respond);
        assert!(watching.iter().all(|answer| answer.status() == 200));
        assert_eq!(named("bob").status(), 503);
        let eve = named("eve");
        assert_eq!([eve.status(), named("eve").status()], [200, 503]);
        for late in [acme("eve"), Some(Caller::new("bob"))] {
            assert_eq!(respond(late).status(), 503);
        }
        assert_eq!(connections.open_count_of("acme"), 1);
        drop(watching);
        assert_eq!(respond(acme("eve")).status(), 200);
    }

    #[test]
    fn a_hub_that_is_switched_off_says_so() {
        let (hub, _) = hub(|config| config.enabled = false);
        let error = hub.open("job").unwrap_err();
        assert_eq!(error, ProgressError::Disabled);
        assert!(error.to_string().contains("progress.enabled"));
        let request = http::Request::new(());
        assert_eq!(hub.respond(&RequestView::of(&request), "job").status(), 404);
    }

    #[test]
    fn zeroes_are_refused_by_name() {
        let config = ProgressConfig {
            replay_max: 0,
            ..ProgressConfig::default()
        };
        let error = ProgressHub::new(&config, Clock::system(), Events::none()).unwrap_err();
        assert!(
            error.to_string().contains("progress.replay_max = 0"),
            "{error}"
        );
    }

    #[test]
    fn names_are_neither_empty_nor_endless() {
        let (hub, _) = hub(|_| {});
        for (name, good) in [("", false), ("x", true), (&*"y".repeat(256), true)] {
            assert_eq!(hub.open(name).is_ok(), good, "{name:?}");
        }
        let error = hub.open("z".repeat(257)).unwrap_err();
        assert_eq!(
            error,
            ProgressError::BadName {
                bytes: 257,
                max: 256
            }
        );
    }

    #[test]
    fn a_publisher_that_is_dropped_aborts_its_stream() {
        let (hub, _) = hub(|_| {});
        let job = hub.open("job").unwrap();
        let mut watcher = hub.subscribe("job", None).unwrap();
        job.publish(ProgressUpdate::at(1.0)).unwrap();
        drop(job);
        assert_eq!(kinds(&mut watcher), ["progress", "aborted", "end"]);
    }

    #[test]
    fn a_slow_watcher_is_told_to_resync_and_goes_on_with_what_is_kept() {
        let (hub, _) = hub(|config| config.replay_max = 3);
        let job = hub.open("job").unwrap();
        let mut watcher = hub.subscribe("job", None).unwrap();
        for _ in 0..10_000 {
            job.publish(bare()).unwrap();
        }
        assert_eq!(
            kinds(&mut watcher),
            ["resync", "progress", "progress", "progress"]
        );
        job.finish(bare()).unwrap();
        assert_eq!(kinds(&mut watcher), ["finished", "end"]);
    }

    #[test]
    fn a_bad_cursor_replays_everything_and_a_trimmed_one_says_so() {
        let (hub, _) = hub(|config| config.replay_max = 2);
        let job = hub.open("job").unwrap();
        let ids: Vec<String> = (0..4)
            .map(|_| job.publish(bare()).unwrap().to_string())
            .collect();
        let read = |cursor: &str| kinds(&mut hub.subscribe("job", Some(cursor)).unwrap());
        assert_eq!(read("\u{1F525}"), ["progress", "progress"]);
        assert_eq!(read(&ids[0]), ["resync", "progress", "progress"]);
        assert_eq!(read(&ids[2]), ["progress"]);
        assert_eq!(read("99999999999999-0"), ["resync", "progress", "progress"]);
    }

    #[test]
    fn an_update_that_is_too_large_is_refused_but_the_end_always_comes() {
        let (hub, _) = hub(|config| config.event_bytes_max = 64);
        let job = hub.open("job").unwrap();
        let mut watcher = hub.subscribe("job", None).unwrap();
        let large = ProgressUpdate::stage("x".repeat(64));
        let max = 64;
        let refused = job.publish(large.clone()).unwrap_err();
        assert!(
            matches!(refused, ProgressError::TooLarge { bytes: 78, max: 64 }),
            "{refused}"
        );
        assert_eq!(
            job.finish(large),
            Err(ProgressError::TooLarge { bytes: 78, max })
        );
        assert_eq!(kinds(&mut watcher), ["finished", "end"]);
    }

    #[test]
    fn a_stream_is_dropped_only_after_its_end_and_its_time() {
        let (hub, hand) = hub(|config| config.idle = Duration::from_secs(60));
        let job = hub.open("job").unwrap();
        hand.advance(Duration::from_secs(600));
        hub.sweep();
        job.finish(bare()).unwrap();
        hand.advance(Duration::from_secs(59));
        hub.sweep();
        let mut late = hub.subscribe("job", None).unwrap();
        hand.advance(Duration::from_secs(1));
        assert!(
            hub.subscribe("job", None).is_none(),
            "without a sweep as well"
        );
        assert_eq!(hub.streams(), 0);
        assert_eq!(kinds(&mut late), ["end"], "its events are gone");
    }

    #[test]
    fn opening_streams_drops_old_ones_by_and_by() {
        let (hub, hand) = hub(|config| config.idle = Duration::from_secs(60));
        for job in 0..1000 {
            hub.open(job.to_string()).unwrap().finish(bare()).unwrap();
            hand.advance(Duration::from_secs(1));
        }
        assert!(hub.streams() <= 90, "{}", hub.streams());
    }

    #[test]
    fn when_full_the_stream_gives_way_that_ended_first_and_is_not_watched() {
        let (hub, hand) = hub(|config| config.streams_max = 3);
        let busy = hub.open("busy").unwrap();
        for name in ["watched", "ended"] {
            hub.open(name).unwrap().finish(bare()).unwrap();
            hand.advance(Duration::from_millis(1));
        }
        let watcher = hub.subscribe("watched", None).unwrap();
        let _new = hub.open("new").unwrap();
        assert!(hub.subscribe("ended", None).is_none());
        let full = ProgressError::TooManyStreams { max: 3 };
        assert_eq!(hub.open("newer").unwrap_err(), full);
        drop(watcher);
        let _newer = hub.open("newer").unwrap();
        assert_eq!(hub.open("newest").unwrap_err(), full);
        drop(busy);
        let _newest = hub.open("newest").unwrap();
        assert_eq!(hub.streams(), 3);
    }

    #[test]
    fn a_name_is_free_again_after_the_end_and_old_cursors_resync() {
        let (hub, _) = hub(|_| {});
        let first = hub.open("job").unwrap();
        assert_eq!(
            hub.open("job").unwrap_err(),
            ProgressError::Taken { id: "job".into() }
        );
        let mut old = hub.subscribe("job", None).unwrap();
        let end = first.finish(bare()).unwrap();
        let again = hub.open("job").unwrap();
        assert_eq!(kinds(&mut old), ["end"]);
        let mut back = hub.subscribe("job", Some(&end.to_string())).unwrap();
        assert!(
            again.publish(bare()).unwrap() > end,
            "ids grow over the lives of a name"
        );
        assert_eq!(kinds(&mut back), ["resync", "progress"]);
    }

    #[test]
    fn closing_sends_watchers_home_and_tells_publishers() {
        let (hub, _) = hub(|_| {});
        let job = hub.open("job").unwrap();
        let mut watcher = hub.subscribe("job", None).unwrap();
        hub.close();
        assert_eq!(kinds(&mut watcher), ["end"]);
        assert_eq!(job.publish(bare()), Err(ProgressError::Closed));
        assert_eq!(hub.open("other").unwrap_err(), ProgressError::Closed);
    }

    #[tokio::test]
    async fn a_waiting_watcher_is_woken_and_a_dropped_one_leaves_nothing() {
        let (hub, _) = hub(|_| {});
        let job = hub.open("job").unwrap();
        let mut watcher = hub.subscribe("job", None).unwrap();
        let (event, id) = tokio::join!(watcher.next(), async { job.publish(bare()).unwrap() });
        assert_eq!(event.map(|event| event.id()), Some(id));
        let stream = Arc::clone(&hub.lock().by_name["job"]);
        assert_eq!(stream.watchers(), 1);
        drop(watcher);
        assert_eq!(stream.watchers(), 0);
    }

    #[tokio::test]
    async fn a_worker_that_panics_aborts_its_stream() {
        let (hub, _) = hub(|_| {});
        let job = hub.open("job").unwrap();
        let mut watcher = hub.subscribe("job", None).unwrap();
        let work = std::panic::AssertUnwindSafe(move || {
            let _job = job;
            panic!("the worker breaks down");
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(watcher.next().await.unwrap().kind(), ProgressKind::Aborted);
        assert!(watcher.next().await.is_none());
    }
}
