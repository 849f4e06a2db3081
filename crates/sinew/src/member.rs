//! One running server, as `serve` and `demo` see it: starts, tells when it stops by itself, stops in order.

use std::net::SocketAddr;

use server::{Config, Server};

/// A running server.
pub(crate) struct Member {
    server: Server,
}

impl Member {
    /// Starts it.
    ///
    /// # Errors
    /// What keeps it from running.
    pub(crate) fn start(config: Config) -> Result<Self, String> {
        let server = Server::start(config).map_err(|error| error.to_string())?;
        Ok(Self { server })
    }

    /// Where it listens for clients.
    pub(crate) fn client_addresses(&self) -> &[SocketAddr] {
        self.server.client_addresses()
    }

    /// A call that blocks until the member stops; by itself, then it tells why, or because of [`Member::stop`].
    pub(crate) fn ended(&self) -> impl FnOnce() -> Result<(), String> + Send + use<> {
        let ended = self.server.ended();
        move || ended().map_err(|fault| fault.to_string())
    }

    /// Hands leadership over and closes; blocks.
    pub(crate) fn stop(self) {
        self.server.shutdown();
    }
}
