//! Who is let in where names, routes and callers are shown, and where things are changed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::admin::config::{AdminConfig, TOKEN_MAX};
use crate::clock::Moment;
use crate::identity::RequestView;

/// What a closure says of a request for details or for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may have what it asks for.
    Allow,
    /// Nobody knows whose it is: 401.
    Challenge,
    /// It may not: 403.
    Deny,
}

type Ask = dyn Fn(&RequestView<'_>) -> Access + Send + Sync;

/// Who may see details and change things: whoever brings the token along, and whoever a closure lets in. Cheap
/// to clone; all clones count together.
#[derive(Clone, Default)]
pub struct AdminAuth {
    /// The token's digest: digests are of one length, and what is learned of one says nothing of the token.
    token: Option<[u8; 32]>,
    ask: Option<Arc<Ask>>,
    tally: Arc<Tally>,
}

/// What is counted, in a fixed size: who guesses cannot make it grow.
#[derive(Debug, Default)]
struct Tally {
    /// When the minute began, and how many were turned away in it.
    minute: Mutex<(Moment, u32)>,
    denied: AtomicU64,
    changes: AtomicU64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Allow,
    Challenge,
    Deny,
    /// Too many were turned away of late; come back after so long.
    Wait(Duration),
}

impl AdminAuth {
    /// Lets nobody in: what needs authorisation does not exist.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets in whoever brings the configured token along; nobody, if none is configured or if it is one that
    /// `build()` would refuse, such as an empty variable of the environment.
    #[must_use]
    pub fn new(config: &AdminConfig) -> Self {
        Self::none().configured(config)
    }

    /// Lets those in as well that `ask` allows. It is asked on the request's thread, and must not block. It is not
    /// asked about requests with the right token.
    ///
    /// A browser sends cookies and client certificates along whoever makes it send a request. Changes are safe
    /// from that, because they need a content type that other sites may not send; nothing else changes anything.
    #[must_use]
    pub fn asking(
        mut self,
        ask: impl Fn(&RequestView<'_>) -> Access + Send + Sync + 'static,
    ) -> Self {
        self.ask = Some(Arc::new(ask));
        self
    }

    /// Whether anybody can be let in.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.token.is_some() || self.ask.is_some()
    }

    /// How many requests were turned away so far.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.tally.denied.load(Ordering::Relaxed)
    }

    /// How many changes were made by those who may.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.tally.changes.load(Ordering::Relaxed)
    }

    /// The same with the token of these settings.
    pub(crate) fn configured(mut self, config: &AdminConfig) -> Self {
        let token = config.fit_token();
        self.token = token.map(|token| Sha256::digest(token).into());
        self
    }

    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(crate) const fn has_closure(&self) -> bool {
        self.ask.is_some()
    }

    pub(crate) fn count_change(&self) {
        self.tally.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a request may have what is not for everybody. The right token is let in however many were wrong;
    /// who guesses is told to wait after [`DENIED_MAX`] within a minute. Whom a closure turns away by anything else than
    /// `Authorization` has guessed nothing.
    pub(crate) fn judge(&self, request: &RequestView<'_>, now: Moment) -> Judgement {
        let brought = bearer(request).zip(self.token.as_ref());
        if brought.is_some_and(|(brought, token)| is_token(brought, token)) {
            return Judgement::Allow;
        }
        // Something else than a bearer's token is wrong as well.
        let wrong = request.headers.contains_key(AUTHORIZATION);
        let access = match &self.ask {
            Some(ask) => ask(request),
            None if wrong => Access::Deny,
            None => Access::Challenge,
        };
        let judgement = match access {
            Access::Allow => return Judgement::Allow,
            Access::Challenge => Judgement::Challenge,
            Access::Deny => Judgement::Deny,
        };
        self.tally.denied.fetch_add(1, Ordering::Relaxed);
        let guesses = brought.is_some() || (wrong && judgement == Judgement::Deny);
        let wait = guesses.then(|| self.tally.wait(now)).flatten();
        wait.map_or(judgement, Judgement::Wait)
    }
}

