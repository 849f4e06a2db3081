//! The searches that are run: a small set for every test run, a large one for long runs, and for each planted defect
//! the one that finds it.
//!
//! Everything at once is beyond exhausting, so each search turns on some dimensions; `docs/testing.md` has the table of
//! what is covered together and what is not.

use base::planted::Defect;
use kernel::{Protocol, UnknownProtocol};

use crate::config::{Bounds, Config, Limits, Target};
use crate::host::needs_atomic_batches;
use crate::sight::Sight;

/// What every search with an election must see.
const ELECTION: [Sight; 2] = [Sight::Elected, Sight::Dropped];

/// The protocols called so: one by name, or `all`.
///
/// # Errors
/// The name is that of no protocol.
pub fn protocols(name: &str) -> Result<Vec<Protocol>, UnknownProtocol> {
    if name == "all" { Ok(Protocol::ALL.to_vec()) } else { Ok(vec![name.parse()?]) }
}

/// What becomes of the entries of an older ballot that stand in the way of a newer one.
const fn replaced(protocol: Protocol) -> Sight {
    match protocol {
        Protocol::Raft | Protocol::Zab | Protocol::PaxosRaft => Sight::Truncated,
        Protocol::MultiPaxos => Sight::Overwritten,
    }
}

/// How a crash may leave a batch.
const fn torn(protocol: Protocol) -> Sight {
    if needs_atomic_batches(protocol) { Sight::Restarted } else { Sight::Torn }
}

fn bounds(in_flight: usize) -> Bounds {
    Bounds { rounds: 2, in_flight, ..Bounds::default() }
}

/// Searches that are exhausted within seconds.
#[must_use]
pub fn small(protocol: Protocol) -> Vec<Config> {
    let named = |name, goals: &[Sight]| Config {
        goals: ELECTION.iter().chain(goals).copied().collect(),
        ..Config::new(name, protocol)
    };
    let led = |name, goals: &[Sight]| Config { leader: 1, ..named(name, goals) };
    // Hosts 2 and 3 are alike: where host 1 cannot campaign either, it does not matter which of them does.
    let challenged = |name, goals: &[Sight]| Config { candidates: vec![2], ..led(name, goals) };
    use Sight as S;
    vec![
        Config {
            pre_votes: true,
            stickiness: true,
            bounds: Bounds { campaigns: 2, ..bounds(2) },
            ..named("elections", &[S::TwoLeaders, S::VoteRefused, S::Sticky, S::OldCommitted])
        },
        Config {
            bounds: Bounds { campaigns: 2, step_downs: 1, ..bounds(2) },
            ..named("ballots", &[S::TwoLeaders, S::OldCommitted, S::AppendRejected, S::SteppedDown])
        },
        Config {
            bounds: Bounds { campaigns: 1, proposals: 2, ..bounds(2) },
            ..challenged("entries", &[S::TwoLeaders, S::OldCommitted, S::AppendRejected, replaced(protocol)])
        },
        Config {
            bounds: Bounds { campaigns: 1, proposals: 1, duplicates: 1, ..bounds(2) },
            ..challenged("duplicates", &[S::Duplicated])
        },
        Config {
            bounds: Bounds { campaigns: 1, proposals: 1, heartbeats: 1, ..bounds(2) },
            ..challenged("heartbeats", &[S::Heartbeat])
        },
        Config {
            slow_disks: true,
            bounds: Bounds { campaigns: 1, proposals: 1, crashes: 1, ..bounds(2) },
            ..led("power", &[S::LostPromise, S::LostEntries, torn(protocol), S::Restarted])
        },
        Config {
            bounds: Bounds { campaigns: 2, crashes: 1, ..bounds(2) },
            ..named("restarts", &[S::Restarted, S::TwoLeaders])
        },
        Config {
            target: Target { voters: vec![1], learners: vec![2] },
            bounds: Bounds { campaigns: 1, changes: 1, ..bounds(2) },
            ..led("shrink", &[S::JointEntered, S::JointLeft, S::Removed])
        },
        Config {
            voters: vec![1, 2],
            strangers: vec![3],
            target: Target { voters: vec![2, 3], learners: vec![] },
            bounds: Bounds { campaigns: 1, changes: 1, ..bounds(2) },
            ..led("replace", &[S::JointEntered, S::JointLeft, S::Removed])
        },
        Config {
            bounds: Bounds { campaigns: 1, proposals: 1, reads: 1, ..bounds(2) },
            ..challenged("reads", &[S::ReadConfirmed, S::ReadRefused])
        },
        Config {
            bounds: Bounds { campaigns: 1, proposals: 1, transfers: 1, ..bounds(2) },
            ..led("handover", &[S::HandedOver, S::HandoverExpired])
        },
        Config {
            bounds: Bounds { campaigns: 1, proposals: 1, compactions: 1, ..bounds(2) },
            ..challenged("snapshots", &[S::Compacted, S::SnapshotInstalled, S::SnapshotRefused])
        },
    ]
}

