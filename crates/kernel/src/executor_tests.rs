//! The parts of a plan that Raft never asks for: adopting entries of voters, stamping anew, overwriting a slot and
//! keeping the suffix, handing a candidacy over. Plans are made here by hand and executed by the kernel.

use std::sync::Arc;
use std::time::Duration;

use base::{Ballot, GroupId, Index, Instant, Lsn, NodeId, ReplicaId, Synced};
use bytes::Bytes;

use crate::config::{Config, Protocol};
use crate::entry::{Entry, EntryKind, Mark, Position};
use crate::membership::{Member, Membership};
use crate::message::{Body, Message};
use crate::policy::LogPlan;
use crate::ready::{Record, Recovered, Role};
use crate::replica::Replica;

const NOW: Instant = Instant(0);

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot::new(round, NodeId(node))
}

fn entry(index: u64, stamp: Ballot, origin: Ballot, text: &'static str) -> Entry {
    Entry { index: Index(index), stamp, origin, kind: EntryKind::Command, payload: Bytes::from_static(text.as_bytes()) }
}

/// Replica 1 of three, with entries 1 to 4 of ballot (1, n2), of which the first is decided.
fn replica() -> Replica {
    let members = [1, 2, 3].map(|number| Member { replica: ReplicaId(number), node: NodeId(number) });
    let old = ballot(1, 2);
    let recovered = Recovered {
        promised: ballot(1, 2),
        commit: Index(1),
        entries: ["a", "b", "c", "d"].iter().zip(1..).map(|(text, index)| entry(index, old, old, text)).collect(),
        last: Index(4),
        mark: Mark { membership: Membership::initial(&members).into(), ..Mark::default() },
        ..Recovered::default()
    };
    let config = Config {
        group: GroupId(1),
        node: NodeId(1),
        replica: ReplicaId(1),
        protocol: Protocol::Raft,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        seed: 1,
        leader_priority: 0,
    };
    Replica::new(config, recovered, NOW).expect("the state is sound")
}

/// Makes the replica a candidate whose promise is durable.
fn candidate() -> Replica {
    let mut replica = replica();
    replica.tick(Instant(3_000_000));
    let grant = |body| Message {
        group: GroupId(1),
        protocol: Protocol::Raft,
        from: ReplicaId(2),
        to: ReplicaId(1),
        ballot: ballot(2, 1),
        body,
    };
    replica.step(NOW, grant(Body::PreVoteReply { granted: true, promised: ballot(1, 2) }));
    assert_eq!(replica.role(), Role::Candidate);
    let _ = replica.ready(Lsn(1));
    replica.persisted(NOW, Synced::attest(Lsn(1)));
    let _ = replica.ready(Lsn(2));
    replica
}

fn log(replica: &Replica) -> Vec<(u64, Ballot, Ballot, String)> {
    let show = |entry: &Entry| {
        let text = String::from_utf8_lossy(&entry.payload).into_owned();
        (entry.index.0, entry.stamp, entry.origin, if entry.kind == EntryKind::EpochStart { "*".into() } else { text })
    };
    replica.log.iter_from(Index(1)).map(show).collect()
}

#[test]
fn a_winner_adopts_entries_of_voters_and_stamps_them_anew() {
    let mut replica = candidate();
    let (old, other, own) = (ballot(1, 2), ballot(1, 3), ballot(2, 1));
    let adopt = vec![entry(4, other, other, "x"), entry(5, other, other, "y")];
    replica.lead_with(LogPlan {
        keep_to: Index(3),
        adopt,
        restamp_from: Some(Index(3)),
        accepted: Some(own),
        fetch_from: None,
    });
    let expected = [
        (1, old, old, "a"),
        (2, old, old, "b"),
        (3, own, old, "c"),
        (4, own, other, "x"),
        (5, own, other, "y"),
        (6, own, own, "*"),
    ];
    assert_eq!(log(&replica), expected.map(|(index, stamp, origin, text)| (index, stamp, origin, text.to_owned())));
    assert_eq!(replica.accepted, own);
    replica.check();
    // Slots 2 and 3 were durable, but not as accepted in this ballot; the records say so in order.
    assert_eq!(replica.log.persisted(), Index(1));
    let records = replica.ready(Lsn(3)).records;
    assert!(matches!(records[0], Record::Hard { accepted, .. } if accepted == own));
    assert_eq!(records[1], Record::Truncate { from: Index(4) });
    assert!(matches!(&records[2], Record::Append(entries) if entries.len() == 3 && entries[0].index == Index(3)));
    assert!(matches!(&records[3], Record::Append(entries) if entries.len() == 1 && entries[0].index == Index(6)));
    assert_eq!(records.len(), 4);
    replica.persisted(NOW, Synced::attest(Lsn(3)));
    assert_eq!(replica.log.persisted(), Index(6));
    replica.check();
}

