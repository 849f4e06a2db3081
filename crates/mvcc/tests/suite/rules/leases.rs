//! Leases: what hangs on them, and what goes with them.

use base::limits::LEASE_EXPIRE_KEYS_MAX;
use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Command, Engine, EventKind, Lease, LeaseChange, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseGrantResult,
    LeaseInstance, LeaseRevoke, Op, OutcomeResult, Put, Reject,
};

use crate::store::{Store, delete, put, put_leased, put_of, success};

fn grant(id: i64, ttl_s: i64) -> Command {
    Command::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl_s })
}

fn revoke(id: i64) -> Command {
    Command::LeaseRevoke(LeaseRevoke { id: LeaseId(id) })
}

fn expire(leases: &[(i64, u64)]) -> Command {
    let leases = leases.iter().map(|(id, instance)| LeaseInstance { id: LeaseId(*id), instance: *instance }).collect();
    Command::LeaseExpire(LeaseExpire { leases })
}

fn attached(store: &Store, id: i64) -> Vec<Bytes> {
    mvcc::attached(&*store.engine.view(), LeaseId(id), usize::MAX).unwrap().expect("no bound")
}

fn find(store: &Store, id: i64) -> Option<Lease> {
    mvcc::lease(&*store.engine.view(), LeaseId(id)).unwrap()
}

#[test]
fn granting_does_not_move_the_revision_and_an_id_is_taken_once() {
    let mut store = Store::new();
    let outcome = store.apply(&grant(7, 60));
    assert_eq!(outcome.revision, Revision(1));
    assert_eq!(outcome.result, OutcomeResult::LeaseGrant(LeaseGrantResult { id: LeaseId(7), ttl_s: 60 }));
    assert_eq!(store.reject(&grant(7, 5)), Reject::LeaseExists);
    assert_eq!(store.reject(&grant(8, 9_000_000_001)), Reject::LeaseTtlTooLarge);
    assert_eq!(find(&store, 7), Some(Lease { id: LeaseId(7), instance: 1, ttl_s: 60, remaining_s: 0 }));
}

#[test]
fn the_last_put_says_which_lease_a_key_hangs_on() {
    let mut store = Store::new();
    store.apply(&grant(1, 60));
    store.apply(&grant(2, 60));
    store.apply(&Command::Put(put_leased("k", 1)));
    store.apply(&Command::Put(put_leased("k", 2)));
    assert_eq!((attached(&store, 1), attached(&store, 2)), (vec![], vec![Bytes::from("k")]));
    store.apply(&Command::Put(Put { ignore_lease: true, ..put_of("k", "w") }));
    assert_eq!(attached(&store, 2), ["k"]);
    store.apply(&put("k", "without"));
    assert_eq!(attached(&store, 2), [] as [&str; 0]);
    store.apply(&Command::Put(put_leased("k", 2)));
    store.delete("k");
    assert_eq!(attached(&store, 2), [] as [&str; 0]);
}

#[test]
fn revoking_deletes_all_its_keys_at_one_revision_in_key_order() {
    let mut store = Store::new();
    store.apply(&grant(7, 60));
    for key in ["b", "a", "c"] {
        store.apply(&Command::Put(put_leased(key, 7)));
    }
    store.put("d", "stays");
    let outcome = store.apply(&revoke(7));
    assert_eq!((outcome.revision, outcome.result), (Revision(6), OutcomeResult::LeaseRevoke));
    let page = store.events(6).unwrap();
    let events: Vec<_> = page.changes[0].events.iter().map(|event| (event.kind, event.kv.key.clone())).collect();
    let expected = ["a", "b", "c"].map(|key| (EventKind::Delete, Bytes::from(key)));
    assert_eq!((page.changes.len(), events), (1, expected.to_vec()));
    assert_eq!((find(&store, 7), store.machine.state().keys), (None, 1));
    assert_eq!(store.reject(&revoke(7)), Reject::LeaseNotFound);
    assert_eq!(store.reject(&Command::Put(put_leased("k", 7))), Reject::LeaseNotFound);
}

#[test]
fn revoking_a_lease_without_keys_does_not_move_the_revision() {
    let mut store = Store::new();
    store.apply(&grant(7, 60));
    assert_eq!(store.apply(&revoke(7)).revision, Revision(1));
}

