//! Figures from known outcomes, and the two forms of the report.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use hdrhistogram::Histogram;

use super::{Measurement, Report, Row, SideReport, aligned, grouped};
use crate::bench::args::{BenchArgs, Plan};
use crate::bench::load::Outcome;
use crate::bench::workload::Workload;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

fn plan(line: &str) -> Plan {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    Plan::new(Command::try_parse_from(words).unwrap().bench).unwrap()
}

/// 1000 operations that took 1, 2, ... 1000 us, in half a second; two failed.
fn outcome() -> Outcome {
    let mut latency_ns = Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).unwrap();
    for micros in 1..=1000 {
        latency_ns.record(micros * 1000).unwrap();
    }
    Outcome {
        latency_ns,
        completed: 990,
        succeeded: 1000,
        failed: 2,
        missed: 3,
        unsent: 4,
        errors: BTreeMap::from([("Unavailable: no leader".to_owned(), 2)]),
        elapsed: Duration::from_millis(500),
    }
}

fn measurement() -> Measurement {
    Measurement::new(&outcome(), Some(Duration::from_millis(20)), Duration::from_millis(8), Some(3 * 1024 * 1024))
}

fn nothing() -> Measurement {
    let latency_ns = Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).unwrap();
    let outcome = Outcome { latency_ns, completed: 0, succeeded: 0, ..outcome() };
    Measurement::new(&outcome, Some(Duration::from_millis(20)), Duration::from_millis(8), None)
}

fn side(name: &'static str) -> SideReport {
    SideReport {
        name,
        endpoints: vec!["127.0.0.1:2379".to_owned()],
        servers: Some(vec![(42, 3 * 1024 * 1024)]),
        unmeasured_because: None,
    }
}

fn is_near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected * 0.002
}

#[test]
fn percentiles_rates_and_costs_follow_from_the_outcome() {
    let measured = measurement();
    assert_eq!(measured.throughput, 1980.0, "only what ended in time is throughput");
    assert_eq!((measured.server_cpu_us, measured.client_cpu_us), (Some(20.0), Some(8.0)));
    let latency = measured.latency_us.unwrap();
    let pairs = [
        (latency.p50, 500.0),
        (latency.p90, 900.0),
        (latency.p95, 950.0),
        (latency.p99, 990.0),
        (latency.p999, 999.0),
        (latency.max, 1000.0),
    ];
    for (value, expected) in pairs {
        assert!(is_near(value, expected), "{value} against {expected}");
    }
}

#[test]
fn figures_without_operations_are_absent() {
    let measured = nothing();
    assert_eq!((measured.latency_us, measured.server_cpu_us, measured.client_cpu_us), (None, None, None));
}

#[test]
fn the_page_tells_figures_errors_and_what_was_not_done() {
    let row = Row { workload: Workload::Get, measurements: vec![measurement()] };
    let report = Report { sides: vec![side("A")], rows: vec![row], is_interrupted: true };
    let page = report.text(&plan("--workload get --rate 100"));
    for part in [
        "64 clients on 8 connections, open loop at 100 operations/s, 10s after 2s of warm-up",
        "10,000 keys of 32 bytes, random order, values of 256 bytes",
        "ops/s",
        "1,980",
        "3.0 MiB in process 42",
        "get: 2 failed: Unavailable: no leader",
        "get: 3 reads found less",
        "get: 4 operations were due but could not be sent",
        "Interrupted",
    ] {
        assert!(page.contains(part), "'{part}' is missing in\n{page}");
    }
}

#[test]
fn a_comparison_shows_both_sides_and_ratios() {
    let fast = Measurement { throughput: 3960.0, resident_bytes: Some(1024.0 * 1024.0), ..measurement() };
    let row = Row { workload: Workload::Put, measurements: vec![fast, measurement()] };
    let report = Report { sides: vec![side("A"), side("B")], rows: vec![row], is_interrupted: false };
    let plan = plan("--compare-with 127.0.0.1:1");
    let page = report.text(&plan);
    let ratios = page.lines().find(|line| line.starts_with("put A/B")).unwrap();
    let cells: Vec<_> = ratios.split_whitespace().collect();
    assert_eq!(cells, ["put", "A/B", "2.00x", "1.00x", "-", "-", "1.00x", "-", "-", "-", "1.00x", "-", "0.33x"]);
    let json = report.json(&plan);
    assert_eq!(json["results"][0]["ratios_a_to_b"]["throughput"], 2.0);
    assert_eq!(json["results"][0]["measurements"].as_array().unwrap().len(), 2);
    assert_eq!(json["settings"]["rounds"], 3);
}

#[test]
fn json_has_null_for_what_was_not_measured() {
    let unmeasured =
        SideReport { servers: None, unmeasured_because: Some("not on this machine".to_owned()), ..side("A") };
    let row = Row { workload: Workload::Put, measurements: vec![nothing()] };
    let report = Report { sides: vec![unmeasured], rows: vec![row], is_interrupted: false };
    let json = report.json(&plan(""));
    let measured = &json["results"][0]["measurements"][0];
    assert!(measured["latency_us"].is_null() && measured["server_cpu_us_per_op"].is_null());
    assert_eq!(measured["errors"]["Unavailable: no leader"], 2);
    assert_eq!(measured["failed"], 2);
    assert!(json["results"][0]["ratios_a_to_b"].is_null());
    assert_eq!(json["sides"][0]["unmeasured_because"], "not on this machine");
    assert!(report.text(&plan("")).contains("Servers not measured: not on this machine"));
}

#[test]
fn columns_are_aligned() {
    let row = |first: &str, other: &str| {
        let mut row = vec![other.to_owned(); super::HEADINGS.len()];
        row[0] = first.to_owned();
        row
    };
    let text = aligned(&[row("a", "1"), row("longer", "10,000")]);
    let ends: Vec<_> = text.lines().map(str::len).collect();
    assert_eq!(ends[0], ends[1]);
    assert!(text.starts_with("a            1"), "{text}");
}

#[test]
fn numbers_are_grouped_by_three() {
    assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
