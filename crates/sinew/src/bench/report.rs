//! The figures of a run, as numbers ([`Measurement`]), as a table and as JSON.
//!
//! Invariant: a figure that could not be measured is absent (`-`, `null`), never zero. Used by [`super::run`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Plan;
use super::compare::Ratios;
use super::load::Outcome;
use super::workload::Workload;

/// Bytes of one mebibyte.
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Latency of successful operations in microseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Latency {
    /// Median.
    pub(super) p50: f64,
    /// 90 of 100 were faster.
    pub(super) p90: f64,
    /// 95 of 100 were faster.
    pub(super) p95: f64,
    /// 99 of 100 were faster.
    pub(super) p99: f64,
    /// 999 of 1000 were faster.
    pub(super) p999: f64,
    /// The slowest.
    pub(super) max: f64,
}

/// What one workload did to one side.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Measurement {
    /// Successful operations per second.
    pub(super) throughput: f64,
    /// Successful operations.
    pub(super) operations: u64,
    /// Operations without a good answer.
    pub(super) failed: u64,
    /// Successful operations without effect: reads that found nothing, swaps that lost.
    pub(super) missed: u64,
    /// Operations of the open loop that were due but found no free client.
    pub(super) unsent: u64,
    /// Length of the measured phase.
    pub(super) elapsed: Duration,
    /// None if nothing succeeded.
    pub(super) latency_us: Option<Latency>,
    /// Processor time of all servers per successful operation.
    pub(super) server_cpu_us: Option<f64>,
    /// Processor time of this process per successful operation.
    pub(super) client_cpu_us: Option<f64>,
    /// Memory of all servers at the end.
    pub(super) resident_bytes: Option<f64>,
    /// Failures by text.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Measurement {
    /// The figures of one phase.
    pub(super) fn new(
        outcome: &Outcome,
        server_cpu: Option<Duration>,
        client_cpu: Duration,
        resident_bytes: Option<u64>,
    ) -> Self {
        let per_operation = |time: Duration| micros(time) / outcome.succeeded as f64;
        let is_any = outcome.succeeded > 0;
        let quantile = |share: f64| outcome.latency_ns.value_at_quantile(share) as f64 / 1_000.0;
        let latency = Latency {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: outcome.latency_ns.max() as f64 / 1_000.0,
        };
        let seconds = outcome.elapsed.as_secs_f64();
        Self {
            throughput: if seconds > 0.0 { outcome.completed as f64 / seconds } else { 0.0 },
            operations: outcome.succeeded,
            failed: outcome.failed,
            missed: outcome.missed,
            unsent: outcome.unsent,
            elapsed: outcome.elapsed,
            latency_us: is_any.then_some(latency),
            server_cpu_us: server_cpu.filter(|_| is_any).map(per_operation),
            client_cpu_us: is_any.then(|| per_operation(client_cpu)),
            resident_bytes: resident_bytes.map(|bytes| bytes as f64),
            errors: outcome.errors.clone(),
        }
    }

    fn json(&self) -> Value {
        let latency = self.latency_us.map(|latency| {
            let Latency { p50, p90, p95, p99, p999, max } = latency;
            json!({"p50": p50, "p90": p90, "p95": p95, "p99": p99, "p99.9": p999, "max": max})
        });
        json!({
            "ops_per_second": self.throughput,
            "operations": self.operations,
            "failed": self.failed,
            "missed": self.missed,
            "unsent": self.unsent,
            "seconds": self.elapsed.as_secs_f64(),
            "latency_us": latency,
            "server_cpu_us_per_op": self.server_cpu_us,
            "client_cpu_us_per_op": self.client_cpu_us,
            "server_resident_bytes": self.resident_bytes,
            "errors": self.errors,
        })
    }
}

/// One service, as the report names it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SideReport {
    /// "A" or "B".
    pub(super) name: &'static str,
    /// `host:port` each.
    pub(super) endpoints: Vec<String>,
    /// Process id and resident bytes at the end of each server; none if they could not be measured.
    pub(super) servers: Option<Vec<(u32, u64)>>,
    /// Why the servers could not be measured.
    pub(super) unmeasured_because: Option<String>,
}

