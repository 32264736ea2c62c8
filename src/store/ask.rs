//! From a question to its answer on one node: over the command lane, or beside it when it is large.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool::managed::Object;
use redis::{Pipeline, Value};

use crate::clock::Moment;
use crate::store::classify::{self, Failure};
use crate::store::command::{Call, Command, Step};
use crate::store::connect::Held;
use crate::store::deadline::within;
use crate::store::error::StoreError;
use crate::store::link::Link;
use crate::store::node::Node;
use crate::store::supervisor::load_as;

/// One answer of several.
pub(crate) type Answer = Result<Value, StoreError>;

/// Sends one command.
pub(crate) async fn run(node: &Node, command: &Command) -> Answer {
    let limits = node.limits();
    let link = node.link()?;
    if command.is_bulk(limits.bulk_bytes) {
        let mut alone = redis::pipe();
        alone.add_command(command.cmd().clone());
        let id = link.id;
        // Boxed here and below, as what is rare and large, so that no small command carries it.
        let answers = Box::pin(beside(node, link, &alone, limits.bulk_timeout)).await?;
        let answer = answers.into_iter().next().unwrap_or_default();
        return settled(node, id, answer);
    }
    let answer = link.one(command.cmd(), limits.command_timeout).await;
    answer.map_err(|failure| node.settle(&link, failure))
}

/// Calls one script. Where the server has lost it, it is loaded again and called once more.
pub(crate) async fn call(node: &Node, call: &Call) -> Answer {
    let mut asking = Asking::begin(node, node.limits().command_timeout);
    let mut answer = asking.one(call).await?;
    for _ in 0..ROUNDS {
        if !asking.is_missing(&answer) {
            break;
        }
        Box::pin(asking.reload()).await?;
        answer = asking.one(call).await?;
    }
    settled(node, asking.lane, answer)
}

/// Sends several at once. A script that the server has lost is loaded again, and only the steps that
/// missed it are sent once more: whatever else was in the batch has run, and its answers stand whatever
/// becomes of those.
pub(crate) async fn batch(
    node: &Node,
    steps: &[&Step],
    bulk: bool,
) -> Result<Vec<Answer>, StoreError> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let limits = node.limits();
    let limit = if bulk {
        limits.bulk_timeout
    } else {
        limits.command_timeout
    };
    let mut asking = Asking::begin(node, limit);
    let first = asking.many(steps, bulk).await?;
    let lane = asking.lane;
    let mut answers: Vec<_> = first.into_iter().map(Ok).collect();
    for _ in 0..ROUNDS {
        let missed = asking.missed(&answers);
        if missed.is_empty() {
            break;
        }
        let again: Vec<&Step> = missed.iter().map(|&at| steps[at]).collect();
        let sent = match Box::pin(asking.reload()).await {
            Ok(()) => Box::pin(asking.many(&again, bulk)).await,
            Err(error) => Err(error),
        };
        for (at, place) in missed.into_iter().enumerate() {
            answers[place] = match &sent {
                Ok(sent) => Ok(sent.get(at).cloned().unwrap_or_default()),
                Err(error) => Err(error.clone()),
            };
        }
    }
    let settle = |answer: Answer| settled(node, lane, answer?);
    Ok(answers.into_iter().map(settle).collect())
}

/// Sends a command, or calls a script.
pub(crate) async fn step(node: &Node, step: &Step, bulk: bool) -> Answer {
    match (step, bulk) {
        (Step::Command(command), false) => run(node, command).await,
        (Step::Call(script), false) => call(node, script).await,
        (_, true) => {
            let answers = batch(node, &[step], true).await?;
            answers.into_iter().next().unwrap_or(Err(StoreError::Lost))
        }
    }
}

/// Sends a step to the node that its slot is moving to, and that serves it only when told so.
pub(crate) async fn asking(node: &Node, step: &Step) -> Answer {
    let link = node.link()?;
    let mut commands = redis::pipe();
    commands.cmd("ASKING");
    commands.add_command(packed(node, &link, step)?);
    let sent = link.many(&commands, node.limits().command_timeout).await;
    let answers = sent.map_err(|failure| node.settle(&link, failure))?;
    settled(
        node,
        link.id,
        answers.into_iter().nth(1).unwrap_or_default(),
    )
}

/// A refusal becomes an error, and where it says so the lane of this number is given up, if it is still
/// the one.
fn settled(node: &Node, lane: u64, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| match node.link() {
        Ok(link) if link.id == lane => node.settle(&link, failure),
        _ => failure.error,
    })
}

fn packed(node: &Node, link: &Link, step: &Step) -> Result<redis::Cmd, StoreError> {
    match step {
        Step::Command(command) => Ok(command.cmd().clone()),
        Step::Call(call) => packed_call(node, link, call),
    }
}

fn packed_call(node: &Node, link: &Link, call: &Call) -> Result<redis::Cmd, StoreError> {
    let library = &node.parts().library;
    library.call(link.dialect, call).ok_or(UNREGISTERED)
}

/// How often a script is loaded again for one question. Somebody may empty the library at any moment,
/// also between the loading and the call; only who does it all the time is noticed.
const ROUNDS: usize = 10;

