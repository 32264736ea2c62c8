//! What threads share, as the model checker has it.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use std::sync::PoisonError;

/// Tokio's channel for one value, as far as it is used: its steps are whole here, what happens inside of
/// them is tokio's.
pub(crate) mod oneshot {
    use std::sync::Arc;

    use loom::sync::{Condvar, Mutex, MutexGuard};

    #[derive(Debug)]
    struct Channel<T> {
        inside: Mutex<Inside<T>>,
        changed: Condvar,
    }

    #[derive(Debug)]
    struct Inside<T> {
        value: Option<T>,
        sender_is_gone: bool,
        receiver_is_gone: bool,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Channel<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            inside: Mutex::new(Inside {
                value: None,
                sender_is_gone: false,
                receiver_is_gone: false,
            }),
            changed: Condvar::new(),
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Channel<T> {
        fn inside(&self) -> MutexGuard<'_, Inside<T>> {
            self.inside.lock().expect("nobody panics in here")
        }
    }

    impl<T> Sender<T> {
        pub(crate) fn send(self, value: T) -> Result<(), T> {
            let mut inside = self.0.inside();
            if inside.receiver_is_gone {
                return Err(value);
            }
            inside.value = Some(value);
            Ok(())
        }

        pub(crate) fn is_closed(&self) -> bool {
            self.0.inside().receiver_is_gone
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.inside().sender_is_gone = true;
            self.0.changed.notify_one();
        }
    }

    impl<T> Receiver<T> {
        /// Waits for the value; none if the sender is gone.
        pub(crate) fn wait(self) -> Option<T> {
            let mut inside = self.0.inside();
            while !inside.sender_is_gone {
                inside = self.0.changed.wait(inside).expect("nobody panics in here");
            }
            inside.value.take()
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.inside().receiver_is_gone = true;
        }
    }
}
