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
        give_memory_back_soon();
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

/// The allocator's option for how many milliseconds freed memory is kept (`mi_option_purge_delay`).
const PURGE_DELAY: i32 = 15;
const PURGE_DELAY_MS: i64 = 100;

/// Has freed memory go back to the system soon.
///
/// By default the allocator keeps it for a second. A member that answers many large reads at a time is resident with
/// two or three times what it holds then; with no delay at all a put would pay for pages that come and go.
#[expect(unsafe_code, reason = "the allocator has no other way to be told; this is its documented call")]
fn give_memory_back_soon() {
    // SAFETY: it stores a number in the allocator's table of options, which may be done at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn the_option_that_is_set_is_the_one_that_is_meant() {
        // SAFETY: it reads a number from the allocator's table of options.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert!([1000, PURGE_DELAY_MS].contains(&delay()), "another option has this number now: {}", delay());
        give_memory_back_soon();
        assert_eq!(delay(), PURGE_DELAY_MS);
    }

    #[test]
    fn huge_pages_are_refused() {
        refuse_huge_pages();
        assert_eq!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(true));
    }
}
