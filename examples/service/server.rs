//! The socket: where to listen, what to say about it, and when to stop.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long requests that are being answered at the end may take. App Service kills what is still
/// there 30 s after it asked.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM; then tells `draining`, accepts no more, and lets what is under way finish.
///
/// # Errors
///
/// When `HOST` and `PORT` are no address or one that cannot be listened on.
pub(crate) async fn serve(app: Router, draining: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (host, port) = address()?;
    let listener = TcpListener::bind((&*host, port)).await.map_err(|error| {
        let fault = format!("HOST and PORT: cannot listen on {host}:{port}: {error}");
        io::Error::new(error.kind(), fault)
    })?;
    tour(listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        // An answer must not wait for the acknowledgement of the one before it. A socket that
        // cannot be told so is only slower.
        let _ = stream.set_nodelay(true);
    });
    let (stopping, told) = oneshot::channel();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, app).with_graceful_shutdown(async {
        stop_signal().await;
        draining();
        let _ = stopping.send(());
    });
    let overdue = async {
        let _ = told.await;
        tokio::time::sleep(DRAIN_DEADLINE).await;
    };
    tokio::select! {
        result = served => result,
        () = overdue => {
            eprintln!("some requests took more than {DRAIN_DEADLINE:?} to finish and were left");
            Ok(())
        }
    }
}

/// `HOST` and `PORT`, which are 127.0.0.1 and 3000 when nobody says otherwise. Port 0 is any.
fn address() -> io::Result<(String, u16)> {
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| {
            let fault = format!("PORT is {text:?}, but must be a number from 0 to 65535");
            io::Error::new(io::ErrorKind::InvalidInput, fault)
        })?,
        Err(_) => 3000,
    };
    Ok((host, port))
}

/// Ctrl-C, or what a supervisor sends.
async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // No such signal will ever come; the other one may.
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            return interrupt.await;
        };
        tokio::select! {
            () = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
}

/// Says where we are and what is worth trying.
fn tour(address: SocketAddr) -> io::Result<()> {
    let site = format!("http://{address}");
    let mut out = io::stdout().lock();
    writeln!(
        out,
        r#"listening on {site}

Six things to try, and what to look for in the answers:

1. A list, twice: Cache-Status says fwd=uri-miss, then hit, and Age counts the seconds.
   for n in 1 2; do curl -sD - -o /dev/null '{site}/contacts?page=2&q=ada'; done

2. A contact that you have already: 304 and no body.
   curl -so /dev/null {site}/contacts/7; curl -si {site}/contacts/7 -H 'If-None-Match: "c7-v1"'

3. A change, then the contact: the fresh name, at once, although the page was cached.
   curl -si -X PUT {site}/contacts/7 -H 'Content-Type: application/json' -d '{{"organization_id":299,"name":"Ada Byron","email":"ada@example.com"}}'; echo; curl -si {site}/contacts/7

4. A login, six times: 401 five times, then 429 with RateLimit and Retry-After.
   for n in 1 2 3 4 5 6; do curl -si {site}/login -H 'Content-Type: application/json' -d '{{"user":"eve","password":"guess"}}'; echo; done

5. A slow report, twice: more than 150 ms, then less than 1.
   for n in 1 2; do curl -so /dev/null -w '%{{time_total}} s\n' {site}/reports/sales/7; done

6. Redis: start this with REDIS_URL=redis://127.0.0.1:6379 KEEP_ADMIN_TOKEN=open-sesame-please, look, stop
   redis-server, look again. Health says degraded, and to the operator why; visits are counted by this instance,
   and pages are made anew, since nobody would hear what another instance changes; then start it again.
   curl -s {site}/health; curl -s {site}/admin/health/detailed -H 'Authorization: Bearer open-sesame-please'; curl -s {site}/visits

With the token there is also a dashboard: {site}/admin/dashboard

Keys for other quotas: -H 'X-Api-Key: basic-key' (premium-key, admin-key). See {site}/metrics too.
Ctrl-C stops."#
    )?;
    out.flush()
}
