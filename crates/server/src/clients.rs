//! The client port: one single-threaded runtime per client thread, all accepting on the same socket.
//!
//! A connection stays on the thread that accepted it, so nothing on the hot path crosses threads but the hand-over to
//! the node. gRPC (HTTP/2) and plain HTTP/1 share the port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::etcdserverpb as pb;
use api::v3electionpb::election_server::ElectionServer;
use api::v3lockpb::lock_server::LockServer;
use base::limits;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;
use tracing::{debug, warn};

use crate::body::AnswerBody;
use crate::calls::{Call, Calls};
use crate::gateway::Gateway;
use crate::gathered::Gathered;
use crate::grpc::{
    ClusterService, ElectionService, KvService, LeaseService, LockService, MaintenanceService, WatchService,
};
use crate::http as plain;
use crate::unary;

const KV: &str = "/etcdserverpb.KV/";
const WATCH: &str = "/etcdserverpb.Watch/";
const LEASE: &str = "/etcdserverpb.Lease/";
const MAINTENANCE: &str = "/etcdserverpb.Maintenance/";
const CLUSTER: &str = "/etcdserverpb.Cluster/";
const LOCK: &str = "/v3lockpb.Lock/";
const ELECTION: &str = "/v3electionpb.Election/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.";

/// An unanswered HTTP/2 ping ends the connection, and frees what a vanished client holds.
const PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// A connection must finish its first request's headers in this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Bytes a client may send ahead, per stream and per connection.
const WINDOWS: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);
/// Bytes of an answer buffered per stream beyond the client's window.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// How long open requests may take to finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything a client thread serves.
pub(crate) struct Services {
    gateway: Arc<Gateway>,
    calls: Arc<Calls>,
    /// The largest message that a request may be.
    receive_max: usize,
    kv_calls: KvService,
    lease_calls: LeaseService,
    kv: pb::kv_server::KvServer<KvService>,
    watch: pb::watch_server::WatchServer<WatchService>,
    lease: pb::lease_server::LeaseServer<LeaseService>,
    maintenance: pb::maintenance_server::MaintenanceServer<MaintenanceService>,
    cluster: pb::cluster_server::ClusterServer<ClusterService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    /// Health and reflection: seldom called, so they may take the longer way through a router.
    rest: Routes,
}

impl Services {
    pub(crate) fn new(gateway: Gateway) -> Self {
        let gateway = Arc::new(gateway);
        // One byte over what fits is refused by gRPC itself, as etcd does.
        let receive_max = gateway.context.max_request_bytes + limits::GRPC_OVERHEAD_BYTES;
        let kv_calls = KvService { gateway: Arc::clone(&gateway) };
        let lease_calls = LeaseService { gateway: Arc::clone(&gateway) };
        let kv = pb::kv_server::KvServer::new(kv_calls.clone())
            .max_decoding_message_size(receive_max)
            .max_encoding_message_size(i32::MAX as usize);
        let watch = pb::watch_server::WatchServer::new(WatchService { gateway: Arc::clone(&gateway) })
            .max_decoding_message_size(receive_max)
            .max_encoding_message_size(i32::MAX as usize);
        let lease =
            pb::lease_server::LeaseServer::new(lease_calls.clone()).max_encoding_message_size(i32::MAX as usize);
        let maintenance =
            pb::maintenance_server::MaintenanceServer::new(MaintenanceService { gateway: Arc::clone(&gateway) });
        let cluster = pb::cluster_server::ClusterServer::new(ClusterService { gateway: Arc::clone(&gateway) });
        let lock = LockServer::new(LockService { gateway: Arc::clone(&gateway) });
        let election = ElectionServer::new(ElectionService { gateway: Arc::clone(&gateway) })
            .max_decoding_message_size(receive_max);
        let calls = gateway.context.metrics.calls.for_thread();
        let rest = health_and_reflection();
        Self {
            gateway,
            calls,
            receive_max,
            kv_calls,
            lease_calls,
            kv,
            watch,
            lease,
            maintenance,
            cluster,
            lock,
            election,
            rest,
        }
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        let grpc = request.method() == http::Method::POST;
        let call = if grpc { self.calls.start(request.uri().path()) } else { None };
        let response = match self.unary(request).await {
            Ok(response) => response.map(AnswerBody::Unary),
            Err(request) => self.any(request, grpc, call.as_ref()).await?,
        };
        Ok(match call {
            Some(call) => call.answer(response),
            None => response,
        })
    }