/// Searches that take minutes each. Every pair of an election, two commands, a crash that loses what is not durable, a
/// duplicate and a change of membership is in one of them, or in one of the small ones.
#[must_use]
pub fn large(protocol: Protocol) -> Vec<Config> {
    let named = |name, goals: &[Sight]| Config {
        goals: ELECTION.iter().chain(goals).copied().collect(),
        ..Config::new(name, protocol)
    };
    let challenged = |name, goals: &[Sight]| Config { leader: 1, candidates: vec![2], ..named(name, goals) };
    let to = |voters: &[u64], learners: &[u64]| Target { voters: voters.to_vec(), learners: learners.to_vec() };
    let one = Bounds { campaigns: 1, ..bounds(2) };
    use Sight as S;
    // With two packets under way, or more commands, this is beyond exhausting.
    let all_one_by_one = |name| Config {
        slow_disks: true,
        target: to(&[1], &[2]),
        bounds: Bounds { campaigns: 1, proposals: 2, crashes: 1, duplicates: 1, changes: 1, ..bounds(1) },
        ..challenged(name, &[S::JointLeft, S::LostEntries, S::Duplicated, S::TwoLeaders])
    };
    // Beyond exhausting with all three disks at once.
    let entries_and_power = |name| Config {
        slow_disks: true,
        bounds: Bounds { proposals: 2, crashes: 1, ..one },
        ..challenged(name, &[S::LostEntries, S::TwoLeaders, torn(protocol), S::Restarted])
    };
    vec![
        Config {
            bounds: Bounds { campaigns: 2, proposals: 1, duplicates: 1, ..bounds(2) },
            ..named("ballots+duplicate", &[S::Duplicated, S::TwoLeaders])
        },
        Config {
            slow_disks: true,
            bounds: Bounds { campaigns: 2, crashes: 1, ..bounds(2) },
            ..named("ballots+power", &[S::LostPromise, S::LostEntries, torn(protocol), S::Restarted])
        },
        Config { frail: vec![1], ..entries_and_power("entries+power-1") },
        Config { frail: vec![2], ..entries_and_power("entries+power-2") },
        Config { frail: vec![3], ..entries_and_power("entries+power-3") },
        Config {
            bounds: Bounds { proposals: 2, duplicates: 1, ..one },
            ..challenged("entries+duplicate", &[S::Duplicated, S::TwoLeaders])
        },
        Config {
            slow_disks: true,
            bounds: Bounds { proposals: 1, crashes: 1, duplicates: 1, ..one },
            ..challenged("power+duplicate", &[S::LostPromise, S::LostEntries, S::Duplicated])
        },
        Config {
            target: to(&[1, 2], &[3]),
            bounds: Bounds { proposals: 1, changes: 1, ..one },
            ..challenged("change+entries", &[S::JointEntered, S::JointLeft, S::TwoLeaders])
        },
        Config {
            slow_disks: true,
            target: to(&[1], &[2]),
            bounds: Bounds { changes: 1, crashes: 1, ..one },
            ..challenged("change+power", &[S::JointEntered, S::JointLeft, S::LostEntries])
        },
        Config {
            target: to(&[1, 2], &[3]),
            bounds: Bounds { changes: 1, duplicates: 1, ..one },
            ..challenged("change+duplicate", &[S::JointEntered, S::JointLeft, S::Duplicated])
        },
        Config {
            leader: 1,
            strangers: vec![4],
            target: to(&[2, 3, 4], &[]),
            bounds: Bounds { changes: 1, ..one },
            ..named("change-of-four", &[S::JointEntered, S::JointLeft, S::Removed])
        },
        Config {
            bounds: Bounds { proposals: 1, reads: 1, crashes: 1, ..one },
            ..challenged("reads+crash", &[S::ReadConfirmed, S::ReadRefused, S::Restarted])
        },
        Config {
            target: to(&[1], &[2]),
            bounds: Bounds { reads: 1, changes: 1, ..one },
            ..challenged("reads+change", &[S::ReadConfirmed, S::JointLeft])
        },
        Config {
            bounds: Bounds { transfers: 1, crashes: 1, proposals: 1, ..one },
            ..challenged("handover+crash", &[S::HandedOver, S::Restarted])
        },
        Config {
            bounds: Bounds { compactions: 1, crashes: 1, proposals: 1, ..one },
            ..challenged("snapshots+crash", &[S::SnapshotInstalled, S::Restarted])
        },
        Config { frail: vec![1], ..all_one_by_one("one-by-one-1") },
        Config { frail: vec![2], ..all_one_by_one("one-by-one-2") },
        Config { frail: vec![3], ..all_one_by_one("one-by-one-3") },
    ]
}

