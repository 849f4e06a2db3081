//! A second tree, filled with the rows of a snapshot in key order, and put in the place of the first.

use std::path::Path;
use std::sync::Arc;

use base::Fault;
use bytes::Bytes;
use kernel::Mark;
use lsm_tree::Cache;
use mvcc::engine::Batch;

use super::store::Store;
use super::{EngineOptions, MARK_KEY};

/// Rows written at a time.
const BATCH_BYTES: usize = 1 << 20;

/// Takes rows in ascending key order. Dropped unfinished, it leaves nothing behind.
pub struct EngineBuilder {
    store: Store,
    last: Option<Bytes>,
    batch: Batch,
    batch_bytes: usize,
}

/// A complete tree, durable, waiting for [`super::LsmEngine::install`]. Dropped, it leaves nothing behind.
pub struct Built(Box<Store>);

impl Built {
    /// From here on the files stay, whatever happens: the pointer may name them.
    pub(super) fn into_store(self) -> Store {
        self.0.spare();
        *self.0
    }
}

impl EngineBuilder {
    pub(super) fn new(root: &Path, number: u64, options: EngineOptions, cache: &Arc<Cache>) -> Result<Self, Fault> {
        let store = Store::create(root, number, options, cache)?;
        store.doom();
        Ok(Self { store, last: None, batch: Batch::default(), batch_bytes: 0 })
    }

    /// Adds rows; keys must ascend over all calls. The mark row, if it is among them, is left out: [`Self::finish`]
    /// writes it.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the order is broken: the rows come from another node. [`Fault::Io`].
    pub fn ingest(&mut self, rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), Fault> {
        for (key, value) in rows {
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(Fault::Corrupt {
                    place: "a snapshot that is being received".to_owned(),
                    detail: format!("row {key:?} does not follow {:?}", self.last),
                });
            }
            self.last = Some(key.clone());
            if key == MARK_KEY {
                continue;
            }
            self.batch_bytes += key.len() + value.len();
            self.batch.rows.push((key, Some(value)));
            if self.batch_bytes >= BATCH_BYTES {
                self.write()?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Fault> {
        self.batch_bytes = 0;
        self.store.write(std::mem::take(&mut self.batch))?;
        // The caller's maintenance thread does not know this tree. Rows arrive in order, so every flush is a run of its
        // own that only has to be moved down.
        if self.store.flush()? {
            while self.store.compact()? {}
        }
        Ok(())
    }

    /// The last key taken, from where a transfer that was interrupted goes on.
    #[must_use]
    pub const fn last(&self) -> Option<&Bytes> {
        self.last.as_ref()
    }

    /// Writes the mark and makes the tree durable.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn finish(mut self, mark: &Mark) -> Result<Built, Fault> {
        let mut row = Vec::new();
        kernel::wire::encode_mark(mark, &mut row);
        self.batch.rows.push((Bytes::from_static(MARK_KEY), Some(row.into())));
        self.write()?;
        self.store.seal();
        self.store.flush()?;
        assert!(!self.store.has_sealed(), "the tree is flushed");
        Ok(Built(Box::new(self.store)))
    }
}
