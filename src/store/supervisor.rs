//! Keeps a node connected: connects, tries the server out, loads and subscribes, publishes, watches,
//! and begins again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Cmd;

use crate::store::backoff::{Backoff, chance};
use crate::store::classify::Failure;
use crate::store::greet::{greet, probe, quick};
use crate::store::link::Link;
use crate::store::load::load;
use crate::store::node::Node;
use crate::store::status::{DownKind, DownReason};
use crate::task::Spawner;

/// An attempt gets this long at first. Where the server is back, it answers within a packet or two; and
/// where the way was interrupted, a new attempt gets through when an old one never will.
const QUICK: Duration = Duration::from_millis(400);
/// A connection that lasted shorter than this was no success: without a pause, a server that lets us in
/// and throws us out would be knocked at hundreds of times a second, and everybody told of it.
const STEADY: Duration = Duration::from_millis(500);
/// How long a connection beside the command lane may idle.
const IDLE: Duration = Duration::from_secs(5);
/// How often Sentinels are asked whether the primary is still the same: one that was cut off from the
/// others takes writes that will be thrown away.
const SENTINEL_ROUND: Duration = Duration::from_secs(1);

/// Runs until the stack is shut down. Ends the node when it is dropped.
pub(crate) fn supervise(node: Node, spawner: &Spawner) -> bool {
    let stopped = spawner.clone();
    // Made here, because a task that is dropped before it first runs has to end the node as well.
    let ending = Ending(node);
    spawner.spawn(async move {
        let node = &ending.0;
        tokio::select! {
            () = lingering(&stopped) => {}
            () = node.retired() => {}
            () = run(node) => {}
        }
    })
}

/// How long the connection outlives the stack: others take their leave over it.
const LINGER: Duration = Duration::from_millis(50);

async fn lingering(stopped: &Spawner) {
    stopped.stopped().await;
    tokio::time::sleep(LINGER).await;
}

/// Without its supervisor a node would never come back, so it says that it is over.
struct Ending(Node);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop();
    }
}

async fn run(node: &Node) {
    let clock = &node.parts().access.clock;
    let mut backoff = Backoff::new();
    loop {
        let link = Arc::new(establish(node, &mut backoff).await);
        let began = clock.now();
        node.publish(&link);
        let reason = watch(node, &link).await;
        node.give_up(&link, reason);
        drop(link);
        if clock.now().since(began) >= STEADY {
            backoff = Backoff::new();
        } else {
            tokio::time::sleep(backoff.pause(chance())).await;
        }
    }
}

/// One attempt that did not work out.
struct Failed {
    reason: DownReason,
    /// The server was reached and said nothing, or the way to it leads nowhere.
    silent: bool,
}

/// Goes on from turn to turn of a loop, beside what else the loop waits for.
type Beside<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tries until a connection stands.
///
/// While attempts end in silence, a patient one is kept beside the quick ones if the cap allows two: over
/// a slow line only the patient one can succeed, over a line that was cut only a new one.
async fn establish(node: &Node, backoff: &mut Backoff) -> Link {
    let limits = node.limits();
    let mut patient: Option<Beside<'_, Result<Link, Failed>>> = None;
    let (mut silent, mut attempts) = (false, 0_u32);
    loop {
        attempts = attempts.wrapping_add(1);
        let alone = limits.connections < 2;
        let long = alone && silent && attempts.is_multiple_of(2);
        let quick = QUICK.min(limits.connect_timeout);
        let limit = if long { limits.connect_timeout } else { quick };
        let outcome = tokio::select! {
            outcome = attempt(node, limit) => outcome,
            outcome = finished(&mut patient) => outcome,
        };
        let failed = match outcome {
            Ok(link) => return link,
            Err(failed) => failed,
        };
        silent = failed.silent;
        node.note(failed.reason);
        if silent && !alone && patient.is_none() {
            patient = Some(Box::pin(attempt(node, limits.connect_timeout)));
        }
        let pause = backoff.pause(chance());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            outcome = finished(&mut patient) => match outcome {
                Ok(link) => return link,
                Err(failed) => node.note(failed.reason),
            },
        }
    }
}

