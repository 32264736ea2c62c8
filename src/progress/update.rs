//! What a publisher says, and the event that becomes of it.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::progress::id::EventId;

/// How far the work is. Every part is optional; an update with none still says "I am alive".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressUpdate {
    /// How much is done, 0 to 100. Published values are clamped to that range, and a value that is
    /// not a number is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f32>,
    /// What is being done, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whatever else the watcher's program needs, such as the address of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl ProgressUpdate {
    /// An update that names a percentage only.
    #[must_use]
    pub fn at(percent: f32) -> Self {
        Self {
            percent: Some(percent),
            ..Self::default()
        }
    }

    /// An update that names a stage only.
    #[must_use]
    pub fn stage(message: impl Into<String>) -> Self {
        Self::default().message(message)
    }

    /// The same update with a message.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// The same update with data for the watcher's program.
    #[must_use]
    pub fn data(mut self, data: serde_json::Value) -> Self {
        self.data = Some(data);
        self
    }

    /// The update as one line of JSON, with its percentage put in order.
    pub(crate) fn into_json(self) -> Vec<u8> {
        let percent = self.percent.filter(|percent| !percent.is_nan());
        let sound = Self {
            percent: percent.map(|percent| percent.clamp(0.0, 100.0)),
            ..self
        };
        // Serialising numbers, text and a `Value` into memory cannot fail; an empty object stands
        // in should that ever change.
        serde_json::to_vec(&sound).unwrap_or_else(|_| EMPTY.to_vec())
    }
}

/// An update that says nothing.
pub(crate) const EMPTY: &[u8] = b"{}";

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProgressKind {
    /// The work goes on.
    Progress,
    /// The work is done. Terminal.
    Finished,
    /// The work failed, as its publisher says. Terminal.
    Failed,
    /// The publisher went away without a word: a panic, a cancelled task. Terminal.
    Aborted,
    /// Events between the watcher's place and the next event are gone, or the stream began anew
    /// since: what the watcher knows may be out of date.
    Resync,
}

impl ProgressKind {
    /// The name in the `event:` line. None is `error`, which `EventSource` uses for itself.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Progress => "progress",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Resync => "resync",
        }
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Aborted)
    }
}

/// One event of a stream. Cheap to clone: its text is shared by all watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressEvent {
    id: EventId,
    kind: ProgressKind,
    frame: Bytes,
    json: Range<usize>,
}

impl ProgressEvent {
    /// Writes the event down once, as all watchers will be sent it.
    ///
    /// `json` must be free of line breaks: in an event stream a line break ends the field. What
    /// `serde_json` writes compactly is, because JSON escapes them inside strings.
    pub(crate) fn new(id: EventId, kind: ProgressKind, json: &[u8]) -> Self {
        let head = format!("id: {id}\nevent: {}\ndata: ", kind.name());
        let mut frame = Vec::with_capacity(head.len() + json.len() + 2);
        frame.extend_from_slice(head.as_bytes());
        frame.extend_from_slice(json);
        frame.extend_from_slice(b"\n\n");
        Self {
            id,
            kind,
            frame: frame.into(),
            json: head.len()..head.len() + json.len(),
        }
    }

    /// Where it stands in its stream.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// What it means.
    #[must_use]
    pub const fn kind(&self) -> ProgressKind {
        self.kind
    }

    /// The update as JSON: an object with `percent`, `message` and `data`, as far as given.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.json.clone())
    }

    /// The event as text of an event stream, blank line included.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        self.frame.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event_of(update: ProgressUpdate) -> ProgressEvent {
        ProgressEvent::new(
            EventId { ms: 5, n: 1 },
            ProgressKind::Progress,
            &update.into_json(),
        )
    }

    #[test]
    fn an_event_is_written_as_three_fields_and_a_blank_line() {
        let update = ProgressUpdate::at(12.5).message("half\nof it");
        assert_eq!(
            event_of(update).frame(),
            "id: 5-1\nevent: progress\ndata: {\"percent\":12.5,\"message\":\"half\\nof it\"}\n\n"
        );
    }

    #[test]
    fn percentages_stay_between_0_and_100() {
        for (given, said) in [
            (-1.0, "{\"percent\":0.0}"),
            (250.0, "{\"percent\":100.0}"),
            (f32::INFINITY, "{\"percent\":100.0}"),
            (f32::NAN, "{}"),
        ] {
            assert_eq!(event_of(ProgressUpdate::at(given)).json(), said, "{given}");
        }
    }

    proptest! {
        // A message must never be able to end its field and begin another event.
        #[test]
        fn no_text_breaks_out_of_its_line(message in "[\\x00-\\x7f\u{85}\u{2028}\u{2029}]{0,40}") {
            let update = ProgressUpdate::stage(message.clone())
                .data(serde_json::json!({ message.as_str(): message }));
            let event = event_of(update.clone());
            let frame = String::from_utf8(event.frame().to_vec()).unwrap();
            let lines: Vec<&str> = frame.split(['\n', '\r']).collect();
            prop_assert_eq!(lines.len(), 5);
            prop_assert_eq!(lines[3..].concat(), "");
            let read: ProgressUpdate = serde_json::from_slice(&event.json()).unwrap();
            prop_assert_eq!(read, update);
        }
    }
}
