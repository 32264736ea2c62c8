//! Keeps the credentials that were fetched last, and fetches others in time.
//!
//! Connections never wait for a provider that fails while older credentials are there: those may be valid
//! still, and where they are not the server says so.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use redis::RedisResult;
use redis::auth::{BasicAuth, StreamingCredentialsProvider};
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::store::credentials::{Credentials, CredentialsError, CredentialsProvider};
use crate::store::status::{DownKind, DownReason};

/// The latest credentials. Cheap to clone; all clones are one.
///
/// Each connection subscribes to it: it logs in with what is there, and again with whatever comes later.
#[derive(Clone)]
pub(crate) struct Vault {
    shared: Arc<Shared>,
}

struct Shared {
    provider: Arc<dyn CredentialsProvider>,
    clock: Clock,
    events: Events,
    latest: watch::Sender<Option<Credentials>>,
    rhythm: Mutex<Rhythm>,
    /// Held while the provider is asked, so that nobody asks it twice at once.
    asking: tokio::sync::Mutex<()>,
    /// The rhythm has changed.
    changed: Notify,
}

/// When to ask next, and what came of it last time.
struct Rhythm {
    /// How many answers there were, good and bad: who finds another number than before knows that somebody
    /// else has asked meanwhile.
    answers: u64,
    /// When the last answer came.
    answered: Moment,
    /// When to ask again, if ever.
    next: Option<Moment>,
    /// Failures in a row, for the pause.
    failures: u32,
    /// The server took the latest credentials for wrong.
    refused: bool,
    /// Why the last answer was none.
    trouble: Option<Arc<str>>,
}

