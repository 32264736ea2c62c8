//! Where requests are looked at: which endpoint they mean, whether they may, and what is answered.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use http_body::Body;

use crate::admin::answer::{
    Answer, JSON, answer, challenge, crowded, denied, json, not_allowed, not_found, problem, text,
    wait,
};
use crate::admin::auth::{AdminAuth, Judgement};
use crate::admin::body::AdminBody;
use crate::admin::changes::{self, Done, Peek};
use crate::admin::events::{Frames, Seat};
use crate::admin::intake::{self, Unread};
use crate::admin::overview::{Seldom, overview};
use crate::admin::page::Page;
use crate::admin::paths::{Class, Place, Row, find};
use crate::admin::sources::{AdminEngines, AdminSources};
use crate::admin::views;
use crate::clock::Moment;
use crate::health::Health;
use crate::identity::RequestView;
use crate::metrics::Window;
use crate::response::{LongLived, decimal};

/// What all clones of a service share.
#[derive(Debug)]
pub(crate) struct Desk {
    sources: AdminSources,
    auth: AdminAuth,
    /// What all paths begin with.
    prefix: String,
    page: Page,
    /// The dashboard's figures, which many may look at.
    figures: Mutex<Figures>,
    watchers: Arc<AtomicUsize>,
}

/// What was told last.
#[derive(Debug, Default)]
struct Figures {
    told: Option<(Moment, Bytes)>,
    seldom: Option<Seldom>,
}

/// What becomes of a request before its body is looked at.
pub(crate) enum Begun {
    Answered(Answer),
    Reads(Task),
}

/// What is to be done once the body is read.
pub(crate) struct Task {
    place: Place,
    /// The name in the path.
    id: Option<String>,
    engines: AdminEngines,
    auth: AdminAuth,
}

impl Task {
    pub(crate) async fn carry_out<B: Body>(self, headers: HeaderMap, body: B) -> Answer {
        told(self.read_and_do(&headers, body).await)
    }

    async fn read_and_do<B: Body>(&self, headers: &HeaderMap, body: B) -> Done {
        let (engines, auth) = (&self.engines, &self.auth);
        match self.place {
            Place::Purge => changes::purge(engines, auth, intake::read(headers, body).await?).await,
            Place::Warm => changes::warm(engines, auth, &intake::read(headers, body).await?),
            Place::Unban => changes::unban(engines, auth, &intake::read(headers, body).await?),
            Place::Peek => changes::peek(engines, &intake::read(headers, body).await?),
            _ => {
                let changes::Nothing {} = intake::read(headers, body).await?;
                let tenant = self.id.as_deref().unwrap_or_default();
                changes::clear(engines, auth, tenant).await
            }
        }
    }
}

impl Desk {
    pub(crate) fn new(sources: AdminSources, auth: AdminAuth) -> Self {
        // Where a closure knows its users by a cookie, there may be nothing to ask for.
        let page = Page::new(auth.has_token() && !auth.has_closure());
        Self {
            sources,
            auth,
            prefix: String::new(),
            page,
            figures: Mutex::default(),
            watchers: Arc::default(),
        }
    }

    pub(crate) fn under(&self, prefix: &str) -> Self {
        Self {
            sources: self.sources.clone(),
            auth: self.auth.clone(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            page: self.page.clone(),
            figures: Mutex::default(),
            watchers: Arc::clone(&self.watchers),
        }
    }

    /// Which endpoints exist: only those for everybody where nobody is let in.
    #[cfg(feature = "axum")]
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        let all = self.auth.is_configured();
        let rows = crate::admin::paths::ROWS.into_iter();
        rows.filter(move |row| all || row.class == Class::Probe)
    }

    /// Finds the endpoint, lets in or does not, and answers what needs no body. `path` is the request's own,
    /// from which a router may have taken a prefix.
    pub(crate) fn begin(self: &Arc<Self>, request: &RequestView<'_>, path: &str) -> Begun {
        let found = path.strip_prefix(&*self.prefix).and_then(find);
        let exists = |row: &Row| row.class == Class::Probe || self.auth.is_configured();
        let Some((row, id)) = found.filter(|(row, _)| exists(row)) else {
            return Begun::Answered(not_found());
        };
        if !row.allows(request.method) {
            return Begun::Answered(not_allowed(row.allow));
        }
        if !self.is_open(&row) {
            match self.auth.judge(request, self.sources.clock.now()) {
                Judgement::Allow => {}
                Judgement::Challenge => return Begun::Answered(challenge()),
                Judgement::Deny => return Begun::Answered(denied()),
                Judgement::Wait(time) => return Begun::Answered(wait(time)),
            }
        }
        if row.class != Class::Change && request.method != Method::POST {
            return Begun::Answered(self.read(row.place, request));
        }
        let Some(engines) = &self.sources.engines else {
            return Begun::Answered(missing());
        };
        match id.map(|id| intake::decoded("id", id)).transpose() {
            Ok(id) => Begun::Reads(Task {
                place: row.place,
                id: id.map(Into::into),
                engines: engines.clone(),
                auth: self.auth.clone(),
            }),
            Err(unread) => Begun::Answered(told(Err(unread))),
        }
    }

    /// Whether nobody needs to be let in.
    const fn is_open(&self, row: &Row) -> bool {
        match row.class {
            Class::Probe => true,
            Class::Page => self.auth.has_token(),
            Class::Detail | Class::Change => false,
        }
    }

