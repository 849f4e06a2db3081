//! The JSON format: names of the protocol, base64 for bytes, numbers for ids, nothing for zero.
//!
//! Field order is part of the output, so objects are written by hand, in order, instead of through a map.

use std::fmt::Write as _;

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    AlarmMember, DeleteRangeResponse, DowngradeInfo, HashKvResponse, Member, PutResponse, RangeResponse,
    ResponseHeader, StatusResponse, TxnResponse, WatchResponse,
};
use api::mvccpb::KeyValue;

use super::{Answer, duration};

/// Renders `answer` as one line. With `hex` the ids of `member list` become hexadecimal text, as in etcdctl.
pub(super) fn render(answer: &Answer, hex: bool) -> String {
    let mut text = match answer {
        Answer::Put(response) => put(response),
        Answer::Get(response) => get(response),
        Answer::Delete(response) => delete(response),
        Answer::Txn(response) => txn(response),
        Answer::LeaseGrant(response) => {
            let mut object = flat_header(response.header.as_ref());
            object.always_number("ID", response.id);
            object.always_number("TTL", response.ttl);
            object.always_text("Error", &response.error);
            object.finish()
        }
        Answer::LeaseRevoke(_, response) => {
            let mut object = Object::new();
            object.raw("header", response.header.as_ref().map(header));
            object.finish()
        }
        Answer::LeaseKeepAlive(response) => {
            let mut object = flat_header(response.header.as_ref());
            object.always_number("ID", response.id);
            object.always_number("TTL", response.ttl);
            object.finish()
        }
        Answer::LeaseTimeToLive(response, _) => {
            let mut object = flat_header(response.header.as_ref());
            object.always_number("id", response.id);
            object.always_number("ttl", response.ttl);
            object.always_number("granted-ttl", response.granted_ttl);
            let keys = list(response.keys.iter().map(|key| format!("\"{}\"", base64(key))));
            object.raw("keys", Some(keys.unwrap_or_else(|| "null".to_owned())));
            object.finish()
        }
        Answer::Leases(response) => {
            let mut object = flat_header(response.header.as_ref());
            let leases = list(response.leases.iter().map(|lease| format!("{{\"id\":{}}}", lease.id)));
            object.raw("leases", Some(leases.unwrap_or_else(|| "[]".to_owned())));
            object.finish()
        }
        Answer::Watch(response) => watch(response),
        Answer::Members(response) => members(response.header.as_ref(), None, &response.members, hex),
        Answer::MemberAdd(response) => {
            members(response.header.as_ref(), response.member.as_ref(), &response.members, hex)
        }
        Answer::MemberPromote(_, response) => members(response.header.as_ref(), None, &response.members, hex),
        Answer::MemberRemove(_, response) => members(response.header.as_ref(), None, &response.members, hex),
        Answer::MemberUpdate(_, response) => members(response.header.as_ref(), None, &response.members, hex),
        Answer::Health(health) => list(health.iter().map(|health| {
            let mut object = Object::new();
            object.always_text("endpoint", &health.endpoint);
            object.raw("health", Some(health.error.is_none().to_string()));
            object.always_text("took", &duration(health.took));
            object.text("error", health.error.as_deref().unwrap_or(""));
            object.finish()
        }))
        .unwrap_or_else(|| "null".to_owned()),
        Answer::HashKv(hashes) => list(hashes.iter().map(|one| {
            let mut object = Object::new();
            object.always_text("Endpoint", &one.endpoint);
            object.raw("HashKV", Some(hash_kv(&one.response)));
            object.finish()
        }))
        .unwrap_or_else(|| "null".to_owned()),
        Answer::Alarms(response) => {
            let mut object = Object::new();
            object.raw("header", response.header.as_ref().map(header));
            object.raw("alarms", list(response.alarms.iter().map(alarm)));
            object.finish()
        }
        Answer::SnapshotStatus(summary) => {
            let mut object = Object::new();
            object.raw("hash", Some(summary.hash.to_string()));
            object.raw("revision", Some(summary.revision.to_string()));
            object.raw("totalKey", Some(summary.keys.to_string()));
            object.raw("totalSize", Some(summary.bytes.to_string()));
            object.finish()
        }
        Answer::Status(statuses) => list(statuses.iter().map(|one| {
            let mut object = Object::new();
            object.always_text("Endpoint", &one.endpoint);
            object.raw("Status", Some(status(&one.response)));
            object.finish()
        }))
        .unwrap_or_else(|| "null".to_owned()),
    };
    text.push('\n');
    text
}

