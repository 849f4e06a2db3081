//! What the client verbs print: one [`Answer`] in one [`Format`].
//!
//! Invariant: for every verb and format the bytes on standard output are those of etcdctl 3.5, because scripts parse
//! them. Rendering is pure; `ctl` does the input and output.

mod fields;
mod json;
mod simple;
mod table;

use std::fmt::Write as _;
use std::time::Duration;

use api::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, Member, MemberAddResponse, MemberListResponse,
    MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse, PutResponse, RangeResponse, StatusResponse,
    TxnResponse, WatchResponse,
};
use prost::Message as _;

pub(crate) use json::{Object, list};
pub(crate) use table::grid;

/// `--write-out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Key line, value line.
    Simple,
    /// `"Name" : value` lines.
    Fields,
    /// One line of JSON; keys and values in base64.
    Json,
    /// A grid; only for members and endpoints.
    Table,
    /// The encoded answer itself.
    Protobuf,
}

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Which format.
    pub(crate) format: Format,
    /// Keys, values and ids in hexadecimal, where the format has a place for it.
    pub(crate) hex: bool,
    /// Leave the key lines out (simple format only).
    pub(crate) values_only: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Of `put`.
    Put(PutResponse),
    /// Of `get`.
    Get(RangeResponse),
    /// Of `del`.
    Delete(DeleteRangeResponse),
    /// Of `txn`.
    Txn(TxnResponse),
    /// Of `lease grant`.
    LeaseGrant(LeaseGrantResponse),
    /// Of `lease revoke`, with the lease.
    LeaseRevoke(i64, LeaseRevokeResponse),
    /// Of `lease keep-alive`.
    LeaseKeepAlive(LeaseKeepAliveResponse),
    /// Of `lease timetolive`, and whether keys were asked for.
    LeaseTimeToLive(LeaseTimeToLiveResponse, bool),
    /// Of `lease list`.
    Leases(LeaseLeasesResponse),
    /// Of `watch`: one of many.
    Watch(WatchResponse),
    /// Of `member list`.
    Members(MemberListResponse),
    /// Of `member add`.
    MemberAdd(MemberAddResponse),
    /// Of `member promote`, with the member.
    MemberPromote(u64, MemberPromoteResponse),
    /// Of `member remove`, with the member.
    MemberRemove(u64, MemberRemoveResponse),
    /// Of `member update`, with the member.
    MemberUpdate(u64, MemberUpdateResponse),
    /// Of `endpoint health`.
    Health(Vec<Health>),
    /// Of `endpoint status`.
    Status(Vec<Status>),
    /// Of `endpoint hashkv`.
    HashKv(Vec<HashKv>),
    /// Of `alarm`.
    Alarms(AlarmResponse),
    /// Of `snapshot status`.
    SnapshotStatus(server::Summary),
}

/// One line of `endpoint hashkv`.
#[derive(Debug)]
pub(crate) struct HashKv {
    /// As the user wrote it.
    pub(crate) endpoint: String,
    /// What it said.
    pub(crate) response: HashKvResponse,
}

/// One line of `endpoint health`.
#[derive(Debug)]
pub(crate) struct Health {
    /// As the user wrote it.
    pub(crate) endpoint: String,
    /// How long the probe took.
    pub(crate) took: Duration,
    /// Why the endpoint is not healthy; `None` if it is.
    pub(crate) error: Option<String>,
}

/// One line of `endpoint status`.
#[derive(Debug)]
pub(crate) struct Status {
    /// As the user wrote it.
    pub(crate) endpoint: String,
    /// What it said.
    pub(crate) response: StatusResponse,
}

/// The two streams a printed answer goes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    /// For standard output.
    pub(crate) out: Vec<u8>,
    /// For standard error: in the simple format, endpoints that are not healthy.
    pub(crate) err: String,
}

/// Renders `answer`.
///
/// # Errors
/// The format does not fit the answer.
pub(crate) fn render(answer: &Answer, style: Style) -> Result<Printed, String> {
    match style.format {
        Format::Simple => Ok(simple::render(answer, style)),
        Format::Fields => Ok(Printed { out: fields::render(answer), err: String::new() }),
        Format::Json => Ok(Printed { out: json::render(answer, style.hex).into_bytes(), err: String::new() }),
        Format::Table => {
            let text = table::render(answer).ok_or("table not supported as output format")?;
            Ok(Printed { out: text.into_bytes(), err: String::new() })
        }
        Format::Protobuf => {
            let bytes = encoded(answer).ok_or("protobuf not supported as output format")?;
            Ok(Printed { out: bytes, err: String::new() })
        }
    }
}

