//! Histories of locks: one with each rule broken, and odd ones that a lock may have.

use check::Property::{self, Lock as Locks};
use check::history::{
    CompareTarget, DeleteRange, Event, KeyValue, Lease, Lock, Op, Outcome, Request, Response, Txn, Watch, WatchBatch,
    Workload,
};

use crate::broken::broken;
use crate::build::{Build, PUT, kv};
use crate::generate::{equal, prefix, put};
use crate::legal::legal;

type Times = std::ops::Range<u64>;

/// A fresh store with two leases, 1 and 2, and a workload of fenced writes.
fn leases() -> Build {
    let mut built = Build::dense().with(Workload::Fence { prefix: "fence/".into() });
    built.grant(0..1, 1, 60);
    built.grant(0..1, 2, 60);
    built
}

/// The contender of a lease stands in the queue from this revision on.
fn join(h: &mut Build, times: Times, revision: i64, lease: i64) {
    h.leased_put(times, revision, &format!("lock/{lease}"), "", lease);
}

/// The lock is granted to a lease, with the token and the revision of the answer.
fn acquire(h: &mut Build, times: Times, revision: i64, lease: i64, token: i64) {
    let request = Request::Lock(Lock::Acquire { name: "lock".into(), lease });
    h.done(times, revision, request, Response::Lock { key: format!("lock/{lease}").as_str().into(), token });
}

/// The lock is given back; what the recipe does for it is not in the history.
fn release(h: &mut Build, times: Times, revision: i64, lease: i64, token: i64) {
    let key = check::history::Bytes::from(format!("lock/{lease}").as_str());
    h.done(times, revision, Request::Lock(Lock::Release { key: key.clone() }), Response::Lock { key, token });
}

/// A write under a token.
fn guarded(lease: i64, token: i64) -> Request {
    let compares = vec![equal(&format!("lock/{lease}"), CompareTarget::Create(token))];
    let success = vec![Op::Put(put("fence/a", &token.to_string()))];
    Request::Txn(Txn { compares, success, failure: Vec::new() })
}

fn write(h: &mut Build, times: Times, revision: i64, lease: i64, token: i64) {
    h.done(times, revision, guarded(lease, token), Response::Txn { succeeded: true, responses: vec![PUT] });
}

fn write_refused(h: &mut Build, times: Times, revision: i64, lease: i64, token: i64) {
    h.done(times, revision, guarded(lease, token), Response::Txn { succeeded: false, responses: Vec::new() });
}

fn leave(h: &mut Build, times: Times, revision: i64, lease: i64) {
    h.delete(times, revision, &format!("lock/{lease}"), 1);
}

fn revoke(h: &mut Build, times: Times, revision: i64, id: i64) {
    h.done(times, revision, Request::Lease(Lease::Revoke { id }), Response::Lease { id, ttl: 0 });
}

/// A store in use with the same leases, whose lock service keeps what it does to itself.
fn unseen() -> Build {
    let mut built = Build::rising().with(Workload::Fence { prefix: "fence/".into() });
    built.grant(0..1, 1, 60);
    built.grant(0..1, 2, 60);
    built
}

/// A watch of all contenders, which delivers each event at the time that its revision says, after the time `from`.
fn watch(h: &mut Build, from: u64, events: Vec<Event>) {
    let batch = |event: Event| {
        let at = from + event.revision().unsigned_abs();
        WatchBatch { at, revision: event.revision(), events: vec![event], ..WatchBatch::default() }
    };
    let range = prefix("lock/");
    let watch = Watch { key: range.key, range_end: range.range_end, start_revision: 2, ..Watch::default() };
    let batches: Vec<WatchBatch> = events.into_iter().map(batch).collect();
    let end = batches.last().map_or(from, |last| last.at) + 1;
    h.done(0..end, 1, Request::Watch(watch), Response::Watch { batches });
}

fn joined(lease: i64, created: i64) -> Event {
    Event::Put { kv: contender(lease, created), prev_kv: None }
}

fn left(lease: i64, revision: i64) -> Event {
    Event::Delete { key: format!("lock/{lease}").as_str().into(), mod_revision: revision, prev_kv: None }
}

fn contender(lease: i64, created: i64) -> KeyValue {
    KeyValue { lease, ..kv(&format!("lock/{lease}"), "", created, created, 1) }
}

