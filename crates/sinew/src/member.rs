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
        refuse_huge_pages();
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

/// Has the kernel back this process with pages of the usual size only.
///
/// The allocator asks for huge pages wherever the system leaves that to programs. Two MiB are resident then as soon as
/// one byte of them is in use, and each thread's blocks of each size begin on pages of their own: a member under load
/// takes half as much memory again. The allocator is built not to ask (`no_thp`); this is for systems that do not wait
/// to be asked.
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "the kernel may back memory with huge pages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_refused() {
        refuse_huge_pages();
        assert_eq!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(true));
    }
}