/// Everything at once, as far as states and time allow.
#[must_use]
pub fn bounded(protocol: Protocol, states: usize) -> Config {
    Config {
        leader: 1,
        slow_disks: true,
        target: Target { voters: vec![1, 2], learners: vec![3] },
        bounds: Bounds {
            rounds: 3,
            campaigns: 3,
            step_downs: 2,
            heartbeats: 2,
            crashes: 2,
            duplicates: 2,
            proposals: 3,
            reads: 1,
            changes: 1,
            transfers: 1,
            compactions: 1,
            in_flight: 3,
        },
        limits: Limits { states, depth: usize::MAX },
        ..Config::new("everything", protocol)
    }
}

/// The search that must find `defect`, if any can.
#[must_use]
pub fn hunt(defect: Defect, protocol: Protocol) -> Option<Config> {
    let base = Config::new(defect.id(), protocol);
    let bounds = bounds(3);
    let config = match defect {
        // Figure 8 of the Raft paper, with three servers: commands travel alone, so that an old entry can reach a
        // majority without the marker behind it.
        Defect::CommitOldStamp => Config {
            candidates: vec![1, 3],
            large_commands: true,
            bounds: Bounds { campaigns: 4, step_downs: 2, proposals: 1, in_flight: 1, ..bounds },
            ..base
        },
        Defect::EarlyVote | Defect::EarlyAppendAck => {
            Config { slow_disks: true, bounds: Bounds { campaigns: 1, ..bounds }, ..base }
        }
        Defect::ForgottenVote => Config { bounds: Bounds { campaigns: 2, crashes: 1, ..bounds }, ..base },
        Defect::TruncateMatching => Config { leader: 1, bounds: Bounds { proposals: 2, ..bounds }, ..base },
        // The second of three appends is lost: the third is refused, and the refusal names the first, which is written
        // and not durable.
        Defect::MatchOnReject => {
            Config { leader: 1, slow_disks: true, bounds: Bounds { proposals: 3, ..bounds }, ..base }
        }
        // A leader confirms a read with an empty append that ends before what the follower wrongly holds.
        Defect::CommitUnverified => {
            Config { leader: 1, bounds: Bounds { campaigns: 1, proposals: 1, reads: 1, ..bounds }, ..base }
        }
        Defect::LengthBeforeStamp => Config {
            candidates: vec![1, 3],
            bounds: Bounds { campaigns: 3, step_downs: 1, proposals: 1, in_flight: 1, ..bounds },
            ..base
        },
        Defect::HalfQuorum => Config { voters: vec![1, 2], bounds: Bounds { campaigns: 2, ..bounds }, ..base },
        Defect::OverlappingChange => Config {
            leader: 1,
            target: Target { voters: vec![1], learners: vec![] },
            bounds: Bounds { campaigns: 1, changes: 2, ..bounds },
            ..base
        },
        Defect::NewQuorumOnly => Config {
            leader: 1,
            target: Target { voters: vec![1], learners: vec![] },
            bounds: Bounds { campaigns: 1, changes: 1, ..bounds },
            ..base
        },
        Defect::LearnerVotes => {
            Config { learners: vec![4], leader: 1, bounds: Bounds { proposals: 1, campaigns: 1, ..bounds }, ..base }
        }
        Defect::RemovedCounts => Config {
            voters: vec![1],
            strangers: vec![2, 3, 4],
            leader: 1,
            target: Target { voters: vec![2, 3, 4], learners: vec![] },
            bounds: Bounds { changes: 1, proposals: 1, campaigns: 1, ..bounds },
            ..base
        },
        Defect::EarlyRead => {
            Config { leader: 1, bounds: Bounds { proposals: 1, campaigns: 1, reads: 1, ..bounds }, ..base }
        }
        Defect::LateConfirmation => {
            Config { leader: 1, bounds: Bounds { proposals: 1, campaigns: 1, reads: 1, ..bounds }, ..base }
        }
        Defect::PreVotesCount => Config { pre_votes: true, bounds: Bounds { campaigns: 2, ..bounds }, ..base },
        _ => return hunt_policy(defect, protocol),
    };
    Some(config)
}