    /// Answers what only looks.
    fn read(self: &Arc<Self>, place: Place, request: &RequestView<'_>) -> Answer {
        let (sources, query) = (&self.sources, request.uri.query().unwrap_or_default());
        match place {
            Place::Alive => text(StatusCode::OK, "alive"),
            Place::Ready if (sources.ready)() => text(StatusCode::OK, "ready"),
            Place::Ready => text(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
            // It is for everybody, and why something is amiss names addresses, versions and errors.
            Place::Health => health(&sources.health.health().without_details()),
            Place::Metrics => self.metrics(request),
            Place::HealthDetailed => match &sources.health_details {
                Some(details) => json(sources.health.health().http_status(), &details()),
                None => health(&sources.health.health()),
            },
            Place::Report => self
                .report(query)
                .unwrap_or_else(|unread| told(Err(unread))),
            Place::Alerts => match &sources.alerts {
                Some(alerts) => json(StatusCode::OK, &alerts()),
                None => missing(),
            },
            Place::Slow => json(StatusCode::OK, &views::slow(sources)),
            Place::Dashboard => self.page.answer(),
            Place::DashboardData => answer(StatusCode::OK, JSON, AdminBody::whole(self.figures())),
            Place::DashboardEvents => self.events(),
            _ => match &sources.engines {
                Some(engines) => self.look(place, engines, query),
                None => missing(),
            },
        }
    }

    /// Answers what looks into engines.
    fn look(&self, place: Place, engines: &AdminEngines, query: &str) -> Answer {
        let value = match place {
            Place::Cache => views::cache(&self.sources, engines),
            Place::Limiter => views::limiter(&self.sources, engines),
            Place::Journal => views::journal(&self.sources, engines),
            Place::Tenants => views::tenants(engines),
            _ => return told(peeked(query).and_then(|said| changes::peek(engines, &said))),
        };
        json(StatusCode::OK, &value)
    }

    fn metrics(&self, request: &RequestView<'_>) -> Answer {
        let accept = request.headers.get(ACCEPT);
        let scrape = self.sources.metrics.scrape(accept);
        let content_type = scrape.content_type().clone();
        let body = AdminBody::streamed(scrape.into_body());
        let mut answer = answer(StatusCode::OK, content_type, body);
        let accept = HeaderValue::from_static("accept");
        answer.headers_mut().insert(VARY, accept);
        answer
    }

    fn report(&self, query: &str) -> Result<Answer, Unread> {
        let wrong = |words: &str| (StatusCode::BAD_REQUEST, words.to_owned());
        let window = match intake::parameter(query, "window")? {
            Some(name) => {
                Window::named(&name).ok_or_else(|| wrong("`window` must be 1m, 5m or 1h"))?
            }
            None => Window::FiveMinutes,
        };
        let sources = &self.sources;
        let format = intake::parameter(query, "format")?;
        Ok(match format.as_deref() {
            None | Some("json") => match &sources.report {
                Some(report) => json(StatusCode::OK, &report(window)),
                None => missing(),
            },
            Some("text") => match &sources.report_text {
                Some(report) => text(StatusCode::OK, report(window)),
                None => missing(),
            },
            Some(_) => return Err(wrong("`format` must be json or text")),
        })
    }

    /// The dashboard's figures as JSON, at most a second old, the last hour and the report ten: however many look,
    /// they are taken once.
    fn figures(&self) -> Bytes {
        let now = self.sources.clock.now();
        // A panic leaves older figures or none, so poison is ignored.
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, json)) = &figures.told
            && now.since(*taken) < FIGURES_AGE
        {
            return json.clone();
        }
        let json = Bytes::from(overview(&self.sources, &mut figures.seldom).to_string());
        figures.told = Some((now, json.clone()));
        json
    }

    fn events(self: &Arc<Self>) -> Answer {
        let Some(seat) = Seat::take(&self.watchers) else {
            return crowded();
        };
        let desk = Arc::clone(self);
        let tell = move || (!(desk.sources.stopping)()).then(|| desk.figures());
        event_stream(AdminBody::streamed(Frames::new(seat, Arc::new(tell))))
    }
}

fn health(health: &Health) -> Answer {
    json(health.http_status(), health)
}

fn told(done: Done) -> Answer {
    match done {
        Ok(value) => json(StatusCode::OK, &value),
        Err((status, words)) => problem(status, words),
    }
}

/// Who is meant by a query.
fn peeked(query: &str) -> Result<Peek, Unread> {
    let text = |name: &str| {
        let value = intake::parameter(query, name)?;
        Ok::<_, Unread>(value.map(String::from))
    };
    Ok(Peek {
        who: text("who")?.unwrap_or_default(),
        method: text("method")?,
        path: text("path")?,
        tier: text("tier")?,
        tenant: text("tenant")?,
        address: text("address")?,
    })
}

fn event_stream(body: AdminBody) -> Answer {
    let mut response = answer(StatusCode::OK, EVENT_STREAM, body);
    // nginx and its kin collect an answer before they pass it on, unless told otherwise.
    let no = HeaderValue::from_static("no");
    response.headers_mut().insert(X_ACCEL_BUFFERING, no);
    response.extensions_mut().insert(LongLived);
    response
}

/// The endpoint exists, but this stack has nothing to show there.
fn missing() -> Answer {
    problem(StatusCode::NOT_FOUND, "this stack has nothing to show here")
}

/// The answer to HEAD: what GET would be answered with, but for the body (RFC 9110 §9.3.2).
pub(crate) fn without_body(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    if let Some(bytes) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, decimal(bytes));
    }
    Answer::from_parts(parts, AdminBody::whole(Bytes::new()))
}
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Half of how often the dashboard asks.
const FIGURES_AGE: Duration = Duration::from_secs(1);
