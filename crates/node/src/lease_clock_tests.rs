//! The clock against its promises: never early, whatever leads when and however clocks drift; soon enough afterwards;
//! little work however many leases there are.

use proptest::prelude::*;

use super::*;

const START: Instant = Instant(1_000_000_000);

fn granted(id: i64, ttl_s: i64) -> LeaseChange {
    LeaseChange::Granted(Lease { id: LeaseId(id), instance: id.unsigned_abs(), ttl_s, remaining_s: 0 })
}

fn at(ms: u64) -> Instant {
    START + Duration::from_millis(ms)
}

fn leader() -> LeaseClock {
    let mut clock = LeaseClock::default();
    clock.promote(START);
    clock
}

/// What is over at `ms`, with leadership confirmed.
fn over(clock: &mut LeaseClock, ms: u64) -> Vec<i64> {
    clock.tick(at(ms));
    clock.check();
    clock.take_due(at(ms), usize::MAX).into_iter().map(|lease| lease.id.0).collect()
}

#[test]
fn a_lease_is_over_after_its_time_and_a_renewal_gives_it_all_its_time_again() {
    let mut clock = leader();
    clock.change(at(0), granted(1, 5));
    assert!(over(&mut clock, 4_999).is_empty());
    assert_eq!(clock.renew(at(4_999), LeaseId(1)), Renewal::Renewed(LeaseTimes { ttl_s: 5, remaining_s: 5 }));
    assert!(over(&mut clock, 9_900).is_empty());
    assert_eq!(over(&mut clock, 10_000), [1]);
    assert_eq!(clock.renew(at(10_000), LeaseId(1)), Renewal::Wait, "its end is proposed");
    clock.change(at(10_001), LeaseChange::Gone(LeaseId(1)));
    assert_eq!(clock.renew(at(10_001), LeaseId(1)), Renewal::NotFound);
    clock.check();
}

#[test]
fn a_renewal_saves_a_lease_that_is_due_and_not_yet_proposed() {
    let mut clock = leader();
    clock.change(at(0), granted(1, 5));
    clock.tick(at(6_000));
    assert!(clock.has_due());
    assert!(matches!(clock.renew(at(6_000), LeaseId(1)), Renewal::Renewed(_)));
    assert!(!clock.has_due());
    assert!(over(&mut clock, 10_900).is_empty());
    assert_eq!(over(&mut clock, 11_100), [1]);
}

#[test]
fn what_was_not_over_when_leadership_was_asked_for_waits_for_the_next_confirmation() {
    let mut clock = leader();
    clock.change(at(0), granted(1, 5));
    clock.tick(at(5_200));
    assert!(clock.take_due(at(4_999), 10).is_empty());
    assert_eq!(clock.take_due(at(5_000), 10).len(), 1);
}

#[test]
fn a_new_leader_gives_the_time_that_was_written_down_and_never_less() {
    let mut clock = LeaseClock::default();
    clock.change(at(0), granted(1, 1000));
    clock.change(at(0), granted(2, 1000));
    clock.change(at(400_000), LeaseChange::Checkpointed { id: LeaseId(1), remaining_s: 600 });
    clock.promote(at(2_000_000));
    assert!(over(&mut clock, 2_599_000).is_empty());
    assert_eq!(over(&mut clock, 2_600_000), [1]);
    assert!(over(&mut clock, 2_999_000).is_empty());
    assert_eq!(over(&mut clock, 3_000_000), [2]);
}

#[test]
fn a_leaders_own_note_does_not_shorten_its_clock() {
    let mut clock = LeaseClock::default();
    clock.change(at(0), granted(1, 1000));
    clock.promote(at(0));
    assert!(clock.take_checkpoints(at(299_000), 9).is_empty());
    let notes = clock.take_checkpoints(at(301_000), 9);
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].1, 699);
    // It comes back long after, and again.
    for ms in [500_000, 600_000] {
        clock.change(at(ms), LeaseChange::Checkpointed { id: LeaseId(1), remaining_s: 699 });
    }
    assert!(over(&mut clock, 999_000).is_empty());
    assert_eq!(over(&mut clock, 1_000_000), [1]);
}

