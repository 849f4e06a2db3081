//! `sinew bench`: a load generator for any server that speaks the etcd v3 API, this one or another.
//!
//! It speaks HTTP/2 itself and runs on one thread, so that it costs a few microseconds per operation and the figures
//! are the server's. Invariant: a run ends by itself, bounded in time and count. The way of an operation:
//!
//! ```text
//! args -> Plan -> Side (one or two) -> load: clients, Pacer -> workload: Operation -> client: Channel -> server
//!                   |                                                                                       |
//!                   +-> procfs: processor time, memory            Outcome <- settle <- answer <-------------+
//!                   +-> Measurement -> compare: medians, ratios -> report
//! ```

pub(crate) mod args;
mod client;
mod compare;
mod keys;
mod load;
mod pacer;
mod procfs;
mod progress;
mod report;
mod side;
mod template;
mod watchers;
mod workload;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use args::BenchArgs;
use args::{Plan, WriteOut};
use report::{Report, Row};
use side::Side;

/// Exit code for a command line that makes no sense.
const EXIT_USAGE: u8 = 2;
/// Exit code after Ctrl-C, as shells expect it.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the load and prints the report.
///
/// Blocks; builds its own runtime. Exit codes: 0 measured, 1 no server or no operation succeeded, 2 the arguments make
/// no sense, 130 interrupted.
pub(crate) fn run(args: BenchArgs) -> ExitCode {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(reason) => return failed(&reason, EXIT_USAGE),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}"), 1),
    };
    let report = match runtime.block_on(measure(&plan)) {
        Ok(report) => report,
        Err(reason) => return failed(&reason, 1),
    };
    if let Err(error) = print(&report, &plan) {
        return failed(&format!("cannot write the report: {error}"), 1);
    }
    if report.is_interrupted {
        return ExitCode::from(EXIT_INTERRUPTED);
    }
    let is_idle = |row: &Row| row.measurements.iter().any(|measurement| measurement.operations == 0);
    if report.rows.iter().any(is_idle) {
        return failed("no operation succeeded", 1);
    }
    ExitCode::SUCCESS
}

/// All workloads on all sides.
async fn measure(plan: &Plan) -> Result<Report, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    tokio::spawn(watch_for_interrupt(Arc::clone(&interrupted)));
    let mut sides = vec![Side::connect("A", &plan.endpoints, &plan.server_pids, plan).await?];
    if !plan.compare_with.is_empty() {
        sides.push(Side::connect("B", &plan.compare_with, &[], plan).await?);
    }
    if plan.prefill {
        for side in &mut sides {
            side.prefill(plan, &interrupted).await?;
        }
    }
    let mut rows = Vec::new();
    for workload in &plan.workloads {
        let mut rounds = vec![Vec::new(); sides.len()];
        // In turn, so that whatever else the machine does meets both sides alike.
        for _ in 0..plan.rounds {
            for (side, measurements) in sides.iter_mut().zip(&mut rounds) {
                // An interrupted run keeps what is complete; the first round is always there to be shown.
                if !interrupted.load(Ordering::Relaxed) || measurements.is_empty() {
                    measurements.push(side.measure(*workload, plan, &interrupted).await?);
                }
            }
        }
        let measurements = rounds.iter().map(|rounds| compare::median_of_rounds(rounds)).collect();
        rows.push(Row { workload: *workload, measurements });
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    let is_interrupted = interrupted.load(Ordering::Relaxed);
    Ok(Report { sides: sides.iter().map(Side::report).collect(), rows, is_interrupted })
}

/// The first Ctrl-C ends the load early, a second one the program.
async fn watch_for_interrupt(interrupted: Arc<AtomicBool>) {
    // Without a handler, Ctrl-C ends the program as it does by default, which is all that can be done about it.
    if tokio::signal::ctrl_c().await.is_ok() {
        interrupted.store(true, Ordering::Relaxed);
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    }
}

fn print(report: &Report, plan: &Plan) -> io::Result<()> {
    let text = match plan.write_out {
        WriteOut::Simple => report.text(plan),
        WriteOut::Json => format!("{:#}\n", report.json(plan)),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn failed(reason: &str, code: u8) -> ExitCode {
    // If standard error is closed too, the exit code is all that is left to say it with.
    let _said = writeln!(io::stderr().lock(), "sinew bench: {reason}");
    ExitCode::from(code)
}

#[cfg(test)]
mod fake_server;
