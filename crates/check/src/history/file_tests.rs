//! The format as it is written down in `docs/formats/history.md`, and what is said about files that are not in it.

use super::*;
use crate::history::{
    Bytes, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Event, KeyValue, Lease, Level, Lock, Numbering,
    Op, Outcome, Put, Range, Request, Response, SortOrder, SortTarget, Txn, Watch, WatchBatch, Workload,
};

const HEADER: &str = r#"{"format":"sinew-history","version":1,"nodes":["one","two"],"start_revision":1,"numbering":"dense","workloads":[{"list_append":{"prefix":"list/"}},{"bank":{"prefix":"bank/","accounts":4,"total":100}},{"write_skew":{"prefix":"pair/"}},{"long_fork":{"prefix":"fork/"}},{"fence":{"prefix":"fence/"}}]}"#;

fn header() -> Header {
    let prefix = |text: &str| Bytes::from(text);
    Header {
        nodes: vec!["one".to_owned(), "two".to_owned()],
        start_revision: 1,
        numbering: Numbering::Dense,
        workloads: vec![
            Workload::ListAppend { prefix: prefix("list/") },
            Workload::Bank { prefix: prefix("bank/"), accounts: 4, total: 100 },
            Workload::WriteSkew { prefix: prefix("pair/") },
            Workload::LongFork { prefix: prefix("fork/") },
            Workload::Fence { prefix: prefix("fence/") },
        ],
    }
}

fn operation(id: u64, request: Request, outcome: Outcome) -> Operation {
    let returned = if outcome == Outcome::Unknown { None } else { Some(20) };
    Operation { id, client: 3, node: 1, connection: 0, invoked: 10, returned, request, outcome }
}

fn done(revision: i64, response: Response) -> Outcome {
    Outcome::Done { revision, response }
}

fn pair() -> KeyValue {
    let (key, value) = (Bytes::from("k"), Bytes::from("v"));
    KeyValue { key, value, create_revision: 2, mod_revision: 4, version: 3, lease: 0 }
}

fn key() -> Bytes {
    Bytes::from("k")
}

