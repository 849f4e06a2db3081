//! A run as a page for people: who led when, who was down or cut off, what clients asked and were told.
//!
//! Invariant: the page needs nothing but itself, and every text in it is escaped.

use std::fmt::Write as _;

use crate::history::{Asked, Operation, Told};
use crate::locks::DESKS;
use crate::report::{Report, Verdict};
use crate::timeline::SpanKind;
use crate::world::START_US;

const WIDTH: u64 = 1600;
const LEFT: u64 = 90;
const ROW: u64 = 22;
/// More operations than this are not drawn; the table of counters tells how many there were.
const OPERATIONS_MAX: usize = 6000;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--faint:#8884;--lead:#2a7;--down:#999;--pause:#c90;--stall:#b6c;\
--cut:#d44;--done:#38c;--none:#999;--unknown:#d80}\
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--paper:#161616}}\
body{font:14px/1.4 system-ui,sans-serif;margin:1.5rem;color:var(--ink);background:var(--paper)}\
h1{font-size:1.3rem}svg text{fill:var(--ink);font-size:11px}.scroll{overflow-x:auto}\
.lead{fill:var(--lead)}.down{fill:var(--down)}.pause{fill:var(--pause)}.stall{fill:var(--stall)}.cut{fill:var(--cut)}\
.done{fill:var(--done)}.none{fill:var(--none)}.unknown{fill:var(--unknown)}.row{stroke:var(--faint)}\
.fault{stroke:var(--cut);stroke-opacity:.5}.heal{stroke:var(--lead);stroke-width:2}.fail{stroke:var(--cut);stroke-width:3}\
td{padding:0 .8rem 0 0}td:first-child{text-align:right;font-variant-numeric:tabular-nums}\
.key span{display:inline-block;margin-right:1.2rem}.key i{display:inline-block;width:.8rem;height:.8rem;margin-right:.3rem}\
pre{white-space:pre-wrap}";

/// The page being written.
struct Page {
    text: String,
    end: u64,
}

