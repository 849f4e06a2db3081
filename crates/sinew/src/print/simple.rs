//! The simple format: for eyes, and for scripts that read two lines per key.

use std::fmt::Write as _;

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{DeleteRangeResponse, LeaseTimeToLiveResponse, PutResponse, ResponseHeader, TxnResponse};
use api::mvccpb::KeyValue;

use super::{Answer, HashKv, Printed, Style, duration, event_type, member_row, snapshot_row, status_row};
use crate::ctl::upkeep::alarm_text;

/// Renders `answer`.
pub(super) fn render(answer: &Answer, style: Style) -> Printed {
    let mut printed = Printed::default();
    let out = &mut printed.out;
    match answer {
        Answer::Put(response) => put(out, response, style),
        Answer::Get(response) => pairs(out, &response.kvs, style),
        Answer::Delete(response) => delete(out, response, style),
        Answer::Txn(response) => txn(out, response, style),
        Answer::LeaseGrant(response) => {
            line(out, format!("lease {:016x} granted with TTL({}s)", response.id, response.ttl).as_bytes());
        }
        Answer::LeaseRevoke(id, _) => line(out, format!("lease {id:016x} revoked").as_bytes()),
        Answer::LeaseKeepAlive(response) => {
            line(out, format!("lease {:016x} keepalived with TTL({})", response.id, response.ttl).as_bytes());
        }
        Answer::LeaseTimeToLive(response, keys) => time_to_live(out, response, *keys),
        Answer::Leases(response) => {
            line(out, format!("found {} leases", response.leases.len()).as_bytes());
            for lease in &response.leases {
                line(out, format!("{:016x}", lease.id).as_bytes());
            }
        }
        Answer::Watch(response) => {
            for event in &response.events {
                line(out, event_type(event).as_bytes());
                pairs(out, event.prev_kv.as_slice(), style);
                pairs(out, event.kv.as_slice(), style);
            }
        }
        Answer::Members(response) => {
            for member in &response.members {
                line(out, member_row(member).join(", ").as_bytes());
            }
        }
        Answer::MemberAdd(response) => {
            let member = response.member.clone().unwrap_or_default();
            let learner = if member.is_learner { " as learner " } else { " " };
            let cluster = response.header.as_ref().map_or(0, |header| header.cluster_id);
            line(out, format!("Member {:16x} added{learner}to cluster {cluster:16x}", member.id).as_bytes());
        }
        Answer::MemberPromote(id, response) => changed(out, *id, "promoted in", response.header.as_ref()),
        Answer::MemberRemove(id, response) => changed(out, *id, "removed from", response.header.as_ref()),
        Answer::MemberUpdate(id, response) => changed(out, *id, "updated in", response.header.as_ref()),
        Answer::Health(list) => {
            for health in list {
                let endpoint = &health.endpoint;
                match &health.error {
                    None => {
                        let took = duration(health.took);
                        let text = format!("{endpoint} is healthy: successfully committed proposal: took = {took}");
                        line(out, text.as_bytes());
                    }
                    Some(error) => {
                        let _ = writeln!(printed.err, "{endpoint} is unhealthy: failed to commit proposal: {error}");
                    }
                }
            }
        }
        Answer::HashKv(list) => {
            for HashKv { endpoint, response } in list {
                line(out, format!("{endpoint}, {}", response.hash).as_bytes());
            }
        }
        Answer::Alarms(response) => {
            response.alarms.iter().for_each(|alarm| line(out, alarm_text(alarm).as_bytes()));
        }
        Answer::SnapshotStatus(summary) => line(out, snapshot_row(summary).join(", ").as_bytes()),
        Answer::Status(list) => {
            for status in list {
                line(out, status_row(status).join(", ").as_bytes());
            }
        }
    }
    printed
}

fn changed(out: &mut Vec<u8>, member: u64, what: &str, header: Option<&ResponseHeader>) {
    let cluster = header.map_or(0, |header| header.cluster_id);
    line(out, format!("Member {member:16x} {what} cluster {cluster:16x}").as_bytes());
}

fn time_to_live(out: &mut Vec<u8>, response: &LeaseTimeToLiveResponse, keys: bool) {
    let LeaseTimeToLiveResponse { id, ttl, granted_ttl, .. } = response;
    if *granted_ttl == 0 && *ttl == -1 {
        return line(out, format!("lease {id:016x} already expired").as_bytes());
    }
    let mut text = format!("lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)").into_bytes();
    if keys {
        text.extend_from_slice(b", attached keys([");
        text.extend_from_slice(&response.keys.join(&b' '));
        text.extend_from_slice(b"])");
    }
    line(out, &text);
}

fn put(out: &mut Vec<u8>, response: &PutResponse, style: Style) {
    line(out, b"OK");
    pairs(out, response.prev_kv.as_slice(), style);
}

fn delete(out: &mut Vec<u8>, response: &DeleteRangeResponse, style: Style) {
    line(out, response.deleted.to_string().as_bytes());
    pairs(out, &response.prev_kvs, style);
}

fn txn(out: &mut Vec<u8>, response: &TxnResponse, style: Style) {
    line(out, if response.succeeded { b"SUCCESS" } else { b"FAILURE" });
    for operation in &response.responses {
        line(out, b"");
        match &operation.response {
            Some(Response::ResponsePut(response)) => put(out, response, style),
            Some(Response::ResponseRange(response)) => pairs(out, &response.kvs, style),
            Some(Response::ResponseDeleteRange(response)) => delete(out, response, style),
            Some(Response::ResponseTxn(response)) => txn(out, response, style),
            None => line(out, b"empty response"),
        }
    }
}

fn pairs(out: &mut Vec<u8>, pairs: &[KeyValue], style: Style) {
    for pair in pairs {
        if !style.values_only {
            word(out, &pair.key, style.hex);
        }
        word(out, &pair.value, style.hex);
    }
}

fn word(out: &mut Vec<u8>, bytes: &[u8], hex: bool) {
    if !hex {
        return line(out, bytes);
    }
    let mut text = String::with_capacity(bytes.len() * 4);
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
    line(out, text.as_bytes());
}

fn line(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(b'\n');
}
