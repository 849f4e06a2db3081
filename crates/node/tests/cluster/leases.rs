//! Leases on whole nodes: who ends them, when, and what a change of the leader does to them.

use base::planted::{Defect, plant};
use mvcc::{LeaseGrant, LeaseGrantResult};
use node::{LeaseAsk, LeaseTimes};

use super::*;

const LEASE: LeaseId = LeaseId(7);

impl Cluster {
    fn propose(&mut self, on: NodeId, command: &Command) -> Outcome {
        let ticket = self.request(on, Request::Propose { group: GROUP, payload: command.encode() });
        match self.finished(on, ticket) {
            Answer::Applied(outcome) => outcome.clone(),
            Answer::Node(other) => panic!("{command:?}: {other:?}"),
        }
    }

    fn grant(&mut self, on: NodeId, id: LeaseId, ttl_s: i64) {
        let granted = self.propose(on, &Command::LeaseGrant(LeaseGrant { id, ttl_s }));
        assert_eq!(granted.result, OutcomeResult::LeaseGrant(LeaseGrantResult { id, ttl_s }));
    }

    fn put_leased(&mut self, on: NodeId, key: &str, lease: LeaseId) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.propose(on, &Command::Put(Put { key, value: "v".into(), lease, ..Default::default() }));
    }

    fn ask(&mut self, on: NodeId, lease: LeaseId, ask: LeaseAsk) -> Option<LeaseTimes> {
        let ticket = self.request(on, Request::Lease { group: GROUP, lease, ask });
        match self.finished(on, ticket) {
            Answer::Node(Response::Lease(times)) => *times,
            other => panic!("{other:?}"),
        }
    }

    fn keep_alive(&mut self, on: NodeId) -> bool {
        self.ask(on, LEASE, LeaseAsk::KeepAlive).is_some()
    }

    /// Runs until the key is gone everywhere; how long that took.
    fn time_until_gone(&mut self, key: &str) -> Duration {
        let before = self.now;
        self.run_until("the end of the lease", |c| c.ids().iter().all(|id| c.get(*id, key).is_none()));
        self.now.since(before)
    }

    fn entries(&self, on: NodeId, is: impl Fn(&Command) -> bool) -> usize {
        self.hosts[&on].applied.iter().filter(|command| is(command)).count()
    }
}

fn is_expiry(command: &Command) -> bool {
    matches!(command, Command::LeaseExpire(_))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_lease_that_nobody_renews_ends_with_its_keys_on_every_node() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    cluster.grant(follower, LEASE, 5);
    cluster.put_leased(follower, "a", LEASE);
    cluster.put_leased(follower, "b", LEASE);
    let took = cluster.time_until_gone("a");
    assert!((seconds(4)..seconds(6)).contains(&took), "{took:?}");
    assert_eq!(cluster.get(follower, "b"), None);
    assert_eq!(cluster.ask(follower, LEASE, LeaseAsk::KeepAlive), None);
    assert_eq!(cluster.ask(follower, LEASE, LeaseAsk::TimeToLive), None);
    let rows: Vec<_> = cluster.hosts.values().map(|host| host.engine.rows()).collect();
    assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ");
}

#[test]
fn renewals_through_any_node_keep_a_lease() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.grant(leader, LEASE, 5);
    cluster.put_leased(leader, "k", LEASE);
    for round in 0..12 {
        cluster.run_for(seconds(2));
        let node = cluster.ids()[round % 3];
        assert_eq!(
            cluster.ask(node, LEASE, LeaseAsk::KeepAlive),
            Some(LeaseTimes { ttl_s: 5, remaining_s: 5 }),
            "round {round}"
        );
    }
    cluster.run_for(seconds(2));
    let left = cluster.ask(NodeId(1), LEASE, LeaseAsk::TimeToLive).expect("it lives");
    assert!(left.ttl_s == 5 && (2..=3).contains(&left.remaining_s), "{left:?}");
    assert!(cluster.get(leader, "k").is_some());
    assert_eq!(cluster.entries(leader, is_expiry), 0);
}

