//! From a question to its answer on one node: over the command lane, or beside it when it is large.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool::managed::Object;
use redis::{Pipeline, Value};

use crate::clock::Moment;
use crate::store::classify::{self, Failure};
use crate::store::command::{Call, Command, Manner, Step};
use crate::store::connect::Held;
use crate::store::deadline::within;
use crate::store::error::StoreError;
use crate::store::library::{Dialect, Library};
use crate::store::link::Link;
use crate::store::load::load_as;
use crate::store::node::Node;

/// One answer of several.
pub(crate) type Answer = Result<Value, StoreError>;

/// Sends one command.
pub(crate) async fn run(node: &Node, command: &Command, manner: Manner) -> Answer {
    let link = node.link()?;
    let limit = node.limits().timeout(manner);
    if manner.bulk {
        let mut alone = redis::pipe();
        alone.add_command(command.cmd().clone());
        let lane = link.id;
        let answers = beside(node, link, &alone, limit).await?;
        let answer = answers.into_iter().next().ok_or(StoreError::Lost)?;
        return settled_beside(node, lane, answer);
    }
    let answer = link.one(command.cmd(), limit).await;
    answer.map_err(|failure| node.settle(&link, failure))
}

/// Calls one script. Where the server has lost it, it is loaded again and called once more.
pub(crate) async fn call(node: &Node, call: &Call, manner: Manner) -> Answer {
    if manner.bulk {
        return alone(node, &Step::Call(call.clone()), manner).await;
    }
    let link = node.link()?;
    let question = Question::about(node, &link, manner);
    let cmd = pack_call(node, link.dialect, call)?;
    let first = raw(node, &link, &cmd, question.left()).await?;
    if !is_missing(&first) {
        return settled(node, &link, first);
    }
    question.reload(&link).await?;
    let second = raw(node, &link, &cmd, question.left()).await?;
    settled(node, &link, second)
}

/// Sends several at once. A script that the server has lost is loaded again, and only the steps that
/// missed it are sent once more: whatever else was in the batch has run, and keeps its answer whatever
/// becomes of them.
pub(crate) async fn batch(
    node: &Node,
    steps: &[&Step],
    manner: Manner,
) -> Result<Vec<Answer>, StoreError> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let link = node.link()?;
    let lane = link.id;
    let question = Question::about(node, &link, manner);
    let raw = question.send(link, steps).await?;
    let missed = raw
        .iter()
        .enumerate()
        .filter(|(_, answer)| is_missing(answer));
    let missed: Vec<usize> = missed.map(|(at, _)| at).collect();
    let settle = |answer| settled_beside(node, lane, answer);
    let mut answers: Vec<Answer> = raw.into_iter().map(settle).collect();
    if !missed.is_empty() {
        let again: Vec<&Step> = missed.iter().map(|&at| steps[at]).collect();
        let mut second = question.again(&again).await.map(Vec::into_iter);
        for at in missed {
            answers[at] = match &mut second {
                Ok(second) => second.next().ok_or(StoreError::Lost).and_then(settle),
                Err(error) => Err(error.clone()),
            };
        }
    }
    Ok(answers)
}

/// Sends a command, or calls a script.
pub(crate) async fn step(node: &Node, step: &Step, manner: Manner) -> Answer {
    match step {
        Step::Command(command) => run(node, command, manner).await,
        Step::Call(script) => call(node, script, manner).await,
    }
}

async fn alone(node: &Node, step: &Step, manner: Manner) -> Answer {
    let answers = batch(node, &[step], manner).await?;
    answers.into_iter().next().unwrap_or(Err(StoreError::Lost))
}

/// Sends a step to the node that its slot is moving to, and that serves it only when told so.
pub(crate) async fn asking(node: &Node, step: &Step, manner: Manner) -> Answer {
    let link = node.link()?;
    let mut commands = redis::pipe();
    commands.cmd("ASKING");
    commands.add_command(pack(node, link.dialect, step)?);
    let sent = link.many(&commands, node.limits().timeout(manner)).await;
    let answers = sent.map_err(|failure| node.settle(&link, failure))?;
    let answer = answers.into_iter().nth(1).ok_or(StoreError::Lost)?;
    settled(node, &link, answer)
}

/// Whether the server does not know the script, so that nothing ran.
fn is_missing(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if Library::is_missing(error))
}

