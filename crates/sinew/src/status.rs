//! `sinew status`: the questions an operator asks first, in that order.
//!
//! Is it available? How many failures from trouble is it? Who leads? Who lags? What is moving? Everything comes from
//! the members themselves (`Maintenance.Status` of each, `Cluster.MemberList`) and one read through a quorum, so
//! "available" is observed, not concluded.

use std::io::Write;
use std::time::Duration;

use api::etcdserverpb::{Member, RangeRequest, StatusResponse};
use bytes::Bytes;
use tokio::time::Instant;

use crate::ctl::client::Client;
use crate::ctl::{Failure, Settings, for_each};
use crate::print::{Format, Object, bytes, duration, grid, list};

/// Behind the leader by more than this many entries, a member counts as lagging: a healthy one is within a few batches.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// Asks the cluster and prints what it is like.
///
/// # Errors
/// No member answers, or the cluster is not available.
pub(crate) async fn run(settings: &Settings, out: &mut dyn Write) -> Result<(), Failure> {
    let text = match settings.style.format {
        Format::Simple | Format::Table => Report::text,
        Format::Json => Report::json,
        Format::Fields | Format::Protobuf => {
            return Err(Failure::Usage("status is printed with -w simple, table or json".to_owned()));
        }
    };
    let report = Report::gather(settings).await?;
    out.write_all(text(&report).as_bytes())?;
    out.flush()?;
    if report.is_available() { Ok(()) } else { Err(Failure::Silent) }
}

/// What was found out.
struct Report {
    cluster: u64,
    members: Vec<Seen>,
    /// How long a read through a quorum took, or why there was none.
    read: Result<Duration, String>,
}

/// One member.
struct Seen {
    member: Member,
    /// The URL asked; empty if it has none.
    url: String,
    status: Result<StatusResponse, String>,
}

impl Report {
    async fn gather(settings: &Settings) -> Result<Self, Failure> {
        let client = Client::new(settings);
        // From the member's own state: the list must also come when there is no quorum.
        let known = client.members(false).await?;
        let mut members = known.members;
        members.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
        let urls: Vec<String> =
            members.iter().map(|member| member.client_urls.first().cloned().unwrap_or_default()).collect();
        let statuses = for_each(&urls, |url| {
            let client = client.only(&url);
            async move {
                if url.is_empty() {
                    return Err("has not started yet".to_owned());
                }
                client.status().await.map_err(reason)
            }
        });
        let key = Bytes::from_static(b"health");
        let read = async {
            let started = Instant::now();
            let answer = client.range(RangeRequest { key, ..RangeRequest::default() }).await;
            match answer.map_err(reason) {
                Ok(_) => Ok(started.elapsed()),
                // Whoever may not read has been told so through the quorum.
                Err(text) if text == "etcdserver: permission denied" => Ok(started.elapsed()),
                Err(text) => Err(text),
            }
        };
        let (statuses, read) = tokio::join!(statuses, read);
        let members = members
            .into_iter()
            .zip(urls)
            .zip(statuses)
            .map(|((member, url), status)| Seen { member, url, status })
            .collect();
        Ok(Self { cluster: known.header.map_or(0, |header| header.cluster_id), members, read })
    }

    fn is_available(&self) -> bool {
        self.read.is_ok()
    }

    fn voters(&self) -> usize {
        self.members.iter().filter(|seen| !seen.member.is_learner).count()
    }

    fn voters_alive(&self) -> usize {
        self.members.iter().filter(|seen| !seen.member.is_learner && seen.status.is_ok()).count()
    }

    /// How many more voters may fail before the cluster stops.
    fn failures_left(&self) -> usize {
        let quorum = self.voters() / 2 + 1;
        self.voters_alive().saturating_sub(quorum)
    }

    fn statuses(&self) -> impl Iterator<Item = &StatusResponse> {
        self.members.iter().filter_map(|seen| seen.status.as_ref().ok())
    }

    /// The leader that the members of the newest term name.
    fn leader(&self) -> Option<u64> {
        let newest = self.statuses().map(|status| status.raft_term).max()?;
        self.statuses()
            .filter(|status| status.raft_term == newest)
            .map(|status| status.leader)
            .find(|leader| *leader != 0)
    }

    fn revision(&self) -> i64 {
        self.statuses().filter_map(|status| status.header).map(|header| header.revision).max().unwrap_or(0)
    }

    /// The furthest log position any member knows to be decided.
    fn head(&self) -> u64 {
        self.statuses().map(|status| status.raft_index).max().unwrap_or(0)
    }

    fn lag(&self, status: &StatusResponse) -> u64 {
        self.head().saturating_sub(status.raft_applied_index)
    }

    fn name(&self, id: u64) -> String {
        let known = self.members.iter().find(|seen| seen.member.id == id && !seen.member.name.is_empty());
        known.map_or_else(|| format!("{id:x}"), |seen| seen.member.name.clone())
    }