#[test]
fn a_renewal_is_not_told_before_what_was_written_down_is_cleared() {
    let mut clock = leader();
    clock.change(at(0), granted(1, 1000));
    assert_eq!(clock.take_checkpoints(at(301_000), 9).len(), 1);
    assert_eq!(clock.renew(at(301_001), LeaseId(1)), Renewal::Wait, "the note is on its way");
    clock.change(at(301_002), LeaseChange::Checkpointed { id: LeaseId(1), remaining_s: 699 });
    assert_eq!(clock.renew(at(301_003), LeaseId(1)), Renewal::Wait, "the note is there");
    assert_eq!(clock.take_checkpoints(at(301_004), 9), [(LeaseInstance { id: LeaseId(1), instance: 1 }, 0)]);
    clock.change(at(301_005), LeaseChange::Checkpointed { id: LeaseId(1), remaining_s: 0 });
    assert!(matches!(clock.renew(at(301_006), LeaseId(1)), Renewal::Renewed(_)));
}

#[test]
fn a_lease_that_is_renewed_or_short_is_never_written_down() {
    let mut clock = leader();
    clock.change(at(0), granted(1, 600));
    clock.change(at(0), granted(2, 300));
    for minute in 1..60 {
        assert!(matches!(clock.renew(at(minute * 60_000), LeaseId(1)), Renewal::Renewed(_)));
        assert_eq!(clock.take_checkpoints(at(minute * 60_000), 9), []);
    }
}

#[test]
fn what_an_entry_left_over_is_due_again() {
    let mut clock = leader();
    clock.change(at(0), granted(1, 5));
    clock.change(at(0), granted(2, 5));
    clock.tick(at(5_100));
    let proposed = clock.take_due(at(5_100), 9);
    clock.change(at(5_200), LeaseChange::Gone(LeaseId(1)));
    clock.settle(&proposed);
    clock.check();
    assert_eq!(clock.take_due(at(5_200), 9), [LeaseInstance { id: LeaseId(2), instance: 2 }]);
}

#[test]
fn a_tick_looks_at_a_bounded_number_of_leases_and_comes_back_for_the_rest() {
    let mut clock = LeaseClock::default();
    let lease = |id| Lease { id: LeaseId(id), instance: 1, ttl_s: 5, remaining_s: 0 };
    clock.load(at(0), (1..=20_000).map(lease).collect());
    // After its places in the queue are long past a node comes to lead: all of them are looked at, none is over.
    clock.promote(at(60_000));
    let mut ticks = 0;
    let mut now = at(60_200);
    while clock.next_tick().is_some_and(|due| due <= now) {
        clock.tick(now);
        ticks += 1;
        assert!(!clock.has_due() && ticks < 10);
        now = now + Duration::from_millis(1);
    }
    assert_eq!(ticks, 5);
    clock.check();
    assert!(clock.next_tick().is_some_and(|due| due >= at(65_000)));
    clock.demote(at(65_000));
    clock.check();
}

#[test]
fn a_lease_takes_little_memory() {
    let bytes = size_of::<(LeaseId, Timed)>() + size_of::<(Instant, LeaseId)>();
    assert!(bytes <= 88, "{bytes} bytes for each lease, without the slack of the maps");
}

/// One thing that happens to a pair of nodes.
#[derive(Debug, Clone)]
enum Action {
    /// True time passes.
    Pass(u64),
    Grant(i64, i64),
    /// A client renews at the leader.
    Renew(i64),
    Revoke(i64),
    /// The other node leads from now on.
    ChangeLeader,
    /// Both look at the time; what the leader decides is applied by both.
    Work,
    /// What the leader proposes is lost with its leadership.
    LoseWork,
}

fn action() -> impl Strategy<Value = Action> {
    let id = || 1i64..5;
    let ttl = prop_oneof![2 => 2i64..20, 1 => Just(400i64), 1 => Just(1000i64)];
    prop_oneof![
        4 => (1u64..12_000).prop_map(Action::Pass),
        2 => (250_000u64..420_000).prop_map(Action::Pass),
        3 => (id(), ttl).prop_map(|(id, ttl)| Action::Grant(id, ttl)),
        6 => id().prop_map(Action::Renew),
        1 => id().prop_map(Action::Revoke),
        2 => Just(Action::ChangeLeader),
        8 => Just(Action::Work),
        1 => Just(Action::LoseWork),
    ]
}

/// Two nodes with clocks of different rates, and the truth.
struct World {
    clocks: [LeaseClock; 2],
    /// Millionths by which each clock is fast.
    rates: [i64; 2],
    leader: usize,
    true_us: u64,
    next_instance: u64,
    /// The table, with the true time of the last renewal a client was told of.
    truth: BTreeMap<LeaseId, (u64, i64, u64)>,
    early: Option<String>,
}

