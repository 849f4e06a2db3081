//! Phases of load against a scripted server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::etcdserverpb::{PutResponse, ResponseHeader};
use prost::Message;

use super::{Drive, Outcome, run};
use crate::bench::client::{CallError, Channel};
use crate::bench::fake_server::{Reply, start};
use crate::bench::keys::{KeyPattern, KeySpace};
use crate::bench::progress::Progress;
use crate::bench::workload::{Generator, Shape, Workload};

fn closed(clients: usize, duration_ms: u64) -> Drive {
    let duration = Duration::from_millis(duration_ms);
    Drive { clients, duration, total: None, rate: None, timeout: Duration::from_secs(5) }
}

fn put_answer() -> Vec<u8> {
    PutResponse { header: Some(ResponseHeader { revision: 2, ..ResponseHeader::default() }), ..PutResponse::default() }
        .encode_to_vec()
}

fn generator() -> Generator {
    let keys = KeySpace::new("bench/", 32, 100).unwrap();
    let shape = Shape { keys, pattern: KeyPattern::Random, value_bytes: 64, range_keys: 1, read_ratio: 0.5, seed: 1 };
    let mut generator = Generator::new(shape, false);
    generator.select(Workload::Put);
    generator
}

/// Drives a server that answers as scripted; `interrupt_after` is the user's Ctrl-C.
fn drive(
    drive: &Drive,
    interrupt_after: Option<Duration>,
    script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channels = [Channel::connect(&[start(script).await], 0).await.unwrap()];
        let progress = Progress::silent();
        let interrupted = Arc::new(AtomicBool::new(false));
        if let Some(pause) = interrupt_after {
            let interrupted = Arc::clone(&interrupted);
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                interrupted.store(true, Ordering::Relaxed);
            });
        }
        let phase = run(drive, &channels, generator(), None, &progress, &interrupted);
        tokio::time::timeout(Duration::from_secs(30), phase).await.unwrap().unwrap().0
    })
}

#[test]
fn a_total_is_met_exactly() {
    let outcome = drive(&Drive { total: Some(250), ..closed(7, 20_000) }, None, |_, _| Reply::Message(put_answer()));
    assert_eq!((outcome.succeeded, outcome.completed, outcome.failed), (250, 250, 0));
    assert_eq!(outcome.latency_ns.len(), 250);
    assert!(outcome.elapsed < Duration::from_secs(20), "time counts until the last answer: {:?}", outcome.elapsed);
}

#[test]
fn a_phase_stops_at_its_deadline() {
    let started = Instant::now();
    let outcome = drive(&closed(3, 300), None, |_, _| Reply::Message(put_answer()));
    assert_eq!(outcome.elapsed, Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(outcome.succeeded > 3 && outcome.completed <= outcome.succeeded);
}

#[test]
fn failures_are_counted_by_text_and_not_as_throughput() {
    let outcome = drive(&Drive { total: Some(10), ..closed(1, 20_000) }, None, |number, _| match number % 5 {
        0 => Reply::HeadersOnly("14", "no leader"),
        1 => Reply::HeadersOnly("8", "too many requests"),
        _ => Reply::Message(put_answer()),
    });
    assert_eq!((outcome.succeeded, outcome.failed, outcome.latency_ns.len()), (6, 4, 6));
    let expected = [("ResourceExhausted: too many requests".to_owned(), 2), ("Unavailable: no leader".to_owned(), 2)];
    assert_eq!(outcome.errors.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn silence_times_out_and_does_not_hold_the_phase() {
    let started = Instant::now();
    let impatient = Drive { timeout: Duration::from_millis(100), ..closed(4, 250) };
    let outcome = drive(&impatient, None, |_, _| Reply::Silence);
    assert_eq!(outcome.succeeded, 0);
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["no answer in time"]);
    assert!(outcome.failed >= 4 && started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_lost_connection_costs_errors_and_then_load_goes_on() {
    let outcome = drive(&Drive { total: Some(50), ..closed(1, 20_000) }, None, |number, _| match number {
        20 => Reply::HangUp,
        _ => Reply::Message(put_answer()),
    });
    assert_eq!((outcome.succeeded, outcome.failed), (49, 1));
}

#[test]
fn the_open_loop_keeps_its_rate() {
    let paced = Drive { rate: Some(500.0), ..closed(20, 600) };
    let outcome = drive(&paced, None, |_, _| Reply::Message(put_answer()));
    assert_eq!(outcome.succeeded + outcome.unsent, 300, "{} unsent", outcome.unsent);
    assert!(outcome.succeeded > 150, "twenty clients and an idle server keep up: {} unsent", outcome.unsent);
}

#[test]
fn the_open_loop_counts_latency_from_the_due_time() {
    // One client, and a server that takes 50 ms for the first operation: nine more become due meanwhile, every 5 ms.
    let paced = Drive { rate: Some(200.0), total: Some(10), ..closed(1, 5_000) };
    let outcome = drive(&paced, None, |number, _| match number {
        0 => Reply::Late(Duration::from_millis(50), put_answer()),
        _ => Reply::Message(put_answer()),
    });
    assert_eq!(outcome.succeeded, 10);
    // The second was due at 5 ms and could be sent at 50 ms at the earliest.
    let slow = outcome.latency_ns.count_between(39_000_000, u64::MAX);
    assert!(slow >= 3, "{slow} operations show the stall; a closed loop would show one");
}

#[test]
fn what_nobody_could_send_is_counted() {
    let paced = Drive { rate: Some(1000.0), ..closed(1, 500) };
    let outcome = drive(&paced, None, |_, _| Reply::Late(Duration::from_millis(20), put_answer()));
    assert_eq!(outcome.succeeded + outcome.unsent, 500);
    assert!(outcome.unsent >= 470, "one client and 20 ms per answer send at most 26: {}", outcome.unsent);
}

#[test]
fn an_interrupt_ends_the_phase_early_with_figures() {
    for rate in [None, Some(100.0)] {
        let long = Drive { rate, ..closed(2, 20_000) };
        let outcome = drive(&long, Some(Duration::from_millis(200)), |_, _| Reply::Message(put_answer()));
        assert!(outcome.succeeded > 0 && outcome.elapsed < Duration::from_secs(10), "{:?}", outcome.elapsed);
    }
}

#[test]
fn different_errors_are_bounded() {
    let mut outcome = Outcome::new();
    for number in 0..100 {
        outcome.count_error(&CallError::Protocol(number.to_string()));
    }
    assert_eq!((outcome.failed, outcome.errors.len()), (100, 33));
    assert_eq!(outcome.errors["other errors"], 68);
}

#[test]
fn an_operation_whose_first_call_fails_has_failed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        // Every second grant is refused, and no put follows it.
        let grants = std::sync::atomic::AtomicUsize::new(0);
        let script = move |_, path: &str| match path.ends_with("/LeaseGrant") {
            true if grants.fetch_add(1, Ordering::Relaxed) % 2 == 1 => Reply::HeadersOnly("8", "too many leases"),
            _ => Reply::Message(put_answer()),
        };
        let channels = [Channel::connect(&[start(script).await], 0).await.unwrap()];
        let mut generator = generator();
        generator.select(Workload::Lease);
        let drive = Drive { total: Some(10), ..closed(1, 20_000) };
        let interrupted = AtomicBool::new(false);
        run(&drive, &channels, generator, None, &Progress::silent(), &interrupted).await.unwrap().0
    });
    assert_eq!((outcome.succeeded, outcome.failed), (5, 5));
    assert_eq!(outcome.errors.into_iter().collect::<Vec<_>>(), [("ResourceExhausted: too many leases".to_owned(), 5)]);
}
