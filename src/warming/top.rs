//! What is hot: the keys that weigh most, learned with the memory for a few.
//!
//! *Space-saving* (Metwally, Agrawal, El Abbadi 2005): whoever is new when the list is full takes the place of
//! the least, and its count along as a possible error. So a count is at most that much too high and never too
//! low, an error is at most the sum of all weights divided by the length of the list, and whoever weighs more
//! than that is on it.
//!
//! Weights halve with every half-life, and no counter is touched for it: what is learned later weighs more
//! instead (*forward decay*; Cormode, Shkapenyuk, Srivastava, Xu 2009). Counts are kept in units of the
//! **landmark**, a moment in the past, and only told in those of now. The bounds above hold for decayed
//! weights as well, since all of them are scaled alike.
//!
//! The limiter's list of those who press hardest stands on the same paper and on nothing else in common: it
//! has 64 places that are searched in one go, halves whole numbers once a minute, and would rather miss a
//! note than wait. Here it is a thousand keys with weights, in order.

use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};

use crate::clock::Moment;

/// The keys that weigh most. Keys are told apart by a hash, and `W` is what is known of each besides.
#[derive(Debug)]
pub(crate) struct Top<W> {
    keys_max: usize,
    half_life: Duration,
    /// In whose units counts are.
    landmark: Moment,
    entries: HashMap<u64, Entry<W>>,
    /// The keys by their counts, least first.
    order: BTreeSet<(Rank, u64)>,
}

#[derive(Debug)]
struct Entry<W> {
    what: W,
    count: f64,
    /// How much of the count may be somebody else's.
    error: f64,
    /// How much of the count was told to others, or is not its own.
    told: f64,
}

/// A key and what it weighs, in units of the moment for which it was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Learned<W> {
    pub(crate) key: u64,
    pub(crate) what: W,
    /// It weighs no less.
    pub(crate) at_least: f64,
    /// And no more.
    pub(crate) at_most: f64,
}

/// What a key has gained that others were not told yet.
#[cfg(any(test, feature = "redis"))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gain<W> {
    pub(crate) key: u64,
    pub(crate) what: W,
    /// In units of the moment for which it was asked, and certain: no error is in it.
    pub(crate) weight: f64,
}

impl<W: Clone> Top<W> {
    /// A list of at most `keys_max` keys, at least one, whose weights halve with each `half_life`.
    pub(crate) fn new(keys_max: usize, half_life: Duration) -> Self {
        let keys_max = keys_max.max(1);
        Self {
            keys_max,
            half_life: half_life.max(Duration::from_nanos(1)),
            landmark: Moment::default(),
            entries: HashMap::with_capacity(keys_max),
            order: BTreeSet::new(),
        }
    }

    /// How many keys are on the list.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds to the weight of a key. `what` is asked only for one that is new on the list. Weights that are
    /// not positive numbers are nothing. Takes a search among the keys.
    pub(crate) fn learn(&mut self, key: u64, weight: f64, now: Moment, what: impl FnOnce() -> W) {
        let Some(gain) = self.scaled(weight, now) else {
            return;
        };
        if self.entries.contains_key(&key) {
            return self.change(key, |entry| entry.count += gain);
        }
        let least = if self.len() < self.keys_max {
            0.0
        } else {
            self.drop_least()
        };
        let entry = Entry {
            what: what(),
            count: least + gain,
            error: least,
            told: least,
        };
        self.order.insert((rank(entry.count), key));
        self.entries.insert(key, entry);
    }

    /// What is known of a key that is on the list.
    pub(crate) fn what(&self, key: u64) -> Option<&W> {
        self.entries.get(&key).map(|entry| &entry.what)
    }

    /// What a key weighs at least; nothing if it is not on the list.
    pub(crate) fn at_least(&self, key: u64, now: Moment) -> f64 {
        let entry = self.entries.get(&key);
        entry.map_or(0.0, |entry| (entry.count - entry.error) / self.unit(now))
    }