#[test]
fn an_expiry_decided_about_an_earlier_lease_of_that_id_does_nothing() {
    let mut store = Store::new();
    store.apply(&grant(7, 60));
    store.apply(&revoke(7));
    store.apply(&grant(7, 60));
    store.apply(&Command::Put(put_leased("k", 7)));
    let outcome = store.apply(&expire(&[(7, 1), (8, 1)]));
    assert_eq!((outcome.revision, outcome.result), (Revision(2), OutcomeResult::LeaseExpire(0)));
    assert!(store.get("k").is_some());
    assert_eq!(store.apply(&expire(&[(7, 2)])).result, OutcomeResult::LeaseExpire(1));
    assert!(store.get("k").is_none());
}

#[test]
fn each_expired_lease_has_a_revision_of_its_own() {
    let mut store = Store::new();
    for (id, key) in [(1, "a"), (2, "b")] {
        store.apply(&grant(id, 60));
        store.apply(&Command::Put(put_leased(key, id)));
    }
    store.apply(&grant(3, 60));
    assert_eq!(store.apply(&expire(&[(1, 1), (3, 3), (2, 2)])).revision, Revision(5));
    let page = store.events(4).unwrap();
    let keys: Vec<_> = page.changes.iter().map(|change| change.events[0].kv.key.clone()).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn an_expiry_stops_after_so_many_keys_but_never_inside_a_lease() {
    let mut store = Store::new();
    for (id, keys) in [(1, LEASE_EXPIRE_KEYS_MAX + 1), (2, 1)] {
        store.apply(&grant(id, 60));
        for key in 0..keys {
            store.apply(&Command::Put(put_leased(&format!("{id}/{key}"), id)));
        }
    }
    let before = store.machine.state().revision.0;
    let outcome = store.apply(&expire(&[(1, 1), (2, 2)]));
    assert_eq!((outcome.revision.0, outcome.result), (before + 1, OutcomeResult::LeaseExpire(1)));
    assert_eq!((store.machine.state().keys, find(&store, 2).is_some()), (1, true));
}

#[test]
fn a_checkpoint_is_kept_with_the_lease_and_cleared_by_zero() {
    let mut store = Store::new();
    store.apply(&grant(7, 60));
    let mut checkpoint = |instance, remaining_s| {
        let leases = vec![(LeaseInstance { id: LeaseId(7), instance }, remaining_s)];
        store.apply(&Command::LeaseCheckpoint(LeaseCheckpoint { leases }));
        find(&store, 7).unwrap().remaining_s
    };
    assert_eq!([checkpoint(1, 40), checkpoint(2, 30), checkpoint(1, 99), checkpoint(1, 0)], [40, 40, 60, 0]);
}

#[test]
fn what_happens_to_leases_is_told_in_order() {
    let mut store = Store::new();
    let mut apply = store.machine.begin(store.engine.view()).unwrap();
    for command in [grant(7, 60), revoke(7), grant(7, 5)] {
        apply.execute(&command, false).unwrap();
    }
    let lease = |instance, ttl_s| Lease { id: LeaseId(7), instance, ttl_s, remaining_s: 0 };
    let expected =
        [LeaseChange::Granted(lease(1, 60)), LeaseChange::Gone(LeaseId(7)), LeaseChange::Granted(lease(2, 5))];
    assert_eq!(apply.take_lease_changes(), expected);
    assert_eq!(apply.take_lease_changes(), []);
}

#[test]
fn a_transaction_attaches_and_detaches_like_single_writes() {
    let mut store = Store::new();
    store.apply(&grant(7, 60));
    store.apply(&Command::Put(put_leased("gone", 7)));
    let ops = vec![Op::Put(put_leased("a", 7)), Op::DeleteRange(crate::store::delete_of("gone", ""))];
    store.txn(success(ops));
    assert_eq!(attached(&store, 7), ["a"]);
    // Put and deleted at one revision: only possible through a gap of etcd's that is kept, see `validate`.
    store.txn(success(vec![
        Op::Put(put_leased("b", 7)),
        Op::DeleteRange(mvcc::DeleteRange { key: "b".into(), range_end: "\0".into(), prev_kv: false }),
    ]));
    assert_eq!(attached(&store, 7), ["a"]);
    store.apply(&delete("a", ""));
    assert_eq!(store.apply(&revoke(7)).revision, store.machine.state().revision);
}
