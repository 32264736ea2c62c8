//! As much of the events as the shipped files tell, and nobody who listens.

#[derive(Debug)]
pub(crate) enum Event {
    JournalUnverified { why: &'static str },
    JournalVerified,
}

#[derive(Clone, Debug)]
pub(crate) struct Events;

impl Events {
    pub(crate) fn emit(&self, event: Event) {
        if let Event::JournalUnverified { why } = event {
            assert!(!why.is_empty());
        }
    }
}