/// One operation of each kind, and the line it is.
fn golden() -> Vec<(Operation, &'static str)> {
    let get = Range { key: key(), ..Range::default() };
    let many = Range {
        range_end: Bytes::from(&[0][..]),
        limit: 5,
        revision: 9,
        level: Level::Session { min_revision: 7 },
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        keys_only: true,
        ..get.clone()
    };
    let put = Put { key: key(), value: Bytes::from(&[0xff, 0][..]), prev_kv: true, lease: 7, ..Put::default() };
    let compare = Compare {
        key: key(),
        range_end: Bytes::default(),
        result: CompareResult::NotEqual,
        target: CompareTarget::Mod(4),
    };
    let txn = Txn {
        compares: vec![compare],
        success: vec![Op::Range(get.clone()), Op::Txn(Txn::default())],
        failure: vec![Op::DeleteRange(DeleteRange { key: key(), ..DeleteRange::default() })],
    };
    let txn_answer = Response::Txn {
        succeeded: true,
        responses: vec![
            Response::Range { kvs: vec![pair()], more: false, count: 1 },
            Response::Txn { succeeded: true, responses: Vec::new() },
        ],
    };
    let events = vec![
        Event::Put { kv: pair(), prev_kv: None },
        Event::Delete { key: key(), mod_revision: 5, prev_kv: Some(pair()) },
    ];
    let created = WatchBatch { at: 12, revision: 1, created: true, ..WatchBatch::default() };
    let progress = WatchBatch { at: 16, revision: 7, ..WatchBatch::default() };
    let compacted = WatchBatch { at: 17, compact_revision: 9, ..WatchBatch::default() };
    let cancelled = WatchBatch { at: 17, cancelled: Some("no leader".to_owned()), ..WatchBatch::default() };
    let filtered = Watch { key: key(), prev_kv: true, no_put: true, no_delete: true, ..Watch::default() };
    let release = Lock::Release { key: Bytes::from("k/4d") };
    let batches = vec![WatchBatch { at: 15, revision: 5, events, ..WatchBatch::default() }];
    vec![
        (
            operation(1, Request::Range(get), done(4, Response::Range { kvs: vec![pair()], more: false, count: 1 })),
            r#"{"id":1,"client":3,"node":1,"invoked":10,"returned":20,"request":{"range":{"key":"k"}},"outcome":{"done":{"revision":4,"response":{"range":{"kvs":[{"key":"k","value":"v","create":2,"mod":4,"version":3}],"count":1}}}}}"#,
        ),
        (
            operation(2, Request::Range(many), Outcome::Failed { reason: "no such revision".to_owned() }),
            r#"{"id":2,"client":3,"node":1,"invoked":10,"returned":20,"request":{"range":{"key":"k","range_end":"\u0000","limit":5,"revision":9,"level":{"session":{"min_revision":7}},"sort_order":"descend","sort_target":"mod","keys_only":true}},"outcome":{"failed":{"reason":"no such revision"}}}"#,
        ),
        (
            operation(3, Request::Put(put), Outcome::Unknown),
            r#"{"id":3,"client":3,"node":1,"invoked":10,"request":{"put":{"key":"k","value":{"base64":"/wA="},"lease":7,"prev_kv":true}},"outcome":"unknown"}"#,
        ),
        (
            operation(4, Request::Txn(txn), done(4, txn_answer)),
            r#"{"id":4,"client":3,"node":1,"invoked":10,"returned":20,"request":{"txn":{"compares":[{"key":"k","result":"not_equal","target":{"mod":4}}],"success":[{"range":{"key":"k"}},{"txn":{}}],"failure":[{"delete_range":{"key":"k"}}]}},"outcome":{"done":{"revision":4,"response":{"txn":{"succeeded":true,"responses":[{"range":{"kvs":[{"key":"k","value":"v","create":2,"mod":4,"version":3}],"count":1}},{"txn":{"succeeded":true}}]}}}}}"#,
        ),
        (
            operation(5, Request::Compact(Compact { revision: 3 }), done(4, Response::Compact {})),
            r#"{"id":5,"client":3,"node":1,"invoked":10,"returned":20,"request":{"compact":{"revision":3}},"outcome":{"done":{"revision":4,"response":{"compact":{}}}}}"#,
        ),
        (
            operation(
                6,
                Request::Watch(Watch { key: key(), start_revision: 2, ..Watch::default() }),
                done(5, Response::Watch { batches }),
            ),
            r#"{"id":6,"client":3,"node":1,"invoked":10,"returned":20,"request":{"watch":{"key":"k","start_revision":2}},"outcome":{"done":{"revision":5,"response":{"watch":{"batches":[{"at":15,"revision":5,"events":[{"put":{"kv":{"key":"k","value":"v","create":2,"mod":4,"version":3}}},{"delete":{"key":"k","mod":5,"prev_kv":{"key":"k","value":"v","create":2,"mod":4,"version":3}}}]}]}}}}}"#,
        ),
        (
            operation(7, Request::Lease(Lease::Grant { id: 0, ttl: 5 }), done(4, Response::Lease { id: 77, ttl: 5 })),
            r#"{"id":7,"client":3,"node":1,"invoked":10,"returned":20,"request":{"lease":{"grant":{"id":0,"ttl":5}}},"outcome":{"done":{"revision":4,"response":{"lease":{"id":77,"ttl":5}}}}}"#,
        ),
        (
            operation(
                10,
                Request::Watch(filtered),
                done(7, Response::Watch { batches: vec![created, progress, compacted] }),
            ),
            r#"{"id":10,"client":3,"node":1,"invoked":10,"returned":20,"request":{"watch":{"key":"k","prev_kv":true,"no_put":true,"no_delete":true}},"outcome":{"done":{"revision":7,"response":{"watch":{"batches":[{"at":12,"revision":1,"created":true},{"at":16,"revision":7},{"at":17,"revision":0,"compact_revision":9}]}}}}}"#,
        ),
        (
            operation(
                11,
                Request::Watch(Watch { key: key(), start_revision: 2, ..Watch::default() }),
                done(0, Response::Watch { batches: vec![cancelled] }),
            ),
            r#"{"id":11,"client":3,"node":1,"invoked":10,"returned":20,"request":{"watch":{"key":"k","start_revision":2}},"outcome":{"done":{"revision":0,"response":{"watch":{"batches":[{"at":17,"revision":0,"cancelled":"no leader"}]}}}}}"#,
        ),
        (
            operation(12, Request::Lease(Lease::KeepAlive { id: 77 }), done(4, Response::Lease { id: 77, ttl: 0 })),
            r#"{"id":12,"client":3,"node":1,"invoked":10,"returned":20,"request":{"lease":{"keep_alive":{"id":77}}},"outcome":{"done":{"revision":4,"response":{"lease":{"id":77,"ttl":0}}}}}"#,
        ),
        (
            operation(13, Request::Lease(Lease::TimeToLive { id: 77 }), done(4, Response::Lease { id: 77, ttl: -1 })),
            r#"{"id":13,"client":3,"node":1,"invoked":10,"returned":20,"request":{"lease":{"time_to_live":{"id":77}}},"outcome":{"done":{"revision":4,"response":{"lease":{"id":77,"ttl":-1}}}}}"#,
        ),
        (
            operation(
                14,
                Request::Lease(Lease::Expire { ids: vec![77, 78] }),
                done(8, Response::Lease { id: 0, ttl: 0 }),
            ),
            r#"{"id":14,"client":3,"node":1,"invoked":10,"returned":20,"request":{"lease":{"expire":{"ids":[77,78]}}},"outcome":{"done":{"revision":8,"response":{"lease":{"id":0,"ttl":0}}}}}"#,
        ),
        (
            operation(15, Request::Lock(release), done(9, Response::Lock { key: Bytes::from("k/4d"), token: 6 })),
            r#"{"id":15,"client":3,"node":1,"invoked":10,"returned":20,"request":{"lock":{"release":{"key":"k/4d"}}},"outcome":{"done":{"revision":9,"response":{"lock":{"key":"k/4d","token":6}}}}}"#,
        ),
        (
            operation(
                8,
                Request::Lock(Lock::Acquire { name: key(), lease: 77 }),
                done(6, Response::Lock { key: Bytes::from("k/4d"), token: 6 }),
            ),
            r#"{"id":8,"client":3,"node":1,"invoked":10,"returned":20,"request":{"lock":{"acquire":{"name":"k","lease":77}}},"outcome":{"done":{"revision":6,"response":{"lock":{"key":"k/4d","token":6}}}}}"#,
        ),
        (
            Operation {
                connection: 2,
                ..operation(
                    9,
                    Request::DeleteRange(DeleteRange { key: key(), prev_kv: true, ..DeleteRange::default() }),
                    done(7, Response::DeleteRange { deleted: 1, prev_kvs: vec![KeyValue { lease: 7, ..pair() }] }),
                )
            },
            r#"{"id":9,"client":3,"node":1,"connection":2,"invoked":10,"returned":20,"request":{"delete_range":{"key":"k","prev_kv":true}},"outcome":{"done":{"revision":7,"response":{"delete_range":{"deleted":1,"prev_kvs":[{"key":"k","value":"v","create":2,"mod":4,"version":3,"lease":7}]}}}}}"#,
        ),
    ]
}