impl Vault {
    pub(crate) fn new(
        provider: Arc<dyn CredentialsProvider>,
        clock: Clock,
        events: Events,
    ) -> Self {
        let now = clock.now();
        let rhythm = Rhythm {
            answers: 0,
            answered: now,
            next: Some(now),
            failures: 0,
            refused: false,
            trouble: None,
        };
        let shared = Shared {
            provider,
            clock,
            events,
            latest: watch::Sender::new(None),
            rhythm: Mutex::new(rhythm),
            asking: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Sees to it that there are credentials to connect with. Asks the provider if there are none or others
    /// are due, and waits for its answer; does neither during the pause after a failure, nor while
    /// older ones are there and somebody else is asking already. Safe to drop at any await.
    ///
    /// # Errors
    ///
    /// [`DownKind::Credentials`] when there are none, with the provider's words.
    pub(crate) async fn fresh(&self) -> Result<(), DownReason> {
        let (due, seen) = {
            let rhythm = self.rhythm();
            let due = rhythm
                .next
                .is_some_and(|next| next <= self.shared.clock.now());
            (due, rhythm.answers)
        };
        let others_ask = || self.shared.asking.try_lock().is_err();
        if due && !(self.has_some() && others_ask()) {
            self.ask(seen).await;
        }
        if self.has_some() {
            return Ok(());
        }
        let trouble = self.rhythm().trouble.clone();
        let trouble = trouble.as_deref().unwrap_or("no answer yet");
        let words = format!("the credentials provider gave none: {trouble}");
        Err(DownReason::new(DownKind::Credentials, words))
    }

    /// Fetches others whenever they are due. Never ends.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            let (next, seen) = {
                let rhythm = self.rhythm();
                (rhythm.next, rhythm.answers)
            };
            let due = async {
                match next {
                    Some(next) => {
                        tokio::time::sleep(next.since(self.shared.clock.now())).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.ask(seen).await,
                () = self.shared.changed.notified() => {}
            }
        }
    }

    /// The server did not take the latest credentials: others are fetched before the next connection,
    /// with the same pauses as after failures, so that a server that never takes any does not make us
    /// storm the provider.
    pub(crate) fn refused(&self) {
        let mut rhythm = self.rhythm();
        if !rhythm.refused {
            rhythm.refused = true;
            rhythm.failures = rhythm.failures.saturating_add(1);
            let soonest = rhythm.answered.plus(pause(rhythm.failures));
            rhythm.next = Some(rhythm.next.map_or(soonest, |next| next.min(soonest)));
            self.shared.changed.notify_one();
        }
    }

    fn has_some(&self) -> bool {
        self.shared.latest.borrow().is_some()
    }

    /// Asks the provider, unless somebody has done so since `seen` answers.
    async fn ask(&self, seen: u64) {
        let _turn = self.shared.asking.lock().await;
        if self.rhythm().answers != seen {
            return;
        }
        let answer = tokio::time::timeout(FETCH_MAX, self.shared.provider.fetch()).await;
        match answer.unwrap_or_else(|_| Err(CredentialsError::new("no answer within 10 s"))) {
            Ok(credentials) => self.keep(credentials),
            Err(error) => self.note(&error),
        }
        self.shared.changed.notify_one();
    }

    fn keep(&self, new: Credentials) {
        let now = self.shared.clock.now();
        {
            let mut rhythm = self.rhythm();
            rhythm.answers += 1;
            rhythm.answered = now;
            let wait = new.refresh_after.map(|wait| wait.max(REFRESH_MIN));
            rhythm.next = wait.map(|wait| now.plus(wait));
            // New ones in place of refused ones may be refused as well: the pauses go on growing.
            if !rhythm.refused {
                rhythm.failures = 0;
            }
            rhythm.refused = false;
            rhythm.trouble = None;
        }
        // A provider may hand out the same token again. Nobody needs to log in anew for that.
        self.shared.latest.send_if_modified(|latest| {
            let other = latest.as_ref().is_none_or(|latest| {
                (&latest.username, &latest.password) != (&new.username, &new.password)
            });
            *latest = Some(new);
            other
        });
    }

    fn note(&self, error: &CredentialsError) {
        let now = self.shared.clock.now();
        let first = {
            let mut rhythm = self.rhythm();
            rhythm.answers += 1;
            rhythm.answered = now;
            rhythm.failures = rhythm.failures.saturating_add(1);
            rhythm.next = Some(now.plus(pause(rhythm.failures)));
            rhythm.trouble.replace(error.to_string().into()).is_none()
        };
        if first {
            let text = format!(
                "redis: the credentials provider failed, which is tried again: {error}; those from \
                 before stay in use while the server takes them"
            );
            self.shared.events.emit(Event::Warning { text: &text });
        }
    }

    /// A panic while the lock was held cannot leave the numbers half-changed, so poison is ignored.
    fn rhythm(&self) -> MutexGuard<'_, Rhythm> {
        let rhythm = self.shared.rhythm.lock();
        rhythm.unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a provider may take. Token services answer within a second or two, or not at all.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// Nobody means to log in more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// The pause after so many failures in a row: 1, 2, 4, .. 60 s.
fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    Duration::from_secs(1 << doublings).min(Duration::from_secs(60))
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("latest", &*self.shared.latest.borrow())
            .finish_non_exhaustive()
    }
}

impl StreamingCredentialsProvider for Vault {
    fn subscribe(&self) -> Pin<Box<dyn Stream<Item = RedisResult<BasicAuth>> + Send + 'static>> {
        let mut latest = self.shared.latest.subscribe();
        // What is there already is news to this connection.
        latest.mark_changed();
        let next = Box::pin(next(latest));
        Box::pin(Renewals { next })
    }
}

type Latest = watch::Receiver<Option<Credentials>>;

/// What is there, and then whatever comes. Never ends: that the vault is gone is no news to a connection.
struct Renewals {
    next: Pin<Box<dyn Future<Output = (BasicAuth, Latest)> + Send>>,
}

impl Stream for Renewals {
    type Item = RedisResult<BasicAuth>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (login, latest) = ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(next(latest));
        Poll::Ready(Some(Ok(login)))
    }
}

