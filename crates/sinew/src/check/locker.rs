//! One client that takes locks, one after the other, and writes under their tokens: it gives a lock back, revokes its
//! lease, or sleeps past the end of it, and then writes once more, because nobody has told it anything.
//!
//! Invariant: the fenced keys are written under tokens alone, with the token as value. What the lock service does with
//! its own keys is not recorded; it shows in the answers, in watches, and in who may write.

use std::time::Duration;

use ::check::history::{
    Bytes, Compare, CompareResult, CompareTarget, Lease, Lock, Op, Put, Range, Request, Response, Revision, Txn,
};
use tokio::time::{Instant, sleep};

use super::worker::Worker;

/// Where the queues of the locks are.
pub(super) const LOCKS: &str = "lock/";
/// Where holders write.
pub(super) const FENCED: &str = "fence/";
/// Locks that all share.
const LOCK_COUNT: u64 = 2;
/// Seconds a lease is granted for. A server may give more.
const TTL_S: std::ops::Range<u64> = 2..4;
/// Most writes of a holder before it gives the lock back.
const WRITES_MAX: u64 = 4;
/// Time between two of them, and between two looks at whether the load is over.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after a cluster that grants no lease.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A lock that this client was told it holds.
struct Held {
    fenced: Bytes,
    key: Bytes,
    token: Revision,
    lease: i64,
    /// Seconds its lease was granted for.
    ttl_s: i64,
}

/// Takes locks until the load is over.
pub(super) async fn hold(mut worker: Worker) {
    while !worker.shared().is_over() {
        let ttl = (TTL_S.start + worker.below(TTL_S.end - TTL_S.start)).cast_signed();
        let grant = worker.ask(Request::Lease(Lease::Grant { id: 0, ttl })).await;
        let Some((_, Response::Lease { id: lease, ttl: ttl_s })) = grant else {
            sleep(RETRY_PAUSE).await;
            continue;
        };
        let lock = worker.below(LOCK_COUNT);
        let name = worker.shared().key(&format!("{LOCKS}{lock}"));
        // Who waits does not renew: at times the lease ends first.
        let acquired = worker.ask(Request::Lock(Lock::Acquire { name, lease })).await;
        if let Some((_, Response::Lock { key, token })) = acquired {
            let fenced = worker.shared().key(&format!("{FENCED}{lock}"));
            use_lock(&mut worker, &Held { fenced, key, token, lease, ttl_s }).await;
        }
        worker.ask(Request::Lease(Lease::Revoke { id: lease })).await;
    }
}

/// Writes under the token, ends or loses the lock, and writes again.
async fn use_lock(worker: &mut Worker, held: &Held) {
    let mut written = Some(true);
    for _ in 0..=worker.below(WRITES_MAX) {
        written = write(worker, held).await;
        if written != Some(true) {
            break;
        }
        sleep(PAUSE).await;
        if worker.below(2) == 0 {
            worker.ask(Request::Lease(Lease::KeepAlive { id: held.lease })).await;
        }
    }
    match worker.below(6) {
        0 => drop(worker.ask(Request::Lease(Lease::Revoke { id: held.lease })).await),
        1 => sleep_past_the_end(worker, held).await,
        _ => release(worker, held).await,
    }
    // So that of all writes of one value at most one is unknown.
    if written.is_some() {
        write(worker, held).await;
    }
    // It may be gone by now, or belong to the next.
    release(worker, held).await;
    for name in [LOCKS, FENCED] {
        let range = worker.shared().range(name);
        worker.ask(Request::Range(range)).await;
    }
}

async fn release(worker: &mut Worker, held: &Held) {
    worker.ask(Request::Lock(Lock::Release { key: held.key.clone() })).await;
}

async fn sleep_past_the_end(worker: &Worker, held: &Held) {
    let until = Instant::now() + Duration::from_secs(held.ttl_s.max(1).unsigned_abs()) + RETRY_PAUSE;
    while Instant::now() < until && !worker.shared().is_over() {
        sleep(PAUSE).await;
    }
}

/// Writes the token, under a transaction's condition or a fence; says whether that was done, if it is known.
async fn write(worker: &mut Worker, held: &Held) -> Option<bool> {
    let target = CompareTarget::Create(held.token);
    let guard = Compare { key: held.key.clone(), range_end: Bytes::default(), result: CompareResult::Equal, target };
    let put = Put { key: held.fenced.clone(), value: held.token.to_string().into(), ..Put::default() };
    let mut txn = Txn { compares: vec![guard], success: vec![Op::Put(put)], failure: Vec::new() };
    let answer = if worker.below(2) == 0 {
        worker.ask_fenced(txn).await
    } else {
        txn.failure.push(Op::Range(Range { key: held.fenced.clone(), ..Range::default() }));
        worker.ask(Request::Txn(txn)).await
    };
    match answer {
        Some((_, Response::Txn { succeeded, .. })) => Some(succeeded),
        _ => None,
    }
}
