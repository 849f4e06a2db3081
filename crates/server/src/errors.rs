//! The gRPC status of everything that can go wrong with a request.
//!
//! Texts are etcd's, to the letter: clients match on them. Codes are etcd's too, with one exception: a write whose
//! outcome is unknown never gets a code that invites a retry (docs/decisions/0005-unknown-outcomes.md).

use base::Revision;
use base::limits::{
    ANSWER_BYTES_MAX, OVERLOAD_PAUSE, SNAPSHOT_STALL_MAX, WATCH_STREAMS_MAX, WATCHES_MAX, WATCHES_PER_STREAM_MAX,
};
use kernel::Refusal;
use mvcc::{Class, Reject};
use node::watch::Refused;
use node::{Response, Uncertainty};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::convert::BadTxn;

pub(crate) const TOO_LARGE: &str = "etcdserver: request is too large";
const TIMED_OUT: &str = "etcdserver: request timed out";
const TIMED_OUT_LEADER: &str = "etcdserver: request timed out, possibly due to previous leader failure";
const TIMED_OUT_CONNECTION: &str = "etcdserver: request timed out, possibly due to connection lost";

pub(crate) fn rejected(reject: Reject) -> Status {
    let code = match reject.class() {
        Class::InvalidArgument => Code::InvalidArgument,
        Class::OutOfRange => Code::OutOfRange,
        Class::NotFound => Code::NotFound,
        Class::FailedPrecondition => Code::FailedPrecondition,
        Class::ResourceExhausted => Code::ResourceExhausted,
    };
    Status::new(code, reject.to_string())
}

/// The transaction cannot be translated.
pub(crate) fn bad_txn(bad: &BadTxn) -> Status {
    match bad {
        BadTxn::TooDeep => rejected(Reject::TooManyOperations),
        BadTxn::UnknownCompare => {
            Status::invalid_argument("etcdserver: a compare names a target or a relation this version does not know")
        }
    }
}

/// The request itself asks for too much.
pub(crate) fn too_large() -> Status {
    Status::invalid_argument(TOO_LARGE)
}

/// A read found more than one answer may hold.
pub(crate) fn answer_too_large() -> Status {
    Status::resource_exhausted(format!(
        "the answer exceeds {} MiB: set a limit and page, or use RangeStream",
        ANSWER_BYTES_MAX / 1024 / 1024
    ))
}

/// A write was done, and there is no room for what it should answer. The code must not invite a retry: it would write
/// again.
pub(crate) fn answer_dropped(revision: Revision) -> Status {
    Status::out_of_range(format!(
        "the request was executed at revision {revision}, but its answer is too large to be sent; do not repeat it, and \
         ask for fewer pairs"
    ))
}

/// Too much is under way: surely not done, try again later. etcd sends this text with code Unknown by accident; the
/// Go client recovers the code from the text, others are better off with the right one.
pub(crate) fn overloaded() -> Status {
    let mut status = Status::resource_exhausted("etcdserver: too many requests");
    // gRPC's own way to say when to try again.
    let pause = MetadataValue::from(u64::try_from(OVERLOAD_PAUSE.as_millis()).unwrap_or(u64::MAX));
    status.metadata_mut().insert("grpc-retry-pushback-ms", pause);
    status
}

/// The node has as many streams of watches as it may have.
pub(crate) fn too_many_watch_streams() -> Status {
    Status::resource_exhausted(format!(
        "etcdserver: too many requests: this member serves {WATCH_STREAMS_MAX} watch streams already; put more watches \
         on each stream, or ask another member"
    ))
}

