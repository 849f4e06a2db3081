//! Whether the members hold the same, asked again and again by the leader (`--corrupt-check-time`, as in etcd).
//!
//! Invariant: an alarm is raised only for a member whose fingerprint of a revision differs from that of others of the
//! same revision and the same compaction floor, or that has applied the same log and has not reached the revision. What
//! could not be compared is compared the next time, and never taken for damage. Damage that the engine finds by itself
//! stops the node; this finds what no checksum can, a state that is whole and wrong.
//!
//! etcd passes over every member that has not reached the revision, since it may only lag. But that is also what one
//! looks like that left entries out, and it is passed over for ever: how far its log was applied tells the two apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{HashKvRequest, StatusRequest};
use base::{Index, NodeId, Revision};
use mvcc::{Alarm, AlarmChange, AlarmKind, Command, Reject};
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Endpoint;
use tracing::{debug, error, warn};

use crate::errors;
use crate::gateway::Gateway;

/// A member that does not answer in this time is asked the next time.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a member said about a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// Its fingerprint, and the floor it depends on.
    Hash { hash: u32, compacted: Revision },
    /// It has applied the log in which the revision was reached, and did not reach it.
    NotReached,
}

/// Compares every `interval`, while this member leads, until `stop` changes.
pub(crate) async fn run(gateway: Gateway, interval: Duration, mut stop: watch::Receiver<bool>) {
    let me = gateway.context.directory.me().id;
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stop.changed() => return,
        }
        if gateway.context.standing.look(|status| status.leader != Some(me)) {
            continue;
        }
        match ask(&gateway, me).await {
            Ok((revision, said)) => raise(&gateway, revision, &said).await,
            Err(status) => debug!(%status, "members could not be compared"),
        }
    }
}

/// Asks all members about the latest revision.
async fn ask(gateway: &Gateway, me: NodeId) -> Result<(Revision, BTreeMap<NodeId, Said>), Status> {
    gateway.read_point().await?;
    let own = gateway.hash(Revision(0)).await?;
    let revision = own.revision;
    // Read after the revision was seen, so whoever has applied as much must have reached it.
    let reached_at = applied(gateway)?;
    let mut said = BTreeMap::from([(me, Said::Hash { hash: own.hash, compacted: own.compacted })]);
    let directory = Arc::clone(&gateway.context.directory);
    for member in directory.members().into_iter().filter(|member| member.id != me) {
        for url in directory.client_urls(member.id) {
            match ask_one(&url, revision, reached_at).await {
                Ok(answer) => {
                    said.insert(member.id, answer);
                    break;
                }
                // It lags, or it is down: both are known elsewhere.
                Err(reason) => debug!(member = %member.name, %url, reason, "member was not compared"),
            }
        }
    }
    Ok((revision, said))
}

/// How much of the log this member's engine shows.
fn applied(gateway: &Gateway) -> Result<Index, Status> {
    let mark = mvcc::mark(&*gateway.context.engine.view()).map_err(|fault| errors::fault(&fault))?;
    let mark = mark.ok_or_else(|| Status::unavailable("nothing was applied yet"))?;
    let mark = kernel::wire::decode_mark(mark).map_err(|error| Status::data_loss(error.to_string()))?;
    Ok(mark.position.index)
}

async fn ask_one(url: &str, revision: Revision, reached_at: Index) -> Result<Said, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(ASK_TIMEOUT).timeout(ASK_TIMEOUT);
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let mut client = MaintenanceClient::new(channel);
    // Asked first: it may catch up between the two questions.
    let status = client.status(StatusRequest::default()).await.map_err(|status| status.to_string())?;
    let has_applied = status.get_ref().raft_applied_index >= reached_at.0;
    match client.hash_kv(HashKvRequest { revision: revision.0 }).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            Ok(Said::Hash { hash: answer.hash, compacted: Revision(answer.compact_revision) })
        }
        Err(status) if has_applied && is_future(&status) => Ok(Said::NotReached),
        Err(status) => Err(status.to_string()),
    }
}

fn is_future(status: &Status) -> bool {
    status.message() == errors::rejected(Reject::FutureRevision).message()
}