broken! {
    a_lock_has_two_holders: Locks, "is first at revision 3 with token 3, and \"lock/1\"", leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 4..5, 2, 1, 2);
        join(h, 6..7, 3, 2);
        acquire(h, 6..9, 3, 2, 3);
        write(h, 10..11, 4, 1, 2);
    }
    the_lock_is_granted_while_the_first_stands_there: Locks, "is first at revision 3", Build::rising(), |h| {
        acquire(h, 6..9, 3, 2, 3);
        h.get(10..11, 5, "lock/1", &[contender(1, 2)]);
    }
    a_later_grant_has_a_smaller_token: Locks, "which was before it, is told to hold it", Build::rising(), |h| {
        acquire(h, 0..1, 5, 2, 5);
        acquire(h, 2..3, 6, 1, 4);
    }
    a_grant_is_answered_from_the_past: Locks, "and 5 was known before", Build::rising(), |h| {
        acquire(h, 0..1, 5, 2, 5);
        acquire(h, 2..3, 4, 1, 4);
    }
    the_key_went_with_its_lease_while_its_client_waited: Locks, "was gone at 4", leases(), |h| {
        join(h, 2..3, 2, 1);
        join(h, 2..3, 3, 2);
        revoke(h, 4..5, 4, 2);
        revoke(h, 4..5, 5, 1);
        acquire(h, 2..9, 5, 2, 3);
    }
    the_key_was_deleted_while_its_client_waited: Locks, "is told to hold it at revision 5", Build::rising(), |h| {
        join(h, 2..3, 3, 2);
        leave(h, 4..5, 4, 2);
        acquire(h, 2..9, 5, 2, 3);
    }
    a_lock_that_was_given_back_is_granted_again_under_its_token: Locks, "was gone at 4", Build::rising(), |h| {
        acquire(h, 0..1, 2, 1, 2);
        release(h, 2..3, 4, 1, 2);
        acquire(h, 4..5, 4, 1, 2);
    }
    a_release_finds_nothing_and_the_lock_is_held: Locks, "writes under its token", Build::rising(), |h| {
        acquire(h, 0..1, 2, 1, 2);
        release(h, 2..3, 3, 1, 0);
        write(h, 4..5, 4, 1, 2);
        write(h, 6..7, 5, 1, 2);
    }
    two_keys_have_one_token: Locks, "token 2 is granted to \"lock/1\" and to", Build::rising(), |h| {
        acquire(h, 0..5, 2, 1, 2);
        acquire(h, 0..5, 4, 2, 2);
    }
    a_token_is_not_the_revision_that_made_the_key: Locks, "token 3 is not a revision that created", leases(), |h| {
        join(h, 2..3, 2, 1);
        h.put(4..5, 3, "a", "1");
        acquire(h, 4..9, 3, 1, 3);
    }
    a_token_is_from_the_future: Locks, "with token 9 at revision 3", Build::rising(), |h| {
        acquire(h, 0..5, 3, 1, 9);
    }
    the_key_of_another_lock_is_granted: Locks, "is granted as \"lock/1\"", Build::rising(), |h| {
        let request = Request::Lock(Lock::Acquire { name: "other".into(), lease: 1 });
        h.done(0..1, 3, request, Response::Lock { key: "lock/1".into(), token: 2 });
    }
    a_write_under_an_old_token_is_done_after_the_next_grant: Locks, "writes under its token", Build::rising(), |h| {
        acquire(h, 0..1, 2, 1, 2);
        acquire(h, 4..5, 5, 2, 3);
        write(h, 2..9, 7, 1, 2);
    }
    a_fenced_value_falls: Locks, "falls from token 7 to 5", leases(), |h| {
        h.put(2..3, 2, "fence/a", "7");
        h.put(4..5, 3, "fence/a", "5");
    }
    a_fenced_value_is_no_token: Locks, "which is no token", leases(), |h| {
        h.put(2..3, 2, "fence/a", "mine");
    }
    a_restore_hands_out_a_token_again: Locks, "token 5 is granted to \"lock/1\" and to \"lock/2\"", unseen(), |h| {
        acquire(h, 2..3, 3, 1, 3);
        release(h, 4..5, 4, 1, 0);
        acquire(h, 6..7, 5, 1, 5);
        // Of what was written since revision 4 the store knows nothing any more.
        acquire(h, 8..9, 5, 2, 5);
    }
    a_restore_goes_back_to_before_the_last_token: Locks, "and 5 was known before", unseen(), |h| {
        acquire(h, 2..3, 5, 1, 5);
        acquire(h, 4..5, 4, 2, 4);
    }
    a_restore_lets_a_holder_of_before_write: Locks, "writes under its token", unseen(), |h| {
        acquire(h, 2..3, 3, 1, 3);
        release(h, 4..5, 5, 1, 0);
        // Restored from a snapshot of revision 4, in which the key still stands.
        write(h, 6..7, 1_000_005, 1, 3);
    }
    a_write_under_a_token_is_done_after_a_watch_saw_it_end: Locks, "was gone at 4", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        watch(h, 4, vec![joined(1, 2), left(1, 4)]);
        release(h, 4..5, 4, 1, 0);
        write(h, 10..11, 5, 1, 2);
    }
    a_write_is_refused_while_the_lease_lives: Locks, "lost it 58799 ms before the end of lease 1", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        write_refused(h, 4..5, 3, 1, 2);
    }
    the_next_is_granted_the_lock_while_the_lease_lives: Locks, "nobody gave it back", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        acquire(h, 4..5, 4, 2, 3);
    }
    a_watch_sees_a_holder_go_while_its_lease_lives: Locks, "nobody gave it back", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        watch(h, 4, vec![joined(1, 2), left(1, 3)]);
    }
    a_holder_loses_what_it_gave_back_before_it_had_it: Locks, "nobody gave it back", unseen(), |h| {
        release(h, 2..3, 2, 1, 0);
        acquire(h, 4..5, 3, 1, 3);
        write_refused(h, 6..7, 4, 1, 3);
    }
    a_renewal_saves_a_lease_and_not_its_lock: Locks, "nobody gave it back", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        let renew = Request::Lease(Lease::KeepAlive { id: 1 });
        h.done(59_000_000_000..59_000_000_001, 2, renew, Response::Lease { id: 1, ttl: 60 });
        write_refused(h, 61_000_000_000..61_000_000_001, 3, 1, 2);
    }
    a_write_under_a_token_is_lost: Property::RevisionOrder, "a correct store answers", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        write(h, 4..5, 3, 1, 2);
        h.get(6..7, 4, "fence/a", &[]);
    }
    a_refused_write_is_read: Property::RevisionOrder, "no operation writes that", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        write_refused(h, 4..5, 3, 1, 2);
        h.get(6..7, 3, "fence/a", &[kv("fence/a", "2", 3, 3, 1)]);
    }
    a_lease_stands_in_a_queue_that_never_asked_for_it: Property::Watch, "no operation writes that", unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        watch(h, 4, vec![joined(1, 2), joined(2, 3)]);
    }
    a_lock_is_granted_on_a_lease_that_ended: Property::Lease, "lives after its end", Build::rising(), |h| {
        h.grant(0..1, 1, 1);
        revoke(h, 2..3, 2, 1);
        acquire(h, 4..5, 3, 1, 2);
    }
}

