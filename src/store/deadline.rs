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
        let stall = async move {
            // The whole runtime stands still past the deadline, and the answer is there only afterwards.
            std::thread::sleep(Duration::from_millis(80));
            tokio::time::sleep(Duration::from_millis(1)).await;
            answer.send(7)
        };
        let (read, sent) = tokio::join!(within(LIMIT, wait), stall);
        assert_eq!((read, sent), (Some(Ok(7)), Ok(())));
    }

    #[tokio::test]
    async fn a_stall_buys_two_extensions_and_no_more() {
        // Every turn of the runtime is a stall, so every timer fires late.
        let stalls = async {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(30));
                tokio::task::yield_now().await;
            }
            "all stalls"
        };
        let given_up = async {
            within(LIMIT, std::future::pending::<()>()).await;
            "given up"
        };
        tokio::select! {
            first = given_up => assert_eq!(first, "given up"),
            first = stalls => panic!("the work was waited for through {first}"),
        }
    }
}
