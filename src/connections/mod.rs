//! Slots for connections that stay: WebSockets, event streams, long polls.
//!
//! Such a connection costs no time but memory, a file descriptor and, on App Service, one of the 350 that the
//! front end lets through to a small instance. The guard does not count it: its slots are for work under
//! way, and 64 open tabs must not be all that a service of 64 slots serves. So they are counted here, all
//! together and per tenant.
//!
//! [`Connections::open`] gives a [`ConnectionSlot`], which is moved into whatever lives as long as the
//! connection. Its drop gives it back. Since a client whose laptop was shut says no goodbye, each sign of
//! life is noted by [`touch`](ConnectionSlot::touch), and a [`sweep`](Connections::sweep) takes back the
//! slots of those that have been silent for too long. While memory is short the patience is shorter
//! ([`relieve`](Connections::relieve)), and in the end nobody new is let in
//! ([`pause`](Connections::pause)); a [`Keep`](crate::Keep) does all of that by itself.
//!
//! # Event streams
//!
//! ```
//! use tower_keep::connections::Connections;
//! use tower_keep::response::{AnswerBody, refuse};
//! # use tower_keep::connections::SlottedBody;
//! # use http_body_util::Full;
//! # type Stream = Full<bytes::Bytes>;
//!
//! // `events()` stands for any streaming answer, such as axum's `Sse`.
//! async fn watch(connections: Connections) -> http::Response<AnswerBody<SlottedBody<Stream>>> {
//!     match connections.open_for("acme") {
//!         Ok(slot) => slot.around(events()).map(AnswerBody::service),
//!         Err(refusal) => refuse(refusal), // 503 with Retry-After
//!     }
//! }
//! # fn events() -> http::Response<Stream> { http::Response::new(Stream::default()) }
//! # use tower_keep::{clock::Clock, event::Events, connections::ConnectionsConfig};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_keep::error::ConfigError> {
//! # let config = ConnectionsConfig { per_tenant_max: Some(1), ..ConnectionsConfig::default() };
//! # let connections = Connections::new(&config, Clock::system(), Events::none())?;
//! # let slot = connections.open_for("acme");
//! # assert_eq!(watch(connections.clone()).await.status(), 503);
//! # drop(slot);
//! # assert_eq!(watch(connections).await.status(), 200);
//! # Ok(()) }
//! ```
//!
//! The streams of [`progress`](crate::progress) hold one by themselves in a [`Keep`](crate::Keep).
//!
//! # WebSockets
//!
//! With axum's feature `ws`:
//!
//! ```ignore
//! async fn chat(State(keep): State<Keep>, upgrade: WebSocketUpgrade) -> Response {
//!     // Before the upgrade, while a refusal can still be an answer.
//!     let slot = match keep.connections().open_for("acme") {
//!         Ok(slot) => slot,
//!         Err(refusal) => return refuse::<Body>(refusal).map(Body::new),
//!     };
//!     upgrade.on_upgrade(async move |mut socket| loop {
//!         tokio::select! {
//!             () = slot.closed() => break, // silent for too long, or memory is short
//!             message = socket.recv() => match message {
//!                 Some(Ok(message)) => {
//!                     slot.touch();
//!                     // ..
//!                 }
//!                 _ => break,
//!             },
//!         }
//!     }) // the slot ends with the task
//! }
//! ```
//!
//! And with hyper's upgrades alone:
//!
//! ```
//! # use tower_keep::connections::ConnectionSlot;
//! async fn echo(slot: ConnectionSlot, upgrade: hyper::upgrade::OnUpgrade) -> std::io::Result<()> {
//!     use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//!     let upgraded = upgrade.await.map_err(std::io::Error::other)?;
//!     let mut io = hyper_util::rt::TokioIo::new(upgraded);
//!     let mut piece = [0; 1024];
//!     loop {
//!         let count = tokio::select! {
//!             () = slot.closed() => return Ok(()),
//!             count = io.read(&mut piece) => count?,
//!         };
//!         if count == 0 {
//!             return Ok(());
//!         }
//!         slot.touch();
//!         io.write_all(&piece[..count]).await?;
//!     }
//! }
//! ```
//!
//! Protocols with pings of their own should count the pongs: they are what tells a silent client from one
//! that is gone.

mod body;
mod config;
mod engine;
mod hall;
mod seat;
mod seats;
mod slot;
mod tenants;

pub use body::{SlottedBody, SlottedError};
pub use config::ConnectionsConfig;
pub use engine::Connections;
pub use slot::ConnectionSlot;
