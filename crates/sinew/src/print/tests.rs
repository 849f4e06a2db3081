//! Golden outputs, taken from etcdctl 3.5.1 talking to etcd 3.5.1.

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{AlarmMember, AlarmType, LeaseStatus, ResponseHeader, ResponseOp};
use api::mvccpb::KeyValue;
use bytes::Bytes;

use super::*;

const CLUSTER: u64 = 12_101_053_776_118_486_841;
const MEMBER: u64 = 15_985_099_378_392_235_387;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: CLUSTER, member_id: MEMBER, revision, raft_term: 2 })
}

fn inner_header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn pair(key: &'static str, value: &'static str, revisions: (i64, i64, i64)) -> KeyValue {
    KeyValue {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        create_revision: revisions.0,
        mod_revision: revisions.1,
        version: revisions.2,
        lease: 0,
    }
}

fn style(format: Format) -> Style {
    Style { format, hex: false, values_only: false }
}

fn check_style(answer: &Answer, style: Style, expected: &str) {
    let printed = render(answer, style).expect("the format fits");
    assert_eq!(String::from_utf8(printed.out).expect("text"), expected);
    assert_eq!(printed.err, "");
}

fn check(answer: &Answer, format: Format, expected: &str) {
    check_style(answer, style(format), expected);
}

fn put() -> Answer {
    Answer::Put(PutResponse { header: header(8), prev_kv: Some(pair("a", "v\"1\tx", (5, 7, 2))) })
}

fn get() -> Answer {
    Answer::Get(RangeResponse {
        header: header(8),
        kvs: vec![pair("a", "v2", (5, 8, 3)), pair("b", "1", (6, 6, 1))],
        more: false,
        count: 2,
    })
}

fn delete() -> Answer {
    let prev_kvs = vec![pair("a", "v2", (10, 13, 3))];
    Answer::Delete(DeleteRangeResponse { header: header(14), deleted: 1, prev_kvs })
}

fn txn() -> Answer {
    let range =
        RangeResponse { header: inner_header(10), kvs: vec![pair("a", "x y", (10, 10, 1))], more: false, count: 1 };
    let deleted =
        DeleteRangeResponse { header: inner_header(10), deleted: 1, prev_kvs: vec![pair("b", "1", (6, 6, 1))] };
    let responses = vec![
        Response::ResponsePut(PutResponse { header: inner_header(10), prev_kv: None }),
        Response::ResponseRange(range),
        Response::ResponseDeleteRange(deleted),
    ];
    let responses = responses.into_iter().map(|response| ResponseOp { response: Some(response) }).collect();
    Answer::Txn(TxnResponse { header: header(10), succeeded: false, responses })
}

fn members() -> Answer {
    let member = Member {
        id: MEMBER,
        name: "m1".to_owned(),
        peer_urls: vec!["http://127.0.0.1:12380".to_owned()],
        client_urls: vec!["http://127.0.0.1:12379".to_owned()],
        is_learner: false,
    };
    Answer::Members(MemberListResponse { header: header(0), members: vec![member] })
}

fn health() -> Answer {
    let well = Health { endpoint: "127.0.0.1:12379".to_owned(), took: Duration::from_nanos(1_695_746), error: None };
    Answer::Health(vec![well])
}

fn status() -> Answer {
    let response = StatusResponse {
        header: header(14),
        version: "3.5.1".to_owned(),
        db_size: 20_480,
        leader: MEMBER,
        raft_index: 20,
        raft_term: 2,
        raft_applied_index: 20,
        db_size_in_use: 16_384,
        ..StatusResponse::default()
    };
    Answer::Status(vec![Status { endpoint: "127.0.0.1:12379".to_owned(), response }])
}

#[test]
fn simple_format() {
    check(&put(), Format::Simple, "OK\na\nv\"1\tx\n");
    check(&get(), Format::Simple, "a\nv2\nb\n1\n");
    check(&delete(), Format::Simple, "1\na\nv2\n");
    check(&txn(), Format::Simple, "FAILURE\n\nOK\n\na\nx y\n\n1\nb\n1\n");
    check(
        &members(),
        Format::Simple,
        "ddd67b312462fd7b, started, m1, http://127.0.0.1:12380, http://127.0.0.1:12379, false\n",
    );
    check(
        &health(),
        Format::Simple,
        "127.0.0.1:12379 is healthy: successfully committed proposal: took = 1.695746ms\n",
    );
    check(&status(), Format::Simple, "127.0.0.1:12379, ddd67b312462fd7b, 3.5.1, 20 kB, true, false, 2, 20, 20, \n");
}

