//! How much one node works on at a time, by what it costs.
//!
//! Invariant: what is under way never costs more than the bound, and ordinary requests never take what is reserved for
//! those that keep things alive: a flood of writes ends no lease and holds up no operator.

use std::sync::atomic::{AtomicUsize, Ordering};

use base::limits::{ADMISSION_UNIT_BYTES, REQUESTS_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_RESERVED};
use node::Request;

/// What is under way on a node.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    requests: AtomicUsize,
    cost: AtomicUsize,
}

/// Counts a request in while it is under way.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    cost: usize,
}

impl Admission {
    /// Takes a request in, unless too much is under way.
    pub(crate) fn admit(&self, request: &Request) -> Option<Admitted<'_>> {
        let (cost, bound) = weigh(request);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let before = self.cost.fetch_add(cost, Ordering::Relaxed);
        // Given back when dropped, also if it is too much.
        let admitted = Admitted { admission: self, cost };
        (before + cost <= bound).then_some(admitted)
    }

    /// How many requests are under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.cost.fetch_sub(self.cost, Ordering::Relaxed);
        self.admission.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request costs, and how much may be under way with it.
fn weigh(request: &Request) -> (usize, usize) {
    const ORDINARY: usize = REQUESTS_IN_FLIGHT_MAX - REQUESTS_IN_FLIGHT_RESERVED;
    match request {
        Request::Propose { payload, .. } => (1 + payload.len() / ADMISSION_UNIT_BYTES, ORDINARY),
        Request::Read { .. } => (1, ORDINARY),
        Request::Lease { .. } | Request::TransferLeadership { .. } | Request::Reconfigure { .. } => {
            (1, REQUESTS_IN_FLIGHT_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{GroupId, LeaseId};
    use node::LeaseAsk;

    use super::*;

    const GROUP: GroupId = GroupId(0);

    fn write(bytes: usize) -> Request {
        Request::Propose { group: GROUP, payload: vec![0; bytes].into() }
    }

    #[test]
    fn large_requests_cost_more_and_everything_is_given_back() {
        let admission = Admission::default();
        let large = write(1_000_000);
        let mut under_way = Vec::new();
        while let Some(admitted) = admission.admit(&large) {
            under_way.push(admitted);
        }
        let bytes = under_way.len() * 1_000_000;
        assert!((128 << 20..=256 << 20).contains(&bytes), "{bytes} bytes under way");
        assert_eq!(admission.requests(), under_way.len());
        drop(under_way);
        assert_eq!((admission.requests(), admission.cost.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_flood_of_writes_leaves_room_for_leases() {
        let admission = Admission::default();
        let small = write(10);
        let flood: Vec<_> = std::iter::from_fn(|| admission.admit(&small)).collect();
        assert!(admission.admit(&Request::Read { group: GROUP }).is_none());
        let renewal = Request::Lease { group: GROUP, lease: LeaseId(7), ask: LeaseAsk::KeepAlive };
        let renewals: Vec<_> = std::iter::from_fn(|| admission.admit(&renewal)).collect();
        assert_eq!(renewals.len(), REQUESTS_IN_FLIGHT_RESERVED);
        drop(flood);
        assert!(admission.admit(&small).is_some());
    }
}
