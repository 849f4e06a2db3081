//! Plain HTTP on the client port: health, version, metrics. Same paths and answers as etcd's.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use mvcc::AlarmKind;
use serde_json::json;

use crate::gateway::Gateway;
use crate::grpc::API_VERSION;
use crate::metrics::Gauges;

/// A health probe that gets no answer within this time is a failed one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers one request.
pub(crate) async fn serve<B>(gateway: &Gateway, request: &Request<B>) -> Response<Full<Bytes>> {
    let query = Query::new(request.uri().query().unwrap_or_default());
    let path = request.uri().path();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here; the API is gRPC\n");
    }
    match path {
        "/health" => health(gateway, &query).await,
        "/version" => json_answer(
            StatusCode::OK,
            &json!({
                "etcdserver": API_VERSION, "etcdcluster": "3.7.0", "storage": "3.7.0",
                "sinew": env!("CARGO_PKG_VERSION"),
            }),
        ),
        "/metrics" => metrics(gateway),
        _ => match path.strip_prefix("/livez").map(|rest| (rest, &LIVEZ[..])).or_else(|| {
            let rest = path.strip_prefix("/readyz")?;
            Some((rest, &READYZ[..]))
        }) {
            Some(("" | "/", checks)) => probe(gateway, checks, &query).await,
            Some((one, _)) if one.starts_with('/') => {
                let name = &one[1..];
                match READYZ.iter().find(|check| check.name() == name) {
                    Some(check) => probe(gateway, &[*check], &query).await,
                    None => text(StatusCode::NOT_FOUND, "no such check\n"),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
    }
}

/// The conditions behind `/livez` and `/readyz`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] = [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, gateway: &Gateway) -> Result<(), String> {
        match self {
            Self::DataCorruption if gateway.context.space.is_corrupt() => Err(String::from("alarm CORRUPT is up")),
            // A damaged engine or log stops the node; while it runs, its own state can be read.
            Self::DataCorruption | Self::SerializableRead => {
                mvcc::state(&*gateway.context.engine.view()).map(drop).map_err(|fault| fault.to_string())
            }
            Self::LinearizableRead => match tokio::time::timeout(PROBE_TIMEOUT, gateway.read_point()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(status)) => Err(status.message().to_owned()),
                Err(_) => Err(String::from("etcdserver: request timed out")),
            },
            Self::NonLearner => {
                if gateway.context.standing.is_learner() {
                    Err(String::from("this member is a learner"))
                } else {
                    Ok(())
                }
            }
        }
    }
}

async fn probe(gateway: &Gateway, checks: &[Check], query: &Query<'_>) -> Response<Full<Bytes>> {
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        if query.all("exclude").any(|name| name == check.name()) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name()));
            continue;
        }
        match check.run(gateway).await {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name())),
            Err(reason) => {
                failed = true;
                lines.push_str(&format!("[-]{} failed: {reason}\n", check.name()));
            }
        }
    }
    match (failed, query.has("verbose")) {
        (true, _) => text(StatusCode::SERVICE_UNAVAILABLE, &lines),
        (false, true) => text(StatusCode::OK, &format!("{lines}ok\n")),
        (false, false) => text(StatusCode::OK, "ok\n"),
    }
}

async fn health(gateway: &Gateway, query: &Query<'_>) -> Response<Full<Bytes>> {
    let excluded = |name: &str| query.all("exclude").any(|excluded| excluded == name);
    for alarm in gateway.context.space.alarms() {
        let name = match alarm.kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        if !excluded(name) {
            return unhealthy(&format!("ALARM {name}"));
        }
    }
    let serializable = query.all("serializable").any(|value| value == "true");
    if !serializable && gateway.context.standing.look(|status| status.leader.is_none()) {
        return unhealthy("RAFT NO LEADER");
    }
    let check = if serializable { Check::SerializableRead } else { Check::LinearizableRead };
    match check.run(gateway).await {
        Ok(()) => json_answer(StatusCode::OK, &json!({ "health": "true", "reason": "" })),
        Err(reason) => unhealthy(&format!("RANGE ERROR:{reason}")),
    }
}

fn unhealthy(reason: &str) -> Response<Full<Bytes>> {
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "health": "false", "reason": reason }))
}

fn metrics(gateway: &Gateway) -> Response<Full<Bytes>> {
    let context = &gateway.context;
    let me = context.directory.me().id;
    let state = mvcc::state(&*context.engine.view());
    let status = context.standing.get();
    let gauges = Gauges {
        member: me.0,
        is_learner: context.standing.is_learner(),
        keys: state.as_ref().map_or(0, |state| state.keys),
        has_leader: status.leader.is_some(),
        is_leader: status.leader == Some(me),
        applied_index: status.applied.0,
        committed_index: status.commit.0,
        requests_in_flight: context.admission.requests() as u64,
        db_size_bytes: context.upkeep.sizes.on_disk(),
        quota_bytes: context.space.quota_bytes().unwrap_or(0),
        revision: state.as_ref().map_or(0, |state| state.revision.0),
        compacted_revision: state.as_ref().map_or(0, |state| state.compacted.0),
        watch: context.feed.counts(),
    };
    let mut response = text(StatusCode::OK, &context.metrics.render(&gauges));
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Reads `a=b&c` queries; percent-escapes never occur in the names and values used here.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn new(query: &'a str) -> Self {
        Self(query)
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn has(&self, name: &str) -> bool {
        self.pairs().any(|(found, _)| found == name)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    answer(status, "application/json", Bytes::from(body.to_string()))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_with_and_without_values() {
        let query = Query::new("verbose&exclude=a&exclude=b");
        assert!(query.has("verbose") && !query.has("a"));
        assert_eq!(query.all("exclude").collect::<Vec<_>>(), ["a", "b"]);
    }
}
