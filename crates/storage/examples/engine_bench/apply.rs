//! The load of a node: a state machine that applies puts in small batches, flushes and compactions behind it, and
//! clients that read meanwhile. Times are processor time of the thread, so that neighbours do not count.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::{Fault, Prng};
use bytes::Bytes;
use mvcc::engine::{Engine, View};
use mvcc::{Command, Machine, Put};
use rustix::time::{ClockId, clock_gettime};
use storage::engine::{LsmEngine, Pressure};

use crate::memory;

/// Puts in a batch, about what a round of a busy cluster carries.
const BATCH_PUTS: u64 = 12;
const VALUE_BYTES: usize = 256;
const SCAN_ROWS: usize = 50;
/// Point reads, and one scan, after which the reader pauses.
const READS: u64 = 10;

/// Processor time of this thread.
fn processor() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn key(number: u64) -> String {
    format!("bench/{number:010}")
}

struct Written {
    elapsed: Duration,
    machine: Duration,
    engine: Duration,
}

#[derive(Default)]
struct Read {
    gets: Vec<Duration>,
    scans: Vec<Duration>,
    get_processor: Duration,
    scan_processor: Duration,
}

/// Applies `puts` puts, to random ones of `keys` keys, or to a new key each if there are none.
pub(crate) fn run(name: &str, engine: &LsmEngine, puts: u64, keys: Option<u64>) -> Result<(), Fault> {
    let done = AtomicBool::new(false);
    let (done, space) = (&done, keys.unwrap_or(puts));
    std::thread::scope(|scope| {
        let repeat = |pause: Duration, work: fn(&LsmEngine) -> Result<bool, Fault>| -> Result<Duration, Fault> {
            while !done.load(Ordering::Acquire) {
                if !work(engine)? {
                    std::thread::sleep(pause);
                }
            }
            Ok(processor())
        };
        let flusher = scope.spawn(move || repeat(Duration::from_millis(3), LsmEngine::flush_sealed));
        let compactor = scope.spawn(move || repeat(Duration::from_millis(50), LsmEngine::compact));
        let reader = scope.spawn(move || read(engine, space, done));
        let written = write(engine, puts, keys)?;
        done.store(true, Ordering::Release);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / puts as f64;
        let flushed = flusher.join().expect("the thread does not panic")?;
        let compacted = compactor.join().expect("the thread does not panic")?;
        println!(
            "{name}: {:.0} puts/s; us per put: machine {:.2}, write {:.2}, flush {:.2}, compaction {:.2}; peak {} MiB",
            puts as f64 / written.elapsed.as_secs_f64(),
            each(written.machine),
            each(written.engine),
            each(flushed),
            each(compacted),
            memory("VmHWM"),
        );
        let mut read = reader.join().expect("the thread does not panic")?;
        report("get", &mut read.gets, read.get_processor);
        report("scan of 50", &mut read.scans, read.scan_processor);
        println!("  {:?}", engine.stats());
        Ok(())
    })
}

fn report(name: &str, times: &mut [Duration], processor: Duration) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!(
        "  {name}: {:.2} us of processor, p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, {} done",
        processor.as_secs_f64() * 1e6 / times.len() as f64,
        at(0.5),
        at(0.99),
        at(0.999),
        times.len()
    );
}

fn write(engine: &LsmEngine, puts: u64, keys: Option<u64>) -> Result<Written, Fault> {
    let mut prng = Prng::new(1);
    let mut machine = Machine::open(engine)?;
    let started = Instant::now();
    let mut written = Written { elapsed: Duration::ZERO, machine: Duration::ZERO, engine: Duration::ZERO };
    let mut value = vec![0u8; VALUE_BYTES];
    for batch in 0..puts / BATCH_PUTS {
        let mut commands = Vec::with_capacity(BATCH_PUTS as usize);
        for sub in 0..BATCH_PUTS {
            let number = keys.map_or(batch * BATCH_PUTS + sub, |keys| prng.below(keys));
            value[..8].copy_from_slice(&prng.next_u64().to_le_bytes());
            let put = Put { key: key(number).into(), value: Bytes::copy_from_slice(&value), ..Put::default() };
            commands.push(Command::Put(put));
        }
        while engine.write_stall() == Pressure::Full {
            std::thread::sleep(Duration::from_millis(1));
        }
        let begun = processor();
        let mut apply = machine.begin(engine.view())?;
        for command in &commands {
            apply.execute(command, true)?;
        }
        let (rows, _) = apply.finish(Bytes::from(vec![1; 40]));
        let executed = processor();
        engine.write(rows)?;
        written.machine += executed - begun;
        written.engine += processor() - executed;
    }
    written.elapsed = started.elapsed();
    Ok(written)
}

fn read(engine: &LsmEngine, keys: u64, done: &AtomicBool) -> Result<Read, Fault> {
    let mut prng = Prng::new(2);
    let mut read = Read::default();
    while !done.load(Ordering::Acquire) {
        let begun = processor();
        for _ in 0..READS {
            let row = format!("c{}", key(prng.below(keys)));
            let now = Instant::now();
            engine.view().get(row.as_bytes())?;
            read.gets.push(now.elapsed());
        }
        let got = processor();
        let row = format!("c{}", key(prng.below(keys)));
        let now = Instant::now();
        let view = engine.view();
        scan(&*view, row)?;
        read.scans.push(now.elapsed());
        read.get_processor += got - begun;
        read.scan_processor += processor() - got;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(read)
}

fn scan(view: &dyn View, from: String) -> Result<(), Fault> {
    let to = Bound::Excluded(Bytes::from_static(b"d"));
    view.scan(Bound::Included(from.into()), to).take(SCAN_ROWS).try_for_each(|row| row.map(drop))
}
