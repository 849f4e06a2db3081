//! A random walk over a cluster of production replicas: messages lost, repeated and reordered, disks that lag and lose
//! what they had not synced, crashes, restarts, memberships changed at random, logs compacted, snapshots late. After
//! every step the invariants are checked; at the end everything is healed and the group must work.
//!
//! `WALK_SEEDS=from..until` replaces the few seeds of a usual run by others, for a longer one.
//!
//! The same walk with a defect planted must break an invariant: otherwise it would prove nothing.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base::{Ballot, Index, Instant, Prng, ReplicaId, planted};
use bytes::Bytes;
use kernel::{Body, Member, Membership, Message, Protocol, ReadId};

use crate::disk::Machine;
use crate::invariants::{Counts, Invariants};
use crate::world::{World, member};

/// A way in which an implementation can be wrong, brought in from outside the kernel.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Defect {
    None,
    /// Inside the kernel.
    Planted,
    /// Writes are reported durable when they are issued (etcd#14370).
    AckBeforeSync,
    /// A restart forgets the promise.
    VoteForgotten,
    /// Followers are told that entries of old ballots are committed because a quorum holds them (Raft figure 8).
    OldStampsCounted,
    /// A vote counts twice, so half of the voters elect.
    VoteCountedTwice,
    /// A follower acknowledges and commits up to its own last entry instead of the last one compared.
    UnverifiedSuffix,
    /// A longer log wins an election over a newer one.
    LengthBeforeStamp,
}

#[derive(Clone, Copy)]
struct Profile {
    protocol: Protocol,
    voters: u64,
    changes: bool,
    steps: usize,
    defect: Defect,
}

struct Walk {
    profile: Profile,
    random: Prng,
    world: World,
    invariants: Invariants,
    next_read: u64,
    next_value: u64,
    next_host: u64,
    /// Snapshots on their way.
    late: Vec<(u64, Ballot, Machine)>,
    retired: BTreeSet<u64>,
    /// Everyone that was ever part of a change.
    proposed: BTreeSet<u64>,
    /// Steps.
    taken: usize,
}

impl Walk {
    fn new(profile: Profile, seed: u64) -> Self {
        let mut world = World::new(profile.protocol, seed);
        world.auto_sync = false;
        world.auto_apply = false;
        world.lying_disk = profile.defect == Defect::AckBeforeSync;
        let members: Vec<Member> = (1..=profile.voters).map(member).collect();
        for number in 1..=profile.voters {
            world.add(number, Membership::initial(&members));
            // From its next start on; two of three walks know no preference.
            world.host(number).priority = if seed.is_multiple_of(3) { u8::try_from(number).expect("small") } else { 0 };
        }
        let mut walk = Self {
            profile,
            random: Prng::new(seed),
            world,
            invariants: Invariants::default(),
            next_read: 0,
            next_value: 0,
            next_host: profile.voters + 1,
            late: Vec::new(),
            retired: BTreeSet::new(),
            proposed: (1..=profile.voters).collect(),
            taken: 0,
        };
        while profile.changes && walk.world.hosts.len() < 6 {
            walk.add_host();
        }
        walk
    }

