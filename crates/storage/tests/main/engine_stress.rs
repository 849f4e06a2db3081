//! Readers, a writer and upkeep at the same time. The rows keep books: money moves between accounts, an entry says from
//! which to which, and whatever a reader sees must be the state after some batch.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Fault, Prng};
use bytes::Bytes;
use mvcc::engine::{Batch, Engine, View};
use storage::engine::{EngineOptions, LsmEngine, Pressure};

use crate::engine_basic::TINY;

const ACCOUNTS: u64 = 400;
const START: u64 = 1000;
const KEPT_ENTRIES: u64 = 50;

fn account(number: u64) -> Bytes {
    Bytes::from(format!("caccount/{number:08}"))
}

fn entry(number: u64) -> Bytes {
    [&b"r"[..], &number.to_be_bytes()].concat().into()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn amount(value: u64) -> Option<Bytes> {
    // An empty account has no row.
    (value > 0).then(|| value.to_be_bytes().repeat(8).into())
}

/// Batch `at`: a few transfers and one entry; the oldest entry goes.
struct Books {
    prng: Prng,
    balances: BTreeMap<u64, u64>,
    at: u64,
}

impl Books {
    fn opening(seed: u64) -> (Self, Batch) {
        let balances = (0..ACCOUNTS).map(|number| (number, START)).collect();
        let mut rows: Vec<_> = (0..ACCOUNTS).map(|number| (account(number), amount(START))).collect();
        rows.push((Bytes::from("mcount"), Some(0u64.to_be_bytes().to_vec().into())));
        (Self { prng: Prng::new(seed), balances, at: 0 }, Batch { rows })
    }

    fn next(&mut self) -> Batch {
        self.at += 1;
        let mut changed = BTreeMap::new();
        for _ in 0..self.prng.below(8) {
            let (from, to) = (self.prng.below(ACCOUNTS), self.prng.below(ACCOUNTS));
            let all = self.balances[&from];
            let moved = if self.prng.below(3) == 0 { all } else { self.prng.below(all + 1) };
            *self.balances.entry(from).or_default() -= moved;
            *self.balances.entry(to).or_default() += moved;
            changed.extend([from, to].map(|number| (account(number), amount(self.balances[&number]))));
        }
        let mut rows: Vec<_> = changed.into_iter().collect();
        rows.push((Bytes::from("mcount"), Some(self.at.to_be_bytes().to_vec().into())));
        if let Some(old) = self.at.checked_sub(KEPT_ENTRIES).filter(|old| *old > 0) {
            rows.push((entry(old), None));
        }
        rows.push((entry(self.at), Some(Bytes::from("transfer"))));
        Batch { rows }
    }
}

/// Whether the view shows the state after a whole batch, and the same from both ends. The number of that batch.
fn audit(view: &dyn View) -> Result<u64, String> {
    let rows: Result<Vec<_>, Fault> = view.scan(Bound::Unbounded, Bound::Unbounded).collect();
    let rows = rows.map_err(|fault| fault.to_string())?;
    let from = |first: u8| rows.iter().filter(move |(key, _)| key[0] == first);
    let total: u64 = from(b'c').map(|(_, value)| number(value)).sum();
    if total != ACCOUNTS * START {
        return Err(format!("{total} in all accounts"));
    }
    let count = from(b'm').map(|(_, value)| number(value)).next().ok_or("no count")?;
    let entries: Vec<_> = from(b'r').map(|(key, _)| number(&key[1..])).collect();
    let expected: Vec<_> = (count.saturating_sub(KEPT_ENTRIES) + 1..=count).collect();
    if entries != expected {
        return Err(format!("entries {entries:?} with a count of {count}"));
    }
    let mut back: Vec<_> = view.scan(Bound::Unbounded, Bound::Unbounded).rev().filter_map(Result::ok).collect();
    back.reverse();
    if back != rows {
        return Err(format!("{} rows forwards, {} backwards, or others", rows.len(), back.len()));
    }
    for (key, value) in rows.iter().step_by(17) {
        if view.get(key) != Ok(Some(value.clone())) {
            return Err(format!("a scan finds {key:?}, a read does not, or another value"));
        }
    }
    Ok(count)
}

/// Audits new views and old ones, again and again. The number of audits.
fn read(engine: &dyn Engine, seed: u64, done: &AtomicBool) -> Result<u64, String> {
    let mut prng = Prng::new(seed);
    let (mut kept, mut latest, mut audits): (Vec<(Box<dyn View>, u64)>, _, _) = (Vec::new(), 0, 0);
    while !done.load(Ordering::Acquire) {
        let view = engine.view();
        let count = audit(&*view)?;
        audits += 1;
        if count < latest {
            return Err(format!("batch {latest} was seen before, now {count}"));
        }
        latest = count;
        if kept.len() == 4 {
            let (view, count) = kept.swap_remove(prng.below(4) as usize);
            if audit(&*view)? != count {
                return Err(format!("a view of batch {count} moved"));
            }
        }
        kept.push((view, count));
    }
    Ok(audits)
}

/// Runs everything at once; what the readers found.
fn run(engine: &dyn Engine, lsm: &LsmEngine, batches: u64) -> Result<u64, String> {
    let (mut books, opening) = Books::opening(1);
    lsm.write(opening).expect("write");
    let done = AtomicBool::new(false);
    let done = &done;
    std::thread::scope(|scope| {
        let upkeep = |work: fn(&LsmEngine) -> Result<bool, Fault>| {
            while !done.load(Ordering::Acquire) {
                if !work(lsm).expect("upkeep") {
                    std::thread::yield_now();
                }
            }
        };
        let upkeep = [LsmEngine::flush_sealed, LsmEngine::compact].map(|work| scope.spawn(move || upkeep(work)));
        let readers = [1, 2, 3].map(|seed| scope.spawn(move || read(engine, seed, done)));
        for _ in 0..batches {
            while lsm.write_stall() == Pressure::Full {
                std::thread::yield_now();
            }
            engine.write(books.next()).expect("write");
            if readers.iter().any(|reader| reader.is_finished()) {
                break;
            }
        }
        done.store(true, Ordering::Release);
        for thread in upkeep {
            thread.join().expect("the thread does not panic");
        }
        let found = readers.map(|thread| thread.join().expect("the thread does not panic"));
        let audits = found.into_iter().sum::<Result<u64, String>>()?;
        let total = audit(&*engine.view())?;
        assert_eq!(total, books.at, "the last view shows the last batch");
        Ok(audits)
    })
}

fn open(directory: &std::path::Path) -> LsmEngine {
    LsmEngine::open(directory, EngineOptions { memtable_bytes: 64 << 10, ..TINY }).expect("open")
}

#[test]
fn readers_see_whole_batches_while_everything_runs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = open(dir.path());
    let audits = run(&engine, &engine, 6000).expect("the books agree");
    assert!(audits > 50, "only {audits} audits");
    assert!(engine.stats().tables > 0, "nothing was flushed");
}

/// An engine that shows batches half written: to the first reader who comes after each.
struct Halves<'a> {
    engine: &'a LsmEngine,
    half: Mutex<Option<Box<dyn View>>>,
}

impl Engine for Halves<'_> {
    fn view(&self) -> Box<dyn View> {
        self.half.lock().expect("lock").take().unwrap_or_else(|| self.engine.view())
    }

    fn write(&self, mut batch: Batch) -> Result<(), Fault> {
        let rest = batch.rows.split_off(batch.rows.len() / 2);
        self.engine.write(batch)?;
        let half = self.engine.view();
        self.engine.write(Batch { rows: rest })?;
        *self.half.lock().expect("lock") = Some(half);
        Ok(())
    }
}

#[test]
fn a_view_of_half_a_batch_is_noticed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = open(dir.path());
    let found = run(&Halves { engine: &engine, half: Mutex::new(None) }, &engine, 6000);
    let complaint = found.expect_err("half a batch was shown, and nobody noticed");
    assert!(complaint.contains("accounts") || complaint.contains("entries"), "{complaint}");
}