/// A question under way, which may take several sendings but only one deadline.
struct Asking<'a> {
    node: &'a Node,
    began: Moment,
    limit: Duration,
    /// On which lane it was sent last, and how often the scripts had been loaded there by then.
    lane: u64,
    loads: u64,
}

impl<'a> Asking<'a> {
    fn begin(node: &'a Node, limit: Duration) -> Self {
        Self {
            node,
            began: node.parts().access.clock.now(),
            limit,
            lane: 0,
            loads: 0,
        }
    }

    fn left(&self) -> Duration {
        let spent = self.node.parts().access.clock.now().since(self.began);
        self.limit.saturating_sub(spent)
    }

    /// The lane as it is now, which is about to be used.
    fn lane(&mut self) -> Result<Arc<Link>, StoreError> {
        let link = self.node.link()?;
        self.lane = link.id;
        self.loads = link.loads.load(Ordering::Acquire);
        Ok(link)
    }

    fn is_missing(&self, answer: &Value) -> bool {
        let library = &self.node.parts().library;
        matches!(answer, Value::ServerError(error) if library.is_missing(error))
    }

    /// Which answers say that the server has lost the script.
    fn missed(&self, answers: &[Answer]) -> Vec<usize> {
        let missing = |answer: &Answer| answer.as_ref().is_ok_and(|value| self.is_missing(value));
        let missed = answers.iter().enumerate();
        let missed = missed.filter(|(_, answer)| missing(answer));
        missed.map(|(at, _)| at).collect()
    }

    /// One call, whose answer may be a refusal.
    async fn one(&mut self, call: &Call) -> Answer {
        let link = self.lane()?;
        let cmd = packed_call(self.node, &link, call)?;
        let sent = link.raw(&cmd, self.left()).await;
        sent.map_err(|failure| self.node.settle(&link, failure))
    }

    /// All steps in one round trip; the answers may be refusals.
    async fn many(&mut self, steps: &[&Step], bulk: bool) -> Result<Vec<Value>, StoreError> {
        let link = self.lane()?;
        let mut commands = Pipeline::with_capacity(steps.len());
        for step in steps {
            commands.add_command(packed(self.node, &link, step)?);
        }
        if bulk {
            return Box::pin(beside(self.node, link, &commands, self.left())).await;
        }
        let sent = link.many(&commands, self.left()).await;
        sent.map_err(|failure| self.node.settle(&link, failure))
    }

    /// Loads the scripts again, unless somebody has done so since this question was sent.
    async fn reload(&self) -> Result<(), StoreError> {
        let link = self.node.link()?;
        if link.id != self.lane {
            return Ok(());
        }
        let work = async {
            let _loading = link.loading.lock().await;
            if link.loads.load(Ordering::Acquire) != self.loads {
                return Ok(());
            }
            let library = &self.node.parts().library;
            let limit = self.node.limits().command_timeout;
            let loaded = load_as(&link, library, link.dialect, limit).await;
            link.loads.fetch_add(1, Ordering::Release);
            loaded.map(drop)
        };
        match within(self.left(), work).await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => {
                let trip = Some(reason.clone());
                let error = StoreError::Unavailable(reason);
                Err(self.node.settle(&link, Failure { error, trip }))
            }
            None => Err(StoreError::Timeout),
        }
    }
}

const UNREGISTERED: StoreError =
    StoreError::Unfit("the script is none of those that the pool was built with");

/// Sends on a connection beside the command lane, so that small answers do not queue behind large ones.
/// With a cap of one connection there is none, and the lane has to do.
///
/// The lane is let go of meanwhile: should it be given up, its place under the cap is needed for the next
/// one sooner than a large answer comes. Whoever still waits for a connection then waits no more.
async fn beside(
    node: &Node,
    link: Arc<Link>,
    commands: &Pipeline,
    limit: Duration,
) -> Result<Vec<Value>, StoreError> {
    if node.limits().connections < 2 {
        let sent = link.many(commands, limit).await;
        return sent.map_err(|failure| node.settle(&link, failure));
    }
    let lane = Arc::clone(&link.pulse);
    drop(link);
    let work = async {
        let held = tokio::select! {
            held = Box::pin(node.reserve()) => held?,
            () = lane.ended() => return Err(StoreError::Unavailable(lane.reason())),
        };
        let borrowed = Borrowed(Some(held));
        let answers = borrowed.send(limit, commands).await?;
        // Where the lane was given up meanwhile, this connection may lead to the wrong server.
        if !lane.is_dead() {
            borrowed.give_back();
        }
        Ok(answers)
    };
    within(limit, work)
        .await
        .unwrap_or(Err(StoreError::Timeout))
}

/// A connection of the reserve. Unless it is given back it is closed: after a failure it is of no use,
/// and where nobody waited for its answer the next one would wait for two.
struct Borrowed(Option<Held>);

impl Borrowed {
    async fn send(&self, limit: Duration, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let Some(held) = &self.0 else {
            return Err(StoreError::Lost);
        };
        let (mut lane, count) = (held.lane.clone(), commands.len());
        let sent = lane.send_packed_commands(commands, 0, count);
        // Only this connection is known to be of no use; the lane finds out for itself.
        held.pulse
            .turn(limit, sent)
            .await
            .map_err(|failure| failure.error)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            drop(Object::take(held));
        }
    }
}
