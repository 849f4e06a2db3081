//! Who may depend on whom: arrows between crates point down, and the asynchronous world stays above the purity line.
//!
//! The table below is the one in `ARCHITECTURE.md`. A new arrow is a decision: it gets a line here, a line there and
//! a commit of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Violation;

/// Every crate of the project and the crates of the project it may name, tests included.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("check", &[]),
    // For tests: whoever reads bytes may use it.
    ("fuzz", &["base"]),
    ("kernel", &["base"]),
    ("mvcc", &["base", "fuzz"]),
    ("txn", &["base"]),
    ("placement", &["base"]),
    ("node", &["base", "kernel", "mvcc", "txn", "placement", "fuzz"]),
    ("explore", &["base", "kernel"]),
    ("storage", &["base", "kernel", "mvcc", "fuzz"]),
    ("api", &[]),
    ("server", &["base", "kernel", "mvcc", "node", "storage", "api", "fuzz"]),
    ("sim", &["base", "kernel", "mvcc", "txn", "placement", "node", "storage", "check"]),
    ("client", &["api"]),
    // The binary stands on top; xtask is there for its tests only.
    (
        "sinew",
        &["base", "kernel", "mvcc", "node", "storage", "api", "server", "sim", "check", "explore", "client", "xtask"],
    ),
    ("xtask", &[]),
];

/// Crates that may use sockets, tasks and protobuf.
const ASYNC_CRATES: &[&str] = &["api", "client", "server", "sinew", "xtask"];

/// Outside crates that only those may name; `tonic-health` and the like count as `tonic`.
const ASYNC_LIBRARIES: &[&str] = &["tokio", "tonic", "prost", "hyper", "h2", "tower", "axum"];

/// The packages of the workspace, from `cargo metadata`, without asking the network.
///
/// # Errors
/// Cargo could not be run, or said no.
pub fn metadata(root: &Path) -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .map_err(|cause| format!("running cargo metadata: {cause}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|cause| format!("cargo metadata is not JSON: {cause}"))
}

/// Every arrow of the workspace that points where it must not.
///
/// # Errors
/// The metadata does not have the shape that cargo documents.
pub fn check(metadata: &Value) -> Result<Vec<Violation>, String> {
    let mut violations = Vec::new();
    for package in array(metadata, "packages")? {
        let name = text(package, "name")?;
        let manifest = PathBuf::from(format!("Cargo.toml of {name}"));
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            let message = format!("crate {name} is not in the table of arrows: add it there and to ARCHITECTURE.md");
            violations.push(Violation::new(manifest, 0, message));
            continue;
        };
        for dependency in array(package, "dependencies")? {
            let target = text(dependency, "name")?;
            let ours = ARROWS.iter().any(|(known, _)| *known == target);
            if ours && !allowed.contains(&target) {
                violations.push(Violation::new(
                    &manifest,
                    0,
                    format!("{name} must not depend on {target}: arrows point down"),
                ));
            }
            if is_async(target) && !ASYNC_CRATES.contains(&name) {
                let message =
                    format!("{name} must not depend on {target}: sockets and tasks live above the purity line");
                violations.push(Violation::new(&manifest, 0, message));
            }
        }
    }
    Ok(violations)
}

fn is_async(library: &str) -> bool {
    ASYNC_LIBRARIES
        .iter()
        .any(|known| library == *known || library.strip_prefix(known).is_some_and(|rest| rest.starts_with('-')))
}

fn array<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    value[field].as_array().ok_or_else(|| format!("cargo metadata has no list {field}"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field].as_str().ok_or_else(|| format!("cargo metadata has no text {field}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(name: &str, dependency: &str) -> Vec<String> {
        let metadata = json!({"packages": [{"name": name, "dependencies": [{"name": dependency}]}]});
        check(&metadata).expect("well-formed").into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn an_arrow_that_points_up_is_refused() {
        assert_eq!(messages("kernel", "mvcc"), ["kernel must not depend on mvcc: arrows point down"]);
        assert_eq!(messages("node", "storage"), ["node must not depend on storage: arrows point down"]);
        assert_eq!(messages("client", "server"), ["client must not depend on server: arrows point down"]);
        assert!(messages("server", "node").is_empty());
    }

    #[test]
    fn tokio_below_the_purity_line_is_refused() {
        assert_eq!(messages("storage", "tonic-health").len(), 1);
        assert_eq!(messages("node", "tokio").len(), 1);
        assert!(messages("server", "tokio").is_empty());
        assert!(messages("base", "tokenizer").is_empty());
    }

    #[test]
    fn a_crate_nobody_decided_about_is_refused() {
        assert_eq!(messages("surprise", "bytes").len(), 1);
    }
}