/// Why a watch was not created, as its `cancel_reason` says it.
pub(crate) fn watch_refused(refused: Refused) -> String {
    let exhausted = |what: String| {
        // etcd writes a status into the reason in this form.
        format!("rpc error: code = ResourceExhausted desc = etcdserver: too many requests: {what}")
    };
    match refused {
        Refused::NegativeStart => Reject::Compacted.to_string(),
        Refused::KeyTooLong => Reject::KeyTooLong.to_string(),
        Refused::DuplicateId => String::from("mvcc: duplicate watch ID provided on the WatchStream"),
        Refused::EmptyRange => String::from("mvcc: watcher range is empty"),
        Refused::TooManyOnStream => {
            exhausted(format!("a stream has at most {WATCHES_PER_STREAM_MAX} watches; open another one"))
        }
        Refused::TooManyOnNode => {
            exhausted(format!("this member has {WATCHES_MAX} watches already; ask another member"))
        }
    }
}

/// Somebody who takes a snapshot has not taken anything of it for a long time.
pub(crate) fn snapshot_stalled() -> Status {
    Status::aborted(format!(
        "etcdserver: the snapshot was not read for {} s; start it again, and read faster than that",
        SNAPSHOT_STALL_MAX.as_secs()
    ))
}

/// Members do not agree about the data.
pub(crate) fn corrupt() -> Status {
    Status::data_loss("etcdserver: corrupt cluster")
}

/// There is no version to go back to.
pub(crate) fn no_such_target() -> Status {
    Status::invalid_argument("etcdserver: invalid downgrade target version")
}

pub(crate) fn not_a_version() -> Status {
    Status::invalid_argument("etcdserver: wrong downgrade target version format")
}

pub(crate) fn no_downgrade() -> Status {
    Status::failed_precondition("etcdserver: no inflight downgrade job")
}

pub(crate) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// A learner serves only what needs no vote.
pub(crate) fn learner() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

pub(crate) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// This node's engine failed under the request; the node is stopping.
pub(crate) fn fault(fault: &base::Fault) -> Status {
    Status::data_loss(format!("etcdserver: corrupt cluster: {fault}"))
}

/// The status of an answer that is not a success.
pub(crate) fn refused(response: &Response) -> Status {
    match response {
        Response::Refused(Refusal::Overloaded) => overloaded(),
        Response::Refused(Refusal::TooLarge) => too_large(),
        Response::Refused(Refusal::NotLeader(None)) => no_leader(),
        Response::Refused(Refusal::NotLeader(Some(_)) | Refusal::NotReady) | Response::Superseded => {
            Status::unavailable("etcdserver: leader changed")
        }
        Response::Refused(Refusal::MembershipBusy) => {
            Status::failed_precondition("etcdserver: re-configuration failed due to not enough started members")
        }
        Response::Refused(Refusal::BadMembership) => Status::failed_precondition("etcdserver: bad leader transferee"),
        // Nobody who could serve it was found in time: nothing happened, a retry is safe.
        Response::TimedOut => Status::unavailable(TIMED_OUT),
        Response::Unknown(why) => Status::deadline_exceeded(match why {
            Uncertainty::Timeout => TIMED_OUT,
            Uncertainty::LeaderFailed => TIMED_OUT_LEADER,
            Uncertainty::ConnectionLost => TIMED_OUT_CONNECTION,
        }),
        Response::ReadReady | Response::Done | Response::Lease(_) => {
            Status::internal("a success was taken for a failure")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_never_invites_a_retry() {
        for why in [Uncertainty::Timeout, Uncertainty::LeaderFailed, Uncertainty::ConnectionLost] {
            let code = refused(&Response::Unknown(why)).code();
            assert!(![Code::Unavailable, Code::Aborted, Code::ResourceExhausted].contains(&code), "{why:?}: {code:?}");
        }
        assert_eq!(refused(&Response::TimedOut).code(), Code::Unavailable);
        let overloaded = overloaded();
        assert_eq!(overloaded.code(), Code::ResourceExhausted);
        let pause = overloaded.metadata().get("grpc-retry-pushback-ms").and_then(|pause| pause.to_str().ok());
        assert_eq!(pause, Some("100"));
    }
}