/// The same for defects of one policy.
fn hunt_policy(defect: Defect, protocol: Protocol) -> Option<Config> {
    let base = Config::new(defect.id(), protocol);
    let bounds = bounds(2);
    let config = match (defect, protocol) {
        (Defect::BallotReused, _) => Config { slow_disks: true, bounds: Bounds { campaigns: 1, ..bounds }, ..base },
        (Defect::IgnoreHighestStamp, Protocol::MultiPaxos) => {
            Config { bounds: Bounds { campaigns: 3, ..bounds }, ..base }
        }
        (Defect::NoOpFill, Protocol::MultiPaxos) => Config { bounds: Bounds { campaigns: 2, ..bounds }, ..base },
        // Two commands that travel one by one, so that a log is known in part.
        (Defect::VoteBeyondRange | Defect::PaxosWholeLog, Protocol::MultiPaxos) => Config {
            leader: 1,
            candidates: vec![2, 3],
            large_commands: true,
            bounds: Bounds { rounds: 3, campaigns: 2, step_downs: 1, proposals: 2, in_flight: 1, ..bounds },
            ..base
        },
        // A slot of a decided suffix is cut off, and its leader loses the only other copy that the next election sees.
        (Defect::PaxosTruncates, Protocol::MultiPaxos) => Config {
            leader: 1,
            candidates: vec![3],
            large_commands: true,
            slow_disks: true,
            bounds: Bounds { rounds: 3, campaigns: 2, crashes: 1, proposals: 2, in_flight: 1, ..bounds },
            ..base
        },
        (Defect::NoFixpoint, Protocol::MultiPaxos | Protocol::PaxosRaft) => hunt(Defect::NewQuorumOnly, protocol)?,
        // Whoever has the better history is asked to lead first; only the second attempt fetches it.
        (Defect::NoFixpoint, Protocol::Zab) => Config {
            leader: 1,
            candidates: vec![3],
            target: Target { voters: vec![1], learners: vec![] },
            bounds: Bounds { rounds: 4, campaigns: 2, changes: 1, ..bounds },
            ..base
        },
        (Defect::EpochApart, Protocol::Zab) => Config { bounds: Bounds { campaigns: 3, ..bounds }, ..base },
        (Defect::EarlySyncAck, Protocol::Zab) => {
            Config { slow_disks: true, bounds: Bounds { campaigns: 1, ..bounds }, ..base }
        }
        // Figure 8 again.
        (Defect::NoSyncBarrier, Protocol::Zab) | (Defect::RaftVoteRule, Protocol::PaxosRaft) => {
            hunt(Defect::CommitOldStamp, protocol)?
        }
        (Defect::AcceptedIgnored, Protocol::PaxosRaft) => {
            Config { bounds: Bounds { campaigns: 3, proposals: 1, in_flight: 1, ..bounds }, ..base }
        }
        _ => return None,
    };
    Some(Config { name: defect.id(), ..config })
}
