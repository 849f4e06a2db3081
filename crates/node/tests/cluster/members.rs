//! Members that come and go, on whole nodes.

use kernel::Refusal;
use node::Reconfiguration;

use super::*;

impl Cluster {
    /// A node with an empty disk, which knows nobody.
    fn add_host(&mut self, id: u64) -> NodeId {
        let (node, others) = (NodeId(id), self.ids());
        self.hosts.insert(node, Host::new(id, 0, self.now));
        for other in others {
            self.event(node, Event::PeerConnected(other));
            self.event(other, Event::PeerConnected(node));
        }
        node
    }

    fn change(&mut self, change: Reconfiguration) -> Response {
        let leader = self.leads();
        let ticket = self.request(leader, Request::Reconfigure { group: GROUP, change });
        match self.finished(leader, ticket) {
            Answer::Node(response) => response.clone(),
            Answer::Applied(outcome) => panic!("{outcome:?}"),
        }
    }

    /// The leader; hosts that are no members yet do not count.
    fn leads(&mut self) -> NodeId {
        self.run_until("a leader", |cluster| cluster.leader().is_some());
        self.leader().unwrap()
    }

    /// Waits until these nodes agree on these voters and learners.
    fn settles(&mut self, on: &[u64], voters: &[u64], learners: &[u64]) {
        let set = |ids: &[u64]| ids.iter().map(|id| ReplicaId(*id)).collect::<BTreeSet<_>>();
        let (voters, learners) = (set(voters), set(learners));
        self.run_until("the membership", |cluster| {
            on.iter().all(|id| {
                let found = cluster.hosts[&NodeId(*id)].node.status(GROUP).unwrap().membership;
                !found.is_joint() && found.voters == voters && found.learners == learners
            })
        });
    }

    fn put_done(&mut self, key: &str) {
        let leader = self.leads();
        let ticket = self.put(leader, key, "v");
        revision(self.finished(leader, ticket));
    }
}

#[test]
fn a_new_node_gets_the_data_then_votes_and_an_old_one_leaves() {
    let mut cluster = Cluster::new(3);
    cluster.put_done("before");
    let new = cluster.add_host(4);
    assert_eq!(cluster.change(Reconfiguration::AddLearner(new)), Response::Done);
    cluster.settles(&[1, 2, 3, 4], &[1, 2, 3], &[4]);
    cluster.run_until("the data", |c| c.get(new, "before").is_some());
    assert_eq!(cluster.change(Reconfiguration::AddLearner(new)), Response::Refused(Refusal::BadMembership));
    while cluster.change(Reconfiguration::Promote(new)) != Response::Done {
        cluster.run_for(STEP);
    }
    cluster.settles(&[1, 2, 3, 4], &[1, 2, 3, 4], &[]);
    let leaving = cluster.follower();
    assert_eq!(cluster.change(Reconfiguration::Remove(leaving)), Response::Done);
    let stay: Vec<u64> = [1, 2, 3, 4].into_iter().filter(|id| *id != leaving.0).collect();
    cluster.settles(&stay, &stay, &[]);
    cluster.put_done("after");
    cluster.run_until("the data after", |c| stay.iter().all(|id| c.get(NodeId(*id), "after").is_some()));
    assert_eq!(cluster.get(leaving, "after"), None);
}

#[test]
fn a_learner_that_never_started_gets_no_vote() {
    let mut cluster = Cluster::new(3);
    let new = cluster.add_host(4);
    cluster.isolate(new);
    assert_eq!(cluster.change(Reconfiguration::AddLearner(new)), Response::Done);
    for _ in 0..20 {
        assert_eq!(cluster.change(Reconfiguration::Promote(new)), Response::Refused(Refusal::NotReady));
        cluster.run_for(Duration::from_millis(50));
    }
    cluster.heal();
    while cluster.change(Reconfiguration::Promote(new)) != Response::Done {
        cluster.run_for(STEP);
    }
}

#[test]
fn a_dead_member_is_replaced_and_a_live_one_is_not_removed_while_another_is_dead() {
    let mut cluster = Cluster::new(3);
    let dead = cluster.follower();
    let leader = cluster.leader().unwrap();
    let other = cluster.ids().into_iter().find(|id| ![dead, leader].contains(id)).unwrap();
    cluster.isolate(dead);
    cluster.run_for(Duration::from_secs(2));
    // With it gone, one of two that vote would be left.
    assert_eq!(cluster.change(Reconfiguration::Remove(other)), Response::Refused(Refusal::MembershipBusy));
    assert_eq!(cluster.change(Reconfiguration::Remove(NodeId(9))), Response::Refused(Refusal::BadMembership));
    assert_eq!(cluster.change(Reconfiguration::Remove(dead)), Response::Done);
    cluster.settles(&[leader.0, other.0], &[leader.0, other.0], &[]);
    let new = cluster.add_host(4);
    assert_eq!(cluster.change(Reconfiguration::AddLearner(new)), Response::Done);
    while cluster.change(Reconfiguration::Promote(new)) != Response::Done {
        cluster.run_for(STEP);
    }
    cluster.settles(&[leader.0, other.0, 4], &[leader.0, other.0, 4], &[]);
    cluster.isolate(other);
    cluster.put_done("with the new one's voice");
}

#[test]
fn only_the_leader_changes_members_and_the_last_one_stays() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let change = Reconfiguration::Remove(NodeId(1));
    let ticket = cluster.request(follower, Request::Reconfigure { group: GROUP, change });
    let answer = cluster.finished(follower, ticket);
    assert!(matches!(answer, Answer::Node(Response::Refused(Refusal::NotLeader(_)))), "{answer:?}");
    let mut alone = Cluster::new(1);
    assert!(matches!(alone.change(Reconfiguration::Remove(NodeId(1))), Response::Refused(_)));
    alone.put_done("k");
}
