//! Histories of a few operations, judged as a run's is.

use mvcc::{KeyValue, PutResult, RangeResponse};

use super::*;

fn operation(called_at: u64, asked: Asked, told: Told) -> Operation {
    let (client, node, connection, returned_at) = (1, NodeId(1), 0, Some(called_at + 3));
    Operation { client, node, connection, called_at, returned_at, asked, told }
}

fn put(called_at: u64, revision: i64) -> Operation {
    let outcome = mvcc::Outcome { revision: Revision(revision), result: OutcomeResult::Put(PutResult::default()) };
    let put = mvcc::Put { key: "k".into(), value: revision.to_string().into(), ..mvcc::Put::default() };
    operation(called_at, Asked::Write(Command::Put(put)), Told::Outcome(outcome))
}

fn get(called_at: u64, revision: i64, serializable: bool) -> Operation {
    let kv = KeyValue {
        key: "k".into(),
        value: revision.to_string().into(),
        create_revision: Revision(2),
        mod_revision: Revision(revision),
        version: revision - 1,
        ..KeyValue::default()
    };
    let result = RangeResult { kvs: vec![kv], more: false, count: 1 };
    let request = mvcc::RangeRequest { key: "k".into(), serializable, ..mvcc::RangeRequest::default() };
    operation(called_at, Asked::Read(request), Told::Range(RangeResponse { revision: Revision(revision), result }))
}

/// The log did what clients were told, and this.
fn settled(history: &[Operation], also: &[Operation]) -> Settled {
    let mut settled = Settled::default();
    for operation in history.iter().chain(also) {
        if let (Asked::Write(command), Told::Outcome(outcome)) = (&operation.asked, &operation.told) {
            settled.add(operation.called_at, command.encode(), outcome.clone());
        }
    }
    settled
}

fn verdict(history: &[Operation]) -> Result<(), String> {
    judge(history, &[], &settled(history, &[]), 5).1
}

#[test]
fn a_stale_read_is_found_unless_it_may_be_stale() {
    assert_eq!(verdict(&[put(1, 2), put(6, 3), get(10, 3, false)]), Ok(()));
    assert!(verdict(&[put(1, 2), put(6, 3), get(10, 2, false)]).is_err());
    let elsewhere = Operation { node: NodeId(2), ..get(10, 2, true) };
    assert_eq!(verdict(&[put(1, 2), put(6, 3), elsewhere]), Ok(()));
    assert!(verdict(&[put(1, 2), put(6, 3), get(10, 2, true)]).is_err(), "back on one connection");
}

#[test]
fn a_revision_given_twice_is_found() {
    let other = Asked::Write(Command::Put(mvcc::Put { key: "other".into(), ..mvcc::Put::default() }));
    assert!(verdict(&[put(1, 2), Operation { asked: other, ..put(2, 2) }]).is_err());
}

#[test]
fn what_is_done_twice_or_for_nobody_is_found() {
    let history = [put(1, 2), get(6, 2, false)];
    assert_eq!(judge(&history, &[], &settled(&history, &[]), 5).1, Ok(()));
    assert!(judge(&history, &[], &settled(&history, &[put(7, 3)]), 5).1.is_err());
    assert!(judge(&history, &[], &settled(&history, &[put(7, 2)]), 5).1.is_err());
}

#[test]
fn the_log_says_what_the_client_does_not_know() {
    let unknown = Operation { told: Told::Unknown, returned_at: None, ..put(1, 2) };
    let history = [unknown.clone(), get(6, 2, false)];
    assert_eq!(judge(&history, &[], &settled(&[], &[put(4, 2)]), 5).1, Ok(()));
    // The read shows it, but the log does not have it.
    assert!(judge(&history, &[], &settled(&[], &[]), 5).1.is_err());
    let resolved = settled(&[], &[]).resolve(&[unknown]).expect("nothing was done");
    assert_eq!(resolved[0].0.told, Told::NotDone);
}
