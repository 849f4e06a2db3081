//! Operations as people read them in a verdict: one line each.
//!
//! Invariant: every operation fits a line of bounded length; long lists are cut and say so.

use std::fmt::{self, Write as _};

use super::{
    Bytes, Compare, CompareResult, CompareTarget, KeyValue, Level, Lock, Op, Operation, Outcome, Range, Request,
    Response, Txn,
};

/// Parts of a list that are shown.
const PARTS_MAX: usize = 6;

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, client, node, invoked, .. } = self;
        write!(formatter, "#{id} client {client} at node {node} [{} .. ", milliseconds(*invoked))?;
        match self.returned {
            Some(returned) => write!(formatter, "{}] ", milliseconds(returned))?,
            None => formatter.write_str("?] ")?,
        }
        write!(formatter, "{} -> {}", self.request, self.outcome)
    }
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{}.{:03}ms", nanoseconds / 1_000_000, nanoseconds / 1_000 % 1_000)
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(formatter, "{range}"),
            Self::Put(put) => write!(formatter, "put {} = {}", put.key, put.value),
            Self::DeleteRange(delete) => write!(formatter, "delete {}", Span(&delete.key, &delete.range_end)),
            Self::Txn(txn) => write!(formatter, "{txn}"),
            Self::Compact(compact) => write!(formatter, "compact {}", compact.revision),
            Self::Watch(watch) => write!(formatter, "watch {}", Span(&watch.key, &watch.range_end)),
            Self::Lease(lease) => write!(formatter, "lease {lease:?}"),
            Self::Lock(Lock::Acquire { name, lease }) => write!(formatter, "acquire {name} with lease {lease}"),
            Self::Lock(Lock::Release { key }) => write!(formatter, "release {key}"),
        }
    }
}

/// A key or a range of keys.
struct Span<'a>(&'a Bytes, &'a Bytes);

impl fmt::Display for Span<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1[..] {
            [] => write!(formatter, "{}", self.0),
            [0] => write!(formatter, "{}..", self.0),
            _ => write!(formatter, "{}..{}", self.0, self.1),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "get {}", Span(&self.key, &self.range_end))?;
        if self.revision > 0 {
            write!(formatter, " at revision {}", self.revision)?;
        }
        match self.level {
            Level::Strict => Ok(()),
            Level::Serializable => formatter.write_str(" (serializable)"),
            Level::Session { min_revision } => write!(formatter, " (not before revision {min_revision})"),
        }
    }
}

impl fmt::Display for Txn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("txn")?;
        if !self.compares.is_empty() {
            write!(formatter, " if {}", list(&self.compares, " and "))?;
        }
        write!(formatter, " then {{{}}}", list(&self.success, "; "))?;
        if !self.failure.is_empty() {
            write!(formatter, " else {{{}}}", list(&self.failure, "; "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match self.result {
            CompareResult::Equal => "=",
            CompareResult::Greater => ">",
            CompareResult::Less => "<",
            CompareResult::NotEqual => "!=",
        };
        let span = Span(&self.key, &self.range_end);
        match &self.target {
            CompareTarget::Version(operand) => write!(formatter, "version({span}) {relation} {operand}"),
            CompareTarget::Create(operand) => write!(formatter, "create({span}) {relation} {operand}"),
            CompareTarget::Mod(operand) => write!(formatter, "mod({span}) {relation} {operand}"),
            CompareTarget::Value(operand) => write!(formatter, "value({span}) {relation} {operand}"),
            CompareTarget::Lease(operand) => write!(formatter, "lease({span}) {relation} {operand}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(formatter, "{range}"),
            Self::Put(put) => write!(formatter, "put {} = {}", put.key, put.value),
            Self::DeleteRange(delete) => write!(formatter, "delete {}", Span(&delete.key, &delete.range_end)),
            Self::Txn(txn) => write!(formatter, "{txn}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { revision, response } => write!(formatter, "{response} @ revision {revision}"),
            Self::Failed { reason } => write!(formatter, "not done: {reason}"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { kvs, count, .. } if kvs.is_empty() => write!(formatter, "{count} keys, none shown"),
            Self::Range { kvs, .. } => formatter.write_str(&list(kvs, ", ")),
            Self::Put { prev_kv: None } | Self::Compact {} => formatter.write_str("ok"),
            Self::Put { prev_kv: Some(pair) } => write!(formatter, "ok, replaced {pair}"),
            Self::DeleteRange { deleted, .. } => write!(formatter, "{deleted} deleted"),
            Self::Txn { succeeded, responses } => {
                let word = if *succeeded { "succeeded" } else { "else" };
                write!(formatter, "{word} {{{}}}", list(responses, "; "))
            }
            Self::Watch { batches } => write!(formatter, "{} deliveries", batches.len()),
            Self::Lease { id, ttl } => write!(formatter, "lease {id} ttl {ttl}"),
            Self::Lock { key, token } => write!(formatter, "lock {key} token {token}"),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, create_revision, mod_revision, version, .. } = self;
        write!(formatter, "{key}={value} (mod {mod_revision}, create {create_revision}, version {version})")
    }
}

fn list<T: fmt::Display>(parts: &[T], between: &str) -> String {
    let mut text = String::new();
    for (at, part) in parts.iter().take(PARTS_MAX).enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{part}", if at == 0 { "" } else { between });
    }
    if parts.len() > PARTS_MAX {
        let _ = write!(text, "{between}… {} in all", parts.len());
    }
    text
}