#[test]
fn an_overwritten_slot_keeps_the_suffix_and_waits_for_the_disk() {
    let mut replica = replica();
    let (old, new) = (ballot(1, 2), ballot(1, 2));
    let origin = ballot(1, 1);
    replica.write_entries(vec![entry(2, new, origin, "other")].into());
    assert_eq!(log(&replica)[1], (2, new, origin, "other".to_owned()));
    assert_eq!(log(&replica)[3], (4, old, old, "d".to_owned()));
    assert_eq!(replica.log.persisted(), Index(1));
    let records = replica.ready(Lsn(1)).records;
    assert_eq!(records, [Record::Append(vec![entry(2, new, origin, "other")].into())]);
    replica.persisted(NOW, Synced::attest(Lsn(1)));
    assert_eq!(replica.log.persisted(), Index(4));
    replica.check();
}

#[test]
fn an_entry_of_a_superseded_leader_is_decided_and_void() {
    // Slot 3 was proposed by an older leader than slot 2 and re-proposed by a later one.
    let mut replica = replica();
    replica.write_entries(vec![entry(3, ballot(1, 2), ballot(1, 1), "late")].into());
    replica.commit = Index(4);
    let ready = replica.ready(Lsn(1));
    let effects: Vec<(usize, bool)> = ready.committed.iter().map(|c| (c.entries.len(), c.effective)).collect();
    assert_eq!(effects, [(2, true), (1, false), (1, true)]);
    let mark = replica.mark();
    assert_eq!((mark.position.index, mark.max_origin), (Index(4), ballot(1, 2)));
}

fn message(ballot: Ballot, body: Body) -> Message {
    Message { group: GroupId(1), protocol: Protocol::Raft, from: ReplicaId(2), to: ReplicaId(1), ballot, body }
}

fn append(prev: Position, entries: Vec<Entry>) -> Body {
    Body::Append { prev, entries: entries.into(), commit: Index(0), sync_index: Index(0), confirm_seq: 1, preferred: 0 }
}

/// Known bug 32 (`testscripts/README.md`): nothing a message says may push a counter to its end.
#[test]
fn messages_that_cannot_be_are_dropped_and_counted() {
    let huge = 1 << 62;
    let at = |index| Position { index: Index(index), stamp: ballot(1, 2) };
    let fine = ballot(2, 2);
    let gap = vec![entry(5, fine, fine, "x"), entry(7, fine, fine, "y")];
    let elect =
        Body::Elect { last: at(4), accepted: Ballot::ZERO, commit: Index(0), forced: true, membership: Index(0) };
    let wrong = [
        message(ballot(huge, 2), elect),
        message(fine, Body::PreVoteReply { granted: false, promised: ballot(huge, 2) }),
        message(fine, append(at(huge), Vec::new())),
        message(fine, append(at(4), gap)),
        message(fine, append(at(4), vec![entry(6, fine, fine, "x")])),
        message(fine, append(at(4), vec![entry(5, ballot(3, 2), fine, "x")])),
        message(fine, append(at(4), vec![entry(5, fine, ballot(3, 2), "x")])),
        // It contradicts the entry at 1, which is decided.
        message(fine, append(Position { index: Index(1), stamp: fine }, Vec::new())),
        Message { group: GroupId(2), ..message(fine, append(at(4), Vec::new())) },
        Message { to: ReplicaId(3), ..message(fine, append(at(4), Vec::new())) },
        Message { from: ReplicaId(1), ..message(fine, append(at(4), Vec::new())) },
    ];
    for (count, message) in (1..).zip(wrong) {
        let mut replica = replica();
        let words = format!("{count}: {message:?}");
        replica.step(NOW, message);
        replica.check();
        assert_eq!(replica.status().suspicious, 1, "{words}");
        assert_eq!(replica.log.last(), Index(4), "{words}");
        assert!(replica.learnt <= fine, "{words}");
    }
}

#[test]
fn two_leaders_of_one_ballot_are_not_believed() {
    let mut replica = replica();
    let fine = ballot(2, 2);
    replica.step(NOW, message(fine, append(Position { index: Index(4), stamp: ballot(1, 2) }, Vec::new())));
    let other = message(fine, append(Position { index: Index(4), stamp: ballot(1, 2) }, Vec::new()));
    replica.step(NOW, Message { from: ReplicaId(3), ..other });
    assert_eq!(replica.status().suspicious, 1);
}

#[test]
fn damaged_state_is_a_fault_and_not_a_panic() {
    let good = || {
        let replica = replica();
        let entries: Vec<Entry> = replica.log.iter_from(Index(1)).cloned().collect();
        let mark = replica.mark().clone();
        let promised = ballot(1, 2);
        (replica.config, Recovered { promised, entries, last: Index(4), mark, ..Recovered::default() })
    };
    let (config, recovered) = good();
    assert!(Replica::new(config, recovered, NOW).is_ok());
    let damages: [fn(&mut Config, &mut Recovered); 6] = [
        |_, recovered| recovered.promised = Ballot::ZERO,
        |_, recovered| recovered.last = Index(5),
        |_, recovered| drop(recovered.entries.remove(1)),
        |_, recovered| drop(recovered.entries.remove(0)),
        |_, recovered| Arc::make_mut(&mut recovered.mark.membership).nodes.retain(|replica, _| replica.0 > 1),
        |config, _| config.election_timeout = config.heartbeat_interval,
    ];
    for (number, damage) in damages.iter().enumerate() {
        let (mut config, mut recovered) = good();
        damage(&mut config, &mut recovered);
        assert!(Replica::new(config, recovered, NOW).is_err(), "damage {number} goes unnoticed");
    }
}