    /// The `count` keys that weigh most at `now`, by what they weigh at least: whoever came by once and took
    /// the place of another does not stand before those who were seen twice. Sorts the list.
    pub(crate) fn top(&self, count: usize, now: Moment) -> Vec<Learned<W>> {
        let unit = self.unit(now);
        let told = self.entries.iter().map(|(key, entry)| Learned {
            key: *key,
            what: entry.what.clone(),
            at_least: (entry.count - entry.error) / unit,
            at_most: entry.count / unit,
        });
        let mut all: Vec<_> = told.collect();
        all.sort_unstable_by(|one, other| {
            (other.at_least.total_cmp(&one.at_least))
                .then(other.at_most.total_cmp(&one.at_most))
                .then(one.key.cmp(&other.key))
        });
        all.truncate(count);
        all
    }

    /// A weight of `now` in units of the landmark.
    fn scaled(&mut self, weight: f64, now: Moment) -> Option<f64> {
        if !(weight > 0.0 && weight.is_finite()) {
            return None;
        }
        if self.half_lives(now) > HALF_LIVES_MAX {
            self.move_landmark(now);
        }
        Some(weight.min(WEIGHT_MAX) * self.unit(now))
    }

    /// What a weight of one at `at` is in units of the landmark.
    fn unit(&self, at: Moment) -> f64 {
        // No smaller and no greater than what can be divided by: beyond that all is forgotten anyway.
        self.half_lives(at).clamp(-1_000.0, 1_000.0).exp2()
    }

    /// How many half-lives after the landmark a moment is.
    fn half_lives(&self, at: Moment) -> f64 {
        let (after, before) = (at.since(self.landmark), self.landmark.since(at));
        (after.as_secs_f64() - before.as_secs_f64()) / self.half_life.as_secs_f64()
    }

    /// Once in so many half-lives counts would become too large, and all of them are touched after all.
    fn move_landmark(&mut self, now: Moment) {
        let unit = self.unit(now);
        self.landmark = now;
        for entry in self.entries.values_mut() {
            entry.count /= unit;
            entry.error /= unit;
            entry.told /= unit;
        }
        let ranks = self.entries.iter();
        self.order = ranks
            .map(|(key, entry)| (rank(entry.count), *key))
            .collect();
    }

    fn change(&mut self, key: u64, change: impl FnOnce(&mut Entry<W>)) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.order.remove(&(rank(entry.count), key));
            change(entry);
            self.order.insert((rank(entry.count), key));
        }
    }

    /// Makes room for one. Returns what the least weighed.
    fn drop_least(&mut self) -> f64 {
        let least = self.order.pop_first();
        let entry = least.and_then(|(_, key)| self.entries.remove(&key));
        entry.map_or(0.0, |entry| entry.count)
    }
}

/// Sharing with others, who remember what this process forgets.
#[cfg(any(test, feature = "redis"))]
impl<W: Clone> Top<W> {
    /// Adds what others have told of a key: it is no gain of this list. What was learned here is not pushed
    /// off a full list for it.
    pub(crate) fn restore(&mut self, key: u64, weight: f64, now: Moment, what: impl FnOnce() -> W) {
        if self.len() < self.keys_max || self.entries.contains_key(&key) {
            self.learn(key, weight, now, what);
            self.told(key, weight, now);
        }
    }

    /// The `count` keys that have gained most since others were told, greatest first. Who has told them says
    /// so by [`told`](Self::told). Sorts the list.
    pub(crate) fn gains(&self, count: usize, now: Moment) -> Vec<Gain<W>> {
        let unit = self.unit(now);
        let gained = self.entries.iter().filter_map(|(key, entry)| {
            let weight = (entry.count - entry.told) / unit;
            (weight >= GAIN_LEAST).then(|| Gain {
                key: *key,
                what: entry.what.clone(),
                weight,
            })
        });
        let mut all: Vec<_> = gained.collect();
        all.sort_unstable_by(|one, other| {
            (other.weight.total_cmp(&one.weight)).then(one.key.cmp(&other.key))
        });
        all.truncate(count);
        all
    }