    fn add_host(&mut self) {
        self.world.add(self.next_host, Membership::default());
        self.next_host += 1;
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn pick(&mut self, from: &[u64]) -> u64 {
        from[usize::try_from(self.random.below(from.len() as u64)).expect("small")]
    }

    fn hosts(&self, up: bool) -> Vec<u64> {
        self.world.hosts.iter().filter(|(_, host)| host.replica.is_some() == up).map(|(number, _)| *number).collect()
    }

    fn step(&mut self) {
        let up = self.hosts(true);
        if up.is_empty() {
            return self.restart();
        }
        let anyone = self.pick(&up);
        let leaders = self.world.leaders();
        let leader = if leaders.is_empty() { anyone } else { self.pick(&leaders) };
        match self.random.below(1000) {
            0..450 => self.deliver(),
            450..560 => {
                self.world.sync_one(anyone);
                self.world.settle(anyone);
            }
            560..640 => {
                self.world.apply(anyone);
                self.world.settle(anyone);
            }
            // Elections make most defects matter.
            640..680 | 720..726 if self.profile.defect == Defect::Planted => self.world.timeout(anyone),
            640..720 => {
                self.world.now = Instant(self.world.now.0 + self.random.below(60_000));
                self.world.input(anyone, |replica, now| replica.tick(now));
            }
            720..726 => self.world.timeout(anyone),
            726..830 => self.propose(leader),
            // A leader that commits by mistake would know of it; this one does not, and its reads prove nothing.
            830..870 if self.profile.defect == Defect::OldStampsCounted => {}
            830..870 => self.read(if self.next_read.is_multiple_of(3) { anyone } else { leader }),
            870..880 => self.crash(anyone),
            880..910 => self.restart(),
            910..935 => self.change(leader),
            935..942 => {
                let to = ReplicaId(anyone);
                let _ = self.world.input(leader, |replica, now| replica.transfer_leadership(now, to));
            }
            942..955 => self.compact(anyone),
            955..975 => self.snapshot(),
            975..985 => self.world.flush(anyone),
            // Cuts make a walk slow, and no defect here needs them.
            985..987 if self.profile.defect == Defect::None => self.cut(anyone, leader),
            987..995 => self.world.cuts.clear(),
            _ => self.retire(),
        }
    }

    /// Heals all links, or cuts a replica off: wholly, or in one direction.
    fn cut(&mut self, anyone: u64, leader: u64) {
        self.world.cuts.clear();
        let host = if self.chance(50) { anyone } else { leader };
        let (mute, deaf) = (self.chance(60), self.chance(60));
        for other in self.world.hosts.keys().copied().filter(|other| *other != host) {
            self.world.cuts.extend(mute.then_some((host, other)));
            self.world.cuts.extend(deaf.then_some((other, host)));
        }
    }

    fn deliver(&mut self) {
        if self.world.net.is_empty() {
            return;
        }
        while self.world.net.len() > 80 {
            let at = self.random.below(self.world.net.len() as u64);
            self.world.net.swap_remove(usize::try_from(at).expect("small"));
        }
        let at = usize::try_from(self.random.below(self.world.net.len() as u64)).expect("small");
        // Mostly in order: otherwise nothing longer than a message or two ever gets through.
        let at = if self.chance(70) { 0 } else { at };
        let mut message = if self.chance(8) { self.world.net[at].clone() } else { self.world.net.remove(at) };
        if self.chance(4) || !self.world.is_up(message.to.0) {
            return;
        }
        let hostile = self.profile.defect == Defect::Planted;
        // A leader may send as few entries as it likes, a voter as little of its log.
        let entries = match &mut message.body {
            Body::Append { entries, .. } | Body::FetchLogReply { entries, .. } => Some(entries),
            Body::ElectReply { suffix, .. } => Some(&mut suffix.entries),
            _ => None,
        };
        if let Some(entries) = entries
            && self.chance(if hostile { 70 } else { 20 })
        {
            entries.truncate(usize::try_from(self.random.below(if hostile { 2 } else { 3 })).expect("small"));
        }
        if let Some(forged) = self.tamper(&mut message) {
            self.world.deliver(forged);
        }
        self.world.deliver(message);
    }

    /// Changes a message as a defect at its receiver or sender would, and may add another.
    fn tamper(&mut self, message: &mut Message) -> Option<Message> {
        let status = self.world.replica(message.to.0)?.status();
        let log = &self.world.hosts[&message.to.0].disk.written;
        let last = log.log.last_key_value().map_or(log.base, |(_, entry)| entry.position());
        let counted = self.counted(message.from.0);
        let sender = self.world.hosts.get(&message.from.0)?;
        match (self.profile.defect, &mut message.body) {
            // Entries go one by one: otherwise the marker that decides the old entry nearly always travels with it.
            (Defect::OldStampsCounted, Body::Append { commit, entries, .. }) => {
                entries.truncate(1);
                *commit = counted.max(*commit);
            }
            (Defect::VoteCountedTwice, Body::ElectReply { granted: true, .. }) => {
                let others = status.membership.all_voters();
                let mut others = others.filter(|voter| *voter != message.from && *voter != message.to);
                return others.next().map(|from| Message { from, ..message.clone() });
            }
            // Up to what the leader has at all, else the answer is refused as impossible.
            (Defect::UnverifiedSuffix, Body::Append { prev, entries, .. })
                if entries.is_empty()
                    && message.ballot >= status.ballot
                    && last.stamp <= message.ballot
                    && last.index > prev.index
                    && last.index <= sender.disk.written.last() =>
            {
                *prev = last;
            }
            (Defect::LengthBeforeStamp, Body::Elect { last: claimed, .. } | Body::PreVote { last: claimed, .. })
                if claimed.index >= last.index && last.stamp < message.ballot =>
            {
                claimed.stamp = claimed.stamp.max(last.stamp);
            }
            _ => {}
        }
        None
    }

    /// Up to where a quorum holds the leader's log, if the entry there is of an older ballot: what a leader would
    /// commit
    /// by mistake.
    fn counted(&self, leader: u64) -> Index {
        let Some(replica) = self.world.replica(leader).filter(|replica| replica.is_leader()) else { return Index(0) };
        let membership = replica.membership();
        let log = &self.world.hosts[&leader].disk.written.log;
        let held = |(index, entry): &(&Index, &kernel::Entry)| {
            let holds = |replica: &&ReplicaId| {
                let durable = self.world.hosts.get(&replica.0).map(|host| &host.disk.durable);
                durable.is_some_and(|d| d.base.index >= **index || d.log.get(index) == Some(entry))
            };
            [&membership.voters, &membership.outgoing]
                .iter()
                .all(|set| set.is_empty() || 2 * set.iter().filter(holds).count() > set.len())
        };
        let ballot = replica.status().ballot;
        let top = log.iter().rev().find(held).filter(|(_, entry)| entry.stamp < ballot);
        top.map_or(Index(0), |(index, _)| *index)
    }

    fn propose(&mut self, leader: u64) {
        self.next_value += 1;
        let value = Bytes::from(self.next_value.to_string());
        let _ = self.world.input(leader, |replica, now| replica.propose(now, value));
    }

    fn read(&mut self, host: u64) {
        self.next_read += 1;
        let id = ReadId(self.next_read);
        self.invariants.observe(&mut self.world);
        self.invariants.read_asked(host, id);
        if self.world.input(host, |replica, now| replica.read(now, id)).is_err() {
            self.invariants.read_refused(host, id);
        }
    }

    fn crash(&mut self, host: u64) {
        // The log on disk keeps the records of a turn together. Only Paxos-Raft needs that.
        let torn = usize::try_from(self.random.below(4)).expect("small");
        self.world.crash(host, torn);
        self.invariants.forget_reads(host);
    }

    fn restart(&mut self) {
        let down = self.hosts(false);
        if down.is_empty() {
            return;
        }
        let host = self.pick(&down);
        if self.profile.defect == Defect::VoteForgotten {
            let image = &mut self.world.host(host).disk.durable;
            let newest = image.log.last_key_value().map_or(image.base.stamp, |(_, entry)| entry.stamp);
            image.promised = newest;
            self.world.host(host).disk.written.promised = newest;
        }
        self.invariants.counts.restarts += 1;
        self.world.start(host);
    }

    fn change(&mut self, leader: u64) {
        let Some(replica) = self.world.replica(leader) else { return };
        if !self.profile.changes || !replica.is_leader() {
            return;
        }
        let base = replica.membership().index;
        // A replica that was removed never comes back under the same name.
        let current = replica.membership().clone();
        let fresh = |walk: &Self, host: &u64| {
            let spent = walk.proposed.contains(host) && !current.contains(ReplicaId(*host));
            !spent && !walk.retired.contains(host)
        };
        while self.world.hosts.keys().filter(|host| fresh(self, host)).count() < 4 {
            self.add_host();
        }
        let mut pool: Vec<u64> = self.world.hosts.keys().copied().filter(|host| fresh(self, host)).collect();
        let mut voters = Vec::new();
        let mut learners = Vec::new();
        for _ in 0..=self.random.below(3) {
            let chosen = self.pick(&pool);
            pool.retain(|host| *host != chosen);
            voters.push(member(chosen));
            if pool.is_empty() {
                break;
            }
        }
        if !pool.is_empty() && self.chance(50) {
            learners.push(member(self.pick(&pool)));
        }
        let chosen = voters.iter().chain(&learners).map(|member| member.replica.0);
        self.proposed.extend(chosen);
        let _ = self.world.input(leader, |replica, now| replica.change_membership(now, base, &voters, &learners));
    }

    /// Those that a decided membership left out never come back under the same name; their hosts go in the end.
    fn retire(&mut self) {
        let decided = self.world.hosts.values().filter_map(|host| Some(&host.replica.as_ref()?.mark().membership));
        let flushed = self.world.hosts.values().map(|host| &host.machine.mark.membership);
        let Some(newest) = decided.chain(flushed).max_by_key(|membership| membership.index).cloned() else { return };
        for membership in self.world.hosts.values().map(|host| &host.machine.mark.membership) {
            self.invariants.members_ever.extend(membership.replicas());
        }
        let ever = &mut self.invariants.members_ever;
        let gone: Vec<u64> = ever.iter().filter(|replica| !newest.contains(**replica)).map(|r| r.0).collect();
        ever.extend(newest.replicas());
        self.retired.extend(gone);
        let removed = |host: &u64| self.world.replica(*host).is_some_and(|r| r.status().removed.is_some());
        let Some(host) = self.hosts(true).into_iter().find(removed) else { return };
        self.retired.insert(host);
        // Whoever decided it may have crashed since, so that none of those that run holds it any more.
        let index = self.world.replica(host).and_then(|replica| replica.status().removed).expect("is removed");
        assert!(self.invariants.is_decided_membership(index), "{host} believes to be removed by {index}");
        let outdated = newest.index < index;
        assert!(outdated || !newest.contains(ReplicaId(host)), "{host} believes to be removed from {newest:?}");
        self.invariants.counts.removed += 1;
        self.invariants.forget_reads(host);
        self.world.hosts.remove(&host);
        self.world.net.retain(|message| message.from.0 != host && message.to.0 != host);
        self.add_host();
    }

    fn compact(&mut self, host: u64) {
        if self.chance(50) {
            self.world.flush(host);
        }
        let flushed = self.world.hosts[&host].disk.flushed.mark.position.index;
        self.world.input(host, |replica, _| replica.compact(flushed));
    }

    /// A snapshot is wanted, fails, is taken, arrives late, or twice.
    fn snapshot(&mut self) {
        if let Some((from, to)) = self.world.snapshots.pop() {
            if !self.world.is_up(from) {
                return;
            }
            if self.chance(30) {
                return self.world.input(from, |replica, _| replica.snapshot_failed(ReplicaId(to)));
            }
            let ballot = self.world.replica(from).expect("is up").status().ballot;
            self.late.push((to, ballot, self.world.hosts[&from].machine.clone()));
        }
        if self.late.is_empty() || self.chance(30) {
            return;
        }
        let at = usize::try_from(self.random.below(self.late.len() as u64)).expect("small");
        let (to, ballot, machine) = if self.chance(20) { self.late[at].clone() } else { self.late.swap_remove(at) };
        if self.world.is_up(to) && self.world.install(to, ballot, machine) {
            self.invariants.counts.snapshots += 1;
        }
    }

    fn run(&mut self) {
        for step in 0..self.profile.steps {
            self.step();
            self.taken += 1;
            self.invariants.observe(&mut self.world);
            if step % 50 == 0 {
                self.invariants.compare_logs(&self.world);
            }
        }
        self.invariants.compare_logs(&self.world);
        if self.profile.defect == Defect::None {
            self.heal();
        }
    }

    /// I15: with everything up and connected, the group elects, decides, answers every read and becomes equal.
    fn heal(&mut self) {
        self.world.auto_sync = true;
        self.world.auto_apply = true;
        self.world.cuts.clear();
        for host in self.hosts(false) {
            self.world.start(host);
        }
        for host in self.hosts(true) {
            while self.world.sync_one(host) {}
            self.world.apply(host);
            self.world.settle(host);
        }
        // No snapshot is on its way any more.
        for leader in self.world.leaders() {
            for to in self.world.hosts.keys().copied().collect::<Vec<_>>() {
                self.world.input(leader, |replica, _| replica.snapshot_failed(ReplicaId(to)));
            }
        }
        let before = self.invariants.decided();
        let mut proposed = None;
        for _ in 0..60 {
            self.world.run(Duration::from_millis(500));
            self.invariants.observe(&mut self.world);
            for (from, to) in std::mem::take(&mut self.world.snapshots) {
                let wanted = self.world.transfer_snapshot(from, to);
                if !wanted && self.world.is_up(from) {
                    self.world.input(from, |replica, _| replica.snapshot_failed(ReplicaId(to)));
                }
            }
            if let (None, Some(leader)) = (proposed, self.world.leaders().first()) {
                let leader = *leader;
                proposed = self.world.input(leader, |replica, now| replica.propose(now, "end".into())).ok();
            }
        }
        self.invariants.observe(&mut self.world);
        assert!(proposed.is_some(), "I15: no leader takes proposals: {:#?}", self.world.status());
        assert!(self.invariants.decided() > before, "I15: nothing is decided: {:#?}", self.world.status());
        assert!(self.invariants.reads_open() == 0, "I15: a read hangs");
        let leader = *self.world.leaders().last().expect("a leader");
        let truth = &self.world.hosts[&leader].machine;
        for replica in truth.mark.membership.replicas() {
            if let Some(host) = self.world.hosts.get(&replica.0) {
                assert!(
                    host.machine.agrees_with(truth),
                    "I15: {replica} differs: {:?} and {:?}",
                    host.machine.mark,
                    truth.mark
                );
            }
        }
    }
}

/// `WALK_SEEDS`, if it is set.
#[expect(clippy::disallowed_methods, reason = "a test has no edge but its own environment")]
fn other_seeds() -> Option<std::ops::Range<u64>> {
    let text = std::env::var("WALK_SEEDS").ok()?;
    let range = text.split_once("..").and_then(|(from, until)| Some(from.parse().ok()?..until.parse().ok()?));
    Some(range.unwrap_or_else(|| panic!("WALK_SEEDS={text} is not from..until")))
}

/// What was met, and how much time the hosts lived through.
fn walk(profile: Profile, seeds: std::ops::Range<u64>) -> (Counts, Duration) {
    let (mut counts, mut lived) = (Counts::default(), Duration::ZERO);
    for seed in other_seeds().unwrap_or(seeds) {
        let mut walk = Walk::new(profile, seed);
        let result = catch_unwind(AssertUnwindSafe(|| walk.run()));
        counts.add(&walk.invariants.counts);
        lived += walk.world.now.since(Instant::default());
        assert!(result.is_ok(), "seed {seed} with {} voters breaks an invariant", profile.voters);
    }
    (counts, lived)
}

const STEPS: usize = 4000;

fn assert_rich(counts: &Counts, changes: bool) {
    assert!(counts.leaders > 50 && counts.chosen > 500 && counts.reads > 50, "a walk that goes nowhere: {counts:?}");
    assert!(counts.snapshots > 5 && counts.restarts > 50 && counts.refused_reads > 5, "nothing happened: {counts:?}");
    assert!(!changes || counts.configs > 20, "no membership changed: {counts:?}");
}

/// Three voters, five, and memberships that change.
#[expect(clippy::print_stdout, reason = "beside the time that the test took it says how fast the kernel is alone")]
fn every_invariant_holds(protocol: Protocol) {
    let profile = Profile { protocol, voters: 3, changes: false, steps: STEPS, defect: Defect::None };
    let mut lived = Duration::ZERO;
    for (profile, seeds) in [
        (profile, 0..100),
        (Profile { voters: 5, ..profile }, 1000..1050),
        (Profile { changes: true, ..profile }, 2000..2150),
    ] {
        let (counts, time) = walk(profile, seeds);
        assert_rich(&counts, profile.changes);
        lived += time;
    }
    println!("{protocol:?}: {} s simulated", lived.as_secs());
}

#[test]
fn raft_keeps_every_invariant() {
    every_invariant_holds(Protocol::Raft);
}

#[test]
fn multi_paxos_keeps_every_invariant() {
    every_invariant_holds(Protocol::MultiPaxos);
}

#[test]
fn zab_keeps_every_invariant() {
    every_invariant_holds(Protocol::Zab);
}

#[test]
fn paxos_raft_keeps_every_invariant() {
    every_invariant_holds(Protocol::PaxosRaft);
}

/// Runs seeds until the planted defect breaks one of the invariants that are about it.
fn must_break(voters: u64, defect: Defect, seeds: u64, invariants: &[&str]) {
    let profile = Profile { protocol: Protocol::Raft, voters, changes: false, steps: STEPS, defect };
    let mut others = BTreeSet::new();
    for seed in 0..seeds {
        let mut walk = Walk::new(profile, 10_000 + seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| walk.run())) {
            let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            if invariants.iter().any(|invariant| words.starts_with(invariant)) {
                return;
            }
            others.insert(words);
        }
    }
    panic!("{defect:?} was not noticed in {seeds} runs, other breaches: {others:?}");
}