fn encoded(answer: &Answer) -> Option<Vec<u8>> {
    match answer {
        Answer::Put(response) => Some(response.encode_to_vec()),
        Answer::Get(response) => Some(response.encode_to_vec()),
        Answer::Delete(response) => Some(response.encode_to_vec()),
        Answer::Txn(response) => Some(response.encode_to_vec()),
        // etcdctl leaves out everything else.
        Answer::Watch(response) => Some(
            WatchResponse {
                header: response.header,
                events: response.events.clone(),
                compact_revision: response.compact_revision,
                canceled: response.canceled,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        Answer::Members(response) => Some(response.encode_to_vec()),
        Answer::MemberAdd(response) => Some(response.encode_to_vec()),
        Answer::MemberPromote(_, response) => Some(response.encode_to_vec()),
        Answer::MemberRemove(_, response) => Some(response.encode_to_vec()),
        Answer::MemberUpdate(_, response) => Some(response.encode_to_vec()),
        Answer::LeaseGrant(response) => Some(response.encode_to_vec()),
        Answer::LeaseRevoke(_, response) => Some(response.encode_to_vec()),
        Answer::LeaseKeepAlive(response) => Some(response.encode_to_vec()),
        Answer::LeaseTimeToLive(response, _) => Some(response.encode_to_vec()),
        Answer::Leases(response) => Some(response.encode_to_vec()),
        Answer::Alarms(response) => Some(response.encode_to_vec()),
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) | Answer::SnapshotStatus(_) => None,
    }
}

/// The name of what happened.
fn event_type(event: &api::mvccpb::Event) -> &'static str {
    event.r#type().as_str_name()
}

/// The cells of `member list`, for the formats that show rows.
fn member_row(member: &Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
        member.name.clone(),
        member.peer_urls.join(","),
        member.client_urls.join(","),
        member.is_learner.to_string(),
    ]
}

/// The cells of `endpoint status`, for the formats that show rows.
fn status_row(status: &Status) -> Vec<String> {
    let response = &status.response;
    let member = response.header.as_ref().map_or(0, |header| header.member_id);
    vec![
        status.endpoint.clone(),
        format!("{member:x}"),
        response.version.clone(),
        bytes(u64::try_from(response.db_size).unwrap_or(0)),
        (response.leader == member).to_string(),
        response.is_learner.to_string(),
        response.raft_term.to_string(),
        response.raft_index.to_string(),
        response.raft_applied_index.to_string(),
        response.errors.join(", "),
    ]
}

/// The cells of `snapshot status`, for the formats that show rows.
fn snapshot_row(summary: &server::Summary) -> Vec<String> {
    let server::Summary { hash, revision, keys, bytes: size } = *summary;
    vec![format!("{hash:x}"), revision.to_string(), keys.to_string(), bytes(size)]
}

/// A size for people: `20 kB`, `1.5 MB` (powers of 1000).
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 10 {
        return format!("{size} B");
    }
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while unit + 1 < UNITS.len() && size / divisor >= 1000 {
        divisor *= 1000;
        unit += 1;
    }
    // One digit after the point, rounded half up, in whole tenths: no floating point needed.
    let tenths = (u128::from(size) * 10 + u128::from(divisor) / 2) / u128::from(divisor);
    if tenths >= 100 {
        // Printed without the tenth, rounded half to even as the reference does.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let up = rest > 5 || (rest == 5 && whole % 2 == 1);
        return format!("{} {}", whole + u128::from(up), UNITS[unit]);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A duration the way Go prints it: `2.130054ms`, `1.5s`, `1m0s`.
pub(crate) fn duration(took: Duration) -> String {
    let nanoseconds = took.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let fraction = |value: u128, unit: u128, digits: usize| {
        let mut text = (value / unit).to_string();
        let rest = value % unit;
        if rest > 0 {
            let _ = write!(text, ".{rest:0digits$}");
            text.truncate(text.trim_end_matches('0').len());
        }
        text
    };
    match nanoseconds {
        0..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanoseconds, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanoseconds, 1_000_000, 6)),
        _ => {
            let minutes = nanoseconds / 60_000_000_000;
            let seconds = fraction(nanoseconds % 60_000_000_000, 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
