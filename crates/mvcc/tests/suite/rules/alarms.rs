//! Alarms: what is refused while a member is out of space, and what is not.

use base::{LeaseId, NodeId, Revision};
use mvcc::{
    Alarm, AlarmChange, AlarmKind, Command, Engine, LeaseGrant, LeaseRevoke, Machine, Op, OutcomeResult, Reject, Txn,
};

use crate::store::{Store, compact, delete_of, put, put_of, success};

fn alarm(member: u64) -> Alarm {
    Alarm { member: NodeId(member), kind: AlarmKind::NoSpace }
}

fn change(member: u64, raise: bool) -> Command {
    Command::Alarm(AlarmChange { alarm: alarm(member), raise })
}

#[test]
fn while_any_member_is_out_of_space_only_what_takes_none_is_done() {
    let mut store = Store::new();
    store.apply(&put("k", "v"));
    store.apply(&Command::LeaseGrant(LeaseGrant { id: LeaseId(7), ttl_s: 60 }));
    assert_eq!(store.apply(&change(2, true)).result, OutcomeResult::Alarm(true));
    assert_eq!(store.apply(&change(2, true)).result, OutcomeResult::Alarm(false), "it is up already");
    let nested = Op::Txn(Txn { failure: vec![Op::Put(put_of("k", "w"))], ..Txn::default() });
    let refused = [
        put("k", "w"),
        Command::LeaseGrant(LeaseGrant { id: LeaseId(8), ttl_s: 60 }),
        Command::Txn(success(vec![Op::Put(put_of("k", "w"))])),
        Command::Txn(success(vec![nested])),
    ];
    for command in refused {
        assert_eq!(store.reject(&command), Reject::NoSpace, "{command:?}");
    }
    let deletes = Command::Txn(success(vec![Op::DeleteRange(delete_of("k", ""))]));
    assert_eq!(store.apply(&deletes).revision, Revision(3));
    assert_eq!(store.apply(&Command::LeaseRevoke(LeaseRevoke { id: LeaseId(7) })).result, OutcomeResult::LeaseRevoke);
    let compacted = store.apply(&compact(3)).result;
    assert!(matches!(compacted, OutcomeResult::Compact(_)), "{compacted:?}");
}

#[test]
fn each_members_alarm_is_cleared_by_itself_and_all_survive_a_restart() {
    let mut store = Store::new();
    let before = store.apply(&change(2, true)).revision;
    store.apply(&change(1, true));
    assert_eq!(mvcc::alarms(&*store.engine.view()).unwrap(), [alarm(1), alarm(2)]);
    assert_eq!(store.apply(&change(2, false)).result, OutcomeResult::Alarm(true));
    assert_eq!(store.reject(&put("k", "v")), Reject::NoSpace);
    assert_eq!(Machine::open(&store.engine).unwrap().alarms(), [alarm(1)]);
    assert_eq!(store.apply(&change(3, false)).result, OutcomeResult::Alarm(false), "it was not up");
    assert_eq!(store.apply(&change(1, false)).revision, before, "no revision moves");
    assert_eq!(store.apply(&put("k", "v")).revision, Revision(before.0 + 1));
}
