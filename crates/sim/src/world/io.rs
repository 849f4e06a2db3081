//! The io thread of a node's host: entries for followers that lag, snapshots out and in.

use std::collections::VecDeque;

use base::codec::put_bytes;
use base::{DecodeError, Fault, Index, Reader};
use bytes::Bytes;
use kernel::Mark;
use mvcc::Engine;
use node::{Event, SnapshotId};
use storage::wal::Loaded;

use super::{Happening, World};
use crate::counters::Counter;
use crate::ledger::EntryKey;
use crate::machine::{ApplyJob, GROUP, IoJob, decode_mark};
use crate::random::between;
use crate::report::FailureKind;

type Rows = Vec<(Bytes, Bytes)>;

impl World<'_> {
    pub(super) fn ask_io(&mut self, machine: usize, job: IoJob) {
        let Some(process) = &mut self.machines[machine].process else { return };
        process.io.push_back(job);
        self.work_on_io(machine);
    }

    fn work_on_io(&mut self, machine: usize) {
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        if process.io_busy || process.io.is_empty() {
            return;
        }
        process.io_busy = true;
        let duration = between(&mut self.chance.host, 30, 2000);
        self.schedule.after(duration, Happening::IoDone { machine, life });
    }

    pub(super) fn io_done(&mut self, machine: usize) {
        let Some(process) = &mut self.machines[machine].process else { return };
        process.io_busy = false;
        let Some(job) = process.io.pop_front() else { return };
        match self.carry_out_io(machine, job) {
            Ok(()) => self.work_on_io(machine),
            Err(fault) => self.stop(machine, &fault),
        }
    }

    fn carry_out_io(&mut self, machine: usize, job: IoJob) -> Result<(), Fault> {
        let chunk_bytes = self.plan.shape.chunk_bytes;
        let (at, node) = (self.now(), self.machines[machine].id);
        let state = &mut self.machines[machine];
        let Some(process) = &mut state.process else { return Ok(()) };
        match job {
            IoJob::Load(request) => {
                let loaded = process.reader.load(GROUP, request.from, request.until, request.bytes_max)?;
                let entries = match loaded {
                    Loaded::Entries(entries) => entries,
                    Loaded::Compacted(_) => Vec::new(),
                };
                let known = |entry: &&kernel::Entry| {
                    let written = state.ledger.durable.get(entry.index);
                    written.is_some_and(|written| *written != EntryKey::of(entry))
                        && state.ledger.appended.get(entry.index) == written
                };
                if let Some(wrong) = entries.iter().find(known) {
                    let detail = format!("{node} reads entry {} from its log as another one", wrong.index);
                    self.fail(FailureKind::Recovery, detail);
                }
                self.counters.count(Counter::Loads);
                self.tell(machine, Event::Loaded { group: GROUP, to: request.to, entries });
            }
            IoJob::SnapshotOpen(id) => {
                let view = state.engine.view();
                let mark = mvcc::mark(&*view)?.ok_or_else(|| Fault::Corrupt {
                    place: "the state of a leader".into(),
                    detail: "it has no log position".into(),
                })?;
                let mark = decode_mark(mark)?;
                process.outgoing.insert(id, VecDeque::from(state.engine.rows()));
                self.trace.note(at, 8, || format!("{node} opens a snapshot at {}", mark.position.index));
                self.counters.count(Counter::SnapshotsSent);
                self.tell(machine, Event::SnapshotOpened { id, mark });
            }
            IoJob::SnapshotRead(id) => {
                if let Some(rows) = process.outgoing.get_mut(&id) {
                    let (chunk, last) = next_chunk(rows, chunk_bytes);
                    self.tell(machine, Event::SnapshotChunk { id, chunk, last });
                }
            }
            IoJob::SnapshotClose(id) => drop(process.outgoing.remove(&id)),
            IoJob::SnapshotWrite { id, sequence, chunk } => {
                if sequence == 0 {
                    process.incoming.clear();
                    process.incoming.insert(id, Vec::new());
                }
                let Some(rows) = process.incoming.get_mut(&id) else { return Ok(()) };
                let event = match decode_chunk(chunk) {
                    Ok(more) => {
                        rows.extend(more);
                        Event::SnapshotWritten { id, sequence }
                    }
                    Err(_) => {
                        process.incoming.remove(&id);
                        Event::SnapshotFailed { id }
                    }
                };
                self.tell(machine, event);
            }
            IoJob::SnapshotInstall { id, mark } => {
                let Some(rows) = process.incoming.remove(&id) else {
                    self.tell(machine, Event::SnapshotFailed { id });
                    return Ok(());
                };
                process.apply.push_back(ApplyJob::Install { id, mark, rows });
                self.work_on_apply(machine);
            }
            IoJob::SnapshotDiscard(id) => drop(process.incoming.remove(&id)),
        }
        Ok(())
    }

    /// Makes received rows the state, atomically and durably.
    pub(super) fn install(&mut self, machine: usize, id: SnapshotId, mark: &Mark, rows: Rows) {
        if let Err(fault) = self.try_install(machine, id, mark, rows) {
            self.stop(machine, &fault);
        }
    }

    fn try_install(&mut self, machine: usize, id: SnapshotId, mark: &Mark, rows: Rows) -> Result<(), Fault> {
        let index = mark.position.index;
        let (at, before) = (self.now(), Self::applied(&self.machines[machine]));
        let node = self.machines[machine].id;
        if index < before {
            let detail = format!("{node} installs a snapshot at {index} over its state at {before}");
            self.fail(FailureKind::Agreement, detail);
        }
        let engine = Self::engine_from(rows)?;
        let found = mvcc::mark(&*engine.view())?.map(decode_mark).transpose()?;
        if found.as_ref().map(|mark| mark.position) != Some(mark.position) {
            self.tell(machine, Event::SnapshotFailed { id });
            return Ok(());
        }
        let state = &mut self.machines[machine];
        state.engine = engine;
        state.flush()?;
        let Some(process) = &mut state.process else { return Ok(()) };
        process.state = mvcc::Machine::open(&state.engine)?;
        state.directory.load(&*state.engine.view())?;
        process.handed = index.max(Index(process.handed.0));
        self.trace.note(at, 9, || format!("{node} installs a snapshot at {index}"));
        self.counters.count(Counter::SnapshotsInstalled);
        self.timeline.installs(node, at);
        let revision = process.state.state().revision;
        // What happened on the way there is in the history that came along.
        self.publish(machine, base::Revision(0), revision, None);
        self.compare_state(machine, index)?;
        self.follow_members(machine);
        let leases = mvcc::leases(&*self.machines[machine].engine.view())?;
        self.tell(machine, Event::LeasesLoaded { group: GROUP, leases });
        self.tell(machine, Event::SnapshotInstalled { id });
        Ok(())
    }
}

