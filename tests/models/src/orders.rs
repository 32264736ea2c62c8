//! Running a model in every order.

use std::cell::Cell;
use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

thread_local! {
    static TRIED: Cell<u64> = const { Cell::new(0) };
}

/// How many orders have been tried on this thread since it was asked the last time.
pub(crate) fn tried() -> u64 {
    TRIED.take()
}

/// Runs the model in every order.
pub(crate) fn every_order(model: impl Fn() + Send + Sync + 'static) {
    check(None, model);
}

/// Runs the model in every order in which threads are interrupted so many times in all.
pub(crate) fn orders_with(interruptions: usize, model: impl Fn() + Send + Sync + 'static) {
    check(Some(interruptions), model);
}

fn check(interruptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // What one thread does before and after the others costs no orders.
    builder.expect_explicit_explore = true;
    builder.preemption_bound = interruptions;
    builder.max_branches = 100_000;
    builder.check(move || {
        TRIED.set(TRIED.get() + 1);
        model();
    });
}

/// What a thread does with what all share.
pub(crate) type Deed<S, R> = fn(&S) -> R;

/// Does all this at the same time, each on a thread of its own. At most four.
pub(crate) fn at_once<S, R, const N: usize>(shared: &Arc<S>, deeds: [Deed<S, R>; N]) -> [R; N]
where
    S: Send + Sync + 'static,
    R: Send + 'static,
{
    loom::explore();
    let threads = deeds.map(|deed| {
        let shared = Arc::clone(shared);
        thread::spawn(move || deed(&shared))
    });
    let done = threads.map(|thread| thread.join().expect("a thread does not panic"));
    loom::stop_exploring();
    done
}
