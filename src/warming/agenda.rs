//! Work that comes by a schedule.

use std::sync::Arc;
use std::time::Duration;

use crate::warming::errand::Work;
use crate::warming::schedule::Schedule;

/// All that comes by a schedule, and when.
#[derive(Default)]
pub(crate) struct Agenda {
    items: Vec<Item>,
}

struct Item {
    name: Arc<str>,
    schedule: Schedule,
    seed: u64,
    /// Unix time in seconds.
    next: Option<u64>,
    work: Work<()>,
}

impl Agenda {
    /// Adds work, in place of what had its name. Times are put off as `seed` says.
    pub(crate) fn add(
        &mut self,
        name: Arc<str>,
        (schedule, seed): (Schedule, u64),
        work: Work<()>,
        now: u64,
    ) {
        self.items.retain(|item| item.name != name);
        self.items.push(Item {
            next: schedule.next_after(now, seed),
            name,
            schedule,
            seed,
            work,
        });
    }

    /// Whose time has come at `now`, in Unix seconds.
    pub(crate) fn due(&mut self, now: u64) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for item in &mut self.items {
            let following = item.schedule.next_after(now, item.seed);
            if item.next.is_some_and(|next| next <= now) {
                due.push(Arc::clone(&item.name));
                item.next = following;
            } else {
                // Earlier than it was, where the clock was put back.
                item.next = item.next.into_iter().chain(following).min();
            }
        }
        due
    }

    /// How long it is to the next, at most a second: the clock may be put forward.
    pub(crate) fn wait(&self) -> Option<Duration> {
        (!self.items.is_empty()).then_some(LOOK)
    }

    /// What is done under this name.
    pub(crate) fn work(&self, name: &str) -> Option<Work<()>> {
        let item = self.items.iter().find(|item| *item.name == *name)?;
        Some(Arc::clone(&item.work))
    }
}

/// Schedules know whole seconds, so they are looked at a few times in each.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warming::errand;

    #[test]
    fn work_is_due_once_at_each_of_its_times_also_where_the_clock_is_put_back() {
        let mut agenda = Agenda::default();
        let nothing = || errand::work(|()| async { Ok::<_, &str>(()) });
        let every = |seconds| Schedule::every(Duration::from_secs(seconds)).unwrap();
        assert_eq!(agenda.wait(), None);
        agenda.add("a".into(), (every(60), 0), nothing(), 1_000);
        agenda.add("b".into(), (every(7), 0), nothing(), 1_000);
        agenda.add("b".into(), (every(90), 0), nothing(), 1_000);
        assert_eq!(agenda.due(1_019), [] as [Arc<str>; 0]);
        assert_eq!(agenda.due(1_020), [Arc::<str>::from("a")]);
        assert_eq!(agenda.due(1_021), [] as [Arc<str>; 0]);
        assert_eq!(
            agenda.due(1_085),
            [Arc::<str>::from("a"), Arc::<str>::from("b")]
        );
        // An hour back: not silent for an hour.
        assert_eq!(agenda.due(1_085 - 900), [] as [Arc<str>; 0]);
        assert_eq!(agenda.due(240), [Arc::<str>::from("a")]);
        assert!(agenda.work("a").is_some() && agenda.work("c").is_none());
    }
}