impl World {
    fn now(&self, node: usize) -> Instant {
        let shift = i128::from(self.true_us) * i128::from(self.rates[node]) / 1_000_000;
        Instant(u64::try_from(i128::from(START.0) + i128::from(self.true_us) + shift).unwrap())
    }

    fn apply(&mut self, change: LeaseChange) {
        for node in 0..2 {
            let now = self.now(node);
            self.clocks[node].change(now, change);
        }
    }

    fn end(&mut self, lease: LeaseInstance) {
        let Some(&(instance, ttl_s, renewed_us)) = self.truth.get(&lease.id) else { return };
        if instance != lease.instance {
            return;
        }
        let lived = self.true_us - renewed_us;
        if lived < ttl_s.unsigned_abs() * 990_000 {
            self.early = Some(format!("{lease:?} of {ttl_s} s ended after {lived} us"));
        }
        self.truth.remove(&lease.id);
        self.apply(LeaseChange::Gone(lease.id));
    }

    fn write_down(&mut self, notes: Vec<(LeaseInstance, i64)>) {
        for (lease, remaining_s) in notes {
            if self.truth.get(&lease.id).is_some_and(|(instance, ..)| *instance == lease.instance) {
                self.apply(LeaseChange::Checkpointed { id: lease.id, remaining_s });
            }
        }
    }

    fn act(&mut self, action: &Action) {
        let now = self.now(self.leader);
        match *action {
            Action::Pass(ms) => self.true_us += ms * 1000,
            Action::Grant(id, ttl_s) => {
                let id = LeaseId(id);
                if !self.truth.contains_key(&id) {
                    let instance = self.next_instance;
                    self.next_instance += 1;
                    self.truth.insert(id, (instance, ttl_s, self.true_us));
                    self.apply(LeaseChange::Granted(Lease { id, instance, ttl_s, remaining_s: 0 }));
                }
            }
            Action::Renew(id) => match self.clocks[self.leader].renew(now, LeaseId(id)) {
                Renewal::Renewed(_) => self.truth.get_mut(&LeaseId(id)).expect("the clock knows it").2 = self.true_us,
                Renewal::NotFound => assert!(!self.truth.contains_key(&LeaseId(id)), "{id} is lost"),
                Renewal::Wait => {}
            },
            Action::Revoke(id) => {
                if self.truth.remove(&LeaseId(id)).is_some() {
                    self.apply(LeaseChange::Gone(LeaseId(id)));
                }
            }
            Action::ChangeLeader => {
                self.clocks[self.leader].demote(now);
                self.leader = 1 - self.leader;
                let now = self.now(self.leader);
                self.clocks[self.leader].promote(now);
            }
            Action::Work => {
                let clock = &mut self.clocks[self.leader];
                let notes = clock.take_checkpoints(now, 2);
                clock.tick(now);
                let due = clock.take_due(now, 2);
                self.write_down(notes);
                for lease in &due {
                    self.end(*lease);
                }
                self.clocks[self.leader].settle(&due);
            }
            Action::LoseWork => {
                let clock = &mut self.clocks[self.leader];
                clock.take_checkpoints(now, 2);
                clock.tick(now);
                clock.take_due(now, 2);
                self.act(&Action::ChangeLeader);
            }
        }
        self.clocks.iter().for_each(LeaseClock::check);
    }
}

fn run(actions: &[Action], rates: [i64; 2]) -> Result<(), TestCaseError> {
    let mut world = World {
        clocks: [leader(), LeaseClock::default()],
        rates,
        leader: 0,
        true_us: 0,
        next_instance: 1,
        truth: BTreeMap::new(),
        early: None,
    };
    for action in actions {
        world.act(action);
        prop_assert_eq!(world.early.take(), None);
    }
    // Under one leader everything ends when its longest time has passed.
    world.act(&Action::Pass(1_100_000));
    for _ in 0..20 {
        world.act(&Action::Work);
        world.act(&Action::Pass(200));
    }
    prop_assert!(world.truth.is_empty(), "still there: {:?}", world.truth);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_lease_ends_early_whoever_leads_and_however_clocks_drift(
        actions in prop::collection::vec(action(), 1..80),
        rates in (-10_000i64..=10_000, -10_000i64..=10_000),
    ) {
        run(&actions, [rates.0, rates.1])?;
    }
}

#[test]
fn a_clock_beyond_its_bound_is_caught_ending_leases_early() {
    let actions = [Action::Grant(1, 20), Action::Pass(19_000), Action::Work];
    assert!(run(&actions, [0, 0]).is_ok());
    assert!(run(&actions, [100_000, 0]).is_err(), "a clock that is 10 % fast");
}
