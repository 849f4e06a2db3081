//! The table format: a grid for people. Only lists of members and endpoints have one.

use super::{Answer, HashKv, duration, member_row, snapshot_row, status_row};

/// Renders `answer`, or nothing if it has no rows to show.
pub(super) fn render(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Members(response) => Some(grid(
            &["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
            &response.members.iter().map(member_row).collect::<Vec<_>>(),
        )),
        Answer::Health(list) => {
            let rows: Vec<Vec<String>> = list
                .iter()
                .map(|health| {
                    vec![
                        health.endpoint.clone(),
                        health.error.is_none().to_string(),
                        duration(health.took),
                        health.error.clone().unwrap_or_default(),
                    ]
                })
                .collect();
            Some(grid(&["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &rows))
        }
        Answer::Status(list) => Some(grid(
            &[
                "ENDPOINT",
                "ID",
                "VERSION",
                "DB SIZE",
                "IS LEADER",
                "IS LEARNER",
                "RAFT TERM",
                "RAFT INDEX",
                "RAFT APPLIED INDEX",
                "ERRORS",
            ],
            &list.iter().map(status_row).collect::<Vec<_>>(),
        )),
        Answer::SnapshotStatus(summary) => {
            Some(grid(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], &[snapshot_row(summary)]))
        }
        Answer::HashKv(list) => {
            let row = |one: &HashKv| vec![one.endpoint.clone(), one.response.hash.to_string()];
            Some(grid(&["ENDPOINT", "HASH"], &list.iter().map(row).collect::<Vec<_>>()))
        }
        Answer::Put(_)
        | Answer::Get(_)
        | Answer::Delete(_)
        | Answer::Txn(_)
        | Answer::Watch(_)
        | Answer::LeaseGrant(_)
        | Answer::LeaseRevoke(..)
        | Answer::LeaseKeepAlive(_)
        | Answer::LeaseTimeToLive(..)
        | Answer::Leases(_)
        | Answer::Alarms(_)
        | Answer::MemberAdd(_)
        | Answer::MemberPromote(..)
        | Answer::MemberRemove(..)
        | Answer::MemberUpdate(..) => None,
    }
}

/// Draws the grid: titles centred, cells to the right. Every row must have one cell per title.
pub(crate) fn grid(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = titles.iter().map(|title| width(title)).collect();
    for row in rows {
        assert_eq!(row.len(), titles.len());
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(cell));
        }
    }
    let mut rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    rule.push_str("+\n");

    let mut out = rule.clone();
    for (title, column) in titles.iter().zip(&widths) {
        let gap = column - width(title);
        let (left, right) = (gap / 2, gap - gap / 2);
        out.push_str(&format!("| {}{title}{} ", " ".repeat(left), " ".repeat(right)));
    }
    out.push_str("|\n");
    out.push_str(&rule);
    for row in rows {
        for (cell, column) in row.iter().zip(&widths) {
            out.push_str(&format!("| {cell:>column$} "));
        }
        out.push_str("|\n");
    }
    if !rows.is_empty() {
        out.push_str(&rule);
    }
    out
}