/// The results of one workload: one per side, medians if there were rounds.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Row {
    /// The workload.
    pub(super) workload: Workload,
    /// In the order of the sides.
    pub(super) measurements: Vec<Measurement>,
}

impl Row {
    fn ratios(&self) -> Option<Ratios> {
        match self.measurements.as_slice() {
            [a, b] => Some(Ratios::new(a, b)),
            _ => None,
        }
    }
}

/// Everything to tell.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// One or two.
    pub(super) sides: Vec<SideReport>,
    /// In the order asked for.
    pub(super) rows: Vec<Row>,
    /// True if the user ended the run early.
    pub(super) is_interrupted: bool,
}

impl Report {
    /// One JSON object.
    pub(super) fn json(&self, plan: &Plan) -> Value {
        let sides: Vec<_> = self.sides.iter().map(side_json).collect();
        let rows: Vec<_> = self.rows.iter().map(row_json).collect();
        json!({
            "settings": {
                "clients": plan.drive.clients,
                "connections": plan.connections,
                "key_size": plan.shape.keys.key_bytes(),
                "value_size": plan.shape.value_bytes,
                "keys": plan.shape.keys.count(),
                "key_pattern": plan.shape.pattern.name(),
                "range_keys": plan.shape.range_keys,
                "read_ratio": plan.shape.read_ratio,
                "rate": plan.drive.rate,
                "total": plan.drive.total,
                "duration_seconds": plan.drive.duration.as_secs_f64(),
                "warmup_seconds": plan.warmup.as_secs_f64(),
                "rounds": plan.rounds,
            },
            "interrupted": self.is_interrupted,
            "sides": sides,
            "results": rows,
        })
    }

    /// A page to read.
    pub(super) fn text(&self, plan: &Plan) -> String {
        let mut page = headline(plan);
        page.push_str(&self.table());
        for side in &self.sides {
            page.push_str(&side_line(side, self.sides.len() > 1));
        }
        for row in &self.rows {
            for (side, measurement) in self.sides.iter().zip(&row.measurements) {
                page.push_str(&self.remarks(row.workload, side, measurement));
            }
        }
        if self.is_interrupted {
            page.push_str("Interrupted: the figures cover only the time until then.\n");
        }
        page
    }

    fn table(&self) -> String {
        let is_compared = self.sides.len() > 1;
        let mut cells = vec![HEADINGS.map(str::to_owned).to_vec()];
        for row in &self.rows {
            for (side, measurement) in self.sides.iter().zip(&row.measurements) {
                let name = row.workload.name();
                let name = if is_compared { format!("{name} {}", side.name) } else { name.to_owned() };
                cells.push(measured_cells(name, measurement));
            }
            if let Some(ratios) = row.ratios() {
                cells.push(ratio_cells(format!("{} A/B", row.workload.name()), &ratios));
            }
        }
        aligned(&cells)
    }

    /// What needs words: errors, operations without effect, operations not sent.
    fn remarks(&self, workload: Workload, side: &SideReport, measurement: &Measurement) -> String {
        let name = workload.name();
        let name = if self.sides.len() > 1 { format!("{name} {}", side.name) } else { name.to_owned() };
        let mut text = String::new();
        for (error, count) in &measurement.errors {
            line(&mut text, format_args!("{name}: {} failed: {error}", grouped(*count)));
        }
        if measurement.missed > 0 {
            let what = match workload {
                Workload::Cas => "swaps lost to another client, or to a revision not seen before",
                Workload::Put
                | Workload::Get
                | Workload::StaleGet
                | Workload::Range
                | Workload::Txn
                | Workload::Mixed
                | Workload::Lease
                | Workload::Watch => "reads found less than the key space holds (--prefill writes it)",
            };
            line(&mut text, format_args!("{name}: {} {what}", grouped(measurement.missed)));
        }
        if measurement.unsent > 0 {
            let unsent = grouped(measurement.unsent);
            line(
                &mut text,
                format_args!("{name}: {unsent} operations were due but could not be sent before time was up"),
            );
        }
        text
    }
}

const HEADINGS: [&str; 12] = [
    "",
    "ops/s",
    "p50 ms",
    "p90 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "failed",
    "server us/op",
    "client us/op",
    "MiB",
];

