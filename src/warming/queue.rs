//! What waits to be computed: the most urgent first, each key once, and never more than so many.
//!
//! A queue that is behind does not do its oldest work: a job that has waited for half of the time for which
//! its result would be fresh is dropped, since by then whoever wanted the value has asked for it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};

use crate::clock::Moment;

/// Why something is to be computed, the least urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Its time has come by a schedule.
    Scheduled,
    /// It was hot before this instance started.
    Boot,
    /// It is hot and will be old soon.
    NearExpiry,
    /// It was invalidated while it was hot: the next who asks would wait.
    Invalidated,
}

impl Class {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Boot => "boot",
            Self::NearExpiry => "near_expiry",
            Self::Invalidated => "invalidated",
        }
    }
}

/// One thing to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job<K> {
    pub(crate) key: K,
    pub(crate) class: Class,
    /// When to begin, at the earliest.
    pub(crate) due: Moment,
    /// How much computing others are expected to be spared by it.
    pub(crate) worth: Duration,
    /// For how long its result will be fresh; the longest there is for what never comes too late.
    pub(crate) ttl: Duration,
}

/// Jobs, waiting.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    jobs_max: usize,
    jobs: HashMap<K, Waiting>,
    /// In the order in which they are taken, class by class.
    turns: BTreeMap<Turn, K>,
    /// In the order in which they are dropped when there are too many.
    worths: BTreeMap<Worth, K>,
    /// How many jobs have come.
    number: u64,
    dropped: Dropped,
}

/// How many jobs were dropped so far, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// The queue was full of worthier ones.
    pub(crate) crowded: u64,
    /// They had waited for too long.
    pub(crate) late: u64,
}

type Turn = (Class, Moment, Reverse<Duration>, u64);
type Worth = (Class, Duration, Reverse<u64>);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    class: Class,
    due: Moment,
    worth: Duration,
    ttl: Duration,
    /// The latest moment for which it was asked: from then on it grows old.
    asked: Moment,
    /// Which of all jobs it was, so that no two have the same place.
    number: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue for at most `jobs_max` jobs, at least one.
    pub(crate) fn new(jobs_max: usize) -> Self {
        Self {
            jobs_max: jobs_max.max(1),
            jobs: HashMap::new(),
            turns: BTreeMap::new(),
            worths: BTreeMap::new(),
            number: 0,
            dropped: Dropped::default(),
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// How many were dropped so far.
    pub(crate) const fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Puts a job in its place. One whose key waits already takes the better of both in everything, so that
    /// it moves up and never down. In a full queue the least worthy of the lowest class is dropped, the later
    /// of two alike, and that may be this one. Returns whether its key waits now.
    pub(crate) fn offer(&mut self, job: Job<K>) -> bool {
        let known = self.remove(&job.key);
        self.number += 1;
        let waiting = Waiting {
            class: job.class,
            due: job.due,
            worth: job.worth,
            ttl: job.ttl,
            asked: job.due,
            number: self.number,
        };
        let waiting = known.map_or(waiting, |known| known.or_better(&waiting));
        if self.len() >= self.jobs_max {
            self.dropped.crowded += 1;
            match self.worths.first_key_value() {
                Some((least, key)) if *least < waiting.worth() => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => return false,
            }
        }
        self.turns.insert(waiting.turn(), job.key.clone());
        self.worths.insert(waiting.worth(), job.key.clone());
        self.jobs.insert(job.key, waiting);
        true
    }

    /// Takes the job whose turn it is: of the highest class in which one is due, the one that is due for
    /// longest, and of those the worthiest. What comes too late is dropped on the way.
    pub(crate) fn take(&mut self, now: Moment) -> Option<Job<K>> {
        loop {
            let firsts = CLASSES.iter().filter_map(|class| self.first(*class));
            let mut due = firsts.filter(|((_, due, ..), _)| *due <= now);
            let key = due.next()?.1.clone();
            let waiting = self.remove(&key)?;
            if now.since(waiting.asked) > waiting.ttl / 2 {
                self.dropped.late += 1;
                continue;
            }
            return Some(Job {
                key,
                class: waiting.class,
                due: waiting.due,
                worth: waiting.worth,
                ttl: waiting.ttl,
            });
        }
    }

    /// When the next job is due, whatever its class; `None` while none waits.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let firsts = CLASSES.iter().filter_map(|class| self.first(*class));
        firsts.map(|((_, due, ..), _)| *due).min()
    }

    /// The first of a class.
    fn first(&self, class: Class) -> Option<(&Turn, &K)> {
        let start = (class, Moment::default(), Reverse(Duration::MAX), 0);
        let first = self.turns.range(start..).next();
        first.filter(|((found, ..), _)| *found == class)
    }

    fn remove(&mut self, key: &K) -> Option<Waiting> {
        let waiting = self.jobs.remove(key)?;
        self.turns.remove(&waiting.turn());
        self.worths.remove(&waiting.worth());
        Some(waiting)
    }
}

impl Waiting {
    const fn turn(&self) -> Turn {
        (self.class, self.due, Reverse(self.worth), self.number)
    }

    const fn worth(&self) -> Worth {
        (self.class, self.worth, Reverse(self.number))
    }

    /// The better of both in everything; how long the result is fresh is known best by who asked last.
    fn or_better(&self, other: &Self) -> Self {
        Self {
            class: self.class.max(other.class),
            due: self.due.min(other.due),
            worth: self.worth.max(other.worth),
            ttl: other.ttl,
            asked: self.asked.max(other.asked),
            number: self.number,
        }
    }
}