impl Tally {
    /// Counts one who was turned away; says how long to wait if there were too many.
    fn wait(&self, now: Moment) -> Option<Duration> {
        // A panic cannot leave two numbers half-changed, so poison is ignored.
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(minute.0) >= MINUTE {
            *minute = (now, 0);
        }
        minute.1 = minute.1.saturating_add(1);
        let (began, count) = *minute;
        (count > DENIED_MAX).then(|| MINUTE.saturating_sub(now.since(began)))
    }
}

/// What a request brings along as a bearer's token, if it does so once.
fn bearer<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    let mut fields = request.headers.get_all(AUTHORIZATION).iter();
    let field = fields.next()?.as_bytes();
    if fields.next().is_some() {
        return None;
    }
    // RFC 9110 §11.1: the scheme is case-insensitive, and a space ends it.
    let (scheme, token) = field.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    is_bearer.then(|| token.trim_ascii())
}

const SCHEME: &[u8] = b"Bearer ";

/// Compares digests in a time that does not depend on what is in them. What is longer than any token may be is
/// not worth a digest.
fn is_token(brought: &[u8], token: &[u8; 32]) -> bool {
    let digest: [u8; 32] = Sha256::digest(brought.get(..TOKEN_MAX).unwrap_or(brought)).into();
    bool::from(digest.ct_eq(token)) & (brought.len() <= TOKEN_MAX)
}

/// So many may be wrong within a minute before others are told to wait.
pub(crate) const DENIED_MAX: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);

