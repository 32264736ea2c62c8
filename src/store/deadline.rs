//! A deadline that knows a stalled runtime from a stalled server.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// What `work` comes to within `limit`, or `None`.
///
/// Where the timer itself fires late, this thread was held up, and the answer may lie unread in the
/// socket: then the work gets a little longer, at most twice. On a host with one core a busy handler
/// would otherwise look like a dead Redis.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut alarm = pin!(tokio::time::sleep(limit));
    let mut extensions = 0;
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let late = alarm.deadline().elapsed() > LATE;
            if !late || extensions == EXTENSIONS {
                return Poll::Ready(None);
            }
            extensions += 1;
            alarm.set(tokio::time::sleep(EXTENSION));
        }
        Poll::Pending
    })
    .await
}

/// A timer that fires this much after its time tells of a stall. Tokio's own grain is a millisecond.
const LATE: Duration = Duration::from_millis(5);
/// How much longer the work gets then, and how often.
const EXTENSION: Duration = Duration::from_millis(10);
const EXTENSIONS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    #[tokio::test(start_paused = true)]
    async fn work_in_time_is_done_and_late_work_is_not() {
        let quick = tokio::time::sleep(Duration::from_millis(49));
        assert_eq!(within(LIMIT, quick).await, Some(()));
        let slow = tokio::time::sleep(Duration::from_millis(52));
        assert_eq!(within(LIMIT, slow).await, None);
    }

    #[tokio::test]
    async fn an_answer_that_came_while_the_runtime_stalled_counts() {
        let (answer, wait) = tokio::sync::oneshot::channel();
        let reader = tokio::spawn(within(LIMIT, wait));
        tokio::task::yield_now().await;
        // The whole runtime stands still past the deadline, and the answer is there only afterwards.
        std::thread::sleep(Duration::from_millis(80));
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            answer.send(7)
        });
        assert_eq!(reader.await.unwrap(), Some(Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_buys_two_extensions_and_no_more() {
        let began = tokio::time::Instant::now();
        let waiting = tokio::spawn(within(LIMIT, std::future::pending::<()>()));
        tokio::task::yield_now().await;
        for _ in 0..8 {
            // Each step is a stall: the timer fires far past its time.
            tokio::time::advance(Duration::from_millis(80)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.await.unwrap(), None);
        assert!(began.elapsed() >= LIMIT);
    }
}
