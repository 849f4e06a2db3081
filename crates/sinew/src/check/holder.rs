//! One client that holds leases with keys, one after the other: it lets them end, renews them, or revokes them, and
//! asks what became of them.
//!
//! Invariant: the keys are written by nobody else, and always on a lease. Every request is recorded like any other;
//! that a lease ended by itself is not, since nobody can see when: it shows in the answers.

use std::time::Duration;

use ::check::history::{Bytes, Lease, Op, Put, Range, Request, Response, Txn};
use tokio::time::{Instant, sleep};

use super::worker::Worker;

/// Where the keys of all holders are.
pub(super) const KEYS: &str = "lease/";
/// Seconds a lease is granted for. A server may give more.
const TTL_S: std::ops::Range<u64> = 2..4;
/// Time between two looks at a lease.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Looks after which a lease that does not end is let go.
const LOOKS_MAX: u32 = 100;

/// Holds leases until the load is over.
pub(super) async fn hold(mut worker: Worker) {
    while !worker.shared().is_over() {
        let ttl = (TTL_S.start + worker.below(TTL_S.end - TTL_S.start)).cast_signed();
        let Some((id, granted_s)) = ask(&mut worker, Lease::Grant { id: 0, ttl }).await else {
            sleep(LOOK_INTERVAL).await;
            continue;
        };
        attach(&mut worker, id).await;
        if worker.below(2) == 0 {
            renew(&mut worker, id, granted_s).await;
        }
        if worker.below(3) == 0 || worker.shared().is_over() {
            ask(&mut worker, Lease::Revoke { id }).await;
            // It was asked for, if perhaps not heard; both are recorded.
            ask(&mut worker, Lease::KeepAlive { id }).await;
        } else {
            wait_for_the_end(&mut worker, id).await;
        }
        let keys = own_keys(&worker);
        worker.ask(Request::Range(keys)).await;
    }
}

/// Asks about a lease: its number and the seconds it has, if there is an answer.
async fn ask(worker: &mut Worker, lease: Lease) -> Option<(i64, i64)> {
    match worker.ask(Request::Lease(lease)).await? {
        (_, Response::Lease { id, ttl }) => Some((id, ttl)),
        _ => None,
    }
}

/// This client's keys.
fn own_keys(worker: &Worker) -> Range {
    worker.shared().range(&format!("{KEYS}{}/", worker.client()))
}

/// Puts a key on the lease, and at times two more at once.
async fn attach(worker: &mut Worker, lease: i64) {
    let mut put = |name: &str| {
        let key: Bytes = worker.shared().key(&format!("{KEYS}{}/{name}", worker.client()));
        Put { key, value: worker.value(), lease, ..Put::default() }
    };
    let (one, two, three) = (put("a"), put("b"), put("c"));
    worker.ask(Request::Put(one)).await;
    if worker.below(2) == 0 {
        let txn = Txn { success: vec![Op::Put(two), Op::Put(three)], ..Txn::default() };
        worker.ask(Request::Txn(txn)).await;
    }
}

/// Keeps the lease alive beyond the time it was granted for.
async fn renew(worker: &mut Worker, id: i64, granted_s: i64) {
    let granted = Duration::from_secs(granted_s.max(1).unsigned_abs());
    let until = Instant::now() + granted + granted / 2;
    while Instant::now() < until && !worker.shared().is_over() {
        if matches!(ask(worker, Lease::KeepAlive { id }).await, Some((_, ..=0))) {
            return;
        }
        sleep(LOOK_INTERVAL * 2).await;
    }
}

/// Looks until the lease is gone.
async fn wait_for_the_end(worker: &mut Worker, id: i64) {
    for _ in 0..LOOKS_MAX {
        if worker.shared().is_over() || matches!(ask(worker, Lease::TimeToLive { id }).await, Some((_, ..0))) {
            return;
        }
        if worker.below(4) == 0 {
            let keys = own_keys(worker);
            worker.ask(Request::Range(keys)).await;
        }
        sleep(LOOK_INTERVAL).await;
    }
}
