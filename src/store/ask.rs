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
        let answers = beside(node, link, &alone).await?;
        let answer = answers.into_iter().next().unwrap_or_default();
        return settled_beside(node, id, answer);
    }
    let answer = link.one(command.cmd(), limits.command_timeout).await;
    answer.map_err(|failure| node.settle(&link, failure))
}

/// Calls one script. Where the server has lost it, it is loaded again and called once more.
pub(crate) async fn call(node: &Node, call: &Call) -> Answer {
    let link = node.link()?;
    let asking = Asking::begin(node, &link);
    let cmd = asking.pack(call)?;
    let first = asking.one(&cmd).await?;
    if !asking.is_missing(&first) {
        return settled(node, &link, first);
    }
    asking.reload().await?;
    settled(node, &link, asking.one(&cmd).await?)
}

/// Sends several at once. A script that the server has lost is loaded again, and only the steps that
/// missed it are sent once more: whatever else was in the batch has run.
pub(crate) async fn batch(
    node: &Node,
    steps: &[&Step],
    bulk: bool,
) -> Result<Vec<Answer>, StoreError> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    if bulk {
        return batch_beside(node, steps).await;
    }
    let link = node.link()?;
    let asking = Asking::begin(node, &link);
    let mut answers = asking.many(steps).await?;
    let missed = asking.missed(&answers);
    if !missed.is_empty() {
        asking.reload().await?;
        let again: Vec<&Step> = missed.iter().map(|&at| steps[at]).collect();
        for (at, answer) in missed.into_iter().zip(asking.many(&again).await?) {
            answers[at] = answer;
        }
    }
    let settle = |answer| settled(node, &link, answer);
    Ok(answers.into_iter().map(settle).collect())
}

/// The same for large ones, beside the command lane.
async fn batch_beside(node: &Node, steps: &[&Step]) -> Result<Vec<Answer>, StoreError> {
    let link = node.link()?;
    let (id, loads) = (link.id, link.loads.load(Ordering::Acquire));
    let commands = Asking::begin(node, &link).pack_all(steps)?;
    let mut answers = beside(node, link, &commands).await?;
    // The lane may be another by now, whose scripts are loaded; and the deadline begins anew.
    let link = node.link()?;
    let mut asking = Asking::begin(node, &link);
    let missed = asking.missed(&answers);
    if !missed.is_empty() {
        if link.id == id {
            asking.loads = loads;
        }
        asking.reload().await?;
        let again: Vec<&Step> = missed.iter().map(|&at| steps[at]).collect();
        let commands = asking.pack_all(&again)?;
        let again = beside(node, Arc::clone(&link), &commands).await?;
        for (at, answer) in missed.into_iter().zip(again) {
            answers[at] = answer;
        }
    }
    let settle = |answer| settled_beside(node, id, answer);
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
    let asking = Asking::begin(node, &link);
    let mut commands = redis::pipe();
    commands.cmd("ASKING");
    commands.add_command(match step {
        Step::Command(command) => command.cmd().clone(),
        Step::Call(call) => asking.pack(call)?,
    });
    let sent = link.many(&commands, asking.left()).await;
    let answers = sent.map_err(|failure| node.settle(&link, failure))?;
    settled(node, &link, answers.into_iter().nth(1).unwrap_or_default())
}

/// A refusal becomes an error, and the connection is given up if the refusal says so.
fn settled(node: &Node, link: &Link, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| node.settle(link, failure))
}

/// The same for an answer that came beside the lane of this number, which may be another's by now.
fn settled_beside(node: &Node, lane: u64, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| match node.link() {
        Ok(link) if link.id == lane => node.settle(&link, failure),
        _ => failure.error,
    })
}

/// A question under way, which may take two sendings but only one deadline.
struct Asking<'a> {
    node: &'a Node,
    link: &'a Link,
    began: Moment,
    /// How often the scripts had been loaded when it began.
    loads: u64,
}

impl<'a> Asking<'a> {
    fn begin(node: &'a Node, link: &'a Link) -> Self {
        Self {
            node,
            link,
            began: node.parts().access.clock.now(),
            loads: link.loads.load(Ordering::Acquire),
        }
    }

    fn left(&self) -> Duration {
        let spent = self.node.parts().access.clock.now().since(self.began);
        self.node.limits().command_timeout.saturating_sub(spent)
    }

    fn pack(&self, call: &Call) -> Result<redis::Cmd, StoreError> {
        let library = &self.node.parts().library;
        library.call(self.link.dialect, call).ok_or(UNREGISTERED)
    }

    fn is_missing(&self, answer: &Value) -> bool {
        let library = &self.node.parts().library;
        matches!(answer, Value::ServerError(error) if library.is_missing(error))
    }

    /// One command, whose answer may be a refusal.
    async fn one(&self, cmd: &redis::Cmd) -> Answer {
        let sent = self.link.raw(cmd, self.left()).await;
        sent.map_err(|failure| self.node.settle(self.link, failure))
    }

    /// All steps in one round trip; the answers may be refusals.
    async fn many(&self, steps: &[&Step]) -> Result<Vec<Value>, StoreError> {
        let commands = self.pack_all(steps)?;
        let sent = self.link.many(&commands, self.left()).await;
        sent.map_err(|failure| self.node.settle(self.link, failure))
    }

    fn pack_all(&self, steps: &[&Step]) -> Result<Pipeline, StoreError> {
        let mut commands = Pipeline::with_capacity(steps.len());
        for step in steps {
            commands.add_command(match step {
                Step::Command(command) => command.cmd().clone(),
                Step::Call(call) => self.pack(call)?,
            });
        }
        Ok(commands)
    }

    /// Which answers say that the server has lost the script.
    fn missed(&self, answers: &[Value]) -> Vec<usize> {
        let missed = answers.iter().enumerate();
        let missed = missed.filter(|(_, answer)| self.is_missing(answer));
        missed.map(|(at, _)| at).collect()
    }

    /// Loads the scripts again, unless somebody has done so since this question began.
    async fn reload(&self) -> Result<(), StoreError> {
        let work = async {
            let _loading = self.link.loading.lock().await;
            if self.link.loads.load(Ordering::Acquire) != self.loads {
                return Ok(());
            }
            let library = &self.node.parts().library;
            let limit = self.node.limits().command_timeout;
            let loaded = load_as(self.link, library, self.link.dialect, limit).await;
            self.link.loads.fetch_add(1, Ordering::Release);
            loaded.map(drop)
        };
        match within(self.left(), work).await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => {
                let trip = Some(reason.clone());
                let error = StoreError::Unavailable(reason);
                Err(self.node.settle(self.link, Failure { error, trip }))
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
) -> Result<Vec<Value>, StoreError> {
    let limit = node.limits().bulk_timeout;
    if node.limits().connections < 2 {
        let sent = link.many(commands, limit).await;
        return sent.map_err(|failure| node.settle(&link, failure));
    }
    let lane = Arc::clone(&link.pulse);
    drop(link);
    let work = async {
        let held = tokio::select! {
            held = node.reserve() => held?,
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