    /// What is under way, one line each.
    fn movements(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for seen in &self.members {
            let Ok(status) = &seen.status else { continue };
            let (name, lag) = (self.name(seen.member.id), self.lag(status));
            if seen.member.is_learner {
                lines.push(format!("{name} is a learner, {lag} entries behind"));
            } else if lag > LAG_ENTRIES_MAX {
                lines.push(format!("{name} catches up, {lag} entries behind"));
            }
        }
        lines
    }

    /// What needs somebody's attention, one line each.
    fn troubles(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for seen in &self.members {
            let name = self.name(seen.member.id);
            match &seen.status {
                Err(reason) => lines.push(format!("{name} does not answer: {reason}")),
                Ok(status) => lines.extend(status.errors.iter().map(|error| format!("{name}: {}", error.trim()))),
            }
        }
        lines
    }

    fn text(&self) -> String {
        let available = match &self.read {
            Ok(took) => format!(
                "yes, {} of {} voters answer; a read through the quorum took {}",
                self.voters_alive(),
                self.voters(),
                duration(*took)
            ),
            Err(reason) => format!("NO, {} of {} voters answer; {reason}", self.voters_alive(), self.voters()),
        };
        let left = match (self.is_available(), self.failures_left()) {
            (false, _) => "none".to_owned(),
            (true, 0) if self.voters() == 1 => "none: there is only one voter".to_owned(),
            (true, 0) => "none: the next failed member stops the cluster".to_owned(),
            (true, 1) => "1 member".to_owned(),
            (true, count) => format!("{count} members"),
        };
        let leader = self.leader().map_or_else(|| "nobody".to_owned(), |leader| self.name(leader));
        let term = self.statuses().map(|status| status.raft_term).max().unwrap_or(0);
        let mut text = format!(
            "Cluster         {:x}\nAvailable       {available}\nCan still lose  {left}\n\
             Leader          {leader}, term {term}\nRevision        {}\n",
            self.cluster,
            self.revision()
        );
        let mut lines = |title: &str, lines: Vec<String>, none: &str| {
            let lines = if lines.is_empty() { vec![none.to_owned()] } else { lines };
            for (number, line) in lines.iter().enumerate() {
                text.push_str(&format!("{:<16}{line}\n", if number == 0 { title } else { "" }));
            }
        };
        lines("Moving", self.movements(), "nothing");
        lines("Trouble", self.troubles(), "none");
        text.push('\n');
        text.push_str(&self.table());
        text
    }

    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.members.iter().map(|seen| self.row(seen)).collect();
        grid(&["NAME", "ID", "ROLE", "VERSION", "DB SIZE", "IN USE", "APPLIED", "LAG", "ENDPOINT"], &rows)
    }

    fn row(&self, seen: &Seen) -> Vec<String> {
        let mut row = vec![seen.member.name.clone(), format!("{:x}", seen.member.id), self.role(seen).to_owned()];
        match &seen.status {
            Ok(status) => row.extend([
                status.version.clone(),
                bytes(status.db_size.try_into().unwrap_or(0)),
                bytes(status.db_size_in_use.try_into().unwrap_or(0)),
                status.raft_applied_index.to_string(),
                self.lag(status).to_string(),
            ]),
            Err(_) => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
        }
        row.push(seen.url.clone());
        row
    }

    fn role(&self, seen: &Seen) -> &'static str {
        if seen.status.is_err() {
            "silent"
        } else if seen.member.is_learner {
            "learner"
        } else if self.leader() == Some(seen.member.id) {
            "leader"
        } else {
            "follower"
        }
    }

    fn json(&self) -> String {
        let strings = |lines: Vec<String>| {
            list(lines.iter().map(|line| serde_json::Value::from(line.as_str()).to_string()))
                .unwrap_or_else(|| "[]".to_owned())
        };
        let mut object = Object::new();
        object.always_text("cluster_id", &format!("{:x}", self.cluster));
        object.raw("available", Some(self.is_available().to_string()));
        match &self.read {
            Ok(took) => object.raw("read_microseconds", Some(took.as_micros().to_string())),
            Err(reason) => object.always_text("unavailable_because", reason),
        }
        object.raw("voters", Some(self.voters().to_string()));
        object.raw("voters_answering", Some(self.voters_alive().to_string()));
        let left = if self.is_available() { self.failures_left() } else { 0 };
        object.raw("failures_left", Some(left.to_string()));
        object.raw("leader", Some(self.leader().map_or("null".to_owned(), |leader| format!("\"{leader:x}\""))));
        object.raw("revision", Some(self.revision().to_string()));
        object.raw("moving", Some(strings(self.movements())));
        object.raw("trouble", Some(strings(self.troubles())));
        let members = list(self.members.iter().map(|seen| self.member_json(seen)));
        object.raw("members", Some(members.unwrap_or_else(|| "[]".to_owned())));
        let mut text = object.finish();
        text.push('\n');
        text
    }

    fn member_json(&self, seen: &Seen) -> String {
        let mut object = Object::new();
        object.always_text("id", &format!("{:x}", seen.member.id));
        object.always_text("name", &seen.member.name);
        object.always_text("endpoint", &seen.url);
        object.always_text("role", self.role(seen));
        if let Ok(status) = &seen.status {
            object.always_text("version", &status.version);
            object.raw("db_size_bytes", Some(status.db_size.to_string()));
            object.raw("db_size_in_use_bytes", Some(status.db_size_in_use.to_string()));
            object.raw("term", Some(status.raft_term.to_string()));
            object.raw("applied_index", Some(status.raft_applied_index.to_string()));
            object.raw("lag_entries", Some(self.lag(status).to_string()));
        }
        object.finish()
    }
}