#[test]
fn simple_format_variants() {
    let hex = Style { hex: true, ..style(Format::Simple) };
    check_style(&get(), hex, "\\x61\n\\x76\\x32\n\\x62\n\\x31\n");
    let values_only = Style { values_only: true, ..style(Format::Simple) };
    check_style(&get(), values_only, "v2\n1\n");
    let sick = Health {
        endpoint: "127.0.0.1:1".to_owned(),
        took: Duration::ZERO,
        error: Some("context deadline exceeded".to_owned()),
    };
    let printed = render(&Answer::Health(vec![sick]), style(Format::Simple)).expect("fits");
    let err = "127.0.0.1:1 is unhealthy: failed to commit proposal: context deadline exceeded\n";
    assert_eq!(printed, Printed { out: Vec::new(), err: err.to_owned() });
}

#[test]
fn fields_format() {
    let head = |revision: i64| {
        format!("\"ClusterID\" : {CLUSTER}\n\"MemberID\" : {MEMBER}\n\"Revision\" : {revision}\n\"RaftTerm\" : 2\n")
    };
    let prev = "\"PrevKey\" : \"a\"\n\"PrevCreateRevision\" : 5\n\"PrevModRevision\" : 7\n\"PrevVersion\" : 2\n\
                \"PrevValue\" : \"v\\\"1\\tx\"\n\"PrevLease\" : 0\n";
    check(&put(), Format::Fields, &format!("{}{prev}", head(8)));
    let keys = "\"Key\" : \"a\"\n\"CreateRevision\" : 5\n\"ModRevision\" : 8\n\"Version\" : 3\n\"Value\" : \"v2\"\n\
                \"Lease\" : 0\n\"Key\" : \"b\"\n\"CreateRevision\" : 6\n\"ModRevision\" : 6\n\"Version\" : 1\n\
                \"Value\" : \"1\"\n\"Lease\" : 0\n\"More\" : false\n\"Count\" : 2\n";
    check(&get(), Format::Fields, &format!("{}{keys}", head(8)));
    let member = format!(
        "\"ID\" : {MEMBER}\n\"Name\" : \"m1\"\n\"PeerURL\" : \"http://127.0.0.1:12380\"\n\
         \"ClientURL\" : \"http://127.0.0.1:12379\"\n\"IsLearner\" : false\n\n"
    );
    check(&members(), Format::Fields, &format!("{}{member}", head(0)));
    check(
        &health(),
        Format::Fields,
        "\"Endpoint\" : \"127.0.0.1:12379\"\n\"Health\" : true\n\"Took\" : 1.695746ms\n\"Error\" : \n\n",
    );
    let rest = format!(
        "\"Version\" : \"3.5.1\"\n\"DBSize\" : 20480\n\"Leader\" : {MEMBER}\n\"IsLearner\" : false\n\
         \"RaftIndex\" : 20\n\"RaftTerm\" : 2\n\"RaftAppliedIndex\" : 20\n\"Errors\" : []\n\
         \"Endpoint\" : \"127.0.0.1:12379\"\n\n"
    );
    check(&status(), Format::Fields, &format!("{}{rest}", head(14)));
}

#[test]
fn fields_format_of_a_transaction() {
    let inner = "\"ClusterID\" : 0\n\"MemberID\" : 0\n\"Revision\" : 10\n\"RaftTerm\" : 0\n";
    let expected = format!(
        "\"ClusterID\" : {CLUSTER}\n\"MemberID\" : {MEMBER}\n\"Revision\" : 10\n\"RaftTerm\" : 2\n\
         \"Succeeded\" : false\n{inner}{inner}\"Key\" : \"a\"\n\"CreateRevision\" : 10\n\"ModRevision\" : 10\n\
         \"Version\" : 1\n\"Value\" : \"x y\"\n\"Lease\" : 0\n\"More\" : false\n\"Count\" : 1\n{inner}\
         \"Deleted\" : 1\n\"PrevKey\" : \"b\"\n\"PrevCreateRevision\" : 6\n\"PrevModRevision\" : 6\n\
         \"PrevVersion\" : 1\n\"PrevValue\" : \"1\"\n\"PrevLease\" : 0\n"
    );
    check(&txn(), Format::Fields, &expected);
}