/// Raises the alarm for those who differ.
async fn raise(gateway: &Gateway, revision: Revision, said: &BTreeMap<NodeId, Said>) {
    let up = gateway.context.space.alarms();
    for member in suspects(said) {
        let alarm = Alarm { member, kind: AlarmKind::Corrupt };
        if up.contains(&alarm) {
            continue;
        }
        error!(
            member = %format_args!("{:x}", member.0), %revision, ?said,
            "this member does not hold what the others hold; the cluster refuses to serve until it is replaced and the \
             alarm is cleared with `sinew alarm disarm`"
        );
        if let Err(status) = gateway.propose(&Command::Alarm(AlarmChange { alarm, raise: true })).await {
            warn!(%status, "the alarm could not be raised; it is tried again");
        }
    }
}

/// Who differs from more than half of those who can be compared; everybody, if no half agrees.
fn suspects(said: &BTreeMap<NodeId, Said>) -> Vec<NodeId> {
    // With different floors different history is hashed.
    let mut by_floor: BTreeMap<Revision, BTreeMap<NodeId, u32>> = BTreeMap::new();
    let mut found = Vec::new();
    for (member, said) in said {
        match said {
            Said::Hash { hash, compacted } => drop(by_floor.entry(*compacted).or_default().insert(*member, *hash)),
            Said::NotReached => found.push(*member),
        }
    }
    if found.len() * 2 >= said.len() {
        // Then it is those who reached it that did more than others did; of two halves nobody knows.
        let is_half = found.len() * 2 == said.len();
        return said.iter().filter(|(_, said)| is_half || **said != Said::NotReached).map(|(id, _)| *id).collect();
    }
    for members in by_floor.values() {
        let agreeing = |hash: u32| members.values().filter(|other| **other == hash).count();
        let accepted = members.values().copied().find(|hash| agreeing(*hash) * 2 > members.len());
        found.extend(members.iter().filter(|(_, hash)| Some(**hash) != accepted).map(|(member, _)| *member));
    }
    found
}

/// Whether requests may be served: not while any member is known to hold something else than the others.
pub(crate) fn refuse_if_corrupt(gateway: &Gateway) -> Result<(), Status> {
    if gateway.context.space.is_corrupt() { Err(errors::corrupt()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: &[(u64, u32, i64)]) -> Vec<u64> {
        // A hash of zero stands for none.
        let said = said.iter().map(|(member, hash, floor)| {
            let hashed = Said::Hash { hash: *hash, compacted: Revision(*floor) };
            (NodeId(*member), if *hash == 0 { Said::NotReached } else { hashed })
        });
        suspects(&said.collect()).into_iter().map(|member| member.0).collect()
    }

    #[test]
    fn whoever_differs_from_the_majority_is_suspect() {
        let none: [u64; 0] = [];
        assert_eq!(found(&[(1, 7, 1), (2, 7, 1), (3, 7, 1)]), none);
        assert_eq!(found(&[(1, 7, 1), (2, 8, 1), (3, 7, 1)]), [2]);
        assert_eq!(found(&[(1, 8, 1), (2, 7, 1), (3, 7, 1)]), [1], "also who asks");
        assert_eq!(found(&[(1, 7, 1), (2, 8, 1)]), [1, 2], "nobody knows who is right");
        assert_eq!(found(&[(1, 7, 1), (2, 8, 1), (3, 9, 1)]), [1, 2, 3]);
    }

    #[test]
    fn whoever_applied_the_log_and_missed_the_revision_is_suspect() {
        assert_eq!(found(&[(1, 7, 1), (2, 0, 0), (3, 7, 1)]), [2]);
        assert_eq!(found(&[(1, 7, 1), (2, 0, 0), (3, 8, 1), (4, 7, 1), (5, 7, 1)]), [2, 3]);
        assert_eq!(found(&[(1, 7, 1), (2, 0, 0), (3, 0, 0)]), [1], "it did more than the others");
        assert_eq!(found(&[(1, 7, 1), (2, 0, 0)]), [1, 2], "nobody knows who is right");
    }

    #[test]
    fn what_cannot_be_compared_is_not_suspect() {
        let none: [u64; 0] = [];
        assert_eq!(found(&[(1, 7, 1)]), none);
        assert_eq!(found(&[(1, 7, 1), (2, 8, 5), (3, 7, 1)]), none, "its floor is another");
    }
}
