//! What clients ask for, as plain data.
//!
//! Invariant: every value written is written once in a run, so that a reader's answer names the write it saw. Balances
//! are the exception: their sum says enough.

use base::{NodeId, Prng};

use crate::config::Config;
use crate::random::{between, percent, pick, stream};

/// One request of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedOperation {
    /// World time in microseconds after the start; later if the client is still busy.
    pub at: u64,
    /// Which client.
    pub client: u64,
    /// Whom it asks.
    pub node: NodeId,
    /// How long it waits for an answer, in microseconds.
    pub patience_us: u64,
    /// What it asks for.
    pub intent: Intent,
}

/// What a client wants. Keys are numbers; the bytes are made from them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Store a value of its own, with so many bytes of padding.
    Put {
        /// The key.
        key: u64,
        /// Bytes beside the name of the value.
        padding: u64,
    },
    /// Delete a key.
    Delete {
        /// The key.
        key: u64,
    },
    /// Delete the keys from one to below another.
    DeleteRange {
        /// The first.
        from: u64,
        /// One past the last.
        until: u64,
    },
    /// Read a key.
    Get {
        /// The key.
        key: u64,
        /// From the node's own state, however old.
        serializable: bool,
    },
    /// Read keys from one to below another.
    Range {
        /// The first.
        from: u64,
        /// One past the last.
        until: u64,
        /// From the node's own state, however old.
        serializable: bool,
    },
    /// Read as of so many revisions ago.
    GetPast {
        /// The key.
        key: u64,
        /// How far back.
        back: u64,
    },
    /// Read a key and replace it if nobody else did meanwhile.
    Swap {
        /// The key.
        key: u64,
    },
    /// Read a list and append to it if nobody else did meanwhile.
    Append {
        /// The list.
        list: u64,
    },
    /// Read all accounts and move an amount between two if neither was changed meanwhile.
    Transfer {
        /// Whose balance falls.
        from: u64,
        /// Whose rises.
        to: u64,
        /// By how much.
        amount: u64,
        /// The accounts are read from the node's own state, however old.
        serializable: bool,
    },
    /// Read all accounts.
    Accounts {
        /// From the node's own state, however old.
        serializable: bool,
    },
    /// Create one key of a pair if neither is there, else read both.
    Pair {
        /// The pair.
        pair: u64,
        /// The second of the two.
        second: bool,
    },
    /// Delete both keys of a pair.
    Unpair {
        /// The pair.
        pair: u64,
    },
    /// Create a key nobody else creates, beside those of all others.
    Fork,
    /// Read all keys created so.
    Forks {
        /// From the node's own state, however old.
        serializable: bool,
    },
    /// Write two keys in one transaction, if the first is absent or not.
    PutBoth {
        /// One key.
        first: u64,
        /// Another key.
        second: u64,
    },
    /// Begin a lease of so many seconds, in place of the one the client has.
    Grant {
        /// How long it lives without a renewal.
        ttl_s: i64,
    },
    /// Renew the client's lease.
    KeepAlive,
    /// Put a key on the client's lease.
    Attach {
        /// Which of its keys.
        key: u64,
    },
    /// End the client's lease.
    Revoke,
    /// Wait for a lock on the client's lease, or on one of so many seconds if it has none. Who holds one writes.
    Lock {
        /// The lock.
        lock: u64,
        /// How long a new lease lives without a renewal.
        ttl_s: i64,
    },
    /// Write under the token of the lock that the client believes to hold; else see what others wrote.
    Guarded {
        /// Where to look.
        lock: u64,
    },
    /// Give back the lock that the client believes to hold; else see what others wrote.
    Unlock {
        /// Where to look.
        lock: u64,
    },
    /// Move the compaction floor to so many revisions ago.
    Compact {
        /// How far back.
        back: u64,
    },
}

/// Keys that hold values.
pub(crate) const KEYS_MAX: u64 = 40;
/// Keys that hold lists.
pub(crate) const LISTS: u64 = 4;
/// Keys of lists begin with this.
pub(crate) const LISTS_PREFIX: &str = "list/";
/// Keys of accounts begin with this.
pub(crate) const BANK: &str = "bank/";
/// Accounts.
pub(crate) const ACCOUNTS: u64 = 4;
/// What all balances add up to.
pub(crate) const TOTAL: i64 = 400;
/// Keys of pairs begin with this.
pub(crate) const PAIRS: &str = "pair/";
/// Pairs.
const PAIRS_MAX: u64 = 2;
/// Keys on leases begin with this.
pub(crate) const LEASED: &str = "leased/";
/// Clients that have leases and nothing else.
const LEASING_CLIENTS: u64 = 2;
/// Names of locks begin with this.
pub(crate) const LOCKS: &str = "lock/";
/// Keys that only holders of a lock write begin with this.
pub(crate) const FENCES: &str = "fence/";
/// Locks.
const LOCKS_MAX: u64 = 2;
/// Clients that want locks.
const LOCKING_CLIENTS: u64 = 4;
/// Keys that are created by one client each begin with this.
pub(crate) const FORKS: &str = "fork/";

