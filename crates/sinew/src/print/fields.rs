//! The fields format: everything in the answer, one `"Name" : value` per line.

use std::fmt::Write as _;

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{DeleteRangeResponse, Member, PutResponse, RangeResponse, ResponseHeader, TxnResponse};
use api::mvccpb::KeyValue;

use super::{Answer, HashKv, Status, duration, event_type};
use crate::quote::quoted;

/// Renders `answer`.
pub(super) fn render(answer: &Answer) -> Vec<u8> {
    let mut page = Page::default();
    match answer {
        Answer::Put(response) => page.put(response),
        Answer::Get(response) => page.get(response),
        Answer::Delete(response) => page.delete(response),
        Answer::Txn(response) => page.txn(response),
        Answer::LeaseGrant(response) => {
            page.header(response.header.as_ref());
            page.field("ID", response.id);
            page.field("TTL", response.ttl);
        }
        Answer::LeaseRevoke(_, response) => page.header(response.header.as_ref()),
        Answer::LeaseKeepAlive(response) => {
            page.header(response.header.as_ref());
            page.field("ID", response.id);
            page.field("TTL", response.ttl);
        }
        Answer::LeaseTimeToLive(response, _) => {
            page.header(response.header.as_ref());
            page.field("ID", response.id);
            page.field("TTL", response.ttl);
            page.field("GrantedTTL", response.granted_ttl);
            for key in &response.keys {
                page.field("Key", quoted(key));
            }
        }
        Answer::Leases(response) => {
            page.header(response.header.as_ref());
            for lease in &response.leases {
                page.field("ID", lease.id);
            }
        }
        Answer::Watch(response) => {
            page.header(response.header.as_ref());
            for event in &response.events {
                page.field("Type", event_type(event));
                if let Some(pair) = &event.prev_kv {
                    page.pair("Prev", pair);
                }
                page.pair("", &event.kv.clone().unwrap_or_default());
            }
        }
        Answer::Members(response) => page.members(response.header.as_ref(), &response.members),
        Answer::MemberAdd(response) => page.members(response.header.as_ref(), &response.members),
        Answer::MemberPromote(_, response) => page.members(response.header.as_ref(), &response.members),
        Answer::MemberRemove(_, response) => page.members(response.header.as_ref(), &response.members),
        Answer::MemberUpdate(_, response) => page.members(response.header.as_ref(), &response.members),
        Answer::Health(list) => {
            for health in list {
                page.field("Endpoint", quoted(health.endpoint.as_bytes()));
                page.field("Health", health.error.is_none());
                page.field("Took", duration(health.took));
                page.field("Error", health.error.as_deref().unwrap_or(""));
                page.0.push('\n');
            }
        }
        Answer::HashKv(list) => {
            for HashKv { endpoint, response } in list {
                page.header(response.header.as_ref());
                page.field("Endpoint", quoted(endpoint.as_bytes()));
                page.field("Hash", response.hash);
                page.0.push('\n');
            }
        }
        Answer::Alarms(response) => {
            page.header(response.header.as_ref());
            for alarm in &response.alarms {
                page.field("MemberID", alarm.member_id);
                page.field("AlarmType", alarm.alarm().as_str_name());
                page.0.push('\n');
            }
        }
        Answer::SnapshotStatus(summary) => {
            page.field("Hash", summary.hash);
            page.field("Revision", summary.revision);
            page.field("Keys", summary.keys);
            page.field("Size", summary.bytes);
        }
        Answer::Status(list) => list.iter().for_each(|status| page.status(status)),
    }
    page.0.into_bytes()
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "\"{name}\" : {value}");
    }

    fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.field("ClusterID", header.cluster_id);
        self.field("MemberID", header.member_id);
        self.field("Revision", header.revision);
        self.field("RaftTerm", header.raft_term);
    }

    fn members(&mut self, header: Option<&ResponseHeader>, members: &[Member]) {
        self.header(header);
        for member in members {
            self.field("ID", member.id);
            self.field("Name", quoted(member.name.as_bytes()));
            for url in &member.peer_urls {
                self.field("PeerURL", quoted(url.as_bytes()));
            }
            for url in &member.client_urls {
                self.field("ClientURL", quoted(url.as_bytes()));
            }
            self.field("IsLearner", member.is_learner);
            self.0.push('\n');
        }
    }

    fn pair(&mut self, prefix: &str, pair: &KeyValue) {
        self.field(&format!("{prefix}Key"), quoted(&pair.key));
        self.field(&format!("{prefix}CreateRevision"), pair.create_revision);
        self.field(&format!("{prefix}ModRevision"), pair.mod_revision);
        self.field(&format!("{prefix}Version"), pair.version);
        self.field(&format!("{prefix}Value"), quoted(&pair.value));
        self.field(&format!("{prefix}Lease"), pair.lease);
    }

    fn put(&mut self, response: &PutResponse) {
        self.header(response.header.as_ref());
        if let Some(pair) = &response.prev_kv {
            self.pair("Prev", pair);
        }
    }

    fn get(&mut self, response: &RangeResponse) {
        self.header(response.header.as_ref());
        for pair in &response.kvs {
            self.pair("", pair);
        }
        self.field("More", response.more);
        self.field("Count", response.count);
    }

    fn delete(&mut self, response: &DeleteRangeResponse) {
        self.header(response.header.as_ref());
        self.field("Deleted", response.deleted);
        for pair in &response.prev_kvs {
            self.pair("Prev", pair);
        }
    }

    fn txn(&mut self, response: &TxnResponse) {
        self.header(response.header.as_ref());
        self.field("Succeeded", response.succeeded);
        for operation in &response.responses {
            match &operation.response {
                Some(Response::ResponsePut(response)) => self.put(response),
                Some(Response::ResponseRange(response)) => self.get(response),
                Some(Response::ResponseDeleteRange(response)) => self.delete(response),
                Some(Response::ResponseTxn(response)) => self.txn(response),
                None => self.field("Unknown", "\"empty response\""),
            }
        }
    }

    fn status(&mut self, status: &Status) {
        let response = &status.response;
        self.header(response.header.as_ref());
        self.field("Version", quoted(response.version.as_bytes()));
        self.field("DBSize", response.db_size);
        self.field("Leader", response.leader);
        self.field("IsLearner", response.is_learner);
        self.field("RaftIndex", response.raft_index);
        self.field("RaftTerm", response.raft_term);
        self.field("RaftAppliedIndex", response.raft_applied_index);
        self.field("Errors", format_args!("[{}]", response.errors.join(" ")));
        self.field("Endpoint", quoted(status.endpoint.as_bytes()));
        self.0.push('\n');
    }
}
