//! The contents of a file in memory: what is durable, what is not yet, and what never will be.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Prng;

use crate::disk::BLOCK_BYTES;

/// Unit of atomicity within a page.
pub(super) const SECTOR_BYTES: usize = 512;

/// Zeros take no memory.
type Page = Option<Arc<[u8; BLOCK_BYTES]>>;
type Pages = BTreeMap<u64, Page>;

/// A file without its name.
#[derive(Clone, Default)]
pub(super) struct Inode {
    durable: Pages,
    /// Written, not synced.
    dirty: Pages,
    /// Readable, but beyond saving.
    ghost: Pages,
    durable_size: u64,
    pub(super) size: u64,
}

fn bytes_of(page: &Page) -> [u8; BLOCK_BYTES] {
    page.as_ref().map_or([0; BLOCK_BYTES], |bytes| **bytes)
}

impl Inode {
    fn page(&self, number: u64) -> &Page {
        const ZEROS: &Page = &None;
        [&self.dirty, &self.ghost, &self.durable].into_iter().find_map(|pages| pages.get(&number)).unwrap_or(ZEROS)
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let within = (at % BLOCK_BYTES as u64) as usize;
            let len = (BLOCK_BYTES - within).min(into.len() - done);
            match self.page(at / BLOCK_BYTES as u64) {
                Some(page) => into[done..done + len].copy_from_slice(&page[within..within + len]),
                None => into[done..done + len].fill(0),
            }
            done += len;
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (number, within) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            let len = (BLOCK_BYTES - within).min(bytes.len() - done);
            let mut page = bytes_of(self.page(number));
            page[within..within + len].copy_from_slice(&bytes[done..done + len]);
            let page = if page.iter().all(|&byte| byte == 0) { None } else { Some(Arc::new(page)) };
            self.dirty.insert(number, page);
            done += len;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    /// A write that the drive acknowledges and loses.
    pub(super) fn write_lost(&mut self, offset: u64, bytes: &[u8]) {
        let earlier = self.dirty.clone();
        self.write(offset, bytes);
        let (first, last) = (offset / BLOCK_BYTES as u64, (offset + bytes.len() as u64) / BLOCK_BYTES as u64);
        for (number, page) in std::mem::replace(&mut self.dirty, earlier) {
            if (first..=last).contains(&number) {
                self.dirty.remove(&number);
                self.ghost.insert(number, page);
            }
        }
    }

    /// Inverts the bits of `mask` in one byte, wherever it is kept.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let (page, at) = (offset / BLOCK_BYTES as u64, (offset % BLOCK_BYTES as u64) as usize);
        for pages in [&mut self.durable, &mut self.dirty, &mut self.ghost] {
            if let Some(content) = pages.get_mut(&page) {
                let mut bytes = bytes_of(content);
                bytes[at] ^= mask;
                *content = Some(Arc::new(bytes));
            }
        }
    }

    pub(super) fn sync(&mut self) {
        for (number, page) in std::mem::take(&mut self.dirty) {
            // A page that was written again after its earlier content was lost is whole again.
            self.ghost.remove(&number);
            self.durable.insert(number, page);
        }
        self.durable_size = self.size;
    }

    pub(super) fn lose_dirty(&mut self) {
        self.ghost.append(&mut self.dirty);
    }

    pub(super) fn crash(&mut self, prng: &mut Prng, hard: bool) {
        self.ghost.clear();
        if hard {
            self.dirty.clear();
            self.size = self.durable_size;
            return;
        }
        // Sometimes all, sometimes none, mostly a mixture.
        let mood = prng.below(6);
        for (number, page) in std::mem::take(&mut self.dirty) {
            match if mood < 2 { mood } else { prng.below(3) } {
                0 => {}
                1 => {
                    self.durable.insert(number, page);
                }
                _ => {
                    let (new, mut torn) = (bytes_of(&page), bytes_of(self.durable.get(&number).unwrap_or(&None)));
                    for sector in (0..BLOCK_BYTES).step_by(SECTOR_BYTES) {
                        if prng.below(2) == 0 {
                            torn[sector..sector + SECTOR_BYTES].copy_from_slice(&new[sector..sector + SECTOR_BYTES]);
                        }
                    }
                    self.durable.insert(number, Some(Arc::new(torn)));
                }
            }
        }
        if mood == 0 || (mood > 1 && prng.below(2) == 0) {
            self.size = self.durable_size;
        }
        self.durable_size = self.size;
        let pages = self.size.div_ceil(BLOCK_BYTES as u64);
        self.durable.retain(|number, _| *number < pages);
    }
}
