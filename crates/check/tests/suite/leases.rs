//! Histories of leases: one with each rule broken, and odd ones that leases may have. Times are in seconds here.

use check::Property::{self, Lease as Leases};
use check::history::{DeleteRange, Lease, Outcome, Put, Request, Response};

use crate::broken::broken;
use crate::build::{Build, PUT, kv};
use crate::generate::put;
use crate::legal::legal;

const S: u64 = 1_000_000_000;

fn renew(h: &mut Build, at: u64, ttl: i64) {
    let request = Request::Lease(Lease::KeepAlive { id: 7 });
    h.done(at * S..at * S + 1, 1, request, Response::Lease { id: 7, ttl });
}

fn look(h: &mut Build, at: u64, ttl: i64) {
    let request = Request::Lease(Lease::TimeToLive { id: 7 });
    h.done(at * S..at * S + 1, 1, request, Response::Lease { id: 7, ttl });
}

fn revoke(h: &mut Build, at: u64, revision: i64) {
    let request = Request::Lease(Lease::Revoke { id: 7 });
    h.done(at * S..at * S + 1, revision, request, Response::Lease { id: 7, ttl: 0 });
}

fn expire(h: &mut Build, at: u64, revision: i64) {
    h.expired(at * S..at * S, revision, &[7]);
}

broken! {
    a_lease_ends_before_its_time: Leases, "before its time", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        expire(h, 4, 1);
    }
    a_lease_ends_before_any_clock_can_say_so: Leases, "before its time", Build::rising(), |h| {
        h.grant(0..1, 7, 100);
        look(h, 97, -1);
    }
    a_read_is_stale_beside_a_lease_that_ends_unseen: Property::RevisionOrder, "a correct store answers", Build::rising(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "held", "1", 7);
        h.put(4..5, 3, "a", "1");
        h.put(6..7, 4, "a", "2");
        h.get(8..9, 5, "a", &[kv("a", "1", 3, 3, 1)]);
    }
    a_renewed_lease_ends_by_its_old_time: Leases, "before its time", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        renew(h, 3, 5);
        expire(h, 6, 1);
    }
    a_lease_is_not_found_before_its_time: Leases, "before its time", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        renew(h, 2, 0);
    }
    a_lease_has_nothing_left_before_its_time: Leases, "before its time", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        look(h, 2, -1);
    }
    a_lease_is_renewed_after_it_ended: Leases, "lives after its end", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        expire(h, 6, 1);
        renew(h, 7, 5);
    }
    a_lease_is_renewed_after_it_was_revoked: Leases, "lives after its end", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        revoke(h, 1, 1);
        renew(h, 2, 5);
    }
    a_lease_is_renewed_after_it_was_not_found: Leases, "lives after its end", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        renew(h, 6, 0);
        renew(h, 7, 5);
    }
    a_key_is_attached_to_a_lease_that_ended: Leases, "lives after its end", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        expire(h, 6, 1);
        h.leased_put(7 * S..8 * S, 2, "a", "1", 7);
    }
    a_key_outlives_its_lease: Leases, "is there after its lease", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "a", "1", 7);
        h.leased_put(4..5, 3, "b", "1", 7);
        expire(h, 6, 4);
        h.get(7 * S..8 * S, 4, "b", &[check::history::KeyValue { lease: 7, ..kv("b", "1", 3, 3, 1) }]);
    }
    a_lease_is_granted_twice: Leases, "granted again while it lives", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.grant(S..2 * S, 7, 5);
    }
    the_keys_of_a_lease_go_at_two_revisions: Property::RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "a", "1", 7);
        h.leased_put(4..5, 3, "b", "1", 7);
        expire(h, 6, 4);
        h.past(7 * S..8 * S, 4, 4, "b", &[check::history::KeyValue { lease: 7, ..kv("b", "1", 3, 3, 1) }]);
    }
    the_end_of_a_lease_has_the_revision_of_a_write: Property::RevisionOrder, "which another write has", Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "a", "1", 7);
        h.put(4..5, 3, "b", "1");
        expire(h, 6, 3);
    }
}