    /// Others have been told that a key gained `weight`, in units of `at`.
    pub(crate) fn told(&mut self, key: u64, weight: f64, at: Moment) {
        let told = weight * self.unit(at);
        if let Some(entry) = self.entries.get_mut(&key) {
            // It may have left the list in between and come again with less.
            entry.told = (entry.told + told).min(entry.count);
        }
    }
}

/// A count by which keys are in order: numbers that are not negative compare as their bits do.
type Rank = u64;

const fn rank(count: f64) -> Rank {
    count.to_bits()
}

/// For so many half-lives after the landmark weights are scaled up: 2^256 of them, each as large as it may
/// be, are still far from where numbers end, at 2^1024. With ten minutes that is about two days.
const HALF_LIVES_MAX: f64 = 256.0;

/// The largest weight of one note. More counts as that.
const WEIGHT_MAX: f64 = 1e18;

/// Others need not be told of less. It also hides what rounding leaves.
#[cfg(any(test, feature = "redis"))]
const GAIN_LEAST: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    /// Keys 1.. as often as Zipf's law says with exponent 1, by the inverse of the sum, which is a logarithm.
    struct Zipf(u64, f64);

    impl Iterator for Zipf {
        type Item = u64;

        fn next(&mut self) -> Option<u64> {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let chance = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
            Some(self.1.powf(chance) as u64)
        }
    }

    /// Learns a trace, and beside it the exact weights in units of the end.
    fn learned(
        trace: impl Iterator<Item = (u64, f64, u64)>,
        end: u64,
        keys_max: usize,
    ) -> (Top<u64>, HashMap<u64, f64>) {
        let (mut top, mut exact) = (Top::new(keys_max, HALF_LIFE), HashMap::new());
        for (key, weight, second) in trace {
            top.learn(key, weight, at(second), || key);
            let age = (end - second) as f64 / HALF_LIFE.as_secs_f64();
            *exact.entry(key).or_insert(0.0) += weight * (-age).exp2();
            assert!(top.len() <= keys_max);
        }
        (top, exact)
    }

    fn bounds_hold(top: &Top<u64>, exact: &HashMap<u64, f64>, end: u64, keys_max: usize) {
        let all = top.top(usize::MAX, at(end));
        assert_eq!(all.len(), keys_max.min(exact.len()));
        let error_max = exact.values().sum::<f64>() / keys_max as f64;
        let slack = error_max * 1e-6;
        for one in &all {
            let weight = exact[&one.key];
            assert_eq!(one.key, one.what);
            assert!(
                one.at_least <= weight + slack && weight <= one.at_most + slack,
                "{one:?} weighs {weight}"
            );
            assert!(one.at_most - one.at_least <= error_max + slack, "{one:?}");
        }
        for (key, weight) in exact {
            let is_on = all.iter().any(|one| one.key == *key);
            assert!(
                is_on || *weight <= error_max + slack,
                "{key} weighs {weight}"
            );
        }
    }

    #[test]
    fn the_bounds_hold_on_zipf_traces_however_short_the_list_is() {
        for (seed, keys_max) in [(1, 10), (2, 100), (3, 1_000), (4, 1)] {
            let keys = Zipf(seed, 20_000.0).take(100_000);
            // An hour of notes: six half-lives.
            let trace = keys
                .enumerate()
                .map(|(number, key)| (key, 1.0 + (key % 7) as f64, number as u64 / 28));
            let (top, exact) = learned(trace, 3_600, keys_max);
            bounds_hold(&top, &exact, 3_600, keys_max);
        }
    }

    #[test]
    fn nearly_all_of_the_hundred_hottest_of_a_hundred_thousand_keys_are_found() {
        let keys = Zipf(9, 100_000.0).take(300_000);
        let (top, exact) = learned(keys.map(|key| (key, 1.0, 0)), 0, 1_000);
        let mut order: Vec<_> = exact.into_iter().collect();
        order.sort_by(|one, other| other.1.total_cmp(&one.1));
        let hottest: Vec<u64> = order.iter().take(100).map(|(key, _)| *key).collect();
        let found = top.top(100, at(0));
        let right = found.iter().filter(|one| hottest.contains(&one.key));
        let right = right.count();
        assert!(right >= 95, "{right} of 100");
    }

    #[test]
    fn who_comes_once_does_not_stand_before_who_came_often() {
        let mut top = Top::new(100, HALF_LIFE);
        for round in 0..100_000 {
            top.learn(1_000_000 + round, 1.0, at(0), || 0);
            if round % 50 == 0 {
                top.learn(7, 1.0, at(0), || 7);
            }
        }
        let first = &top.top(1, at(0))[0];
        assert_eq!(first.what, 7);
    }

    #[test]
    fn a_weight_halves_with_each_half_life_and_yesterdays_favourite_is_passed() {
        let mut top = Top::new(10, HALF_LIFE);
        top.learn(1, 64.0, at(0), || 1);
        top.learn(2, 9.0, at(1_800), || 2);
        let order = |now| -> Vec<(u64, f64)> {
            let all = top.top(2, at(now));
            all.iter().map(|one| (one.key, one.at_most)).collect()
        };
        assert_eq!(order(1_800), [(2, 9.0), (1, 8.0)]);
        assert_eq!(order(2_400), [(2, 4.5), (1, 4.0)]);
    }

    #[test]
    fn counts_stay_numbers_over_months_and_after_a_year_of_silence() {
        let mut top = Top::new(4, HALF_LIFE);
        let day = 86_400;
        for hour in 0..24 * 90 {
            top.learn(hour % 3, WEIGHT_MAX * 10.0, at(hour * 3_600), || hour % 3);
        }
        let now = 90 * day;
        let all = top.top(4, at(now));
        assert_eq!(all.len(), 3);
        assert!(all[0].at_most > WEIGHT_MAX / 128.0 && all[0].at_most < WEIGHT_MAX);
        let later = at(now + 365 * day);
        top.learn(9, 1.0, later, || 9);
        let all = top.top(4, later);
        assert_eq!((all[0].key, all[0].at_most), (9, 1.0));
        assert!(all[1].at_most < 1e-100, "{:?}", all[1]);
        // A thread that read the clock before that.
        top.learn(9, 1.0, at(now), || 9);
        assert!(top.top(1, later)[0].at_most.is_finite());
    }

    #[test]
    fn what_is_no_weight_is_not_learned() {
        let mut top = Top::new(4, HALF_LIFE);
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            top.learn(1, weight, at(0), || 1);
        }
        assert_eq!(top.len(), 0);
    }

    #[test]
    fn a_gain_is_told_once_and_what_others_told_is_none() {
        let mut top = Top::new(2, HALF_LIFE);
        top.learn(1, 8.0, at(0), || 1);
        top.restore(2, 100.0, at(0), || 2);
        top.restore(3, 100.0, at(0), || 3);
        assert_eq!(top.len(), 2, "the list is full of what was learned here");
        let gains = |top: &Top<u64>, now| -> Vec<(u64, f64)> {
            let gains = top.gains(9, at(now));
            gains.iter().map(|gain| (gain.key, gain.weight)).collect()
        };
        assert_eq!(gains(&top, 600), [(1, 4.0)]);
        top.learn(1, 1.0, at(600), || 1);
        top.told(1, 4.0, at(600));
        assert_eq!(gains(&top, 600), [(1, 1.0)]);
        top.learn(2, 3.0, at(600), || 2);
        assert_eq!(gains(&top, 600), [(2, 3.0), (1, 1.0)]);
        // Who takes a place tells only what is its own.
        top.learn(4, 2.0, at(600), || 4);
        assert_eq!(gains(&top, 600), [(2, 3.0), (4, 2.0)]);
        // Told over a moved landmark.
        let later = 600 + 400 * 600;
        top.learn(4, 1.0, at(later), || 4);
        top.told(4, 2.0, at(600));
        assert_eq!(gains(&top, later), [(4, 1.0)]);
        top.told(4, 1.0, at(later));
        top.told(4, 1.0, at(later));
        assert_eq!(gains(&top, later), []);
    }
}