    /// Serves the calls that are made most; gives back what is none of them.
    async fn unary(&self, request: Request<Incoming>) -> Result<Response<unary::UnaryBody>, Request<Incoming>> {
        use pb::kv_server::Kv as _;
        use pb::lease_server::Lease as _;

        if request.method() != http::Method::POST || !unary::is_plain(request.headers()) {
            return Err(request);
        }
        let (kv, lease, max) = (&self.kv_calls, &self.lease_calls, self.receive_max);
        Ok(match request.uri().path() {
            "/etcdserverpb.KV/Range" => unary::serve(request, max, |asked| kv.range(asked)).await,
            "/etcdserverpb.KV/Put" => unary::serve(request, max, |asked| kv.put(asked)).await,
            "/etcdserverpb.KV/Txn" => unary::serve(request, max, |asked| kv.txn(asked)).await,
            "/etcdserverpb.KV/DeleteRange" => unary::serve(request, max, |asked| kv.delete_range(asked)).await,
            "/etcdserverpb.KV/Compact" => unary::serve(request, max, |asked| kv.compact(asked)).await,
            "/etcdserverpb.Lease/LeaseGrant" => unary::serve(request, max, |asked| lease.lease_grant(asked)).await,
            "/etcdserverpb.Lease/LeaseRevoke" => unary::serve(request, max, |asked| lease.lease_revoke(asked)).await,
            _ => return Err(request),
        })
    }

    async fn any(
        &self,
        request: Request<Incoming>,
        grpc: bool,
        call: Option<&Call>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let path = request.uri().path();
        let response = if grpc && path.starts_with(KV) {
            self.kv.clone().call(request).await?
        } else if grpc && path.starts_with(WATCH) {
            self.watch.clone().call(request.map(|body| Call::receive(call, body))).await?
        } else if grpc && path.starts_with(LEASE) {
            self.lease.clone().call(request.map(|body| Call::receive(call, body))).await?
        } else if grpc && path.starts_with(MAINTENANCE) {
            self.maintenance.clone().call(request).await?
        } else if grpc && path.starts_with(CLUSTER) {
            self.cluster.clone().call(request).await?
        } else if grpc && path.starts_with(LOCK) {
            self.lock.clone().call(request).await?
        } else if grpc && path.starts_with(ELECTION) {
            self.election.clone().call(request).await?
        } else if grpc && (path.starts_with(HEALTH) || path.starts_with(REFLECTION)) {
            self.rest.clone().call(request.map(Body::new)).await?
        } else if is_grpc(&request) {
            tonic::Status::unimplemented(format!("unknown method {path}")).into_http()
        } else {
            plain::serve(&self.gateway, &request).await.map(Body::new)
        };
        Ok(response.map(AnswerBody::from))
    }
}

fn health_and_reflection() -> Routes {
    // The service named "" is serving from the start, as in etcd.
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "the committed descriptors are valid: checked by a test";
    Routes::new(health)
        .add_service(reflection().build_v1().expect(valid))
        .add_service(reflection().build_v1alpha().expect(valid))
        .prepare()
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Binds an address and listens. Without SO_REUSEPORT: a second server on the same port must be told so.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // "::" must not take the IPv4 address away from another listener.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Accepts and serves until `stop` changes; then lets open requests finish.
pub(crate) async fn serve(
    services: Arc<Services>,
    listener: TcpListener,
    connections: Arc<AtomicUsize>,
    streams_max: u32,
    mut stop: watch::Receiver<bool>,
) {
    let tasks = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let metrics = &services.gateway.context.metrics;
                if connections.fetch_add(1, Ordering::Relaxed) >= limits::CONNECTIONS_MAX {
                    connections.fetch_sub(1, Ordering::Relaxed);
                    metrics.client_connections_refused.add(1);
                    warn!(%address, max = limits::CONNECTIONS_MAX, "too many client connections, one refused");
                    continue;
                }
                metrics.client_connections.add(1);
                let services = Arc::clone(&services);
                let connections = Arc::clone(&connections);
                let stop = stop.clone();
                tasks.spawn(async move {
                    connection(services, stream, address, streams_max, stop).await;
                    connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                // Out of file descriptors, for one: the listener stays, the next attempt may work.
                warn!(%error, "cannot accept client connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        warn!(open = tasks.len(), "connections still open at shutdown are cut");
    }
}

async fn connection(
    services: Arc<Services>,
    stream: TcpStream,
    address: SocketAddr,
    streams_max: u32,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%address, %error, "client connection is gone already");
        return;
    }
    match tokio::time::timeout(HEADER_TIMEOUT, stream.peek(&mut [0; 1])).await {
        Ok(Ok(1..)) => {}
        _ => return debug!(%address, "a client connected and said nothing"),
    }
    let service = service_fn(move |request| {
        let services = Arc::clone(&services);
        async move { services.dispatch(request).await }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        // Nobody reads the date of a gRPC answer.
        .auto_date_header(false)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let serving = builder.serve_connection(TokioIo::new(Gathered::new(stream)), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        _ = stop.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%address, %error, "client connection ended");
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_committed_descriptors_are_valid() {
        drop(super::health_and_reflection());
    }
}
