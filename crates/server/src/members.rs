//! Who the members are and where they listen.
//!
//! The founders' ids are derived from the initial cluster, as etcd does: every node computes the same ones from the
//! same flags, so a cluster needs no coordinator to start. Whoever comes later is given an id by the cluster. What the
//! log has written down about members wins over the flags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{ClusterId, NodeId};
use mvcc::MemberRecord;

use crate::config::{Config, InitialMember};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    /// Empty as long as a new member was not met.
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
    /// It is to vote as soon as it has the others' data.
    pub(crate) promotes: bool,
}

/// What a member tells of itself when it is met.
#[derive(Debug, Clone, Default)]
struct Met {
    name: String,
    client_urls: Vec<String>,
}

#[derive(Debug, Default)]
struct Known {
    members: BTreeMap<NodeId, Arc<Member>>,
    removed: BTreeSet<NodeId>,
    met: BTreeMap<NodeId, Met>,
}

/// The members of the cluster, and what was learned of their client URLs.
#[derive(Debug)]
pub(crate) struct Directory {
    cluster: ClusterId,
    me: Arc<Member>,
    /// The flags this node is started with are those the cluster was founded with.
    is_founder: bool,
    known: Mutex<Known>,
    /// Moves whenever members change.
    version: AtomicU64,
}

impl Directory {
    /// The directory the flags describe: that of a cluster that is being founded.
    pub(crate) fn founders(config: &Config) -> Result<Self, String> {
        let token = &config.initial_cluster_token;
        let mut members = BTreeMap::new();
        for initial in &config.initial_cluster {
            let id = member_id(initial, token);
            let (name, peer_urls) = (initial.name.clone(), initial.peer_urls.clone());
            let member = Arc::new(Member { id, name, peer_urls, promotes: false });
            if let Some(twin) = members.insert(id, Arc::clone(&member)) {
                return Err(format!("--initial-cluster: {} and {} have the same peer urls", twin.name, member.name));
            }
        }
        let me = members
            .values()
            .find(|member| member.name == config.name)
            .cloned()
            .ok_or_else(|| format!("--initial-cluster has no member named {:?}", config.name))?;
        let ids: Vec<u8> = members.keys().flat_map(|id| id.0.to_be_bytes()).collect();
        let cluster = ClusterId(stable_hash(&[&ids, token.as_bytes()]));
        Ok(Self::new(cluster, me, members, true, config))
    }

    /// The directory of a member that came later: `members` is what others told it, itself left out or not.
    pub(crate) fn joined(config: &Config, cluster: ClusterId, id: NodeId, members: Vec<Member>) -> Self {
        let (name, peer_urls) = (config.name.clone(), config.initial_advertise_peer_urls.clone());
        let me = Arc::new(Member { id, name, peer_urls, promotes: false });
        let mut members: BTreeMap<_, _> = members.into_iter().map(|member| (member.id, Arc::new(member))).collect();
        members.insert(id, Arc::clone(&me));
        Self::new(cluster, me, members, false, config)
    }

    fn new(
        cluster: ClusterId,
        me: Arc<Member>,
        members: BTreeMap<NodeId, Arc<Member>>,
        is_founder: bool,
        config: &Config,
    ) -> Self {
        let mine = Met { name: me.name.clone(), client_urls: config.advertise_client_urls.clone() };
        let known = Known { members, removed: BTreeSet::new(), met: BTreeMap::from([(me.id, mine)]) };
        Self { cluster, me, is_founder, known: Mutex::new(known), version: AtomicU64::new(0) }
    }

