//! Who the members are and where they listen.
//!
//! Ids are derived from the initial cluster, as etcd does: every node computes the same ones from the same flags, so a
//! cluster needs no coordinator to start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{ClusterId, NodeId};

use crate::config::{Config, InitialMember};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
}

/// The members of the cluster, and what was learned of their client URLs.
#[derive(Debug)]
pub(crate) struct Directory {
    cluster: ClusterId,
    me: Arc<Member>,
    members: BTreeMap<NodeId, Arc<Member>>,
    client_urls: Mutex<BTreeMap<NodeId, Vec<String>>>,
}

impl Directory {
    /// The directory the flags describe.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let token = &config.initial_cluster_token;
        let mut members = BTreeMap::new();
        for initial in &config.initial_cluster {
            let id = member_id(initial, token);
            let member = Arc::new(Member { id, name: initial.name.clone(), peer_urls: initial.peer_urls.clone() });
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
        let client_urls = BTreeMap::from([(me.id, config.advertise_client_urls.clone())]);
        Ok(Self { cluster, me, members, client_urls: Mutex::new(client_urls) })
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) fn me(&self) -> Arc<Member> {
        Arc::clone(&self.me)
    }

    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        self.members.values().cloned().collect()
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.members.contains_key(&id)
    }

    /// A member told where its clients may reach it.
    pub(crate) fn heard_from(&self, id: NodeId, client_urls: Vec<String>) {
        self.lock().insert(id, client_urls);
    }

    /// Where clients reach the member; empty until it was heard from.
    pub(crate) fn client_urls(&self, id: NodeId) -> Vec<String> {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<String>>> {
        // A panic cannot leave the map half changed.
        self.client_urls.lock().unwrap_or_else(PoisonError::into_inner)
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