/// Makes the page.
#[must_use]
pub fn report_html(report: &Report) -> String {
    let mut page = Page { text: String::new(), end: report.simulated_us.max(1) };
    page.head(report);
    page.timeline(report);
    page.tables(report);
    page.text.push_str("</body></html>\n");
    page.text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Page {
    // Writing to a String does not fail, so the results of `write!` are dropped here.

    fn head(&mut self, report: &Report) {
        let (title, detail) = match &report.verdict {
            Verdict::Passed => ("Every check held".to_owned(), String::new()),
            Verdict::Failed(failure) => (format!("{:?} check failed", failure.kind), failure.to_string()),
        };
        let seconds = report.simulated_us as f64 / 1e6;
        let _ = write!(
            self.text,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <style>{STYLE}</style></head><body><h1>{title}</h1><p>{seconds:.3} s simulated, trace {:016x}</p>\
             <pre>{}</pre>",
            report.trace_hash,
            escape(&detail)
        );
        self.text.push_str("<p class=\"key\">");
        let key = [
            ("lead", "leads"),
            ("down", "down"),
            ("pause", "stands still"),
            ("stall", "disk stands still"),
            ("cut", "link cut"),
            ("done", "answered"),
            ("none", "surely not done"),
            ("unknown", "unknown"),
        ];
        for (class, words) in key {
            let name = if class == "lead" { "lead" } else { class };
            let _ = write!(self.text, "<span><i style=\"background:var(--{name})\"></i>{words}</span>");
        }
        self.text.push_str("</p>");
    }

    fn x(&self, at: u64) -> f64 {
        let into = at.saturating_sub(START_US).min(self.end) as f64 / self.end as f64;
        LEFT as f64 + into * (WIDTH - LEFT - 10) as f64
    }

    fn bar(&mut self, class: &str, (from, until): (u64, u64), (y, height): (u64, u64), words: &str) {
        let (left, right) = (self.x(from), self.x(until));
        let width = (right - left).max(1.0);
        let words = escape(words);
        let _ = write!(
            self.text,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\">\
             <title>{words}</title></rect>"
        );
    }

    fn label(&mut self, y: u64, words: &str) {
        let below = y + ROW;
        let _ = write!(
            self.text,
            "<text x=\"2\" y=\"{}\">{}</text><line class=\"row\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{below}\" y2=\"{below}\"/>",
            y + 15,
            escape(words)
        );
    }

    fn upright(&mut self, class: &str, at: u64, height: u64, words: &str) {
        let x = self.x(at);
        let words = escape(words);
        let _ = write!(
            self.text,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height}\"><title>{words}</title></line>"
        );
    }

    fn timeline(&mut self, report: &Report) {
        let timeline = &report.timeline;
        let of_spans = timeline.spans.iter().map(|span| span.node.0);
        let nodes = of_spans.chain(report.history.iter().map(|operation| operation.node.0)).max().unwrap_or(0);
        let mut links: Vec<_> = timeline.cuts.iter().map(|cut| cut.link).collect();
        links.sort_unstable();
        links.dedup();
        let asked = || report.history.iter().filter(|operation| operation.client < DESKS);
        let clients = asked().map(|operation| operation.client + 1).max().unwrap_or(0);
        let height = ROW * (nodes + links.len() as u64 + clients) + 20;
        let _ = write!(
            self.text,
            "<div class=\"scroll\"><svg width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"timeline\">"
        );
        for (at, words) in &timeline.faults {
            self.upright("fault", *at, height, words);
        }
        for node in 1..=nodes {
            self.label((node - 1) * ROW, &format!("n{node}"));
        }
        for span in &timeline.spans {
            let y = (span.node.0 - 1) * ROW;
            let (class, place) = match span.kind {
                SpanKind::Leads => ("lead", (y + 3, 16)),
                SpanKind::Down => ("down", (y + 8, 6)),
                SpanKind::Paused => ("pause", (y + 3, 4)),
                SpanKind::Stalled => ("stall", (y + 15, 4)),
            };
            self.bar(class, (span.from, span.until), place, &format!("{} {}", span.node, span.words));
        }
        for (at, node) in &timeline.snapshots {
            self.bar("done", (*at, *at), ((node.0 - 1) * ROW + 1, 20), &format!("{node} installs a snapshot"));
        }
        for (row, (from, to)) in links.iter().enumerate() {
            let y = (nodes + row as u64) * ROW;
            self.label(y, &format!("{from} to {to}"));
            for cut in timeline.cuts.iter().filter(|cut| cut.link == (*from, *to)) {
                self.bar("cut", (cut.from, cut.until), (y + 7, 8), &format!("{from} to {to} cut"));
            }
        }
        let first = (nodes + links.len() as u64) * ROW;
        for client in 0..clients {
            self.label(first + client * ROW, &format!("client {client}"));
        }
        for operation in asked().take(OPERATIONS_MAX) {
            self.operation(operation, first + operation.client * ROW);
        }
        if let Some(at) = timeline.healed_at {
            self.upright("heal", at, height, "everything heals");
        }
        if let Some(at) = report.verdict.failure().and_then(|failure| failure.at) {
            self.upright("fail", at, height, "the check fails");
        }
        self.text.push_str("</svg></div>");
    }

    fn operation(&mut self, operation: &Operation, y: u64) {
        let class = match operation.told {
            Told::Outcome(_) | Told::Range(_) | Told::Lease(_) | Told::Lock(_) | Told::Rejected(_) => "done",
            Told::NotDone => "none",
            Told::Unknown => "unknown",
        };
        let until = operation.returned_at.unwrap_or(operation.called_at + 200_000);
        let height = if matches!(operation.asked, Asked::Write(_)) { 14 } else { 8 };
        let mut words = format!("{} {:?}: {:?}", operation.node, operation.asked, operation.told);
        if words.len() > 400 {
            let cut = (0..=400).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
            words.truncate(cut);
        }
        self.bar(class, (operation.called_at, until), (y + 4, height), &words);
    }

    fn tables(&mut self, report: &Report) {
        self.text.push_str("<h2>Faults</h2><table>");
        for (at, words) in &report.timeline.faults {
            let at = at.saturating_sub(START_US) as f64 / 1e6;
            let _ = write!(self.text, "<tr><td>{at:.6}</td><td>{}</td></tr>", escape(words));
        }
        self.text.push_str("</table><h2>Seen</h2><table>");
        for counter in crate::Counter::ALL {
            let _ = write!(
                self.text,
                "<tr><td>{}</td><td>{}</td></tr>",
                report.counters.get(*counter),
                escape(counter.words())
            );
        }
        self.text.push_str("</table>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Profile};

    #[test]
    fn the_page_stands_alone_and_escapes() {
        let config = Config { duration: std::time::Duration::from_secs(6), ..Config::new(1) };
        let mut report = crate::run(&config.with_profile(Profile::Network));
        report.timeline.faults.push((START_US, "<script>".to_owned()));
        let page = report_html(&report);
        for outside in ["http:", "https:", "src=", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "the page names {outside}");
        }
        assert!(page.contains("class=\"lead\"") && page.contains("class=\"done\"") && page.contains("&lt;script&gt;"));
    }
}
