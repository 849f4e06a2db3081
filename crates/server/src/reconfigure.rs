//! Members of a running cluster: added, promoted, moved, removed. Runs on the leader's node.
//!
//! Invariant: a member is written down before it belongs to the group, and crossed out after it left, so the group
//! never holds a node nobody can reach. A new member learns first: it cannot stop anybody, and votes as soon as it has
//! the data. What could cost the cluster its majority is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::NodeId;
use kernel::{Refusal, Status as Standing};
use mvcc::{Command, MemberChange, MemberRecord, MemberStep};
use node::{Reconfiguration, Response};
use tokio::sync::watch;
use tonic::Status;
use tracing::{debug, info};

use crate::errors;
use crate::gateway::Gateway;
use crate::members::{Member, host_and_port};
use crate::standing::{learns, votes};
use crate::start::random;

/// How long a change may take to be decided.
const PATIENCE: Duration = Duration::from_secs(7);
/// How long a new leader is given to find its feet.
const SETTLING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
/// How often the leader looks for learners that may vote.
const PROMOTION_LOOK: Duration = Duration::from_millis(250);
/// Members that learn at a time, as in etcd.
const LEARNERS_MAX: usize = 1;

fn precondition(text: &str) -> Status {
    Status::failed_precondition(format!("etcdserver: {text}"))
}

fn not_enough_started() -> Status {
    precondition("re-configuration failed due to not enough started members")
}

fn not_found() -> Status {
    Status::not_found("etcdserver: member not found")
}

/// The status of a change that did not begin. `bad` is said of one that makes no sense to the kernel.
fn refused(response: &Response, bad: fn() -> Status) -> Status {
    match response {
        Response::Refused(Refusal::BadMembership) => bad(),
        Response::Refused(Refusal::MembershipBusy) => not_enough_started(),
        other => errors::refused(other),
    }
}

/// Peer URLs as a client gives them.
fn checked(urls: &[String]) -> Result<Vec<String>, Status> {
    let distinct = urls.iter().enumerate().all(|(at, url)| !urls[..at].contains(url));
    if urls.is_empty() || !distinct || !urls.iter().all(|url| host_and_port(url).is_some()) {
        return Err(Status::invalid_argument("etcdserver: given member URLs are invalid"));
    }
    let mut urls = urls.to_vec();
    urls.sort();
    Ok(urls)
}

fn is_in(status: &Standing, id: NodeId) -> bool {
    status.membership.nodes.values().any(|node| *node == id)
}

async fn write_down(gateway: &Gateway, step: MemberStep) -> Result<(), Status> {
    let founders = gateway.context.directory.records();
    gateway.propose(&Command::Member(MemberChange { founders, step })).await.map(drop)
}

