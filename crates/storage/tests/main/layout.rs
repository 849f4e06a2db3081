//! The data directory takes the right node in, and nobody else.

use base::{ClusterId, Fault, GroupId, NodeId, ReplicaId};
use kernel::Protocol;
use storage::disk::SyncMode;
use storage::layout::{DataDir, Identity};

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0xc1),
        node: NodeId(0xa),
        name: "node one \u{fc}\n".to_owned(),
        incarnation: 77,
        replicas: vec![(GroupId(0), Protocol::Raft, ReplicaId(5))],
    }
}

fn open(path: &std::path::Path, identity: &Identity) -> Result<DataDir, Fault> {
    DataDir::open_or_create(path, identity, SyncMode::Durable)
}

fn refusal(path: &std::path::Path, identity: &Identity) -> String {
    match open(path, identity) {
        Err(Fault::Refused(text)) => text,
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("taken in"),
    }
}

#[test]
fn a_directory_is_fresh_until_creation_is_finished() {
    let root = tempfile::tempdir().expect("dir");
    let path = root.path().join("a/b");
    let dir = open(&path, &identity()).expect("create");
    assert!(dir.is_fresh());
    drop(dir);
    let later = Identity { incarnation: 99, ..identity() };
    let mut dir = open(&path, &later).expect("go on");
    assert!(dir.is_fresh(), "a creation that was interrupted begins again");
    assert_eq!(dir.identity(), &identity(), "but the incarnation stays the one drawn first");
    dir.finish_creation().expect("finish");
    let replicas = vec![(GroupId(0), Protocol::Raft, ReplicaId(5)), (GroupId(3), Protocol::Raft, ReplicaId(6))];
    dir.set_replicas(replicas.clone()).expect("set");
    drop(dir);
    let dir = open(&path, &identity()).expect("open");
    assert!(!dir.is_fresh());
    assert_eq!(dir.identity().replicas, replicas);
}

#[test]
fn a_second_process_is_refused() {
    let root = tempfile::tempdir().expect("dir");
    let first = open(root.path(), &identity()).expect("create");
    let text = refusal(root.path(), &identity());
    assert!(text.ends_with("is in use by another process"), "{text}");
    drop(first);
    open(root.path(), &identity()).expect("free again");
}

#[test]
fn others_are_told_what_was_found_and_what_to_do() {
    let root = tempfile::tempdir().expect("dir");
    drop(open(root.path(), &identity()).expect("create"));
    let mine = identity();
    let text = refusal(root.path(), &Identity { cluster: ClusterId(2), ..mine.clone() });
    assert!(text.contains("cluster c193") && text.contains("cluster c2;"), "{text}");
    let text = refusal(root.path(), &Identity { node: NodeId(2), name: "two".to_owned(), ..mine.clone() });
    assert!(text.contains("node n10 (node one") && text.contains("node n2 (two)"), "{text}");
    let replicas = vec![(GroupId(0), Protocol::Raft, ReplicaId(6))];
    let text = refusal(root.path(), &Identity { replicas, ..mine.clone() });
    assert!(text.contains("replica r5") && text.contains("replica r6"), "{text}");
    let file = root.path().join("IDENTITY");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, text.replace("sinew-data 1", "sinew-data 2")).expect("write");
    let text = refusal(root.path(), &mine);
    assert!(text.contains("format 2") && text.contains("reads up to 1"), "{text}");
}

#[test]
fn a_directory_of_somebody_else_is_not_touched() {
    let root = tempfile::tempdir().expect("dir");
    std::fs::write(root.path().join("thesis.tex"), "years of work").expect("write");
    let text = refusal(root.path(), &identity());
    assert!(text.contains("thesis.tex") && text.contains("not empty"), "{text}");
    let names: Vec<_> =
        std::fs::read_dir(root.path()).expect("list").map(|entry| entry.expect("e").file_name()).collect();
    assert_eq!(names, ["thesis.tex"]);
    let ours = tempfile::tempdir().expect("dir");
    drop(open(ours.path(), &identity()).expect("create"));
    std::fs::remove_file(ours.path().join("IDENTITY")).expect("remove");
    assert!(refusal(ours.path(), &identity()).contains("IDENTITY is missing"), "a lost identity is no empty directory");
}

#[test]
fn a_damaged_identity_is_refused() {
    let root = tempfile::tempdir().expect("dir");
    drop(open(root.path(), &identity()).expect("create"));
    let file = root.path().join("IDENTITY");
    let good = std::fs::read(&file).expect("read");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &bad).expect("write");
        match open(root.path(), &identity()) {
            Err(Fault::Corrupt { place, .. }) => assert!(place.ends_with("IDENTITY")),
            // The format's number itself.
            Err(Fault::Refused(text)) => assert!(text.contains("format"), "{text}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("bit {bit} is not noticed"),
        }
    }
    for len in 0..good.len() {
        std::fs::write(&file, &good[..len]).expect("write");
        assert!(open(root.path(), &identity()).is_err(), "cut at {len}");
    }
}
