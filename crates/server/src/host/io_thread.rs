//! Slow reads and snapshots: log entries for followers that lag, chunks of snapshots in both directions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use base::{Fault, GroupId};
use bytes::Bytes;
use kernel::{LoadRequest, Mark};
use node::{Event, SnapshotId};
use storage::wal::Loaded;
use storage::{LsmEngine, SnapshotReader, SnapshotWriter, WalReader};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::host::applier::ApplyJob;

/// What the io thread is asked; the names are those of the node's effects.
pub(crate) enum IoJob {
    Load(GroupId, LoadRequest),
    SnapshotOpen(GroupId, SnapshotId),
    SnapshotRead(SnapshotId),
    SnapshotClose(SnapshotId),
    SnapshotWrite { group: GroupId, id: SnapshotId, sequence: u64, chunk: Bytes },
    SnapshotInstall { group: GroupId, id: SnapshotId, mark: Mark },
    SnapshotDiscard(SnapshotId),
}

pub(crate) struct IoThread {
    engines: BTreeMap<GroupId, Arc<LsmEngine>>,
    log: WalReader,
    node: UnboundedSender<Vec<Event>>,
    apply: UnboundedSender<ApplyJob>,
    outgoing: BTreeMap<SnapshotId, SnapshotReader>,
    incoming: BTreeMap<SnapshotId, SnapshotWriter>,
}

impl IoThread {
    pub(crate) fn new(
        engines: BTreeMap<GroupId, Arc<LsmEngine>>,
        log: WalReader,
        node: UnboundedSender<Vec<Event>>,
        apply: UnboundedSender<ApplyJob>,
    ) -> Self {
        Self { engines, log, node, apply, outgoing: BTreeMap::new(), incoming: BTreeMap::new() }
    }

    /// Runs until the jobs' sender is gone.
    pub(crate) fn run(mut self, jobs: &Receiver<IoJob>) -> Result<(), Fault> {
        while let Ok(job) = jobs.recv() {
            self.carry_out(job)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, job: IoJob) -> Result<(), Fault> {
        match job {
            IoJob::Load(group, request) => {
                let entries = match self.log.load(group, request.from, request.until, request.bytes_max)? {
                    Loaded::Entries(entries) => entries,
                    // Compacted meanwhile; the kernel turns to a snapshot.
                    Loaded::Compacted(_) => Vec::new(),
                };
                self.tell(Event::Loaded { group, to: request.to, entries });
            }
            IoJob::SnapshotOpen(group, id) => {
                let view = self.engines[&group].stream_view();
                let mark = mvcc::mark(&*view)?.ok_or_else(|| Fault::Corrupt {
                    place: String::from("the state of a leader"),
                    detail: String::from("it has no log position"),
                })?;
                let mark = kernel::wire::decode_mark(mark).map_err(|error| Fault::Corrupt {
                    place: String::from("the log position in the state"),
                    detail: error.to_string(),
                })?;
                info!(%group, index = %mark.position.index, "sending a snapshot");
                self.outgoing.insert(id, SnapshotReader::new(view));
                self.tell(Event::SnapshotOpened { id, mark });
            }
            IoJob::SnapshotRead(id) => {
                if let Some(outgoing) = self.outgoing.get_mut(&id)
                    && let Some(chunk) = outgoing.next_chunk()?
                {
                    self.tell(Event::SnapshotChunk { id, chunk: chunk.bytes, last: chunk.last });
                }
            }
            IoJob::SnapshotClose(id) => drop(self.outgoing.remove(&id)),
            IoJob::SnapshotWrite { group, id, sequence, chunk } => self.write(group, id, sequence, chunk)?,
            IoJob::SnapshotInstall { group, id, mark } => {
                let Some(incoming) = self.incoming.remove(&id) else {
                    self.tell(Event::SnapshotFailed { id });
                    return Ok(());
                };
                info!(%group, index = %mark.position.index, "installing a snapshot");
                let built = match incoming.finish().and_then(|builder| builder.finish(&mark)) {
                    Ok(built) => built,
                    Err(fault) => return self.give_up(id, fault),
                };
                // The apply thread is gone only while the process stops.
                drop(self.apply.send(ApplyJob::Install { group, id, built }));
            }
            IoJob::SnapshotDiscard(id) => drop(self.incoming.remove(&id)),
        }
        Ok(())
    }

    fn write(&mut self, group: GroupId, id: SnapshotId, sequence: u64, chunk: Bytes) -> Result<(), Fault> {
        if sequence == 0 {
            // One at a time: the new one takes the place, also on disk, of what an earlier sender left unfinished.
            self.incoming.clear();
            let builder = self.engines[&group].builder()?;
            self.incoming.insert(id, SnapshotWriter::new(builder));
        }
        let Some(incoming) = self.incoming.get_mut(&id) else { return Ok(()) };
        match incoming.take(chunk) {
            Ok(_) => self.tell(Event::SnapshotWritten { id, sequence }),
            Err(fault) => {
                self.incoming.remove(&id);
                return self.give_up(id, fault);
            }
        }
        Ok(())
    }

    /// What arrived damaged is the sender's trouble, a disk that fails is ours.
    fn give_up(&self, id: SnapshotId, fault: Fault) -> Result<(), Fault> {
        if matches!(fault, Fault::Io { .. }) {
            return Err(fault);
        }
        warn!(%fault, "a snapshot cannot be used; it will be sent again");
        self.tell(Event::SnapshotFailed { id });
        Ok(())
    }

    fn tell(&self, event: Event) {
        // The node thread is gone only while the process stops.
        drop(self.node.send(vec![event]));
    }
}