/// Starts a change. A leader that was elected a moment ago has yet to hear from the others: it is asked again.
async fn begin(gateway: &Gateway, change: Reconfiguration) -> Result<(), Response> {
    let deadline = Instant::now() + SETTLING;
    loop {
        match gateway.reconfigure(change).await {
            Err(Response::Refused(Refusal::NotReady | Refusal::MembershipBusy)) if Instant::now() < deadline => {}
            result => return result,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the group is as asked for, and decided.
async fn settled(gateway: &Gateway, is: impl Fn(&Standing) -> bool) -> Result<(), Status> {
    let deadline = Instant::now() + PATIENCE;
    let done = |status: &Standing| {
        let membership = &status.membership;
        is(status) && !membership.is_joint() && membership.index <= status.commit
    };
    while !gateway.context.standing.look(done) {
        if Instant::now() > deadline {
            return Err(Status::deadline_exceeded("etcdserver: request timed out"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Adds a member; it votes as soon as it has the data, unless it is to stay a learner.
pub(crate) async fn add(gateway: &Gateway, urls: &[String], is_learner: bool) -> Result<NodeId, Status> {
    let peer_urls = checked(urls)?;
    let directory = &gateway.context.directory;
    let learners = gateway.context.standing.look(|status| status.membership.learners.len());
    if learners >= LEARNERS_MAX {
        let waits = directory.members().iter().any(|member| member.promotes);
        return Err(match waits && !is_learner {
            // The one before has not started yet, or is catching up.
            true => not_enough_started(),
            false => precondition("too many learner members in cluster"),
        });
    }
    let id = directory.new_id(&peer_urls, random());
    let record = MemberRecord { id, peer_urls, promotes: !is_learner, ..MemberRecord::default() };
    write_down(gateway, MemberStep::Add(record)).await?;
    if let Err(response) = begin(gateway, Reconfiguration::AddLearner(id)).await {
        // Whoever tries again must not find its place taken.
        write_down(gateway, MemberStep::Remove(id)).await?;
        return Err(refused(&response, not_enough_started));
    }
    settled(gateway, |status| is_in(status, id)).await?;
    info!(id = %format_args!("{:x}", id.0), "member added, as a learner first");
    Ok(id)
}

/// Makes a learner vote.
pub(crate) async fn promote(gateway: &Gateway, id: NodeId) -> Result<(), Status> {
    let (exists, is_learner) = gateway.context.standing.look(|status| (is_in(status, id), learns(status, id)));
    if !exists {
        return Err(not_found());
    }
    if !is_learner {
        return Err(precondition("can only promote a learner member"));
    }
    match begin(gateway, Reconfiguration::Promote(id)).await {
        Ok(()) => settled(gateway, |status| !learns(status, id)).await,
        Err(Response::Refused(Refusal::NotReady)) => {
            Err(precondition("can only promote a learner member which is in sync with leader"))
        }
        Err(response) => Err(refused(&response, not_enough_started)),
    }
}

/// Removes a member. The leader itself must have handed over before.
pub(crate) async fn remove(gateway: &Gateway, id: NodeId) -> Result<(), Status> {
    let (exists, is_voter) = gateway.context.standing.look(|status| (is_in(status, id), votes(status, id)));
    if !exists {
        return Err(not_found());
    }
    if is_voter {
        // Who is counted as alive then was heard from after this was asked for. A member that died a moment ago must
        // not count for the majority that is to be left.
        tokio::time::sleep(gateway.context.election_timeout * 3 / 2).await;
    }
    if let Err(response) = begin(gateway, Reconfiguration::Remove(id)).await {
        return Err(refused(&response, not_enough_started));
    }
    settled(gateway, |status| !is_in(status, id)).await?;
    info!(id = %format_args!("{:x}", id.0), "member removed");
    write_down(gateway, MemberStep::Remove(id)).await
}

/// Says where a member is to be reached from now on.
pub(crate) async fn update(gateway: &Gateway, id: NodeId, urls: &[String]) -> Result<(), Status> {
    let peer_urls = checked(urls)?;
    write_down(gateway, MemberStep::Update(id, peer_urls)).await
}

/// Makes those vote who are to, as soon as they have the data, until `stop` changes.
pub(crate) async fn promote_learners(gateway: Gateway, mut stop: watch::Receiver<bool>) {
    let context = Arc::clone(&gateway.context);
    let me = context.directory.me().id;
    loop {
        tokio::select! {
            () = tokio::time::sleep(PROMOTION_LOOK) => {}
            _ = stop.changed() => return,
        }
        let idle = |status: &Standing| status.leader != Some(me) || status.membership.learners.is_empty();
        if context.standing.look(idle) {
            continue;
        }
        for Member { id, .. } in context.directory.members().into_iter().filter(|member| member.promotes) {
            if context.standing.look(|status| learns(status, id)) {
                match gateway.reconfigure(Reconfiguration::Promote(id)).await {
                    Ok(()) => info!(id = %format_args!("{:x}", id.0), "the new member has the data and votes"),
                    // Tried again at the next look.
                    Err(response) => debug!(?response, "the new member does not vote yet"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_places_and_each_stands_once() {
        let texts = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        assert_eq!(checked(&texts(&["http://b:1", "http://a:1"])).ok(), Some(texts(&["http://a:1", "http://b:1"])));
        for wrong in [&[][..], &["b:1"], &["http://a"], &["https://a:1"], &["http://a:1", "http://a:1"]] {
            let status = checked(&texts(wrong)).expect_err("refused");
            assert_eq!(status.message(), "etcdserver: given member URLs are invalid", "{wrong:?}");
        }
    }
}