/// Agreement, a leader without something decided, something decided without a quorum.
const AGREEMENT: [&str; 4] = ["I3:", "I5:", "I7:", "I8:"];

#[test]
fn planted_acknowledgement_before_sync_is_caught() {
    must_break(3, Defect::AckBeforeSync, 5, &["I10:"]);
}

#[test]
fn planted_forgotten_vote_is_caught() {
    must_break(3, Defect::VoteForgotten, 1000, &AGREEMENT);
}

#[test]
fn planted_commit_of_old_stamps_is_caught() {
    must_break(3, Defect::OldStampsCounted, 8000, &AGREEMENT);
}

#[test]
fn planted_quorum_of_half_is_caught() {
    must_break(5, Defect::VoteCountedTwice, 1000, &AGREEMENT);
}

#[test]
fn planted_unverified_suffix_is_caught() {
    must_break(3, Defect::UnverifiedSuffix, 1000, &AGREEMENT);
}

#[test]
fn planted_length_before_stamp_is_caught() {
    must_break(3, Defect::LengthBeforeStamp, 1000, &AGREEMENT);
}

/// Runs seeds with a defect planted inside the kernel until one of the invariants notices.
#[expect(clippy::print_stdout, reason = "how soon a defect is noticed is worth knowing")]
fn must_notice(protocol: Protocol, defect: planted::Defect, seeds: u64) {
    let profile = Profile { protocol, voters: 3, changes: false, steps: STEPS, defect: Defect::Planted };
    for seed in 0..seeds {
        let mut walk = Walk::new(profile, 20_000 + seed);
        planted::plant(Some(defect));
        let result = catch_unwind(AssertUnwindSafe(|| walk.run()));
        planted::plant(None);
        if let Err(panic) = result {
            let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            let words = words.split([',', '{']).next().unwrap_or_default();
            println!("{} in {protocol}: noticed by seed {seed} after {} steps: {words}", defect.id(), walk.taken);
            return;
        }
    }
    panic!("{} was not noticed in {seeds} runs", defect.id());
}

#[test]
fn what_raft_must_not_do_is_noticed() {
    use planted::Defect;
    for defect in [Defect::CommitOldStamp, Defect::EarlyAppendAck] {
        must_notice(Protocol::Raft, defect, 1000);
    }
}

#[test]
fn what_multi_paxos_must_not_do_is_noticed() {
    use planted::Defect;
    let defects = [
        Defect::IgnoreHighestStamp,
        Defect::BallotReused,
        Defect::NoOpFill,
        Defect::VoteBeyondRange,
        Defect::PaxosTruncates,
        Defect::PaxosWholeLog,
    ];
    for defect in defects {
        must_notice(Protocol::MultiPaxos, defect, 1000);
    }
}

#[test]
fn what_zab_must_not_do_is_noticed() {
    use planted::Defect;
    for defect in [Defect::EpochApart, Defect::EarlySyncAck, Defect::NoSyncBarrier] {
        must_notice(Protocol::Zab, defect, 1000);
    }
}

#[test]
fn what_paxos_raft_must_not_do_is_noticed() {
    use planted::Defect;
    for defect in [Defect::AcceptedIgnored, Defect::RaftVoteRule, Defect::NoCoverage] {
        must_notice(Protocol::PaxosRaft, defect, 1000);
    }
}
