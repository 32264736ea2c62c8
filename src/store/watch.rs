//! Follows how a pool is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::event::{Event, Events};
use crate::store::node::Told;
use crate::store::status::{DownKind, RedisStatus};

/// Follows a pool's status.
#[derive(Clone, Debug)]
pub struct StatusWatch {
    pub(crate) status: watch::Receiver<RedisStatus>,
}

impl StatusWatch {
    /// The status now.
    #[must_use]
    pub fn now(&self) -> RedisStatus {
        self.status.borrow().clone()
    }

    /// Waits for the next change. `None` once the pool is gone. Safe to drop: nothing is missed but what
    /// was replaced meanwhile.
    pub async fn changed(&mut self) -> Option<RedisStatus> {
        self.status.changed().await.ok()?;
        Some(self.status.borrow_and_update().clone())
    }

    /// Waits until Redis is up. Returns whether it is: not where none is configured, nor once the stack was
    /// shut down or the pool is gone.
    pub async fn until_up(&mut self) -> bool {
        let decided = |status: &RedisStatus| match status {
            RedisStatus::Up | RedisStatus::Disabled => true,
            RedisStatus::Down { reason } => reason.kind() == DownKind::Stopped,
        };
        let decided = self.status.wait_for(decided).await;
        decided.is_ok_and(|status| status.is_up())
    }
}

/// Publishes states, and tells that Redis is there, that it went away, and why it stays away: each kind of
/// reason once, for attempts fail for several by turns and many times a second. That the stack was shut
/// down is no outage, and alarms nobody.
pub(crate) fn told(status: watch::Sender<RedisStatus>, events: Events) -> Told {
    let herald = Arc::new(Herald::default());
    let notes = Arc::clone(&herald);
    Told {
        note: Arc::new(move |new| {
            let old = status.send_replace(new.clone());
            notes.note(&old, &new);
        }),
        tell: Arc::new(move || herald.tell(&events)),
    }
}

/// Knows what has been told and what is to be.
#[derive(Default)]
struct Herald {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// The kinds of reasons that this outage was told with.
    kinds: Vec<DownKind>,
    /// What is to be told: why it is down, or that it is up.
    news: VecDeque<Option<String>>,
    is_telling: bool,
}

impl Herald {
    fn note(&self, old: &RedisStatus, new: &RedisStatus) {
        let mut inside = self.inside();
        let news = match new {
            RedisStatus::Down { reason } => {
                let kind = reason.kind();
                let no_news = matches!(kind, DownKind::Stopped | DownKind::Starting);
                if no_news || inside.kinds.contains(&kind) {
                    return;
                }
                inside.kinds.push(kind);
                Some(reason.to_string())
            }
            RedisStatus::Up | RedisStatus::Disabled => {
                inside.kinds.clear();
                if old.is_up() {
                    return;
                }
                None
            }
        };
        if inside.news.len() == NEWS_MAX {
            inside.news.pop_front();
        }
        inside.news.push_back(news);
    }

    /// Tells the news, with no lock held: whoever hears of it may cause more. One tells at a time and tells what
    /// others note meanwhile, so that it is told in the order in which it was noted.
    fn tell(&self, events: &Events) {
        if std::mem::replace(&mut self.inside().is_telling, true) {
            return;
        }
        let _turn = Turn(self);
        loop {
            let news = {
                let mut inside = self.inside();
                let news = inside.news.pop_front();
                inside.is_telling = news.is_some();
                news
            };
            match news {
                None => return,
                Some(None) => events.emit(Event::RedisUp),
                Some(Some(reason)) => events.emit(Event::RedisDown { reason: &reason }),
            }
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever tells. A recorder that panics ends the telling, and what comes next is told all the same.
struct Turn<'a>(&'a Herald);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inside().is_telling = false;
        }
    }
}

/// More than so much waits only where a recorder holds up the others; then the oldest is not told.
const NEWS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::*;
    use crate::event::Recorder;
    use crate::store::status::DownReason;

    /// Goes down once more when it hears that it is up, as one does who tries to use it and fails.
    #[derive(Default)]
    struct Meddler {
        told: OnceLock<Told>,
        heard: Mutex<Vec<String>>,
    }

    impl Recorder for Meddler {
        fn record(&self, event: &Event<'_>) {
            self.heard.lock().unwrap().push(format!("{event:?}"));
            if let (Event::RedisUp, Some(told)) = (event, self.told.get()) {
                (told.note)(down(DownKind::Disconnected));
                (told.tell)();
                self.heard.lock().unwrap().push("back".to_owned());
            }
        }
    }

    fn down(kind: DownKind) -> RedisStatus {
        let reason = DownReason::new(kind, "gone");
        RedisStatus::Down { reason }
    }

    #[test]
    fn whoever_hears_of_it_may_cause_more_which_is_told_after_that() {
        let (done, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let meddler = Arc::new(Meddler::default());
            let events = Events::to(vec![Arc::<Meddler>::clone(&meddler)]);
            let status = watch::Sender::new(down(DownKind::Starting));
            let told = told(status.clone(), events);
            assert!(meddler.told.set(told.clone()).is_ok());
            (told.note)(RedisStatus::Up);
            assert!(meddler.heard.lock().unwrap().is_empty(), "noted, not told");
            (told.tell)();
            assert!(!status.borrow().is_up());
            let heard = std::mem::take(&mut *meddler.heard.lock().unwrap());
            let _ = done.send(heard);
        });
        let heard = seen.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(heard[..2], ["RedisUp", "back"]);
        assert!(
            heard[2].starts_with("RedisDown") && heard.len() == 3,
            "{heard:?}"
        );
    }
}
