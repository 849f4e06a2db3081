//! Members: ids are given away once, places are taken once.

use base::NodeId;
use mvcc::{Command, Engine, MemberChange, MemberRecord, MemberStep, OutcomeResult, Reject};

use crate::store::Store;

fn record(id: u64, port: u64) -> MemberRecord {
    MemberRecord { id: NodeId(id), peer_urls: vec![format!("http://a:{port}")], ..MemberRecord::default() }
}

fn change(step: MemberStep) -> Command {
    Command::Member(MemberChange { founders: vec![record(1, 1), record(2, 2)], step })
}

#[test]
fn the_first_change_writes_the_founders_down_and_later_ones_do_not() {
    let mut store = Store::new();
    assert_eq!(mvcc::members(&*store.engine.view()).unwrap(), []);
    assert_eq!(store.apply(&change(MemberStep::Add(record(3, 3)))).result, OutcomeResult::Member);
    assert_eq!(mvcc::members(&*store.engine.view()).unwrap(), [record(1, 1), record(2, 2), record(3, 3)]);
    store.apply(&change(MemberStep::Update(NodeId(1), vec!["http://a:9".to_owned()])));
    store.apply(&change(MemberStep::Remove(NodeId(2))));
    let two = MemberRecord { removed: true, ..record(2, 2) };
    assert_eq!(mvcc::members(&*store.engine.view()).unwrap(), [record(1, 9), two, record(3, 3)]);
}

#[test]
fn ids_are_never_given_away_again_and_places_only_after_their_member_left() {
    let mut store = Store::new();
    assert_eq!(store.reject(&change(MemberStep::Add(record(1, 9)))), Reject::MemberExists);
    assert_eq!(store.reject(&change(MemberStep::Add(record(3, 2)))), Reject::PeerUrlsExist);
    assert_eq!(store.reject(&change(MemberStep::Remove(NodeId(3)))), Reject::MemberNotFound);
    assert_eq!(store.reject(&change(MemberStep::Update(NodeId(1), record(2, 2).peer_urls))), Reject::PeerUrlsExist);
    store.apply(&change(MemberStep::Remove(NodeId(2))));
    assert_eq!(store.reject(&change(MemberStep::Remove(NodeId(2)))), Reject::MemberNotFound);
    assert_eq!(store.reject(&change(MemberStep::Add(record(2, 5)))), Reject::MemberExists);
    assert_eq!(store.apply(&change(MemberStep::Add(record(4, 2)))).result, OutcomeResult::Member);
}