    /// What the log has written down: nothing, as long as nobody came or went.
    pub(crate) fn load(&self, records: Vec<MemberRecord>) {
        if records.is_empty() {
            return;
        }
        let mut known = self.lock();
        (known.members, known.removed) = Default::default();
        for MemberRecord { id, name, peer_urls, promotes, removed } in records {
            if removed {
                known.removed.insert(id);
            } else {
                known.members.insert(id, Arc::new(Member { id, name, peer_urls, promotes }));
            }
        }
        drop(known);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Where others are, before the log has said it.
    pub(crate) fn meet(&self, members: Vec<Member>) {
        let mut known = self.lock();
        let others =
            members.into_iter().filter(|member| member.id != self.me.id && !known.removed.contains(&member.id));
        let others: Vec<_> = others.map(|member| (member.id, Arc::new(member))).collect();
        known.members.extend(others);
        drop(known);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Another number after each change of the members.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) fn me(&self) -> Arc<Member> {
        Arc::clone(&self.me)
    }

    pub(crate) fn is_founder(&self) -> bool {
        self.is_founder
    }

    /// All members, with their names as far as those are known.
    pub(crate) fn members(&self) -> Vec<Member> {
        let known = self.lock();
        known.members.values().map(|member| known.named(member)).collect()
    }

    pub(crate) fn member(&self, id: NodeId) -> Option<Member> {
        let known = self.lock();
        known.members.get(&id).map(|member| known.named(member))
    }

    /// The members as they are written down before the first of them changes.
    pub(crate) fn records(&self) -> Vec<MemberRecord> {
        let record = |member: Member| {
            let Member { id, name, peer_urls, promotes } = member;
            MemberRecord { id, name, peer_urls, promotes, removed: false }
        };
        self.members().into_iter().map(record).collect()
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.lock().members.contains_key(&id)
    }

    /// Whether it was a member once.
    pub(crate) fn was_removed(&self, id: NodeId) -> bool {
        self.lock().removed.contains(&id)
    }

    /// A member told its name, and where its clients may reach it.
    pub(crate) fn heard_from(&self, id: NodeId, name: String, client_urls: Vec<String>) {
        self.lock().met.insert(id, Met { name, client_urls });
    }

    /// Where clients reach the member; empty until it was heard from.
    pub(crate) fn client_urls(&self, id: NodeId) -> Vec<String> {
        self.lock().met.get(&id).map(|met| met.client_urls.clone()).unwrap_or_default()
    }

    /// An id for a new member: never given away before, in practice. `salt` is random.
    pub(crate) fn new_id(&self, peer_urls: &[String], salt: u64) -> NodeId {
        let urls = peer_urls.join(",");
        NodeId(stable_hash(&[urls.as_bytes(), &self.cluster.0.to_be_bytes(), &salt.to_be_bytes()]).max(1))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic cannot leave a map half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn named(&self, member: &Member) -> Member {
        let mut member = member.clone();
        if let Some(met) = self.met.get(&member.id).filter(|_| member.name.is_empty()) {
            member.name.clone_from(&met.name);
        }
        member
    }
}

fn member_id(member: &InitialMember, token: &str) -> NodeId {
    let mut urls = member.peer_urls.clone();
    urls.sort();
    let urls = urls.join(",");
    // Zero would mean "nobody".
    NodeId(stable_hash(&[urls.as_bytes(), token.as_bytes()]).max(1))
}

/// FNV-1a over length-prefixed parts, finished with SplitMix64's mixer. Part of what a data directory is known by: it
/// must never change.
fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in (part.len() as u64).to_le_bytes().iter().chain(*part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// `host:port` of an `http://host:port` URL.
pub(crate) fn host_and_port(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://")?;
    let host = rest.split('/').next()?;
    host.contains(':').then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        let member = InitialMember { name: "a".into(), peer_urls: vec!["http://127.0.0.1:2380".into()] };
        assert_eq!(member_id(&member, "etcd-cluster"), NodeId(0x5e12_0a6a_cbe6_505a));
        assert_ne!(member_id(&member, "other"), member_id(&member, "etcd-cluster"));
        assert_ne!(stable_hash(&[b"ab", b"c"]), stable_hash(&[b"a", b"bc"]));
    }

    #[test]
    fn peer_urls_become_addresses() {
        assert_eq!(host_and_port("http://h:1/x"), Some("h:1".into()));
        assert_eq!(host_and_port("http://h"), None);
        assert_eq!(host_and_port("https://h:1"), None);
    }
}