impl fmt::Debug for AdminAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminAuth")
            .field("token", &self.token.map(|_| "(hidden)"))
            .field("ask", &self.ask.is_some())
            .field("tally", &self.tally)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn auth() -> AdminAuth {
        let token = Some("correct-horse-battery".to_owned());
        AdminAuth::new(&AdminConfig { token })
    }

    fn judged(auth: &AdminAuth, fields: &[&[u8]], at: u64) -> Judgement {
        let mut request = Request::new(());
        for field in fields {
            let value = HeaderValue::from_bytes(field).unwrap();
            request.headers_mut().append(AUTHORIZATION, value);
        }
        let now = Moment::from_nanos(at * 1_000_000_000);
        auth.judge(&RequestView::of(&request), now)
    }

    #[test]
    fn the_token_is_the_only_one_that_is_let_in() {
        let right: &[u8] = b"Bearer correct-horse-battery";
        let long = [b"Bearer ".as_slice(), &[b'a'; 5_000]].concat();
        for (fields, judgement) in [
            (&[right][..], Judgement::Allow),
            (&[b"bearer  correct-horse-battery "], Judgement::Allow),
            (&[], Judgement::Challenge),
            (&[right, right], Judgement::Deny),
            (&[b"Bearer correct-horse-batter"], Judgement::Deny),
            (&[b"Bearer correct-horse-battery2"], Judgement::Deny),
            (&[b"Bearer"], Judgement::Deny),
            (&[b"Bearer "], Judgement::Deny),
            (&[b"Basic correct-horse-battery"], Judgement::Deny),
            (&[b"correct-horse-battery"], Judgement::Deny),
            (&[b"Bearer \xff\xfe"], Judgement::Deny),
            (&[&long], Judgement::Deny),
        ] {
            assert_eq!(judged(&auth(), fields, 0), judgement, "{fields:?}");
        }
        assert!(!format!("{:?}", auth()).contains("horse"));
    }

    /// What is longer than any token is compared by its first part, and is wrong all the same.
    #[test]
    fn the_longest_token_with_something_behind_it_is_wrong() {
        let token = "t".repeat(TOKEN_MAX);
        let auth = AdminAuth::new(&AdminConfig {
            token: Some(token.clone()),
        });
        let right = format!("Bearer {token}");
        assert_eq!(judged(&auth, &[right.as_bytes()], 0), Judgement::Allow);
        let longer = format!("{right}t");
        assert_eq!(judged(&auth, &[longer.as_bytes()], 0), Judgement::Deny);
    }

    #[test]
    fn who_guesses_is_told_to_wait_and_the_right_token_is_not() {
        let auth = auth();
        let another = auth.clone();
        let wrong: &[u8] = b"Bearer wrong-wrong-wrong";
        for _ in 0..DENIED_MAX {
            assert_eq!(judged(&auth, &[wrong], 100), Judgement::Deny);
        }
        let wait = |secs| Judgement::Wait(Duration::from_secs(secs));
        assert_eq!(judged(&another, &[wrong], 100), wait(60));
        assert_eq!(judged(&auth, &[wrong], 130), wait(30));
        let right: &[u8] = b"Bearer correct-horse-battery";
        assert_eq!(judged(&auth, &[right], 130), Judgement::Allow);
        // Who brings nothing along guesses nothing.
        assert_eq!(judged(&auth, &[], 130), Judgement::Challenge);
        assert_eq!(judged(&auth, &[wrong], 160), Judgement::Deny);
        assert_eq!(auth.denied(), u64::from(DENIED_MAX) + 4);
    }

    #[test]
    fn who_guesses_beside_a_closure_is_told_to_wait_as_well() {
        let wrong: &[u8] = b"Bearer wrong-wrong-wrong";
        let both = auth().asking(|_| Access::Challenge);
        for _ in 0..DENIED_MAX {
            assert_eq!(judged(&both, &[wrong], 100), Judgement::Challenge);
        }
        let wait = Judgement::Wait(Duration::from_secs(60));
        assert_eq!(judged(&both, &[wrong], 100), wait);
        // Who brings nothing along guesses nothing, and without a token there is none to guess.
        assert_eq!(judged(&both, &[], 100), Judgement::Challenge);
        let alone = AdminAuth::none().asking(|_| Access::Challenge);
        for _ in 0..=DENIED_MAX {
            assert_eq!(judged(&alone, &[wrong], 100), Judgement::Challenge);
        }
        // Nor does whom the closure knows by a cookie, so that one of them does not shut the others out.
        let strict = auth().asking(|_| Access::Deny);
        for _ in 0..=DENIED_MAX {
            assert_eq!(judged(&strict, &[], 100), Judgement::Deny);
        }
        // But one that checks passwords is guessed at.
        let basic = AdminAuth::none().asking(|_| Access::Deny);
        for _ in 0..DENIED_MAX {
            assert_eq!(
                judged(&basic, &[b"Basic cm9vdDpyb290"], 100),
                Judgement::Deny
            );
        }
        assert_eq!(judged(&basic, &[b"Basic cm9vdDpyb290"], 100), wait);
    }

    /// `build()` refuses such tokens, but who makes an `AdminAuth` by hand may not have asked it.
    #[test]
    fn a_token_that_could_be_guessed_lets_nobody_in() {
        for token in ["", "x", "0123456789abcde", "correct horse battery"] {
            let auth = AdminAuth::new(&AdminConfig {
                token: Some(token.to_owned()),
            });
            assert!(!auth.is_configured(), "{token:?}");
            let brought = format!("Bearer {token}");
            assert_eq!(
                judged(&auth, &[brought.as_bytes()], 0),
                Judgement::Deny,
                "{token:?}"
            );
        }
    }

    #[test]
    fn a_closure_decides_about_those_without_the_token() {
        let ask = |request: &RequestView<'_>| match request.headers.get("x-role") {
            Some(role) if role == "operator" => Access::Allow,
            Some(_) => Access::Deny,
            None => Access::Challenge,
        };
        for (auth, token) in [(AdminAuth::none(), false), (auth(), true)] {
            let auth = auth.asking(ask);
            assert!(auth.is_configured());
            assert_eq!(auth.has_token(), token);
            for (role, judgement) in [
                ("operator", Judgement::Allow),
                ("reader", Judgement::Deny),
                ("", Judgement::Challenge),
            ] {
                let request = Request::builder();
                let request = match role {
                    "" => request,
                    role => request.header("x-role", role),
                };
                let request = request.body(()).unwrap();
                let judged = auth.judge(&RequestView::of(&request), Moment::default());
                assert_eq!(judged, judgement, "{role}");
            }
            let right: &[u8] = b"Bearer correct-horse-battery";
            let judgement = if token {
                Judgement::Allow
            } else {
                Judgement::Challenge
            };
            assert_eq!(judged(&auth, &[right], 0), judgement);
        }
        assert!(!AdminAuth::none().is_configured());
    }
}
