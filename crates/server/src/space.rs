//! How much this member may store, and the alarm that is up while that is used up.
//!
//! Invariant: the log decides what is refused: an alarm that is up refuses the same commands on every member. This
//! member only raises its own when it has stored too much, and clears its own when there is room again. What frees
//! space is never refused.
//!
//! ```text
//! 80 %   a warning, and an attempt to make room: rewriting what was deleted since
//! 100 %  the alarm
//! 90 %   on the way down: the alarm is cleared
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{NodeId, Revision};
use mvcc::{Alarm, AlarmChange, AlarmKind, Command, Reject};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::gateway::Gateway;
use crate::host::maintenance::Upkeep;

/// How often the guard looks when nobody calls it.
const LOOK: Duration = Duration::from_millis(500);

/// The quota of this member, and the alarms of all.
pub(crate) struct Space {
    upkeep: Arc<Upkeep>,
    /// None: no limit.
    quota_bytes: Option<u64>,
    alarms: Mutex<Vec<Alarm>>,
    /// Whether an alarm of that kind is among them.
    no_space: AtomicBool,
    corrupt: AtomicBool,
    /// A write found the quota used up.
    full: Notify,
}

/// What the guard of a member's space is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Say that it gets tight, and try to make room.
    Warn,
    Raise,
    Clear,
}

/// What the guard remembers between two looks.
#[derive(Debug, Default)]
struct Watchfulness {
    /// It was said that space gets tight.
    warned: bool,
    /// Floor of the sweep when room was last made: nothing was freed since as long as it stands.
    made_room_at: Option<Revision>,
}

impl Space {
    pub(crate) fn new(upkeep: Arc<Upkeep>, quota_bytes: Option<u64>) -> Self {
        let (no_space, corrupt) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { upkeep, quota_bytes, alarms: Mutex::default(), no_space, corrupt, full: Notify::new() }
    }

    /// The quota; none if there is no limit.
    pub(crate) fn quota_bytes(&self) -> Option<u64> {
        self.quota_bytes
    }

    /// Takes a command in, unless it wants space and there is none. Refusing here what the log would refuse saves the
    /// way there.
    pub(crate) fn admit(&self, command: &Command) -> Result<(), Reject> {
        let bytes = command.space_bytes();
        if bytes == 0 {
            return Ok(());
        }
        if self.no_space.load(Ordering::Relaxed) {
            return Err(Reject::NoSpace);
        }
        if self.quota_bytes.is_some_and(|quota| self.upkeep.sizes.taken() + bytes > quota) {
            self.full.notify_one();
            return Err(Reject::NoSpace);
        }
        self.upkeep.sizes.coming(bytes);
        Ok(())
    }

    /// The log raised or cleared alarms.
    pub(crate) fn alarmed(&self, alarms: &[Alarm]) {
        let mut known = self.lock();
        if *known != alarms {
            alarms.clone_into(&mut known);
            let is_up = |kind: AlarmKind| alarms.iter().any(|alarm| alarm.kind == kind);
            self.no_space.store(is_up(AlarmKind::NoSpace), Ordering::Relaxed);
            self.corrupt.store(is_up(AlarmKind::Corrupt), Ordering::Relaxed);
        }
    }