#[test]
fn a_new_leader_gives_every_lease_its_time_again_and_ends_it_then() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.grant(old, LEASE, 5);
    cluster.put_leased(old, "k", LEASE);
    cluster.run_for(seconds(4));
    cluster.isolate(old);
    cluster.run_until("a new leader", |c| c.leader().is_some_and(|leader| leader != old));
    let new = cluster.leader().unwrap();
    cluster.run_for(Duration::from_millis(4_800));
    assert!(cluster.get(new, "k").is_some(), "shorter than a whole time after the change");
    cluster.heal();
    let took = cluster.time_until_gone("k");
    assert!(took < seconds(2), "{took:?}");
}

#[test]
fn a_leader_that_is_cut_off_ends_nothing() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.grant(old, LEASE, 5);
    cluster.put_leased(old, "k", LEASE);
    // Just before its time is up, so that the old leader still believes to lead when it is.
    cluster.run_for(Duration::from_millis(4_700));
    cluster.isolate(old);
    let last = cluster.hosts[&old].node.status(GROUP).unwrap().last;
    cluster.run_for(Duration::from_millis(900));
    assert_eq!(cluster.hosts[&old].node.status(GROUP).unwrap().last, last, "it proposed without asking");
    assert!(cluster.get(old, "k").is_some());
    cluster.run_until("a new leader", |c| c.leader().is_some_and(|leader| leader != old));
    let new = cluster.leader().unwrap();
    assert!(cluster.keep_alive(new));
    cluster.heal();
    cluster.run_for(seconds(4));
    assert!(cluster.get(new, "k").is_some() && cluster.get(old, "k").is_some());
}

/// Stops the leader for longer than the lease lives, while its client renews elsewhere. Whether the lease is there.
fn survives_a_stopped_leader() -> bool {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.grant(old, LEASE, 5);
    cluster.put_leased(old, "k", LEASE);
    cluster.freeze(old);
    cluster.run_until("a new leader", |c| c.leader().is_some_and(|leader| leader != old));
    let new = cluster.leader().unwrap();
    for _ in 0..5 {
        cluster.run_for(seconds(2));
        assert!(cluster.keep_alive(new));
    }
    cluster.thaw(old);
    cluster.run_for(seconds(3));
    let there = cluster.get(new, "k").is_some();
    // Whatever happened, all nodes agree.
    cluster.run_until("the old leader catches up", |c| c.get(old, "k").is_some() == there);
    there
}

#[test]
fn a_leader_that_was_stopped_ends_nothing_when_it_goes_on() {
    assert!(survives_a_stopped_leader());
    plant(Some(Defect::StaleExpiry));
    let there = survives_a_stopped_leader();
    plant(None);
    assert!(!there, "K1 was not noticed");
}

#[test]
fn drifting_clocks_end_no_lease_early() {
    for rate in [990, 1010] {
        let mut cluster = Cluster::new(3);
        for host in cluster.hosts.values_mut() {
            host.clock_rate = rate;
        }
        let leader = cluster.elect();
        cluster.grant(leader, LEASE, 20);
        cluster.put_leased(leader, "k", LEASE);
        assert!(cluster.keep_alive(leader));
        let took = cluster.time_until_gone("k");
        assert!((Duration::from_millis(19_700)..seconds(22)).contains(&took), "{took:?} at {rate}");
    }
}

#[test]
fn a_lease_granted_anew_under_its_old_id_is_not_hit_by_an_old_decision() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.grant(leader, LEASE, 5);
    cluster.propose(leader, &Command::LeaseRevoke(mvcc::LeaseRevoke { id: LEASE }));
    cluster.grant(leader, LEASE, 600);
    cluster.put_leased(leader, "k", LEASE);
    let stale = mvcc::LeaseExpire { leases: vec![mvcc::LeaseInstance { id: LEASE, instance: 1 }] };
    cluster.propose(leader, &Command::LeaseExpire(stale));
    cluster.run_for(seconds(10));
    assert!(cluster.get(leader, "k").is_some());
}

#[test]
fn thousands_that_end_at_once_go_in_bounded_entries_and_soon() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let count = 10_000;
    let tickets: Vec<_> = (1..=count)
        .map(|id| {
            let payload = Command::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl_s: 10 }).encode();
            cluster.request(leader, Request::Propose { group: GROUP, payload })
        })
        .collect();
    cluster.finished(leader, *tickets.last().unwrap());
    cluster.put_leased(leader, "k", LeaseId(count));
    let took = cluster.time_until_gone("k");
    assert!(took < Duration::from_millis(11_500), "{took:?}");
    cluster.run_until("all to end", |c| mvcc::leases(&*c.hosts[&leader].engine.view()).unwrap().is_empty());
    assert!(cluster.entries(leader, is_expiry) >= 20, "{} entries", cluster.entries(leader, is_expiry));
    let largest = cluster.hosts[&leader].applied.iter().map(|command| match command {
        Command::LeaseExpire(expire) => expire.leases.len(),
        _ => 0,
    });
    assert!(largest.max() <= Some(base::limits::LEASE_BATCH_MAX));
}