/// The most urgent first.
const CLASSES: [Class; 4] = [
    Class::Invalidated,
    Class::NearExpiry,
    Class::Boot,
    Class::Scheduled,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: Duration = Duration::MAX;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn job(key: u32, class: Class, due: u64, worth: u64) -> Job<u32> {
        Job {
            key,
            class,
            due: at(due),
            worth: Duration::from_secs(worth),
            ttl: LONG,
        }
    }

    fn drain(queue: &mut Queue<u32>, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| queue.take(at(now)))
            .map(|job| job.key)
            .collect()
    }

    #[test]
    fn classes_come_before_due_moments_and_those_before_worth() {
        let mut queue = Queue::new(100);
        for (key, class, due, worth) in [
            (1, Class::Scheduled, 0, 99),
            (2, Class::Boot, 5, 1),
            (3, Class::Boot, 5, 2),
            (4, Class::Boot, 4, 0),
            (5, Class::Invalidated, 9, 0),
            (6, Class::NearExpiry, 9, 0),
            (7, Class::Boot, 5, 2),
            (8, Class::Invalidated, 11, 9),
        ] {
            assert!(queue.offer(job(key, class, due, worth)));
        }
        assert_eq!(queue.next_due(), Some(at(0)));
        // The most urgent is not due yet, and holds nobody up.
        assert_eq!(drain(&mut queue, 10), [5, 6, 4, 3, 7, 2, 1]);
        assert_eq!(queue.next_due(), Some(at(11)));
        assert_eq!(drain(&mut queue, 11), [8]);
        assert_eq!((queue.next_due(), queue.len()), (None, 0));
    }

    #[test]
    fn a_job_offered_again_moves_up_and_never_down() {
        let mut queue = Queue::new(100);
        queue.offer(job(1, Class::NearExpiry, 10, 5));
        queue.offer(job(1, Class::Boot, 20, 1));
        queue.offer(job(1, Class::Boot, 7, 1));
        queue.offer(job(1, Class::Scheduled, 20, 8));
        assert_eq!(queue.len(), 1);
        let taken = queue.take(at(7)).unwrap();
        assert_eq!(taken, job(1, Class::NearExpiry, 7, 8));
    }

    #[test]
    fn a_full_queue_drops_the_least_worthy_of_the_lowest_class() {
        let mut queue = Queue::new(3);
        queue.offer(job(1, Class::Boot, 0, 5));
        queue.offer(job(2, Class::Boot, 0, 3));
        queue.offer(job(3, Class::Invalidated, 0, 0));
        assert!(!queue.offer(job(4, Class::Boot, 0, 3)), "no worthier");
        assert!(!queue.offer(job(5, Class::Scheduled, 0, 99)), "lower");
        assert!(queue.offer(job(6, Class::Boot, 0, 4)), "in place of 2");
        assert!(queue.offer(job(7, Class::NearExpiry, 0, 0)), "of 6");
        // Nobody has to go for one that waits already.
        assert!(queue.offer(job(1, Class::Boot, 0, 9)));
        assert_eq!(queue.dropped().crowded, 4);
        assert_eq!(drain(&mut queue, 0), [3, 7, 1]);
    }

    #[test]
    fn what_has_waited_for_half_its_lifetime_is_dropped_unless_it_was_asked_for_again() {
        let mut queue = Queue::new(9);
        let minute = Duration::from_secs(60);
        for key in [1, 2, 3] {
            queue.offer(Job {
                ttl: minute,
                ..job(key, Class::NearExpiry, 10, 0)
            });
        }
        queue.offer(job(4, Class::NearExpiry, 10, 0));
        queue.offer(Job {
            ttl: minute,
            ..job(2, Class::NearExpiry, 30, 0)
        });
        assert_eq!(queue.take(at(40)).unwrap().key, 1, "just in time");
        assert_eq!(drain(&mut queue, 41), [2, 4]);
        let expected = Dropped {
            crowded: 0,
            late: 1,
        };
        assert_eq!(queue.dropped(), expected);
    }

    fn any_job() -> impl Strategy<Value = Job<u32>> {
        (0_u32..12, 0_usize..4, 0_u64..6, 0_u64..4)
            .prop_map(|(key, class, due, worth)| job(key, CLASSES[class], due, worth))
    }

    proptest! {
        #[test]
        fn it_takes_what_a_plain_list_would(
            steps in proptest::collection::vec((any_job(), 0_u64..8), 1..60),
        ) {
            let mut queue = Queue::new(5);
            let mut list: Vec<(Job<u32>, usize)> = Vec::new();
            let place = |(job, number): &(Job<u32>, usize)| (job.class, job.worth, Reverse(*number));
            for (number, (job, now)) in steps.into_iter().enumerate() {
                if now % 2 == 0 {
                    queue.offer(job.clone());
                    match list.iter_mut().find(|(known, _)| known.key == job.key) {
                        Some((known, _)) => {
                            known.class = known.class.max(job.class);
                            known.due = known.due.min(job.due);
                            known.worth = known.worth.max(job.worth);
                        }
                        None => list.push((job, number)),
                    }
                    if list.len() > 5 {
                        let least = (0..list.len()).min_by_key(|at| place(&list[*at])).unwrap();
                        list.remove(least);
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.next_due(), list.iter().map(|(job, _)| job.due).min());
                if now % 3 == 0 {
                    let now = at(now);
                    let due = (0..list.len()).filter(|at| list[*at].0.due <= now);
                    let first = due.min_by_key(|at| {
                        let (job, number) = &list[*at];
                        (Reverse(job.class), job.due, Reverse(job.worth), *number)
                    });
                    let expected = first.map(|at| list.remove(at).0);
                    prop_assert_eq!(queue.take(now), expected);
                }
            }
            let sizes = (queue.jobs.len(), queue.turns.len(), queue.worths.len());
            prop_assert_eq!(sizes, (list.len(), list.len(), list.len()));
        }
    }
}