fn header(header: &ResponseHeader) -> String {
    let mut object = Object::new();
    object.number("cluster_id", header.cluster_id);
    object.number("member_id", header.member_id);
    object.number("revision", header.revision);
    object.number("raft_term", header.raft_term);
    object.finish()
}

/// The Go client keeps headers of leases flat, and their fields whatever they are.
fn flat_header(header: Option<&ResponseHeader>) -> Object {
    let header = header.copied().unwrap_or_default();
    let mut object = Object::new();
    object.number("cluster_id", header.cluster_id);
    object.number("member_id", header.member_id);
    object.number("revision", header.revision);
    object.number("raft_term", header.raft_term);
    object
}

fn header_hex(header: &ResponseHeader) -> String {
    let mut object = Object::new();
    object.always_text("cluster_id", &format!("{:x}", header.cluster_id));
    object.always_text("member_id", &format!("{:x}", header.member_id));
    object.number("revision", header.revision);
    object.number("raft_term", header.raft_term);
    object.finish()
}

fn pair(pair: &KeyValue) -> String {
    let mut object = Object::new();
    object.bytes("key", &pair.key);
    object.number("create_revision", pair.create_revision);
    object.number("mod_revision", pair.mod_revision);
    object.number("version", pair.version);
    object.bytes("value", &pair.value);
    object.number("lease", pair.lease);
    object.finish()
}

fn put(response: &PutResponse) -> String {
    let mut object = Object::new();
    object.raw("header", response.header.as_ref().map(header));
    object.raw("prev_kv", response.prev_kv.as_ref().map(pair));
    object.finish()
}

fn get(response: &RangeResponse) -> String {
    let mut object = Object::new();
    object.raw("header", response.header.as_ref().map(header));
    object.raw("kvs", list(response.kvs.iter().map(pair)));
    object.flag("more", response.more);
    object.number("count", response.count);
    object.finish()
}

fn delete(response: &DeleteRangeResponse) -> String {
    let mut object = Object::new();
    object.raw("header", response.header.as_ref().map(header));
    object.number("deleted", response.deleted);
    object.raw("prev_kvs", list(response.prev_kvs.iter().map(pair)));
    object.finish()
}

fn txn(response: &TxnResponse) -> String {
    let mut object = Object::new();
    object.raw("header", response.header.as_ref().map(header));
    object.flag("succeeded", response.succeeded);
    object.raw(
        "responses",
        list(response.responses.iter().map(|operation| {
            let mut inner = Object::new();
            match &operation.response {
                Some(Response::ResponseRange(response)) => inner.raw("response_range", Some(get(response))),
                Some(Response::ResponsePut(response)) => inner.raw("response_put", Some(put(response))),
                Some(Response::ResponseDeleteRange(response)) => {
                    inner.raw("response_delete_range", Some(delete(response)));
                }
                Some(Response::ResponseTxn(response)) => inner.raw("response_txn", Some(txn(response))),
                None => {}
            }
            let mut outer = Object::new();
            outer.raw("Response", Some(inner.finish()));
            outer.finish()
        })),
    );
    object.finish()
}