async fn next(mut latest: Latest) -> (BasicAuth, Latest) {
    loop {
        if latest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let login = latest
            .borrow_and_update()
            .as_ref()
            .map(|latest| BasicAuth::new(latest.username.clone(), latest.password.clone()));
        if let Some(login) = login {
            return (login, latest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use super::*;
    use crate::clock::ManualClock;
    use crate::event::Recorder;
    use crate::task::Tasks;

    type Script = VecDeque<Result<Credentials, CredentialsError>>;

    /// Answers by a script, and not at all behind its end.
    #[derive(Clone, Default)]
    struct Fake {
        script: Arc<Mutex<Script>>,
        asked: Arc<Mutex<u32>>,
    }

    impl CredentialsProvider for Fake {
        fn fetch(
            &self,
        ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + '_>>
        {
            *self.asked.lock().unwrap() += 1;
            let answer = self.script.lock().unwrap().pop_front();
            Box::pin(async move {
                // Others come in between, as they do while a token service is asked.
                tokio::task::yield_now().await;
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }
    }

    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl Recorder for Warnings {
        fn record(&self, event: &Event<'_>) {
            if let Event::Warning { text } = event {
                self.0.lock().unwrap().push((*text).to_owned());
            }
        }
    }

    struct World {
        vault: Vault,
        fake: Fake,
        hand: ManualClock,
        warnings: Warnings,
        tasks: Tasks,
    }

    fn world(script: impl IntoIterator<Item = Result<Credentials, CredentialsError>>) -> World {
        let (fake, warnings) = (Fake::default(), Warnings::default());
        fake.script.lock().unwrap().extend(script);
        let (clock, hand) = Clock::manual();
        let events = Events::to(vec![Arc::new(warnings.clone())]);
        World {
            vault: Vault::new(Arc::new(fake.clone()), clock, events),
            fake,
            hand,
            warnings,
            tasks: Tasks::new().unwrap(),
        }
    }

    impl World {
        fn asked(&self) -> u32 {
            *self.fake.asked.lock().unwrap()
        }

        /// Lets time pass for both clocks, in steps, so that neither runs far ahead.
        async fn pass(&self, time: Duration) {
            for _ in 0..time.as_millis() / 100 {
                self.hand.advance(SECOND / 10);
                tokio::time::sleep(SECOND / 10).await;
            }
        }

        fn keep_fresh(&self) {
            let vault = self.vault.clone();
            let spawner = self.tasks.spawner();
            assert!(spawner.spawn(async move { vault.keep_fresh().await }));
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a line of a script")]
    fn token(token: &str) -> Result<Credentials, CredentialsError> {
        Ok(Credentials::new("somebody", token).refresh_after(60 * SECOND))
    }

    fn failure(words: &str) -> Result<Credentials, CredentialsError> {
        Err(CredentialsError::new(words))
    }

    type Logins = Pin<Box<dyn Stream<Item = RedisResult<BasicAuth>> + Send>>;

    async fn next_password(logins: &mut Logins) -> String {
        let login = poll_fn(|cx| logins.as_mut().poll_next(cx));
        let login = tokio::time::timeout(SECOND, login).await.unwrap();
        login.unwrap().unwrap().password().to_owned()
    }

    /// Whether a login waits in the stream.
    async fn has_news(logins: &mut Logins) -> bool {
        poll_fn(|cx| Poll::Ready(logins.as_mut().poll_next(cx).is_ready())).await
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_provider_is_asked_once_until_others_are_due() {
        let world = world([token("first"), token("second")]);
        for _ in 0..3 {
            world.vault.fresh().await.unwrap();
        }
        world.pass(59 * SECOND).await;
        world.vault.fresh().await.unwrap();
        assert_eq!(world.asked(), 1);
        let mut early = world.vault.subscribe();
        assert_eq!(next_password(&mut early).await, "first");
        world.pass(SECOND).await;
        world.vault.fresh().await.unwrap();
        assert_eq!(world.asked(), 2);
        let mut late = world.vault.subscribe();
        assert_eq!(next_password(&mut early).await, "second");
        assert_eq!(next_password(&mut late).await, "second", "at once");
        assert!(!has_news(&mut late).await, "and once");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_at_once_share_one_answer() {
        let world = world([token("first"), token("second")]);
        let vault = &world.vault;
        let (one, two, three) = tokio::join!(vault.fresh(), vault.fresh(), vault.fresh());
        assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_reaches_open_connections_in_time() {
        let world = world([token("first"), token("first"), token("second")]);
        let mut logins = world.vault.subscribe();
        assert!(!has_news(&mut logins).await);
        world.keep_fresh();
        assert_eq!(next_password(&mut logins).await, "first");
        world.pass(61 * SECOND).await;
        assert_eq!(world.asked(), 2);
        assert!(!has_news(&mut logins).await, "the same again is no news");
        world.pass(60 * SECOND).await;
        assert_eq!(world.asked(), 3);
        assert_eq!(next_password(&mut logins).await, "second");
        drop(world);
        assert!(!has_news(&mut logins).await, "nor is the end of the vault");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_keeps_the_old_ones_and_is_told_once() {
        let world = world([
            token("first"),
            failure("no network"),
            failure("no network"),
            token("second"),
            failure("later"),
        ]);
        world.keep_fresh();
        let mut logins = world.vault.subscribe();
        assert_eq!(next_password(&mut logins).await, "first");
        world.pass(60 * SECOND + SECOND / 2).await;
        assert_eq!(world.asked(), 2);
        world.vault.fresh().await.unwrap();
        assert_eq!(world.asked(), 2, "nobody asks during the pause");
        world.pass(SECOND).await;
        assert_eq!(world.asked(), 3, "after 1 s");
        world.pass(SECOND).await;
        assert_eq!(world.asked(), 3, "not yet");
        world.pass(SECOND).await;
        assert_eq!(world.asked(), 4, "after 2 s more");
        assert_eq!(next_password(&mut logins).await, "second");
        assert_eq!(world.warnings.0.lock().unwrap().len(), 1);
        world.pass(60 * SECOND).await;
        let warnings = world.warnings.0.lock().unwrap().clone();
        assert_eq!(warnings.len(), 2, "a new streak is told again");
        assert!(warnings[0].contains("no network") && warnings[1].contains("later"));
        assert!(!format!("{warnings:?}").contains("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_the_reason_is_given_and_the_provider_is_left_in_peace() {
        let world = world([failure("no identity assigned"), token("first")]);
        for _ in 0..20 {
            let reason = world.vault.fresh().await.unwrap_err();
            assert_eq!(reason.kind(), DownKind::Credentials);
            assert!(reason.to_string().contains("no identity assigned"));
        }
        assert_eq!(world.asked(), 1);
        world.pass(SECOND).await;
        world.vault.fresh().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_has_failed_after_ten_seconds() {
        let world = world([]);
        let reason = world.vault.fresh().await.unwrap_err();
        assert!(reason.to_string().contains("within 10 s"), "{reason}");
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_holds_nobody_else_up() {
        let world = world([]);
        let given_up = tokio::time::timeout(SECOND, world.vault.fresh()).await;
        assert!(given_up.is_err());
        world.fake.script.lock().unwrap().push_back(token("first"));
        world.vault.fresh().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn connections_do_not_wait_for_a_renewal_that_hangs() {
        let world = world([token("first")]);
        world.vault.fresh().await.unwrap();
        world.keep_fresh();
        world.pass(61 * SECOND).await;
        assert_eq!(world.asked(), 2, "and it hangs");
        let fresh = tokio::time::timeout(Duration::ZERO, world.vault.fresh());
        fresh.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn refused_ones_are_replaced_with_growing_pauses() {
        let world = world([token("first"), token("second"), token("third")]);
        world.vault.fresh().await.unwrap();
        world.pass(5 * SECOND).await;
        world.vault.refused();
        world.vault.refused();
        world.vault.fresh().await.unwrap();
        assert_eq!(world.asked(), 2, "at once, because the first are old");
        world.vault.refused();
        world.pass(SECOND).await;
        world.vault.fresh().await.unwrap();
        assert_eq!(world.asked(), 2, "not yet");
        world.pass(SECOND).await;
        world.vault.fresh().await.unwrap();
        assert_eq!(world.asked(), 3, "after 2 s");
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds = |failures| pause(failures).as_secs();
        assert_eq!([1, 2, 3, 6, 7, 8].map(seconds), [1, 2, 4, 32, 60, 60]);
        assert_eq!(seconds(u32::MAX), 60);
    }

    #[tokio::test]
    async fn nothing_secret_is_shown() {
        let world = world([token("secret")]);
        world.vault.fresh().await.unwrap();
        let mut logins = world.vault.subscribe();
        let login = poll_fn(|cx| logins.as_mut().poll_next(cx)).await;
        let shown = format!("{:?} {login:?}", world.vault);
        assert!(!shown.contains("secret"), "{shown}");
    }
}
