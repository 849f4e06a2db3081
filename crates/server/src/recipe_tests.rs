//! The recipe on a store in memory, with events that happen while a contender waits.

use std::collections::VecDeque;
use std::sync::Mutex;

use base::planted::{Defect, plant};
use mvcc::{Command, Engine as _, LeaseGrant, LeaseRevoke, Machine, MemEngine, OutcomeResult};

use super::*;

/// What happens when somebody waits: one command for each wait, instead of time.
struct Scripted {
    engine: MemEngine,
    machine: Mutex<Machine>,
    script: Mutex<VecDeque<Vec<Command>>>,
}

impl Scripted {
    fn new(leases: &[i64]) -> Self {
        let engine = MemEngine::new();
        let machine = Mutex::new(Machine::open(&engine).unwrap());
        let store = Self { engine, machine, script: Mutex::default() };
        for id in leases {
            store.apply(&Command::LeaseGrant(LeaseGrant { id: LeaseId(*id), ttl_s: 60 }));
        }
        store
    }

    fn apply(&self, command: &Command) -> mvcc::Outcome {
        let mut machine = self.machine.lock().unwrap();
        let mut apply = machine.begin(self.engine.view()).unwrap();
        let outcome = apply.execute(command, true).unwrap().expect("asked for");
        self.engine.write(apply.finish(Bytes::new()).0).unwrap();
        outcome
    }

    fn when_somebody_waits(&self, commands: Vec<Command>) {
        self.script.lock().unwrap().push_back(commands);
    }

    async fn join(&self, lease: i64) -> Place {
        join(self, b"lock", LeaseId(lease), Bytes::new()).await.expect("the lease exists")
    }
}

impl Store for Scripted {
    async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResult), Status> {
        let outcome = self.apply(&Command::Txn(txn));
        match outcome.result {
            OutcomeResult::Txn(result) => Ok((outcome.revision, result)),
            OutcomeResult::Rejected(reject) => Err(crate::errors::rejected(reject)),
            other => panic!("{other:?}"),
        }
    }

    async fn gone(&self, key: &Bytes, created: Revision) -> Result<(), Status> {
        loop {
            if is_gone(&*self.engine.view(), key, created).unwrap() {
                return Ok(());
            }
            for command in self.script.lock().unwrap().pop_front().expect("a wait without an end") {
                self.apply(&command);
            }
        }
    }
}

fn revoke(id: i64) -> Command {
    Command::LeaseRevoke(LeaseRevoke { id: LeaseId(id) })
}

#[tokio::test]
async fn contenders_are_served_in_the_order_they_came_and_tokens_grow() {
    let store = Scripted::new(&[1, 2, 3]);
    let (one, two, three) = (store.join(1).await, store.join(2).await, store.join(3).await);
    assert_eq!((&one.key[..], &two.prefix[..]), (&b"lock/1"[..], &b"lock/"[..]));
    assert!(one.created < two.created && two.created < three.created);
    assert_eq!(wait_for_turn(&store, &one).await.unwrap(), Some(one.created));
    // The third hears of the second's end, and still has to wait for the first.
    store.when_somebody_waits(vec![revoke(2)]);
    store.when_somebody_waits(vec![Command::Txn(leave(&one.key, one.created))]);
    assert!(wait_for_turn(&store, &three).await.unwrap().is_some());
    assert_eq!(wait_for_turn(&store, &two).await.unwrap(), None);
}

#[tokio::test]
async fn a_lease_that_stands_in_the_queue_keeps_its_place() {
    let store = Scripted::new(&[1]);
    let place = store.join(1).await;
    let again = store.join(1).await;
    assert_eq!((again.created, again.is_new, again.first_at.is_some()), (place.created, false, true));
}

#[tokio::test]
async fn the_lease_must_exist() {
    let error = join(&Scripted::new(&[]), b"lock", LeaseId(9), Bytes::new()).await.expect_err("no lease");
    assert_eq!(error.message(), "etcdserver: requested lease not found");
}

#[tokio::test]
async fn names_that_begin_alike_do_not_share_a_queue() {
    let store = Scripted::new(&[1, 2]);
    store.join(1).await;
    let other = join(&store, b"loc", LeaseId(2), Bytes::new()).await.unwrap();
    assert!(other.first_at.is_some());
}

/// The lease of the one who waits ends together with that of the holder. Whether the lock was granted all the same.
async fn is_granted_without_a_lease() -> bool {
    let store = Scripted::new(&[1, 2]);
    store.join(1).await;
    let waiting = store.join(2).await;
    store.when_somebody_waits(vec![revoke(2), revoke(1)]);
    wait_for_turn(&store, &waiting).await.unwrap().is_some()
}

#[tokio::test]
async fn a_contender_whose_lease_ended_while_it_waited_is_not_told_that_it_holds_the_lock() {
    assert!(!is_granted_without_a_lease().await);
    plant(Some(Defect::LockWithoutRecheck));
    let granted = is_granted_without_a_lease().await;
    plant(None);
    assert!(granted, "K2 was not noticed");
}

#[tokio::test]
async fn a_former_place_under_the_same_key_is_not_taken_for_the_present_one() {
    let store = Scripted::new(&[1, 2]);
    store.join(1).await;
    let former = store.join(2).await;
    store.apply(&Command::Txn(leave(&former.key, former.created)));
    let present = store.join(2).await;
    assert_ne!(former.created, present.created);
    assert_eq!(wait_for_turn(&store, &former).await.unwrap(), None);
    let (_, result) = store.txn(leave(&former.key, former.created)).await.unwrap();
    assert!(!result.succeeded);
}