#[test]
fn a_long_lease_does_not_start_all_over_with_each_leader() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.grant(old, LEASE, 1000);
    cluster.run_for(seconds(320));
    let lease = mvcc::lease(&*cluster.hosts[&old].engine.view(), LEASE).unwrap().unwrap();
    assert!((690..=700).contains(&lease.remaining_s), "{lease:?}");
    cluster.isolate(old);
    cluster.run_until("a new leader", |c| c.leader().is_some_and(|leader| leader != old));
    let new = cluster.leader().unwrap();
    let left = cluster.ask(new, LEASE, LeaseAsk::TimeToLive).expect("it lives");
    assert!((680..=700).contains(&left.remaining_s), "{left:?}");
    // A renewal is answered when what was written down is cleared, so that no later leader goes by it.
    assert_eq!(cluster.ask(new, LEASE, LeaseAsk::KeepAlive), Some(LeaseTimes { ttl_s: 1000, remaining_s: 1000 }));
    let lease = mvcc::lease(&*cluster.hosts[&new].engine.view(), LEASE).unwrap().unwrap();
    assert_eq!(lease.remaining_s, 0);
}

#[test]
fn without_a_quorum_nobody_is_told_that_a_lease_was_renewed() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.grant(leader, LEASE, 60);
    cluster.isolate(leader);
    for on in [leader, leader] {
        let ticket = cluster.request(on, Request::Lease { group: GROUP, lease: LEASE, ask: LeaseAsk::KeepAlive });
        assert_eq!(*cluster.finished(on, ticket), Answer::Node(Response::TimedOut));
    }
}

#[test]
fn a_renewal_whose_way_to_the_leader_breaks_finds_another() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let leader = cluster.leader().unwrap();
    cluster.grant(follower, LEASE, 60);
    cluster.cut.insert((follower, leader));
    let ticket = cluster.request(follower, Request::Lease { group: GROUP, lease: LEASE, ask: LeaseAsk::KeepAlive });
    cluster.event(follower, Event::PeerLost(leader));
    cluster.heal();
    cluster.event(follower, Event::PeerConnected(leader));
    let expected = Answer::Node(Response::Lease(Some(LeaseTimes { ttl_s: 60, remaining_s: 60 })));
    assert_eq!(*cluster.finished(follower, ticket), expected);
}

#[test]
fn a_renewal_that_waits_at_a_stopped_leader_goes_to_the_next_one() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let old = cluster.leader().unwrap();
    cluster.grant(follower, LEASE, 60);
    cluster.freeze(old);
    let before = cluster.now;
    assert!(cluster.keep_alive(follower));
    assert!(cluster.now.since(before) < seconds(4), "it waited for its own time to be up");
}

#[test]
fn a_node_that_gets_a_snapshot_knows_the_leases_in_it() {
    let mut cluster = Cluster::new(3);
    let behind = cluster.follower();
    let leader = cluster.leader().unwrap();
    cluster.isolate(behind);
    cluster.grant(leader, LEASE, 60);
    cluster.put_leased(leader, "k", LEASE);
    for round in 0..40 {
        let put = cluster.put(leader, &format!("filler{round}"), &"x".repeat(300 * 1024));
        cluster.finished(leader, put);
    }
    let index = cluster.hosts[&leader].node.status(GROUP).unwrap().applied;
    cluster.event(leader, Event::Checkpointed { group: GROUP, index });
    cluster.heal();
    cluster.run_until("the snapshot", |c| c.get(behind, "filler39").is_some());
    let moved = cluster.request(leader, Request::TransferLeadership { group: GROUP, to: Some(behind) });
    cluster.finished(leader, moved);
    cluster.run_until("the new leader", |c| c.leader() == Some(behind));
    assert!(cluster.keep_alive(behind));
    let took = cluster.time_until_gone("k");
    assert!((seconds(59)..seconds(62)).contains(&took), "{took:?}");
}