fn reason(failure: Failure) -> String {
    match failure {
        Failure::Request(reason) | Failure::Usage(reason) => reason,
        Failure::Silent | Failure::Exit(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::ResponseHeader;

    use super::*;

    fn seen(id: u64, applied: Option<u64>, is_learner: bool) -> Seen {
        let status = StatusResponse {
            header: Some(ResponseHeader { revision: 7, ..ResponseHeader::default() }),
            version: "3.7.1".to_owned(),
            db_size: 20_000,
            db_size_in_use: 10_000,
            leader: 1,
            raft_index: applied.unwrap_or(0),
            raft_term: 2,
            raft_applied_index: applied.unwrap_or(0),
            ..StatusResponse::default()
        };
        Seen {
            member: Member { id, name: format!("m{id}"), is_learner, ..Member::default() },
            url: format!("http://127.0.0.1:{id}"),
            status: applied.map(|_| status).ok_or_else(|| "Connection refused".to_owned()),
        }
    }

    fn report(members: Vec<Seen>, available: bool) -> Report {
        let read = if available { Ok(Duration::from_millis(2)) } else { Err("etcdserver: no leader".to_owned()) };
        Report { cluster: 0xc, members, read }
    }

    #[test]
    fn a_healthy_cluster_reads_well() {
        let report = report(vec![seen(1, Some(9), false), seen(2, Some(9), false), seen(3, Some(8), false)], true);
        let expected = "\
Cluster         c
Available       yes, 3 of 3 voters answer; a read through the quorum took 2ms
Can still lose  1 member
Leader          m1, term 2
Revision        7
Moving          nothing
Trouble         none

+------+----+----------+---------+---------+--------+---------+-----+--------------------+
| NAME | ID |   ROLE   | VERSION | DB SIZE | IN USE | APPLIED | LAG |      ENDPOINT      |
+------+----+----------+---------+---------+--------+---------+-----+--------------------+
|   m1 |  1 |   leader |   3.7.1 |   20 kB |  10 kB |       9 |   0 | http://127.0.0.1:1 |
|   m2 |  2 | follower |   3.7.1 |   20 kB |  10 kB |       9 |   0 | http://127.0.0.1:2 |
|   m3 |  3 | follower |   3.7.1 |   20 kB |  10 kB |       8 |   1 | http://127.0.0.1:3 |
+------+----+----------+---------+---------+--------+---------+-----+--------------------+
";
        assert_eq!(report.text(), expected);
    }

    #[test]
    fn failures_left_counts_answering_voters() {
        let voters = |alive: usize, all: usize| {
            let members = (1..=all).map(|id| seen(id as u64, (id <= alive).then_some(9), false)).collect();
            report(members, true).failures_left()
        };
        assert_eq!([voters(1, 1), voters(2, 3), voters(3, 3), voters(5, 5), voters(4, 5)], [0, 0, 1, 2, 1]);
        let with_learner = report(vec![seen(1, Some(9), false), seen(2, Some(9), true)], true);
        assert_eq!((with_learner.voters(), with_learner.failures_left()), (1, 0));
    }

    #[test]
    fn trouble_and_movement_are_named() {
        let members = vec![
            seen(1, Some(5_000), false),
            seen(2, Some(10), false),
            seen(3, None, false),
            seen(4, Some(4_000), true),
        ];
        let report = report(members, true);
        assert_eq!(report.movements(), ["m2 catches up, 4990 entries behind", "m4 is a learner, 1000 entries behind"]);
        assert_eq!(report.troubles(), ["m3 does not answer: Connection refused"]);
    }

    #[test]
    fn an_unavailable_cluster_says_so() {
        let report = report(vec![seen(1, Some(9), false), seen(2, None, false), seen(3, None, false)], false);
        assert!(report.text().contains("Available       NO, 1 of 3 voters answer; etcdserver: no leader\n"));
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["available"], false);
        assert_eq!(json["failures_left"], 0);
        assert_eq!(json["members"][1]["role"], "silent");
        assert_eq!(json["trouble"][0], "m2 does not answer: Connection refused");
    }
}