    /// Whether a member is known to hold something else than the others.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// The alarms that are up.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Alarm>> {
        // A panic cannot leave the list half replaced.
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the figures leads to.
fn step(taken: u64, quota: u64, is_up: bool, warned: bool) -> Step {
    // Not `taken * 10`: quotas are arbitrary numbers.
    let percent = |percent: u64| quota / 100 * percent + quota % 100 * percent / 100;
    if is_up {
        return if taken <= percent(90) { Step::Clear } else { Step::Nothing };
    }
    if taken >= quota {
        return Step::Raise;
    }
    if taken > percent(80) && !warned { Step::Warn } else { Step::Nothing }
}

/// Raises and clears the alarm of this member until `stop` changes.
pub(crate) async fn guard(gateway: Gateway, mut stop: watch::Receiver<bool>) {
    let space = Arc::clone(&gateway.context.space);
    let Some(quota) = space.quota_bytes else { return };
    let mine = Alarm { member: gateway.context.directory.me().id, kind: AlarmKind::NoSpace };
    let mut mind = Watchfulness::default();
    loop {
        let called = tokio::select! {
            () = space.full.notified() => true,
            () = tokio::time::sleep(LOOK) => false,
            _ = stop.changed() => return,
        };
        let is_up = space.lock().contains(&mine);
        // A write that did not fit stands for the space it asked for.
        let taken = if called { quota } else { space.upkeep.sizes.taken() };
        match step(taken, quota, is_up, mind.warned) {
            Step::Nothing => {}
            Step::Warn => {
                warn!(
                    taken,
                    quota, "space gets tight: compact history and delete keys, or raise --quota-backend-bytes"
                );
                mind.warned = true;
                space.upkeep.make_room();
            }
            Step::Raise => change(&gateway, mine, true).await,
            Step::Clear => {
                mind.warned = false;
                change(&gateway, mine, false).await;
            }
        }
        make_room(&space, is_up, &mut mind);
    }
}

/// While the alarm is up: whatever a compaction of history has freed is given back at once.
fn make_room(space: &Space, is_up: bool, mind: &mut Watchfulness) {
    let swept = space.upkeep.swept_to();
    if is_up && mind.made_room_at != Some(swept) {
        mind.made_room_at = Some(swept);
        space.upkeep.make_room();
    }
    if !is_up {
        mind.made_room_at = None;
    }
}

async fn change(gateway: &Gateway, alarm: Alarm, raise: bool) {
    let Alarm { member: NodeId(member), .. } = alarm;
    match gateway.propose(&Command::Alarm(AlarmChange { alarm, raise })).await {
        Ok(_) if raise => warn!(
            member = %format_args!("{member:x}"),
            "quota used up: writes are refused until there is room again; delete keys and compact history"
        ),
        Ok(_) => info!(member = %format_args!("{member:x}"), "there is room again: writes are taken"),
        // Tried again at the next look.
        Err(status) => debug!(%status, raise, "the alarm could not be changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_goes_up_at_the_quota_and_down_only_when_there_is_room() {
        let table = [
            (0, false, false, Step::Nothing),
            (801, false, false, Step::Warn),
            (801, false, true, Step::Nothing),
            (999, false, true, Step::Nothing),
            (1000, false, true, Step::Raise),
            (1000, true, true, Step::Nothing),
            (901, true, true, Step::Nothing),
            (900, true, true, Step::Clear),
        ];
        for (taken, is_up, warned, expected) in table {
            assert_eq!(step(taken, 1000, is_up, warned), expected, "{taken} {is_up} {warned}");
        }
        assert_eq!(step(u64::MAX - 1, u64::MAX, false, false), Step::Warn);
    }

    #[test]
    fn what_wants_no_space_is_taken_whatever_is_up() {
        let space = Space::new(Upkeep::new(), Some(1000));
        let put = |bytes: usize| {
            Command::Put(mvcc::Put { key: "k".into(), value: vec![0; bytes].into(), ..mvcc::Put::default() })
        };
        assert_eq!(space.admit(&put(400)), Ok(()));
        assert_eq!(space.admit(&put(400)), Err(Reject::NoSpace), "it would not fit beside the first one");
        space.alarmed(&[Alarm { member: NodeId(9), kind: AlarmKind::NoSpace }]);
        assert_eq!(space.admit(&put(1)), Err(Reject::NoSpace), "another member is full");
        assert_eq!(space.admit(&Command::DeleteRange(mvcc::DeleteRange::default())), Ok(()));
        assert_eq!(space.admit(&Command::Compact(mvcc::Compact::default())), Ok(()));
        space.alarmed(&[]);
        assert_eq!(space.admit(&put(1)), Ok(()));
    }
}