/// Unlike the other answers this one is a Go structure, with Go's names and nothing left out.
fn watch(response: &WatchResponse) -> String {
    let events = response.events.iter().map(|event| {
        let mut object = Object::new();
        object.number("type", event.r#type);
        object.raw("kv", event.kv.as_ref().map(pair));
        object.raw("prev_kv", event.prev_kv.as_ref().map(pair));
        object.finish()
    });
    let mut object = Object::new();
    object.raw("Header", Some(header(&response.header.unwrap_or_default())));
    object.raw("Events", Some(list(events).unwrap_or_else(|| "[]".to_owned())));
    object.raw("CompactRevision", Some(response.compact_revision.to_string()));
    object.raw("Canceled", Some(response.canceled.to_string()));
    object.raw("Created", Some(response.created.to_string()));
    object.finish()
}

fn members(answer: Option<&ResponseHeader>, new: Option<&Member>, all: &[Member], hex: bool) -> String {
    let shown: fn(&Member) -> String = if hex { member_hex } else { member };
    let mut object = Object::new();
    object.raw("header", answer.map(if hex { header_hex } else { header }));
    object.raw("member", new.map(shown));
    object.raw("members", list(all.iter().map(shown)));
    object.finish()
}

fn member(member: &Member) -> String {
    let mut object = Object::new();
    object.number("ID", member.id);
    member_rest(object, member)
}

fn member_hex(member: &Member) -> String {
    let mut object = Object::new();
    object.always_text("ID", &format!("{:x}", member.id));
    member_rest(object, member)
}

fn member_rest(mut object: Object, member: &Member) -> String {
    object.text("name", &member.name);
    object.raw("peerURLs", list(member.peer_urls.iter().map(|url| string(url))));
    object.raw("clientURLs", list(member.client_urls.iter().map(|url| string(url))));
    object.flag("isLearner", member.is_learner);
    object.finish()
}

fn status(response: &StatusResponse) -> String {
    let mut object = Object::new();
    object.raw("header", response.header.as_ref().map(header));
    object.text("version", &response.version);
    object.number("dbSize", response.db_size);
    object.number("leader", response.leader);
    object.number("raftIndex", response.raft_index);
    object.number("raftTerm", response.raft_term);
    object.number("raftAppliedIndex", response.raft_applied_index);
    object.raw("errors", list(response.errors.iter().map(|error| string(error))));
    object.number("dbSizeInUse", response.db_size_in_use);
    object.flag("isLearner", response.is_learner);
    object.text("storageVersion", &response.storage_version);
    object.number("dbSizeQuota", response.db_size_quota);
    object.raw("downgradeInfo", response.downgrade_info.as_ref().map(downgrade));
    object.finish()
}

fn hash_kv(response: &HashKvResponse) -> String {
    let mut object = Object::new();
    object.raw("header", response.header.as_ref().map(header));
    object.number("hash", response.hash);
    object.number("compact_revision", response.compact_revision);
    object.number("hash_revision", response.hash_revision);
    object.finish()
}

fn alarm(alarm: &AlarmMember) -> String {
    let mut object = Object::new();
    object.number("memberID", alarm.member_id);
    object.number("alarm", alarm.alarm);
    object.finish()
}

fn downgrade(info: &DowngradeInfo) -> String {
    let mut object = Object::new();
    object.flag("enabled", info.enabled);
    object.text("targetVersion", &info.target_version);
    object.finish()
}

/// A JSON object under construction; fields come out in the order they go in, empty ones not at all.
pub(crate) struct Object(String);

impl Object {
    /// Starts an object.
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Ends it.
    pub(crate) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// A field that is JSON already; left out if `None`.
    pub(crate) fn raw(&mut self, name: &str, json: Option<String>) {
        let Some(json) = json else { return };
        let comma = if self.0.len() > 1 { "," } else { "" };
        let _ = write!(self.0, "{comma}\"{name}\":{json}");
    }

    /// A number; left out if 0.
    pub(crate) fn number(&mut self, name: &str, number: impl Into<i128>) {
        let number: i128 = number.into();
        self.raw(name, (number != 0).then(|| number.to_string()));
    }

    /// A number, even if 0.
    pub(crate) fn always_number(&mut self, name: &str, number: i64) {
        self.raw(name, Some(number.to_string()));
    }

    /// A truth value; left out if false.
    pub(crate) fn flag(&mut self, name: &str, flag: bool) {
        self.raw(name, flag.then(|| "true".to_owned()));
    }

    /// Text; left out if empty.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.raw(name, (!text.is_empty()).then(|| string(text)));
    }

    /// Text, even if empty.
    pub(crate) fn always_text(&mut self, name: &str, text: &str) {
        self.raw(name, Some(string(text)));
    }

    /// Bytes in base64; left out if empty.
    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.raw(name, (!bytes.is_empty()).then(|| format!("\"{}\"", base64(bytes))));
    }
}

/// A JSON array; `None` if it would be empty.
pub(crate) fn list(items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<String> = items.collect();
    (!items.is_empty()).then(|| format!("[{}]", items.join(",")))
}

/// A JSON string, escaped as Go escapes it: also `<`, `>`, `&` and the two separators that break JavaScript.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..=' ' if character != ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position <= chunk.len() {
                let index = (bits >> (18 - 6 * position)) & 63;
                out.push(char::from(ALPHABET[index as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}
