//! A network of this machine's own: each node in a network namespace, all on one bridge, links cut by routes.
//!
//! Invariant: a cut link says nothing. Bytes under way are neither refused nor reset, as when a cable is pulled.

use std::process::Command;

use crate::cluster::Cluster;

/// The bridge and the namespaces; gone when dropped.
pub(crate) struct Namespaces {
    /// Part of all names, so that runs side by side do not meet.
    run: u32,
    size: usize,
}

fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split_whitespace()).output().is_ok_and(|output| output.status.success())
}

impl Namespaces {
    /// Moves a cluster that is not started yet into namespaces; `None` if this machine does not permit it.
    pub(crate) fn around(cluster: &mut Cluster) -> Option<Self> {
        let namespaces = Self { run: std::process::id(), size: cluster.nodes.len() };
        if !namespaces.build() {
            return None;
        }
        let moves: Vec<(String, String)> = (cluster.nodes.iter().enumerate())
            .flat_map(|(at, node)| [node.client_port, node.peer_port].map(|port| (at, port)))
            .map(|(at, port)| (format!("127.0.0.1:{port}"), format!("{}:{port}", namespaces.address(at))))
            .collect();
        for (at, node) in cluster.nodes.iter_mut().enumerate() {
            for word in &mut node.flags {
                *word = moves.iter().fold(word.clone(), |word, (from, to)| word.replace(from, to));
            }
            node.host = namespaces.address(at);
            node.wrapper = ["ip", "netns", "exec"].map(str::to_owned).into();
            node.wrapper.push(namespaces.name(at));
        }
        Some(namespaces)
    }

    fn name(&self, at: usize) -> String {
        format!("sinew{}-{at}", self.run)
    }

    fn bridge(&self) -> String {
        format!("sx{}", self.run)
    }

    /// The third byte tells runs apart; the last is the node's place, after the bridge's own address.
    fn address(&self, at: usize) -> String {
        format!("10.213.{}.{}", self.run % 251, at + 2)
    }

    fn build(&self) -> bool {
        let bridge = self.bridge();
        let is_bridge = ip(&format!("link add {bridge} type bridge"))
            && ip(&format!("addr add 10.213.{}.1/24 dev {bridge}", self.run % 251))
            && ip(&format!("link set {bridge} up"));
        is_bridge && (0..self.size).all(|at| self.add(at))
    }

    fn add(&self, at: usize) -> bool {
        let (bridge, name, address) = (self.bridge(), self.name(at), self.address(at));
        let cable = format!("{bridge}v{at}");
        ip(&format!("netns add {name}"))
            && ip(&format!("link add {cable} type veth peer name eth0 netns {name}"))
            && ip(&format!("link set {cable} master {bridge} up"))
            && ip(&format!("-n {name} addr add {address}/24 dev eth0"))
            && ip(&format!("-n {name} link set eth0 up"))
            && ip(&format!("-n {name} link set lo up"))
    }

    /// Cuts or mends what goes from one node to another.
    fn route(&self, verb: &str, from: usize, to: usize) {
        let done = ip(&format!("-n {} route {verb} blackhole {}/32", self.name(from), self.address(to)));
        assert!(done, "cannot {verb} the route from {from} to {to}");
    }

    /// Pulls the cable between two nodes.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.route("add", one, other);
        self.route("add", other, one);
    }

    /// Puts it back.
    pub(crate) fn mend(&self, one: usize, other: usize) {
        self.route("del", one, other);
        self.route("del", other, one);
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What is not there cannot be removed, and need not be.
        for at in 0..self.size {
            ip(&format!("netns del {}", self.name(at)));
        }
        ip(&format!("link del {}", self.bridge()));
    }
}
