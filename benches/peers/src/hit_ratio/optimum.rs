//! What a cache could find that knew the future: Belady's rule, where the key that is asked for last of all goes,
//! even if that is the new one.

use std::collections::BTreeSet;

use crate::hit_ratio::caches::Room;
use crate::hit_ratio::traces::Trace;

/// Hits on a trace whose answers are all alike.
pub(crate) fn hits(trace: &Trace, room: Room) -> u64 {
    let next = next_uses(trace);
    // Keys by when they are asked for next, and that time by key.
    let mut kept: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut due = vec![None; trace.keys()];
    let mut hits = 0;
    for (key, next) in trace.requests.iter().zip(next) {
        let due_now = due[*key as usize].replace(next);
        if due_now.is_some_and(|now| kept.remove(&(now, *key))) {
            hits += 1;
        }
        kept.insert((next, *key));
        if kept.len() as u64 > room.weight
            && let Some((_, gone)) = kept.pop_last()
        {
            due[gone as usize] = None;
        }
    }
    hits
}

/// For each request, the place of the next one for the same key; past the end if there is none.
fn next_uses(trace: &Trace) -> Vec<usize> {
    let never = trace.requests.len();
    let mut last = vec![never; trace.keys()];
    let mut next = vec![never; trace.requests.len()];
    for (place, key) in trace.requests.iter().enumerate().rev() {
        next[place] = std::mem::replace(&mut last[*key as usize], place);
    }
    next
}