legal! {
    a_lock_goes_from_hand_to_hand: leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 2..4, 2, 1, 2);
        join(h, 5..6, 3, 2);
        write(h, 7..8, 4, 1, 2);
        leave(h, 9..12, 5, 1);
        release(h, 9..12, 5, 1, 2);
        acquire(h, 5..14, 5, 2, 3);
        write(h, 15..16, 6, 2, 3);
    }
    an_answer_comes_long_after_the_lock_went_on: leases(), |h| {
        join(h, 2..3, 2, 1);
        join(h, 2..3, 3, 2);
        revoke(h, 4..5, 4, 1);
        acquire(h, 2..9, 4, 2, 3);
        acquire(h, 2..20, 3, 1, 2);
        write_refused(h, 21..22, 4, 1, 2);
    }
    a_holder_that_slept_is_refused: leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 2..4, 2, 1, 2);
        join(h, 2..6, 3, 2);
        h.expired(61_000_000_000..61_000_000_000, 4, &[1]);
        acquire(h, 5..61_000_000_005, 4, 2, 3);
        write(h, 61_000_000_010..61_000_000_011, 5, 2, 3);
        write_refused(h, 61_000_000_012..61_000_000_013, 5, 1, 2);
        release(h, 61_000_000_014..61_000_000_015, 5, 1, 0);
    }
    the_next_is_first_at_the_revision_at_which_the_last_left: Build::rising(), |h| {
        acquire(h, 0..1, 2, 1, 2);
        release(h, 2..9, 6, 1, 2);
        acquire(h, 2..9, 6, 2, 5);
    }
    a_lease_asks_again_for_the_lock_it_has: leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 2..4, 2, 1, 2);
        acquire(h, 5..6, 2, 1, 2);
    }
    a_key_is_made_again_and_has_another_token: leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 2..4, 2, 1, 2);
        leave(h, 5..6, 3, 1);
        join(h, 7..8, 4, 1);
        acquire(h, 7..9, 4, 1, 4);
        write_refused(h, 10..11, 4, 1, 2);
        write(h, 12..13, 5, 1, 4);
    }
    nobody_knows_whether_the_lock_was_given_back: leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 2..4, 2, 1, 2);
        let delete = DeleteRange { key: "lock/1".into(), ..DeleteRange::default() };
        h.add(5..5, Request::DeleteRange(delete), Outcome::Unknown).returned = None;
        h.add(5..5, Request::Lock(Lock::Release { key: "lock/1".into() }), Outcome::Unknown).returned = None;
        write(h, 6..7, 3, 1, 2);
        join(h, 8..9, 5, 2);
        acquire(h, 8..9, 5, 2, 5);
    }
    nobody_knows_whether_the_first_was_told: leases(), |h| {
        join(h, 2..3, 2, 1);
        let request = Request::Lock(Lock::Acquire { name: "lock".into(), lease: 1 });
        h.add(2..2, request, Outcome::Unknown).returned = None;
        join(h, 4..5, 3, 2);
        revoke(h, 6..7, 4, 1);
        acquire(h, 4..8, 4, 2, 3);
    }
    locks_whose_names_begin_alike_have_a_holder_each: leases(), |h| {
        join(h, 2..3, 2, 1);
        acquire(h, 2..4, 2, 1, 2);
        h.leased_put(5..6, 3, "loc/2", "", 2);
        let request = Request::Lock(Lock::Acquire { name: "loc".into(), lease: 2 });
        h.done(5..7, 3, request, Response::Lock { key: "loc/2".into(), token: 3 });
        write(h, 8..9, 4, 1, 2);
    }
    a_lock_service_keeps_what_it_does_to_itself: unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        write(h, 4..5, 4, 1, 2);
        h.get(6..7, 4, "fence/a", &[kv("fence/a", "2", 4, 4, 1)]);
        h.all(8..9, 4, "lock/", &[contender(1, 2), contender(2, 3)]);
        release(h, 10..11, 5, 1, 0);
        acquire(h, 6..13, 5, 2, 3);
        write_refused(h, 14..15, 5, 1, 2);
        write(h, 16..17, 6, 2, 3);
        h.get(18..19, 6, "fence/a", &[kv("fence/a", "3", 4, 6, 2)]);
        watch(h, 10, vec![joined(1, 2), joined(2, 3), left(1, 5)]);
    }
    nobody_knows_of_a_write_under_a_token_and_somebody_reads_it: unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        h.add(4..4, guarded(1, 2), Outcome::Unknown).returned = None;
        h.get(6..7, 3, "fence/a", &[kv("fence/a", "2", 3, 3, 1)]);
    }
    a_lock_ends_with_its_lease: unseen(), |h| {
        acquire(h, 2..3, 2, 1, 2);
        write_refused(h, 58_800_000_000..58_800_000_001, 3, 1, 2);
        acquire(h, 2..58_800_000_003, 4, 2, 3);
        revoke(h, 58_800_000_004..58_800_000_005, 5, 2);
        write_refused(h, 58_800_000_006..58_800_000_007, 5, 2, 3);
    }
    a_request_that_nobody_waits_for_takes_the_place_of_its_lease_along: unseen(), |h| {
        let request = Request::Lock(Lock::Acquire { name: "lock".into(), lease: 1 });
        h.add(2..3, request, Outcome::Unknown).returned = None;
        acquire(h, 4..5, 2, 1, 2);
        write_refused(h, 6..7, 3, 1, 2);
    }
    a_restore_moves_on_to_where_no_token_was_before: unseen(), |h| {
        acquire(h, 2..3, 3, 1, 3);
        release(h, 4..5, 4, 1, 0);
        acquire(h, 6..7, 1_000_005, 2, 1_000_005);
        write_refused(h, 8..9, 1_000_005, 1, 3);
    }
    an_unguarded_read_is_older_than_the_grant: leases(), |h| {
        join(h, 2..3, 2, 1);
        leave(h, 4..5, 3, 1);
        join(h, 6..7, 4, 2);
        acquire(h, 6..8, 4, 2, 4);
        h.past(9..10, 4, 2, "lock/1", &[contender(1, 2)]);
    }
}

#[test]
fn grants_and_guarded_writes_are_counted() {
    let mut built = leases();
    let h = &mut built;
    join(h, 2..3, 2, 1);
    acquire(h, 2..4, 2, 1, 2);
    write(h, 7..8, 3, 1, 2);
    built.legal_for(Locks);
    let verdict = check::check(&built.0, Locks, &check::Options::default());
    assert_eq!(verdict, check::Verdict::Possible { judged: 3 });
}