/// What something that goes on beside the rest comes to, or never where nothing does.
async fn finished<T>(beside: &mut Option<Beside<'_, T>>) -> T {
    match beside {
        Some(work) => {
            let outcome = work.as_mut().await;
            *beside = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

async fn attempt(node: &Node, limit: Duration) -> Result<Link, Failed> {
    match tokio::time::timeout(limit, connect(node)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(reason)) => Err(Failed {
            silent: reason.kind() == DownKind::NoProgress,
            reason,
        }),
        Err(_) => {
            let words = node.way().unanswered(limit);
            Err(Failed {
                reason: DownReason::new(DownKind::NoProgress, words),
                silent: true,
            })
        }
    }
}

async fn connect(node: &Node) -> Result<Link, DownReason> {
    let parts = node.parts();
    let held = node.open().await?;
    let mut link = Link::new(held, parts.access.hub.clone());
    let mut lane = link.lane();
    let (greeting, refuses_writes) = greet(&mut lane, parts.probe.as_deref()).await?;
    link.greeting = greeting;
    link.set_refuses_writes(refuses_writes);
    link.dialect = load(&link, &parts.library, parts.limits.connect_timeout).await?;
    subscribe(node, &link).await?;
    quick(&mut lane, parts.limits.command_timeout).await?;
    // An attempt may have taken long, and the Sentinels may have chosen another meanwhile: a primary
    // that was stopped and goes on does not know yet that it is none.
    if let Some(reason) = replaced(node, &link).await {
        return Err(reason);
    }
    match link.pulse.is_dead() {
        false => Ok(link),
        true => Err(link.pulse.reason()),
    }
}

/// Subscribes to whatever is registered. What is subscribed already is confirmed once more, which the
/// hub tells only those who were not told yet.
async fn subscribe(node: &Node, link: &Link) -> Result<(), DownReason> {
    let parts = node.parts();
    let (hub, limit) = (&parts.access.hub, parts.limits.command_timeout);
    let version = hub.version();
    let mut complete = true;
    for channel in (parts.channels)(hub) {
        let mut cmd = redis::cmd(parts.subscribe);
        cmd.arg(channel);
        match link.subscribe(&cmd, limit).await {
            Ok(()) => {}
            Err(Failure {
                trip: Some(why), ..
            }) => return Err(why),
            Err(Failure { error, .. }) if error.is_unavailable() => {
                // The slot is on its way, and so is the news of it. Its sinks wait for `Subscribed`.
                complete = false;
            }
            Err(Failure { error, .. }) => {
                tracing::warn!(target: "tower_keep", %error, "a channel is not subscribed");
            }
        }
    }
    let prefixes = hub.untracked(link.id);
    if !prefixes.is_empty() {
        settled(link.one(&tracking(&prefixes), limit).await)?;
        hub.tracking(link.id, &prefixes);
    }
    if complete {
        link.set_subscribed(version);
    }
    Ok(())
}

fn tracking(prefixes: &[Vec<u8>]) -> Cmd {
    let mut cmd = redis::cmd("CLIENT");
    cmd.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in prefixes {
        cmd.arg("PREFIX").arg(prefix);
    }
    cmd
}

/// A prefix that is wider than one already watched can only be watched on another connection.
fn settled<T>(outcome: Result<T, Failure>) -> Result<T, DownReason> {
    outcome.map_err(|failure| {
        let words = format!("subscribing failed: {}", failure.error);
        failure
            .trip
            .unwrap_or_else(|| DownReason::new(DownKind::Protocol, words))
    })
}

/// Watches a published connection. Returns why it is over.
async fn watch(node: &Node, link: &Arc<Link>) -> DownReason {
    let mut beats = tokio::time::interval(node.limits().heartbeat);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sentinel_rounds = tokio::time::interval(SENTINEL_ROUND);
    sentinel_rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Runs beside the rest: Sentinels that do not answer must not keep us from seeing the connection end.
    let mut look: Option<Beside<'_, Option<DownReason>>> = None;
    loop {
        if link.pulse.is_dead() {
            return link.pulse.reason();
        }
        if link.subscribed.load(Ordering::Relaxed) != node.parts().access.hub.version()
            && let Err(reason) = subscribe(node, link).await
        {
            return reason;
        }
        tokio::select! {
            () = node.nudged() => {}
            _ = beats.tick() => {
                node.close_idle(IDLE);
                if let Some(reason) = beat(node, link).await {
                    return reason;
                }
            }
            _ = sentinel_rounds.tick(), if node.has_sentinels() && look.is_none() => {
                look = Some(Box::pin(replaced(node, link)));
            }
            outcome = finished(&mut look) => if let Some(reason) = outcome {
                return reason;
            },
        }
    }
}

/// One heartbeat. It keeps the way open (Azure closes what idles for ten minutes), notices a silent end,
/// and measures.
async fn beat(node: &Node, link: &Link) -> Option<DownReason> {
    let parts = node.parts();
    // A server that refused writes is asked whether it takes them again.
    let refused = link.refuses_writes().is_some();
    let probing = parts.probe.as_deref().filter(|_| refused);
    let cmd = probing.map_or_else(|| redis::cmd("PING"), probe);
    let began = parts.access.clock.now();
    match link.one(&cmd, parts.limits.command_timeout).await {
        Ok(_) => {
            node.set_round_trip(parts.access.clock.now().since(began));
            // Where there is no key to probe with, the next write that is refused says so again.
            if refused {
                link.set_refuses_writes(None);
            }
            None
        }
        Err(failure) => failure.trip,
    }
}

/// Whether the Sentinels name another primary than the one this connection leads to.
async fn replaced(node: &Node, link: &Link) -> Option<DownReason> {
    let now = node.moved_to().await?;
    let here = link.wire()?.endpoint.to_string();
    (now != here).then(|| {
        let words = format!("the Sentinels name {now} the primary, not {here}");
        DownReason::new(DownKind::ReadOnly, words)
    })
}
