//! Property 7: within a connection answers never go back, and a session's least revision is kept.
//!
//! For each client, node and connection: an answer has at least the revision of every answer that was there before it
//! was asked for, at any level. O(n log n).

use std::collections::BTreeMap;

use crate::history::{History, Level, Operation, Request, Revision};
use crate::verdict::{Impossible, Verdict};

/// Client, node and number of the connection.
type Connection = (u64, u64, u64);

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut connections: BTreeMap<Connection, Vec<(&Operation, Revision)>> = BTreeMap::new();
    let mut judged = 0;
    for operation in &history.operations {
        let Some(revision) = operation.revision() else { continue };
        if let Level::Session { min_revision } = operation.request.level()
            && revision < min_revision
        {
            let reason = format!("an answer has revision {revision}, but at least {min_revision} was asked for");
            return Impossible::new(reason, [operation.id]).into();
        }
        // A watch answers all its life long, a lease is renewed before the header is made.
        if matches!(operation.request, Request::Watch(_) | Request::Lease(_) | Request::Lock(_)) {
            continue;
        }
        judged += 1;
        let connection = (operation.client, operation.node, operation.connection);
        connections.entry(connection).or_default().push((operation, revision));
    }
    for answers in connections.into_values() {
        if let Err(impossible) = check_connection(answers) {
            return impossible.into();
        }
    }
    Verdict::Possible { judged }
}

fn check_connection(mut answers: Vec<(&Operation, Revision)>) -> Result<(), Impossible> {
    let mut by_return = answers.clone();
    by_return.sort_by_key(|(operation, _)| operation.returned);
    answers.sort_by_key(|(operation, _)| operation.invoked);
    let mut earlier = by_return.into_iter().peekable();
    let mut greatest: Option<(&Operation, Revision)> = None;
    for (operation, revision) in answers {
        while let Some(answer) = earlier.next_if(|(other, _)| other.returned < Some(operation.invoked)) {
            if greatest.is_none_or(|(_, greatest)| answer.1 > greatest) {
                greatest = Some(answer);
            }
        }
        if let Some((other, greatest)) = greatest
            && revision < greatest
        {
            let reason = format!("answers went back from revision {greatest} to {revision} on one connection");
            return Err(Impossible::new(reason, [operation.id, other.id]));
        }
    }
    Ok(())
}