legal! {
    a_lease_lives_and_ends: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "a", "1", 7);
        renew(h, 4, 5);
        expire(h, 9, 3);
        renew(h, 10, 0);
        look(h, 10, -1);
        h.get(11 * S..12 * S, 3, "a", &[]);
    }
    a_clock_runs_a_little_fast: Build::dense(), |h| {
        h.grant(0..1, 7, 100);
        expire(h, 99, 1);
    }
    the_clock_of_the_recorder_is_slow_as_well: Build::rising(), |h| {
        h.grant(0..1, 7, 100);
        look(h, 98, -1);
    }
    a_lease_ends_unseen_and_everything_else_is_followed: Build::rising(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "held", "1", 7);
        h.put(4..5, 3, "a", "1");
        look(h, 6, -1);
        h.get(7 * S..8 * S, 4, "held", &[]);
        h.get(9 * S..10 * S, 4, "a", &[kv("a", "1", 3, 3, 1)]);
        revoke(h, 11, 4);
    }
    a_lease_lives_longer_than_it_must: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        look(h, 30, 2);
        renew(h, 60, 5);
    }
    a_revoked_lease_is_gone_at_once: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "a", "1", 7);
        revoke(h, 1, 3);
        renew(h, 2, 0);
        h.get(3 * S..4 * S, 3, "a", &[]);
    }
    a_lease_without_keys_takes_no_revision: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.put(2..3, 2, "a", "1");
        expire(h, 6, 2);
        h.put(7 * S..8 * S, 3, "a", "2");
    }
    a_key_leaves_its_lease_in_time: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.leased_put(2..3, 2, "a", "1", 7);
        h.put(4..5, 3, "a", "2");
        expire(h, 6, 3);
        h.get(7 * S..8 * S, 3, "a", &[kv("a", "2", 2, 3, 2)]);
    }
    a_number_is_used_again: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        expire(h, 6, 1);
        h.grant(7 * S..8 * S, 7, 5);
        renew(h, 9, 5);
    }
    a_renewal_is_answered_after_the_end: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        h.done(S..9 * S, 1, Request::Lease(Lease::KeepAlive { id: 7 }), Response::Lease { id: 7, ttl: 5 });
        expire(h, 7, 1);
    }
    an_attachment_is_refused: Build::dense(), |h| {
        h.grant(0..1, 7, 5);
        expire(h, 6, 1);
        let request = Request::Put(Put { lease: 7, ..put("a", "1") });
        h.add(7 * S..8 * S, request, Outcome::Failed { reason: "requested lease not found".to_owned() });
        h.done(9 * S..10 * S, 2, Request::Put(put("a", "1")), PUT);
    }
}

#[test]
fn a_write_to_keys_on_leases_and_to_others_cannot_be_followed_unseen() {
    let mut built = Build::rising();
    let h = &mut built;
    h.grant(0..1, 7, 5);
    h.leased_put(2..3, 2, "held/a", "1", 7);
    h.put(4..5, 3, "held/b", "1");
    let delete = DeleteRange { key: "held/".into(), range_end: "held0".into(), ..DeleteRange::default() };
    h.done(6..7, 4, Request::DeleteRange(delete), Response::DeleteRange { deleted: 2, prev_kvs: Vec::new() });
    let verdict = check::check(&built.0, Property::RevisionOrder, &check::Options::default());
    assert!(matches!(&verdict, check::Verdict::Undecided { why } if why.contains("operation 4")), "{verdict:?}");
}

#[test]
fn a_revocation_nobody_heard_of_ends_a_lease() {
    let mut built = Build::dense();
    let h = &mut built;
    h.grant(0..1, 7, 5);
    look(h, 2, -1);
    h.add(1..1, Request::Lease(Lease::Revoke { id: 7 }), Outcome::Unknown).returned = None;
    built.legal_for(Leases);
}