/// Takes rows off the front until the chunk is full; whether it is the last one.
fn next_chunk(rows: &mut VecDeque<(Bytes, Bytes)>, bytes_max: usize) -> (Bytes, bool) {
    let mut out = Vec::new();
    while let Some((key, value)) = rows.front() {
        if !out.is_empty() && out.len() + key.len() + value.len() > bytes_max {
            break;
        }
        put_bytes(&mut out, key);
        put_bytes(&mut out, value);
        rows.pop_front();
    }
    (out.into(), rows.is_empty())
}

fn decode_chunk(chunk: Bytes) -> Result<Rows, DecodeError> {
    let mut reader = Reader::new(chunk);
    let mut rows = Vec::new();
    while reader.remaining() > 0 {
        rows.push((reader.bytes("row key")?, reader.bytes("row value")?));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_carry_all_rows_in_order() {
        let rows: Rows = (0..20u8).map(|n| (Bytes::from(vec![n]), Bytes::from(vec![n; usize::from(n)]))).collect();
        let mut rest = VecDeque::from(rows.clone());
        let (mut found, mut chunks) = (Vec::new(), 0);
        loop {
            let (chunk, last) = next_chunk(&mut rest, 30);
            found.extend(decode_chunk(chunk).expect("own chunk"));
            chunks += 1;
            if last {
                break;
            }
        }
        assert_eq!(found, rows);
        assert!(chunks > 5, "{chunks} chunks");
    }
}