/// The operations that the seed decides on.
pub(crate) fn operations(config: &Config) -> Vec<PlannedOperation> {
    let mut prng = stream(config.seed, 3);
    let keys = *pick(&mut prng, &[1, 3, 10, KEYS_MAX]);
    let padding = *pick(&mut prng, &[20, 200, 2000, 4000]);
    let reads = between(&mut prng, 10, 70);
    let compactions = *pick(&mut prng, &[0, 1, 4]);
    let mut all = Vec::new();
    // Clients go on after the healing, so that there is something to be done.
    let end = config.duration.as_micros() as u64 + 4_000_000;
    for client in 0..config.clients {
        let pause = 1_000_000 * config.clients / config.operations_per_second.max(1);
        let mut at = between(&mut prng, 100_000, 1_500_000);
        let mut home = NodeId(between(&mut prng, 1, config.nodes));
        while at < end {
            if percent(&mut prng, 10) {
                home = NodeId(between(&mut prng, 1, config.nodes));
            }
            let intent = draw(&mut prng, keys, padding, reads, compactions);
            let patience_us = *pick(&mut prng, &[300_000, 1_500_000, 4_000_000, 9_000_000]);
            all.push(PlannedOperation { at, client, node: home, patience_us, intent });
            at += between(&mut prng, pause / 4, pause * 7 / 4);
        }
    }
    all.extend(leases(config, end));
    all.extend(locks(config, end));
    all.sort_by_key(|operation| operation.at);
    all
}

/// What clients with leases do: a renewal now and then, sometimes too late.
fn leases(config: &Config, end: u64) -> Vec<PlannedOperation> {
    let mut prng = stream(config.seed, 5);
    let mut all = Vec::new();
    for client in config.clients..config.clients + LEASING_CLIENTS.min(config.clients) {
        let mut at = between(&mut prng, 100_000, 1_500_000);
        while at < end {
            let intent = match prng.below(20) {
                0 => Intent::Grant { ttl_s: between(&mut prng, 1, 6) as i64 },
                1 => Intent::Revoke,
                2..9 => Intent::Attach { key: prng.below(4) },
                _ => Intent::KeepAlive,
            };
            let patience_us = *pick(&mut prng, &[300_000, 1_500_000, 4_000_000]);
            let node = NodeId(between(&mut prng, 1, config.nodes));
            all.push(PlannedOperation { at, client, node, patience_us, intent });
            at += if percent(&mut prng, 8) { 7_000_000 } else { between(&mut prng, 100_000, 1_500_000) };
        }
    }
    all
}

/// What clients that want locks do: they wait for them without renewing anything, hold them for a while, write, and
/// sleep now and then for longer than their lease lives.
fn locks(config: &Config, end: u64) -> Vec<PlannedOperation> {
    let mut prng = stream(config.seed, 6);
    let mut all = Vec::new();
    let first = config.clients + LEASING_CLIENTS.min(config.clients);
    for client in first..first + LOCKING_CLIENTS.min(config.clients) {
        let mut at = between(&mut prng, 100_000, 1_500_000);
        while at < end {
            let lock = prng.below(LOCKS_MAX);
            let intent = match prng.below(20) {
                0..7 => Intent::Lock { lock, ttl_s: between(&mut prng, 1, 6) as i64 },
                7..11 => Intent::Guarded { lock },
                11..16 => Intent::KeepAlive,
                16..19 => Intent::Unlock { lock },
                _ => Intent::Revoke,
            };
            let patience_us = *pick(&mut prng, &[1_500_000, 4_000_000, 9_000_000]);
            let node = NodeId(between(&mut prng, 1, config.nodes));
            all.push(PlannedOperation { at, client, node, patience_us, intent });
            at += if percent(&mut prng, 8) { 7_000_000 } else { between(&mut prng, 50_000, 800_000) };
        }
    }
    all
}

fn draw(prng: &mut Prng, keys: u64, padding: u64, reads: u64, compactions: u64) -> Intent {
    let key = prng.below(keys);
    let serializable = percent(prng, 30);
    if percent(prng, compactions) {
        return Intent::Compact { back: prng.below(100) };
    }
    if percent(prng, reads) {
        return match prng.below(12) {
            0..=5 => Intent::Get { key, serializable },
            6 => Intent::GetPast { key, back: prng.below(200) },
            7 => Intent::Accounts { serializable },
            8 => Intent::Forks { serializable },
            _ => Intent::Range { from: key, until: key + 1 + prng.below(keys), serializable },
        };
    }
    match prng.below(26) {
        0..=7 => Intent::Put { key, padding: prng.below(padding + 1) },
        8..=9 => Intent::Delete { key },
        10 => Intent::DeleteRange { from: key, until: key + 1 + prng.below(3) },
        11..=14 => Intent::Swap { key },
        15..=17 => Intent::Append { list: prng.below(LISTS) },
        18..=20 => {
            let (from, step) = (prng.below(ACCOUNTS), 1 + prng.below(ACCOUNTS - 1));
            Intent::Transfer { from, to: (from + step) % ACCOUNTS, amount: 1 + prng.below(20), serializable }
        }
        21 => Intent::Pair { pair: prng.below(PAIRS_MAX), second: false },
        22 => Intent::Pair { pair: prng.below(PAIRS_MAX), second: true },
        23 => Intent::Unpair { pair: prng.below(PAIRS_MAX) },
        24 => Intent::Fork,
        _ => Intent::PutBoth { first: key, second: prng.below(keys) },
    }
}

/// The bytes of a key.
#[must_use]
pub fn key_bytes(key: u64) -> String {
    format!("k{key:02}")
}

/// The bytes of a list's key.
#[must_use]
pub fn list_bytes(list: u64) -> String {
    format!("{LISTS_PREFIX}{list}")
}

/// The bytes of an account's key.
pub(crate) fn account_bytes(account: u64) -> String {
    format!("{BANK}{account}")
}

/// The name of a lock.
pub(crate) fn lock_name(lock: u64) -> String {
    format!("{LOCKS}{lock}")
}

/// The bytes of the key that the holders of a lock write.
pub(crate) fn fence_bytes(lock: u64) -> String {
    format!("{FENCES}{lock}")
}

/// The first key behind all that begin with `prefix`, which ends in a slash.
pub(crate) fn prefix_end(prefix: &str) -> String {
    format!("{}0", prefix.trim_end_matches('/'))
}
