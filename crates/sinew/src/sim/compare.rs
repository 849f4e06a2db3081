//! `sinew compare-protocols`: the same faults under every consensus protocol, as a table and as a page.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kernel::Protocol;
use serde_json::{Value, json};
use sim::{Play, Row, Script};

use super::page;
use crate::ctl::Failure;

/// Arguments of `compare-protocols`.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub(crate) struct CompareArgs {
    /// Which scripts [default: all]
    #[arg(long, value_name = "SCRIPT,...", value_delimiter = ',', value_parser = parse_script)]
    faults: Vec<Script>,
    /// How many seeds for each
    #[arg(long, default_value_t = 15, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Write a page with the timelines of the first seed side by side
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// simple or json
    #[arg(long, short = 'w', default_value = "simple", value_name = "FORMAT", value_parser = ["simple", "json"])]
    write_out: String,
}

fn help() -> String {
    let script = |script: &Script| format!("  {:<26}{}\n", script.name(), script.story());
    let scripts: String = Script::ALL.iter().map(script).collect();
    format!(
        "\
Each script is played in the simulator, in virtual time, with the code of the
server: a quiet cluster under load, a fault of 8 seconds after 12, and what each
protocol does about it. Times are medians over the seeds, counts are means.
Messages and bytes are those between nodes until the first write is accepted
again, or until the healing.
Nothing here says which protocol is faster when all is well: there they are the
same by construction.

Scripts:
{scripts}
Examples:
  sinew compare-protocols
  sinew compare-protocols --faults leader-crash,one-way-cut --seeds 50
  sinew compare-protocols --report protocols.html      the timelines side by side"
    )
}

fn parse_script(name: &str) -> Result<Script, String> {
    Script::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Script::ALL.iter().map(|script| script.name()).collect();
        format!("no script is called '{name}': choose from {}", names.join(", "))
    })
}

/// Plays the scripts.
///
/// # Errors
/// A check of the simulator failed in some run; the page cannot be written.
pub(crate) fn run(arguments: &CompareArgs) -> Result<(), Failure> {
    let scripts = if arguments.faults.is_empty() { Script::ALL.to_vec() } else { arguments.faults.clone() };
    let seeds: Vec<u64> = super::seeds(arguments.seed, arguments.seeds).collect();
    let progress = progress(scripts.len() * Protocol::ALL.len() * seeds.len());
    let mut rows = Vec::new();
    let mut first_plays = Vec::new();
    for script in &scripts {
        for protocol in Protocol::ALL {
            let mut first: Option<Play> = None;
            rows.push(Row::play(*script, *protocol, &seeds, |play| {
                progress.inc(1);
                first.get_or_insert_with(|| play.clone());
            }));
            first_plays.extend(first.map(|play| (*script, *protocol, play)));
        }
    }
    progress.finish_and_clear();
    if let Some(path) = &arguments.report {
        let text = page::comparison(&rows, &first_plays);
        std::fs::write(path, text)
            .map_err(|error| Failure::Request(format!("cannot write {}: {error}", path.display())))?;
    }
    let mut out = io::stdout().lock();
    match arguments.write_out.as_str() {
        "json" => writeln!(out, "{}", Value::from(rows.iter().map(as_json).collect::<Vec<_>>()))?,
        _ => scripts.iter().try_for_each(|script| out.write_all(as_text(*script, &rows).as_bytes()))?,
    }
    let failed: Vec<String> = rows
        .iter()
        .flat_map(|row| row.failures.iter().map(move |(seed, why)| (row, seed, why)))
        .map(|(row, seed, why)| format!("{} under {}, seed {seed}: {why}", row.script.name(), row.protocol))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::Request(failed.join("\n"))) }
}

fn progress(runs: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left").expect("a template that parses");
    ProgressBar::new(runs as u64).with_style(style)
}

/// The columns behind the protocol's name.
pub(super) const COLUMNS: [&str; 11] = [
    "new leader",
    "preferred",
    "first write",
    "took over",
    "available",
    "leaders",
    "refused",
    "unknown",
    "messages",
    "bytes",
    "sent again",
];

/// The figures of a row, as they are shown.
pub(super) fn cells(row: &Row) -> Vec<String> {
    let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| format!("{:.0} ms", us as f64 / 1000.0));
    vec![
        time(row.new_leader_us),
        time(row.preferred_us),
        time(row.first_write_us),
        format!("{}/{}", row.took_over, row.runs),
        format!("{}/{}", row.available, row.runs),
        format!("{:.1}", row.leader_changes),
        format!("{:.1}", row.refused),
        format!("{:.1}", row.unknown),
        format!("{:.0}", row.messages),
        format!("{:.0}", row.bytes),
        format!("{:.1}", row.sent_again),
    ]
}

fn as_text(script: Script, rows: &[Row]) -> String {
    let mut table = vec![std::iter::once("protocol").chain(COLUMNS).map(str::to_owned).collect::<Vec<_>>()];
    for row in rows.iter().filter(|row| row.script == script) {
        table.push(std::iter::once(row.protocol.to_string()).chain(cells(row)).collect());
    }
    let widths: Vec<usize> =
        (0..=COLUMNS.len()).map(|at| table.iter().map(|line| line[at].len()).max().unwrap_or(0)).collect();
    let mut text = format!("{}: {}\n", script.name(), script.story());
    for line in table {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        text.push_str(&format!("  {}\n", cells.join("  ")));
    }
    text.push('\n');
    text
}

fn as_json(row: &Row) -> Value {
    json!({
        "script": row.script.name(),
        "protocol": row.protocol.name(),
        "runs": row.runs,
        "took_over": row.took_over,
        "available": row.available,
        "new_leader_us": row.new_leader_us,
        "preferred_leader_us": row.preferred_us,
        "first_write_us": row.first_write_us,
        "leader_changes": row.leader_changes,
        "writes_refused": row.refused,
        "writes_unknown": row.unknown,
        "messages": row.messages,
        "bytes": row.bytes,
        "entries_sent_again": row.sent_again,
        "failures": row.failures.iter().map(|(seed, why)| json!({ "seed": seed, "detail": why })).collect::<Vec<_>>(),
    })
}