#[test]
fn json_format() {
    let head = |revision: i64| {
        format!(r#"{{"header":{{"cluster_id":{CLUSTER},"member_id":{MEMBER},"revision":{revision},"raft_term":2}}"#)
    };
    let prev = r#","prev_kv":{"key":"YQ==","create_revision":5,"mod_revision":7,"version":2,"value":"diIxCXg="}}"#;
    check(&put(), Format::Json, &format!("{}{prev}\n", head(8)));
    let kvs = concat!(
        r#","kvs":[{"key":"YQ==","create_revision":5,"mod_revision":8,"version":3,"value":"djI="},"#,
        r#"{"key":"Yg==","create_revision":6,"mod_revision":6,"version":1,"value":"MQ=="}],"count":2}"#
    );
    check(&get(), Format::Json, &format!("{}{kvs}\n", head(8)));
    let gone = concat!(
        r#","deleted":1,"prev_kvs":[{"key":"YQ==","create_revision":10,"mod_revision":13,"version":3,"#,
        r#""value":"djI="}]}"#
    );
    check(&delete(), Format::Json, &format!("{}{gone}\n", head(14)));
    let responses = concat!(
        r#","responses":[{"Response":{"response_put":{"header":{"revision":10}}}},"#,
        r#"{"Response":{"response_range":{"header":{"revision":10},"kvs":[{"key":"YQ==","create_revision":10,"#,
        r#""mod_revision":10,"version":1,"value":"eCB5"}],"count":1}}},"#,
        r#"{"Response":{"response_delete_range":{"header":{"revision":10},"deleted":1,"prev_kvs":[{"key":"Yg==","#,
        r#""create_revision":6,"mod_revision":6,"version":1,"value":"MQ=="}]}}}]}"#
    );
    check(&txn(), Format::Json, &format!("{}{responses}\n", head(10)));
    let list = format!(
        concat!(
            r#"{{"header":{{"cluster_id":{},"member_id":{},"raft_term":2}},"members":[{{"ID":{},"name":"m1","#,
            r#""peerURLs":["http://127.0.0.1:12380"],"clientURLs":["http://127.0.0.1:12379"]}}]}}"#,
            "\n"
        ),
        CLUSTER, MEMBER, MEMBER
    );
    check(&members(), Format::Json, &list);
    check(&health(), Format::Json, "[{\"endpoint\":\"127.0.0.1:12379\",\"health\":true,\"took\":\"1.695746ms\"}]\n");
    let one = format!(
        concat!(
            r#"[{{"Endpoint":"127.0.0.1:12379","Status":{},"version":"3.5.1","dbSize":20480,"leader":{},"#,
            r#""raftIndex":20,"raftTerm":2,"raftAppliedIndex":20,"dbSizeInUse":16384}}}}]"#,
            "\n"
        ),
        head(14),
        MEMBER
    );
    check(&status(), Format::Json, &one);
}

#[test]
fn json_format_with_hexadecimal_ids() {
    let hex = Style { hex: true, ..style(Format::Json) };
    check_style(
        &members(),
        hex,
        concat!(
            r#"{"header":{"cluster_id":"a7ef944b95711739","member_id":"ddd67b312462fd7b","raft_term":2},"members":["#,
            r#"{"ID":"ddd67b312462fd7b","name":"m1","peerURLs":["http://127.0.0.1:12380"],"#,
            r#""clientURLs":["http://127.0.0.1:12379"]}]}"#,
            "\n"
        ),
    );
}

#[test]
fn table_format() {
    let list = "\
+------------------+---------+------+------------------------+------------------------+------------+
|        ID        | STATUS  | NAME |       PEER ADDRS       |      CLIENT ADDRS      | IS LEARNER |
+------------------+---------+------+------------------------+------------------------+------------+
| ddd67b312462fd7b | started |   m1 | http://127.0.0.1:12380 | http://127.0.0.1:12379 |      false |
+------------------+---------+------+------------------------+------------------------+------------+
";
    check(&members(), Format::Table, list);
    let grid = "\
+-----------------+--------+------------+-------+
|    ENDPOINT     | HEALTH |    TOOK    | ERROR |
+-----------------+--------+------------+-------+
| 127.0.0.1:12379 |   true | 1.695746ms |       |
+-----------------+--------+------------+-------+
";
    check(&health(), Format::Table, grid);
}

#[test]
fn changes_of_members() {
    let member = Member { id: MEMBER, peer_urls: vec!["http://b:2380".to_owned()], ..Member::default() };
    let added = |is_learner| {
        let member = Some(Member { is_learner, ..member.clone() });
        Answer::MemberAdd(MemberAddResponse { header: header(0), member, members: Vec::new() })
    };
    check(&added(false), Format::Simple, "Member ddd67b312462fd7b added to cluster a7ef944b95711739\n");
    check(&added(true), Format::Simple, "Member ddd67b312462fd7b added as learner to cluster a7ef944b95711739\n");
    let removed = Answer::MemberRemove(0x1234, MemberRemoveResponse { header: header(0), members: vec![member] });
    check(&removed, Format::Simple, "Member             1234 removed from cluster a7ef944b95711739\n");
    check(
        &removed,
        Format::Json,
        "{\"header\":{\"cluster_id\":12101053776118486841,\"member_id\":15985099378392235387,\"raft_term\":2},\
         \"members\":[{\"ID\":15985099378392235387,\"peerURLs\":[\"http://b:2380\"]}]}\n",
    );
    assert!(render(&removed, style(Format::Table)).is_err());
}

#[test]
fn what_a_snapshot_holds() {
    let answer = Answer::SnapshotStatus(server::Summary { hash: 0xfe01_cf57, revision: 10, keys: 7, bytes: 2_100_000 });
    check(&answer, Format::Simple, "fe01cf57, 10, 7, 2.1 MB\n");
    check(&answer, Format::Json, "{\"hash\":4261531479,\"revision\":10,\"totalKey\":7,\"totalSize\":2100000}\n");
    check(&answer, Format::Fields, "\"Hash\" : 4261531479\n\"Revision\" : 10\n\"Keys\" : 7\n\"Size\" : 2100000\n");
    let grid = "\
+----------+----------+------------+------------+
|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE |
+----------+----------+------------+------------+
| fe01cf57 |       10 |          7 |     2.1 MB |
+----------+----------+------------+------------+
";
    check(&answer, Format::Table, grid);
}

#[test]
fn hashes_and_alarms() {
    let response =
        HashKvResponse { header: header(8), hash: 3_784_423_333, compact_revision: 3, ..HashKvResponse::default() };
    let hashes = Answer::HashKv(vec![HashKv { endpoint: "127.0.0.1:12379".into(), response }]);
    check(&hashes, Format::Simple, "127.0.0.1:12379, 3784423333\n");
    check(
        &hashes,
        Format::Json,
        "[{\"Endpoint\":\"127.0.0.1:12379\",\"HashKV\":{\"header\":{\"cluster_id\":12101053776118486841,\
         \"member_id\":15985099378392235387,\"revision\":8,\"raft_term\":2},\"hash\":3784423333,\
         \"compact_revision\":3}}]\n",
    );
    let alarm = AlarmMember { member_id: MEMBER, alarm: AlarmType::Nospace as i32 };
    let alarms = Answer::Alarms(AlarmResponse { header: header(8), alarms: vec![alarm] });
    check(&alarms, Format::Simple, "memberID:15985099378392235387 alarm:NOSPACE \n");
    check(
        &alarms,
        Format::Fields,
        "\"ClusterID\" : 12101053776118486841\n\"MemberID\" : 15985099378392235387\n\"Revision\" : 8\n\"RaftTerm\" : 2\n\
         \"MemberID\" : 15985099378392235387\n\"AlarmType\" : NOSPACE\n\n",
    );
    assert!(render(&alarms, style(Format::Table)).is_err());
}

#[test]
fn formats_that_do_not_fit_are_refused() {
    for answer in [put(), get(), delete(), txn()] {
        assert_eq!(render(&answer, style(Format::Table)), Err("table not supported as output format".to_owned()));
    }
    for answer in [health(), status()] {
        assert!(render(&answer, style(Format::Protobuf)).is_err());
    }
    let printed = render(&get(), style(Format::Protobuf)).expect("fits");
    let Answer::Get(response) = get() else { unreachable!() };
    assert_eq!(RangeResponse::decode(&printed.out[..]), Ok(response));
}

#[test]
fn sizes_and_durations_are_for_people() {
    let sizes =
        [(0, "0 B"), (9, "9 B"), (10, "10 B"), (999, "999 B"), (1_000, "1.0 kB"), (9_949, "9.9 kB"), (20_480, "20 kB")];
    for (size, text) in sizes {
        assert_eq!(bytes(size), text);
    }
    assert_eq!(bytes(1_500_000), "1.5 MB");
    assert_eq!(bytes(2_147_483_648), "2.1 GB");
    assert_eq!(bytes(u64::MAX), "18 EB");
    let times = [
        (0, "0s"),
        (999, "999ns"),
        (1_500, "1.5µs"),
        (2_130_054, "2.130054ms"),
        (1_000_386_562, "1.000386562s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
    ];
    for (nanoseconds, text) in times {
        assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
    }
}

const LEASE: i64 = 0x4df9_a1fe_9a9f_740b;

fn time_to_live(ttl: i64, granted_ttl: i64, keys: &[&'static str]) -> LeaseTimeToLiveResponse {
    let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
    LeaseTimeToLiveResponse { header: header(3), id: LEASE, ttl, granted_ttl, keys }
}

const FLAT: &str = r#"{"cluster_id":12101053776118486841,"member_id":15985099378392235387,"revision":3,"raft_term":2"#;
const FIELDS: &str = "\"ClusterID\" : 12101053776118486841\n\"MemberID\" : 15985099378392235387\n\
                      \"Revision\" : 3\n\"RaftTerm\" : 2\n";

#[test]
fn leases_in_every_format() {
    let grant = LeaseGrantResponse { header: header(3), id: LEASE, ttl: 60, error: String::new() };
    let keep_alive = LeaseKeepAliveResponse { header: header(3), id: LEASE, ttl: 60 };
    let revoke = LeaseRevokeResponse { header: header(3) };
    let leases = LeaseLeasesResponse { header: header(3), leases: vec![LeaseStatus { id: LEASE }] };
    let long = LEASE;
    let cases = [
        (
            Answer::LeaseGrant(grant),
            "lease 4df9a1fe9a9f740b granted with TTL(60s)\n".to_owned(),
            format!("{FLAT},\"ID\":{long},\"TTL\":60,\"Error\":\"\"}}\n"),
            format!("{FIELDS}\"ID\" : {long}\n\"TTL\" : 60\n"),
        ),
        (
            Answer::LeaseRevoke(LEASE, revoke),
            "lease 4df9a1fe9a9f740b revoked\n".to_owned(),
            format!("{{\"header\":{FLAT}}}}}\n"),
            FIELDS.to_owned(),
        ),
        (
            Answer::LeaseKeepAlive(keep_alive),
            "lease 4df9a1fe9a9f740b keepalived with TTL(60)\n".to_owned(),
            format!("{FLAT},\"ID\":{long},\"TTL\":60}}\n"),
            format!("{FIELDS}\"ID\" : {long}\n\"TTL\" : 60\n"),
        ),
        (
            Answer::Leases(leases),
            "found 1 leases\n4df9a1fe9a9f740b\n".to_owned(),
            format!("{FLAT},\"leases\":[{{\"id\":{long}}}]}}\n"),
            format!("{FIELDS}\"ID\" : {long}\n"),
        ),
        (
            Answer::LeaseTimeToLive(time_to_live(59, 60, &["a", "b c"]), true),
            "lease 4df9a1fe9a9f740b granted with TTL(60s), remaining(59s), attached keys([a b c])\n".to_owned(),
            format!("{FLAT},\"id\":{long},\"ttl\":59,\"granted-ttl\":60,\"keys\":[\"YQ==\",\"YiBj\"]}}\n"),
            format!("{FIELDS}\"ID\" : {long}\n\"TTL\" : 59\n\"GrantedTTL\" : 60\n\"Key\" : \"a\"\n\"Key\" : \"b c\"\n"),
        ),
        (
            Answer::LeaseTimeToLive(time_to_live(-1, 0, &[]), false),
            "lease 4df9a1fe9a9f740b already expired\n".to_owned(),
            format!("{FLAT},\"id\":{long},\"ttl\":-1,\"granted-ttl\":0,\"keys\":null}}\n"),
            format!("{FIELDS}\"ID\" : {long}\n\"TTL\" : -1\n\"GrantedTTL\" : 0\n"),
        ),
    ];
    for (answer, simple, json, fields) in cases {
        check(&answer, Format::Simple, &simple);
        check(&answer, Format::Json, &json);
        check(&answer, Format::Fields, &fields);
    }
}