fn headline(plan: &Plan) -> String {
    let (drive, shape) = (&plan.drive, &plan.shape);
    let mut text = String::new();
    let mode = drive.rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate} operations/s"));
    let until = match drive.total {
        Some(total) => format!("{} operations or {:?}", grouped(total), drive.duration),
        None => format!("{:?}", drive.duration),
    };
    let warmup = if plan.warmup.is_zero() { String::new() } else { format!(" after {:?} of warm-up", plan.warmup) };
    let (clients, connections) = (drive.clients, plan.connections);
    line(&mut text, format_args!("{clients} clients on {connections} connections, {mode}, {until}{warmup}"));
    line(
        &mut text,
        format_args!(
            "{} keys of {} bytes, {} order, values of {} bytes",
            grouped(shape.keys.count()),
            shape.keys.key_bytes(),
            shape.pattern.name(),
            shape.value_bytes
        ),
    );
    if plan.rounds > 1 {
        line(&mut text, format_args!("Medians of {} rounds, A and B in turn", plan.rounds));
    }
    text.push('\n');
    text
}

fn side_line(side: &SideReport, is_compared: bool) -> String {
    let mut text = String::from("\n");
    let name = if is_compared { format!("{} = ", side.name) } else { String::new() };
    line(&mut text, format_args!("{name}{}", side.endpoints.join(",")));
    if let Some(servers) = &side.servers {
        let each: Vec<_> = servers
            .iter()
            .map(|(pid, bytes)| format!("{:.1} MiB in process {pid}", *bytes as f64 / MEBIBYTE))
            .collect();
        line(&mut text, format_args!("Memory at the end: {}", each.join(", ")));
    }
    if let Some(reason) = &side.unmeasured_because {
        line(&mut text, format_args!("Servers not measured: {reason}"));
    }
    text
}

fn side_json(side: &SideReport) -> Value {
    let servers = side.servers.as_ref().map(|servers| {
        servers.iter().map(|(pid, bytes)| json!({"pid": pid, "resident_bytes": bytes})).collect::<Vec<_>>()
    });
    json!({
        "name": side.name,
        "endpoints": side.endpoints,
        "servers": servers,
        "unmeasured_because": side.unmeasured_because,
    })
}

fn row_json(row: &Row) -> Value {
    let measurements: Vec<_> = row.measurements.iter().map(Measurement::json).collect();
    let ratios = row.ratios().map(|ratios| {
        json!({
            "throughput": ratios.throughput,
            "p50": ratios.p50,
            "p99": ratios.p99,
            "server_cpu_per_op": ratios.server_cpu,
            "server_resident_bytes": ratios.resident,
        })
    });
    json!({"workload": row.workload.name(), "measurements": measurements, "ratios_a_to_b": ratios})
}

fn measured_cells(name: String, measurement: &Measurement) -> Vec<String> {
    let latency = |pick: fn(&Latency) -> f64| number(measurement.latency_us.as_ref().map(|all| pick(all) / 1_000.0), 3);
    vec![
        name,
        grouped(measurement.throughput.round() as u64),
        latency(|all| all.p50),
        latency(|all| all.p90),
        latency(|all| all.p95),
        latency(|all| all.p99),
        latency(|all| all.p999),
        latency(|all| all.max),
        grouped(measurement.failed),
        number(measurement.server_cpu_us, 1),
        number(measurement.client_cpu_us, 1),
        number(measurement.resident_bytes.map(|bytes| bytes / MEBIBYTE), 1),
    ]
}

fn ratio_cells(name: String, ratios: &Ratios) -> Vec<String> {
    let absent = || "-".to_owned();
    let ratio = |ratio: Option<f64>| ratio.map_or_else(absent, |ratio| format!("{ratio:.2}x"));
    vec![
        name,
        ratio(ratios.throughput),
        ratio(ratios.p50),
        absent(),
        absent(),
        ratio(ratios.p99),
        absent(),
        absent(),
        absent(),
        ratio(ratios.server_cpu),
        absent(),
        ratio(ratios.resident),
    ]
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// Columns as wide as their widest cell, the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut cells = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(cells, "  {cell:>width$}").expect("a string grows as needed");
        }
        line(&mut text, format_args!("{cells}"));
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string grows as needed");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000_000.0
}

/// A number with a comma after every three digits from the right.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