#[test]
fn a_history_has_these_lines() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let mut text = format!("{HEADER}\n");
    for (operation, line) in golden() {
        writer.write(&operation).unwrap();
        text.push_str(line);
        text.push('\n');
    }
    let written = String::from_utf8(writer.finish().unwrap()).unwrap();
    for (written, golden) in written.lines().zip(text.lines()) {
        assert_eq!(written, golden);
    }
    let history = read(text.as_bytes()).unwrap();
    assert_eq!(history.header, header());
    assert_eq!(history.operations, golden().into_iter().map(|(operation, _)| operation).collect::<Vec<_>>());
    history.validate().unwrap();
}

#[test]
fn the_page_of_the_format_shows_these_lines() {
    let page = include_str!("../../../../docs/formats/history.md");
    for (_, line) in golden() {
        assert!(page.contains(line), "not in docs/formats/history.md: {line}");
    }
    assert!(page.contains(HEADER));
}

/// Reads a history of these lines, which must be refused at `line` with these words.
fn refused(lines: &[&str], line: usize, words: &str) {
    let error = read(lines.join("\n").as_bytes()).expect_err("not a history");
    assert_eq!(error.line, line, "{error}");
    assert!(error.to_string().contains(words), "no `{words}` in: {error}");
}

#[test]
fn what_is_not_a_history_is_refused_with_line_and_advice() {
    let fine = golden()[0].1;
    refused(&[], 1, "the file is empty");
    refused(&["hello"], 1, "not the header of a history");
    refused(&[fine], 1, "the first line must be");
    refused(&[r#"{"format":"other","version":1}"#], 1, "format is `other`");
    refused(&[r#"{"format":"sinew-history","version":2}"#], 1, "version 2 of the format");
    refused(&[HEADER, "", &fine[..50]], 3, "stopped in the middle");
    refused(&[HEADER, &fine[..50], fine], 2, "see docs/formats/history.md");
    refused(&[HEADER, fine, fine], 3, "operation 1 is there twice");
    refused(&[HEADER, &fine.replace("\"count\"", "\"county\"")], 2, "unknown field `county`");
    refused(&[HEADER, &fine.replace("\"id\":1", "\"id\":1,\"mood\":\"good\"")], 2, "unknown field `mood`");
    refused(&[HEADER, &fine.replace("\"returned\":20,", "")], 2, "done, but `returned` is missing");
    refused(&[HEADER, &fine.replace("\"returned\":20", "\"returned\":2")], 2, "returned (2) before it was invoked");
    refused(&[HEADER, &fine.replace("{\"range\":{\"key\":\"k\"}}", "{\"put\":{\"key\":\"k\"}}")], 2, "another kind");
    refused(&[HEADER, &golden()[3].1.replace(",{\"txn\":{\"succeeded\":true}}", "")], 2, "1 responses to 2 operations");
    refused(&[HEADER, &fine.replace("\"key\":\"k\"}}", "\"key\":{\"base64\":\"!\"}}}")], 2, "not base64");
}

#[test]
fn unknown_fields_of_the_header_are_skipped() {
    let history = read(r#"{"format":"sinew-history","version":1,"made_by":"somebody"}"#.as_bytes()).unwrap();
    assert_eq!(history, History::default());
}

#[test]
fn a_line_without_end_is_refused_before_it_is_in_memory() {
    let endless = HEADER.as_bytes().chain(&b"\n"[..]).chain(io::repeat(b' '));
    let error = read(io::BufReader::new(endless)).expect_err("too long");
    assert!(error.line == 2 && error.reason.contains("longer than"), "{error}");
}

#[test]
fn operations_are_shown_in_one_line() {
    let shown: Vec<String> = golden().iter().map(|(operation, _)| operation.to_string()).collect();
    assert_eq!(
        shown[0],
        "#1 client 3 at node 1 [0.000ms .. 0.000ms] get \"k\" -> \
         \"k\"=\"v\" (mod 4, create 2, version 3) @ revision 4"
    );
    assert!(shown[2].ends_with("?] put \"k\" = \"\\xff\\x00\" -> unknown"), "{}", shown[2]);
    assert!(shown[3].contains("txn if mod(\"k\") != 4 then {get \"k\"; txn then {}} else {delete \"k\"}"));
    assert!(shown.iter().all(|line| !line.contains('\n')));
}
