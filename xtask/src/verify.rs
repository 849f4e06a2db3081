//! `cargo xtask verify` and `cargo xtask fix`: the whole gate in one command. Verify never writes; fix does.

use std::path::Path;
use std::process::Command;

use crate::{codegen, say, tidy};

/// Format, lints, house rules, fresh generated code, tests. Stops at the first that fails.
///
/// # Errors
/// Which step failed.
pub fn verify(root: &Path) -> Result<(), String> {
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    step("tidy", || tidy::run(root))?;
    step("codegen is fresh", || codegen::run(true))?;
    cargo(root, &["test", "--workspace"])
}

/// Rewrites what a tool can rewrite: generated code, lints with a mechanical fix, over-long comments, format.
///
/// # Errors
/// Which step failed.
pub fn fix(root: &Path) -> Result<(), String> {
    step("codegen", || codegen::run(false))?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"])?;
    step("reflow", || reflow(root))?;
    cargo(root, &["fmt", "--all"])
}

/// Breaks comment lines that rustfmt leaves over-long.
fn reflow(root: &Path) -> Result<(), String> {
    for (path, text) in tidy::read_texts(root)? {
        let changed = crate::reflow::reflow(&text);
        let ours = path.extension().is_some_and(|extension| extension == "rs") && !tidy::source::is_generated(&path);
        if ours && changed != text {
            say(&format!("    {}", path.display()));
            std::fs::write(root.join(&path), changed)
                .map_err(|cause| format!("writing {}: {cause}", path.display()))?;
        }
    }
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    say(&format!("==> {name}"));
    work()
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let line = format!("cargo {}", arguments.join(" "));
    say(&format!("==> {line}"));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|cause| format!("{line} could not be started: {cause}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line} failed: {status}")) }
}
