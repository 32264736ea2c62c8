//! Finds the server for each command of a cluster, and follows it when it has moved.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;

use crate::store::ask::{self, Answer};
use crate::store::command::{Manner, Step};
use crate::store::deadline::within;
use crate::store::error::StoreError;
use crate::store::node::Node;
use crate::store::redirect::Redirect;
use crate::store::slots::NodeAddress;
use crate::store::status::{DownKind, DownReason};
use crate::store::topology::Topology;

/// How often a command follows a slot before it gives up.
const REDIRECTS: usize = 5;
/// A little more than the node's own deadline, which must be the one that notices a silent server.
const GRACE: Duration = Duration::from_millis(4);
/// How long to wait for a node that connects before looking again.
const MOMENT: Duration = Duration::from_millis(2);
/// How long to wait, attempt by attempt, before asking again for keys that are on their way.
const PAUSES: [Duration; REDIRECTS] = [
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(8),
    Duration::from_millis(8),
];

/// How often the map is read anew for a server that it does not name.
const LOOKS: usize = 4;

/// Sends one step to the master of its slot, and on to wherever that sends it.
pub(crate) async fn run(topology: &Topology, step: &Step, manner: Manner) -> Answer {
    let node = topology.master(step.route())?;
    let limit = node.limits().timeout(manner);
    let journey = async {
        let answer = ask::step(&node, step, manner).await;
        follow(topology, node.clone(), (step, manner), answer).await
    };
    within(limit + GRACE, pin!(journey))
        .await
        .unwrap_or(Err(StoreError::Timeout))
}

/// Sends each master its steps, all at the same time, and puts the answers back in order.
pub(crate) async fn batch(
    topology: &Topology,
    steps: &[Step],
    manner: Manner,
) -> Result<Vec<Answer>, StoreError> {
    let mut shares: Vec<Share<'_>> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let node = topology.master(step.route())?;
        match shares.iter_mut().find(|share| share.node.is(&node)) {
            Some(share) => share.add(at, step),
            None => shares.push(Share::of(node, at, step)),
        }
    }
    let mut answers: Vec<Option<Answer>> = steps.iter().map(|_| None).collect();
    for part in join_all(shares.iter().map(|share| share.send(topology, manner))).await {
        for (at, answer) in part {
            answers[at] = Some(answer);
        }
    }
    let answers = answers.into_iter();
    Ok(answers
        .map(|answer| answer.unwrap_or(Err(StoreError::Lost)))
        .collect())
}

/// The steps of a batch that go to one master.
struct Share<'a> {
    node: Node,
    places: Vec<usize>,
    steps: Vec<&'a Step>,
}

impl<'a> Share<'a> {
    fn of(node: Node, at: usize, step: &'a Step) -> Self {
        Self {
            node,
            places: vec![at],
            steps: vec![step],
        }
    }

    fn add(&mut self, at: usize, step: &'a Step) {
        self.places.push(at);
        self.steps.push(step);
    }

    /// The answers with their places; where the master could not be asked, its error for each step.
    async fn send(&self, topology: &Topology, manner: Manner) -> Vec<(usize, Answer)> {
        let limit = self.node.limits().timeout(manner);
        let journey = async {
            let answers = match ask::batch(&self.node, &self.steps, manner).await {
                Ok(answers) => answers,
                Err(error) => self.steps.iter().map(|_| Err(error.clone())).collect(),
            };
            let followed = answers
                .into_iter()
                .zip(&self.steps)
                .map(|(answer, step)| follow(topology, self.node.clone(), (step, manner), answer));
            join_all(followed).await
        };
        let answers = within(limit + GRACE, pin!(journey)).await;
        let late = || {
            self.steps
                .iter()
                .map(|_| Err(StoreError::Timeout))
                .collect()
        };
        let answers: Vec<Answer> = answers.unwrap_or_else(late);
        self.places.iter().copied().zip(answers).collect()
    }
}

/// Goes where an answer points, until it points nowhere.
async fn follow(
    topology: &Topology,
    mut node: Node,
    (step, manner): (&Step, Manner),
    mut answer: Answer,
) -> Answer {
    for pause in PAUSES {
        let (code, text) = match &answer {
            Err(StoreError::Refused { code, text }) => (code, text),
            Err(StoreError::Unavailable(reason)) => {
                // Nothing was sent. The slot may have gone elsewhere while this was on its way here, or
                // to a server that has just joined.
                let joins = reason.kind() == DownKind::Starting && topology.has_begun();
                node = match topology.master(step.route()) {
                    Ok(other) if joins || !other.is(&node) => connected(other).await?,
                    _ => return answer,
                };
                answer = ask::step(&node, step, manner).await;
                continue;
            }
            _ => return answer,
        };
        let redirect = Redirect::parse(code, text, &node.host());
        match (redirect, &**code) {
            (Some(Redirect::Moved { slot, node: to }), _) => {
                if let Some(to) = &to {
                    topology.moved(slot, to);
                }
                node = found(topology, slot, to.as_ref()).await?;
                answer = ask::step(&node, step, manner).await;
            }
            (Some(Redirect::Ask { slot, node: to }), _) => {
                let other = found(topology, slot, to.as_ref()).await?;
                answer = ask::asking(&other, step, manner).await;
            }
            (None, "TRYAGAIN") => {
                tokio::time::sleep(pause).await;
                answer = ask::step(&node, step, manner).await;
            }
            (None, "CLUSTERDOWN") => {
                topology.refresh_soon();
                let reason = DownReason::new(DownKind::Cluster, text.to_string());
                return Err(StoreError::Unavailable(reason));
            }
            (None, _) => return answer,
        }
    }
    answer
}

/// The node at an address, or where none is told, the slot's master by a map that is read anew; once it
/// is connected. The caller's deadline ends the search.
async fn found(
    topology: &Topology,
    slot: u16,
    address: Option<&NodeAddress>,
) -> Result<Node, StoreError> {
    let known = address.and_then(|address| topology.at(address));
    let node = match known {
        Some(node) => node,
        None => {
            let mut looks = 0;
            loop {
                topology.refreshed().await;
                let node = match address {
                    Some(address) => topology.at(address),
                    None => topology.master_of(slot),
                };
                looks += 1;
                match node {
                    Some(node) => break node,
                    // The first look may have begun before we were sent here.
                    None if looks < LOOKS => {}
                    None => return Err(StoreError::Unavailable(unknown())),
                }
            }
        }
    };
    connected(node).await
}

/// A node, once its first attempt to connect has worked out.
async fn connected(node: Node) -> Result<Node, StoreError> {
    while let Err(StoreError::Unavailable(reason)) = node.link() {
        if reason.kind() != DownKind::Starting {
            return Err(StoreError::Unavailable(reason));
        }
        tokio::time::sleep(MOMENT).await;
    }
    Ok(node)
}

fn unknown() -> DownReason {
    DownReason::new(
        DownKind::Cluster,
        "sent to a server that the cluster does not name",
    )
}
