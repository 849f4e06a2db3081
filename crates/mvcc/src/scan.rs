//! Which version of a key is visible at a moment: the newest one whose mod revision is not above it.
//!
//! Invariant: for every revision from the compaction floor on, the answer is the same before, during and after a sweep.

use std::ops::ControlFlow;

use base::Fault;
use bytes::Bytes;

use crate::engine::{Scan, View};
use crate::keys::{self, HistoryKey, Rank};
use crate::rows;
use crate::span::Span;

/// The version row of `key` visible at revision `at`, or in the latest state.
pub(crate) fn point(view: &dyn View, key: &[u8], at: Option<i64>) -> Result<Option<Bytes>, Fault> {
    let current = view.get(&keys::current(key))?;
    let Some(at) = at else { return Ok(current) };
    if let Some(row) = current
        && rows::read_header(&row)?.modified <= at
    {
        return Ok(Some(row));
    }
    let (from, to) = keys::history_until(key, at);
    let Some(newest) = view.scan(from, to).next_back() else { return Ok(None) };
    let (row_key, row) = newest?;
    Ok(visible(&keys::read_history(&row_key)?, row))
}

fn visible(found: &HistoryKey, row: Bytes) -> Option<Bytes> {
    match found.rank {
        Rank::Version => Some(row),
        // A transient row is always followed by what replaced it at the same revision.
        Rank::Tombstone | Rank::Transient => None,
    }
}

/// Calls `each` with key and version row of everything in `span` visible at revision `at`, or in the latest state, in
/// key order until it breaks. Latest reads touch current rows alone.
pub(crate) fn visit(
    view: &dyn View,
    span: &Span,
    at: Option<i64>,
    each: &mut dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, Fault>,
) -> Result<(), Fault> {
    if let Span::Key(key) = span {
        if let Some(row) = point(view, key, at)? {
            let _ = each(key.clone(), row)?;
        }
        return Ok(());
    }
    let (from, to) = keys::current_bounds(span);
    let current = view.scan(from, to);
    match at {
        None => {
            for found in current {
                let (row_key, row) = found?;
                if each(keys::user_key(&row_key), row)?.is_break() {
                    break;
                }
            }
            Ok(())
        }
        Some(at) => {
            let (from, to) = keys::history_bounds(span);
            let past = Past { rows: view.scan(from, to), pending: None, at };
            visit_past(current, past, at, each)
        }
    }
}

/// Merges current rows and history by key.
fn visit_past(
    mut current: Scan<'_>,
    mut past: Past<'_>,
    at: i64,
    each: &mut dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, Fault>,
) -> Result<(), Fault> {
    let mut next_current = take_current(&mut current)?;
    let mut next_past = past.take_key()?;
    loop {
        let order = match (&next_current, &next_past) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((current, _)), Some((past, _))) => current.cmp(past),
        };
        let mut found = None;
        if order.is_ge() {
            if let Some((key, Some(row))) = next_past {
                found = Some((key, row));
            }
            next_past = past.take_key()?;
        }
        if order.is_le() {
            if let Some((key, row)) = next_current
                && rows::read_header(&row)?.modified <= at
            {
                found = Some((key, row));
            }
            next_current = take_current(&mut current)?;
        }
        if let Some((key, row)) = found
            && each(key, row)?.is_break()
        {
            return Ok(());
        }
    }
}

fn take_current(current: &mut Scan<'_>) -> Result<Option<(Bytes, Bytes)>, Fault> {
    Ok(current.next().transpose()?.map(|(row_key, row)| (keys::user_key(&row_key), row)))
}

/// The history rows of a span, one key at a time.
struct Past<'a> {
    rows: Scan<'a>,
    /// The first row of the next key, already read.
    pending: Option<(HistoryKey, Bytes)>,
    at: i64,
}

impl Past<'_> {
    /// The next key that has history, with its version visible in history at `self.at`, if any.
    fn take_key(&mut self) -> Result<Option<(Bytes, Option<Bytes>)>, Fault> {
        let first = match self.pending.take() {
            Some(first) => first,
            None => match self.take_row()? {
                Some(first) => first,
                None => return Ok(None),
            },
        };
        let key = first.0.key.clone();
        let mut newest = None;
        let mut row = Some(first);
        while let Some((found, version)) = row {
            if found.key != key {
                self.pending = Some((found, version));
                break;
            }
            if found.revision <= self.at {
                newest = visible(&found, version);
            }
            row = self.take_row()?;
        }
        Ok(Some((key, newest)))
    }

    fn take_row(&mut self) -> Result<Option<(HistoryKey, Bytes)>, Fault> {
        let Some((row_key, row)) = self.rows.next().transpose()? else { return Ok(None) };
        Ok(Some((keys::read_history(&row_key)?, row)))
    }
}