/// A refusal becomes an error, and the connection is given up if the refusal says so.
fn settled(node: &Node, link: &Link, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| node.settle(link, failure))
}

/// The same for an answer after which the lane of this number may be another's.
fn settled_beside(node: &Node, lane: u64, answer: Value) -> Answer {
    classify::value(answer).map_err(|failure| match node.link() {
        Ok(link) if link.id == lane => node.settle(&link, failure),
        _ => failure.error,
    })
}

/// One command, whose answer may be a refusal.
async fn raw(node: &Node, link: &Link, cmd: &redis::Cmd, limit: Duration) -> Answer {
    let sent = link.raw(cmd, limit).await;
    sent.map_err(|failure| node.settle(link, failure))
}

fn pack(node: &Node, dialect: Dialect, step: &Step) -> Result<redis::Cmd, StoreError> {
    match step {
        Step::Command(command) => Ok(command.cmd().clone()),
        Step::Call(call) => pack_call(node, dialect, call),
    }
}

fn pack_call(node: &Node, dialect: Dialect, call: &Call) -> Result<redis::Cmd, StoreError> {
    let packed = node.parts().library.call(dialect, call);
    packed.ok_or(UNREGISTERED)
}

const UNREGISTERED: StoreError =
    StoreError::Unfit("the script is none of those that the pool was built with");

/// A question that may take two sendings but has only one deadline.
struct Question<'a> {
    node: &'a Node,
    manner: Manner,
    began: Moment,
    /// The lane's number, and how often the scripts had been loaded on it.
    lane: u64,
    loads: u64,
}

impl<'a> Question<'a> {
    fn about(node: &'a Node, link: &Link, manner: Manner) -> Self {
        Self {
            node,
            manner,
            began: node.parts().access.clock.now(),
            lane: link.id,
            loads: link.loads.load(Ordering::Acquire),
        }
    }

    fn left(&self) -> Duration {
        let spent = self.node.parts().access.clock.now().since(self.began);
        self.node
            .limits()
            .timeout(self.manner)
            .saturating_sub(spent)
    }

    /// All steps in one round trip; the answers may be refusals.
    async fn send(&self, link: Arc<Link>, steps: &[&Step]) -> Result<Vec<Value>, StoreError> {
        let mut commands = Pipeline::with_capacity(steps.len());
        for step in steps {
            commands.add_command(pack(self.node, link.dialect, step)?);
        }
        if self.manner.bulk {
            return beside(self.node, link, &commands, self.left()).await;
        }
        let sent = link.many(&commands, self.left()).await;
        sent.map_err(|failure| self.node.settle(&link, failure))
    }

    /// The steps whose script the server had lost. Over another lane, should this one be gone.
    async fn again(&self, steps: &[&Step]) -> Result<Vec<Value>, StoreError> {
        let link = self.node.link()?;
        self.reload(&link).await?;
        self.send(link, steps).await
    }

    /// Loads the scripts again, unless somebody has done so since this question began: another caller, or
    /// the supervisor on a new lane.
    async fn reload(&self, link: &Link) -> Result<(), StoreError> {
        let work = async {
            let _loading = link.loading.lock().await;
            let loaded = link.loads.load(Ordering::Acquire) != self.loads;
            if loaded || link.id != self.lane {
                return Ok(());
            }
            let limit = self.node.limits().command_timeout;
            let done = load_as(link, &self.node.parts().library, link.dialect, limit).await;
            link.loads.fetch_add(1, Ordering::Release);
            done.map(drop)
        };
        match within(self.left(), pin!(work)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => {
                let trip = Some(reason.clone());
                let error = StoreError::Unavailable(reason);
                Err(self.node.settle(link, Failure { error, trip }))
            }
            None => Err(StoreError::Timeout),
        }
    }
}

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
    let _place = node.queue_beside()?;
    let work = async {
        // Boxed, because opening a connection is a large future, and every command's would be as large.
        let reserve = Box::pin(node.reserve());
        let held = tokio::select! {
            held = reserve => held?,
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
    let answers = within(limit, pin!(work)).await;
    answers.unwrap_or(Err(StoreError::Timeout))
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
        let sending = pin!(lane.send_packed_commands(commands, 0, count));
        let sent = held.pulse.turn(limit, sending).await;
        // Only this connection is known to be of no use; the lane finds out for itself.
        sent.map_err(|failure| failure.error)
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
