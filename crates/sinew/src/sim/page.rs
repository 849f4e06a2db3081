//! The page of `compare-protocols`: the table, and the timelines of one seed side by side. Self-contained.

use kernel::Protocol;
use sim::{Play, Row, Script, SpanKind};

use super::compare::{COLUMNS, cells};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886;--leads:#2a7de1;--down:#d64541;--cut:#e08e0b;--pause:#8e44ad}
body{font:14px/1.5 system-ui,sans-serif;max-width:78rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1rem}td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid
var(--line)}td:first-child,th:first-child{text-align:left}
.plays{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem}svg{width:100%;height:auto}
svg text{font:9px system-ui,sans-serif;fill:currentColor}figcaption{font-weight:600}figure{margin:0}
.key span{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin:0 .3rem 0 1rem;vertical-align:-1px}";

/// World time that a timeline shows, in microseconds: from before the fault to after the healing.
const FROM_US: u64 = 10_000_000;
const UNTIL_US: u64 = 26_000_000;
const WIDTH: f64 = 300.0;
const ROW: f64 = 18.0;
const LEFT: f64 = 22.0;

/// The whole page.
pub(super) fn comparison(rows: &[Row], plays: &[(Script, Protocol, Play)]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Consensus protocols under faults</title>\
         <style>{STYLE}</style><h1>Consensus protocols under faults</h1><p>Simulated clusters with the code of the \
         server. The fault begins at the left mark and ends at the right one. Times are medians, counts are means. \
         When nothing is wrong the protocols do the same.</p><p class=key><span style='background:var(--leads)'></span>\
         leads<span style='background:var(--down)'></span>down<span style='background:var(--cut)'></span>cut off from \
         somebody</p>"
    );
    for script in Script::ALL.iter().filter(|script| rows.iter().any(|row| row.script == **script)) {
        page.push_str(&format!("<h2>{}</h2><p>{}</p>", script.name(), script.story()));
        page.push_str("<table><tr><th>protocol");
        page.extend(COLUMNS.iter().map(|column| format!("<th>{column}")));
        for row in rows.iter().filter(|row| row.script == *script) {
            page.push_str(&format!("<tr><td>{}", row.protocol));
            page.extend(cells(row).iter().map(|cell| format!("<td>{cell}")));
        }
        page.push_str("</table><div class=plays>");
        for (_, protocol, play) in plays.iter().filter(|(of, ..)| of == script) {
            page.push_str(&format!("<figure><figcaption>{protocol}, seed {}</figcaption>", play.config.seed));
            page.push_str(&timeline(play));
            page.push_str("</figure>");
        }
        page.push_str("</div>");
    }
    page.push_str("</html>\n");
    page
}

fn x(at: u64) -> f64 {
    let at = at.clamp(FROM_US, UNTIL_US) - FROM_US;
    LEFT + (WIDTH - LEFT) * at as f64 / (UNTIL_US - FROM_US) as f64
}

/// One row per node: who led, who was down, who could not reach somebody.
fn timeline(play: &Play) -> String {
    let nodes = play.config.nodes;
    let height = nodes as f64 * ROW + 14.0;
    let mut svg = format!("<svg viewBox='0 0 {WIDTH} {height}' role=img>");
    let y = |node: u64| (node - 1) as f64 * ROW + 2.0;
    for node in 1..=nodes {
        svg.push_str(&format!("<text x=0 y={}>n{node}</text>", y(node) + 11.0));
    }
    let mut bar = |node: u64, from: u64, until: u64, top: f64, high: f64, colour: &str, title: &str| {
        let (left, right) = (x(from), x(until));
        if right > left {
            let wide = right - left;
            svg.push_str(&format!(
                "<rect x={left:.1} y={:.1} width={wide:.1} height={high} rx=2 fill='var(--{colour})'><title>{title}\
                 </title></rect>",
                y(node) + top
            ));
        }
    };
    for cut in &play.report.timeline.cuts {
        let title = format!("{} cannot reach {}", cut.link.0, cut.link.1);
        bar(cut.link.0.0, cut.from, cut.until, 13.0, 2.0, "cut", &title);
    }
    for span in &play.report.timeline.spans {
        let colour = match span.kind {
            SpanKind::Leads => "leads",
            SpanKind::Down => "down",
            SpanKind::Paused | SpanKind::Stalled => "pause",
        };
        bar(span.node.0, span.from, span.until, 2.0, 10.0, colour, &span.words);
    }
    for second in [13, 21] {
        let at = x(second * 1_000_000);
        svg.push_str(&format!(
            "<line x1={at:.1} x2={at:.1} y1=0 y2={height} stroke='currentColor' stroke-dasharray=2 />"
        ));
    }
    svg.push_str("</svg>");
    svg
}
