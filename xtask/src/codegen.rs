//! `cargo xtask codegen`: turns `proto/**` into `crates/api/src/gen/`.
//!
//! The result is committed, so that a user's build needs neither protoc nor a generator. Invariant: what is committed
//! is exactly what this file would write now; the test at the end holds it to that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Every proto file, relative to `proto/`.
const PROTOS: [&str; 11] = [
    "authpb/auth.proto",
    "etcdserverpb/auth.proto",
    "etcdserverpb/cluster.proto",
    "etcdserverpb/header.proto",
    "etcdserverpb/kv.proto",
    "etcdserverpb/lease.proto",
    "etcdserverpb/maintenance.proto",
    "etcdserverpb/watch.proto",
    "mvccpb/kv.proto",
    "v3electionpb/election.proto",
    "v3lockpb/lock.proto",
];

/// Where the committed descriptor set lies, beside the generated modules.
const DESCRIPTOR_FILE: &str = "descriptor.bin";

/// Field names that would come out garbled in Rust (`peer_ur_ls`). Only the generator sees the new name: the wire knows
/// numbers, and the committed descriptor set (reflection, JSON) keeps the original.
const RENAMED_FIELDS: [(&str, &str); 2] = [("peerURLs", "peer_urls"), ("clientURLs", "client_urls")];

/// Writes the generated files, or with `check` only compares them.
///
/// # Errors
/// A proto file that does not compile, a file that cannot be written, or with `check` a file that differs.
pub fn run(check: bool) -> Result<(), String> {
    let directory = root().join("crates/api/src/gen");
    let wanted = generate()?;
    if check {
        return compare(&directory, &wanted);
    }
    std::fs::create_dir_all(&directory).map_err(|error| at(&directory, &error))?;
    for stale in names_in(&directory)? {
        if !wanted.contains_key(&stale) {
            let path = directory.join(stale);
            std::fs::remove_file(&path).map_err(|error| at(&path, &error))?;
        }
    }
    for (name, content) in wanted {
        let path = directory.join(name);
        std::fs::write(&path, content).map_err(|error| at(&path, &error))?;
    }
    Ok(())
}

/// The wanted files by name.
fn generate() -> Result<BTreeMap<String, Vec<u8>>, String> {
    let include = root().join("proto");
    let mut compiler = protox::Compiler::new([&include]).map_err(|error| error.to_string())?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(PROTOS).map_err(|error| format!("{error:?}"))?;
    let descriptors = compiler.file_descriptor_set();

    let scratch = Scratch::new()?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(&scratch.0)
        .emit_rerun_if_changed(false)
        .compile_fds(with_rust_names(descriptors.clone()))
        .map_err(|error| error.to_string())?;

    let mut files = BTreeMap::new();
    for name in names_in(&scratch.0)? {
        let path = scratch.0.join(&name);
        let code = std::fs::read(&path).map_err(|error| at(&path, &error))?;
        files.insert(name, code);
    }
    files.insert(DESCRIPTOR_FILE.to_owned(), without_comments(descriptors).encode_to_vec());
    Ok(files)
}

/// Fails with advice if the directory does not hold exactly the wanted files.
fn compare(directory: &Path, wanted: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let mut stale: Vec<String> = names_in(directory)?.into_iter().filter(|name| !wanted.contains_key(name)).collect();
    for (name, content) in wanted {
        if std::fs::read(directory.join(name)).ok().as_ref() != Some(content) {
            stale.push(name.clone());
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("crates/api/src/gen is not what proto/ says ({}); run cargo xtask codegen", stale.join(", ")))
}

/// Applies [`RENAMED_FIELDS`].
fn with_rust_names(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    fn rename(message: &mut DescriptorProto) {
        for field in &mut message.field {
            if let Some((_, to)) = RENAMED_FIELDS.iter().find(|(from, _)| field.name.as_deref() == Some(from)) {
                field.name = Some((*to).to_owned());
            }
        }
        message.nested_type.iter_mut().for_each(rename);
    }
    descriptors.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(rename);
    descriptors
}

/// Reflection serves structure, not prose; leaving the comments out keeps the binary small.
fn without_comments(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    descriptors
}

/// Names of the files in `directory`, sorted; empty if it does not exist.
fn names_in(directory: &Path) -> Result<Vec<String>, String> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| at(directory, &error))? {
        let entry = entry.map_err(|error| at(directory, &error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The top of the source tree.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies one level below the top").to_path_buf()
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// A directory that disappears with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        // The process id alone is not enough: tests of one process run side by side.
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("sinew-codegen-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(|error| at(&path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: a leftover in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_code_is_fresh() {
        if let Err(message) = run(true) {
            panic!("{message}");
        }
    }

    #[test]
    fn every_proto_file_is_listed() {
        let include = root().join("proto");
        let mut found = Vec::new();
        for package in names_in(&include).expect("proto/ is readable") {
            for file in names_in(&include.join(&package)).expect("package is readable") {
                found.push(format!("{package}/{file}"));
            }
        }
        assert_eq!(found, PROTOS);
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let scratch = Scratch::new().expect("scratch directory");
        let mut wanted = BTreeMap::from([("a.rs".to_owned(), b"one".to_vec())]);
        std::fs::write(scratch.0.join("a.rs"), "one").expect("write");
        assert_eq!(compare(&scratch.0, &wanted), Ok(()));
        wanted.insert("a.rs".to_owned(), b"two".to_vec());
        let message = compare(&scratch.0, &wanted).expect_err("differs");
        assert!(message.ends_with("(a.rs); run cargo xtask codegen"), "{message}");
        wanted.clear();
        assert!(compare(&scratch.0, &wanted).is_err(), "a file too many must be noticed");
    }
}
