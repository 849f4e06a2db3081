//! Black-box tests: real processes, real sockets, kill -9.
//!
//! Everything here goes through what a user has: the binary with its flags, its ports, its files, its words. Nothing
//! calls into the server. A scenario is a file; the tools they share are `cluster` (processes), `client` (requests),
//! `load` and `history` (what was asked and answered, and whether that can be true).
//!
//! `SINEW_TEST_BINARY` names another program to test, for example the reference implementation: a scenario that the
//! reference fails is a wrong scenario. `SINEW_TEST_SEED` replaces the seed of the random moments.

mod bad_input;
mod chaos;
mod check;
mod client;
mod cluster;
mod command_line;
mod consensus;
mod crash;
mod disk;
mod handover;
mod history;
mod house;
mod http;
mod judge;
mod large;
mod lease;
mod load;
mod members;
mod members_under_faults;
mod netns;
mod overload;
mod proxy;
mod regressions;
mod routing;
mod scale;
mod sim;
mod snapshot;
mod upkeep;
mod watch;
mod watch_verb;

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a scenario may take before it counts as stuck. Far above what it needs: a busy machine is no failure.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(300);

/// How long to wait for something that must happen. Waits end as soon as it has.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs one scenario on a runtime of its own.
fn run(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(SCENARIO_TIMEOUT, scenario).await.expect("the scenario is stuck");
    });
}

/// Asks `attempt` until it says yes, or fails the test with `what` and the last answer.
async fn eventually<T, F: Future<Output = Result<T, String>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(reason) => assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}: {reason}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The seed of this run: fixed unless the environment names one, so that a failure can be repeated.
fn seed(scenario: u64) -> base::Prng {
    let chosen = std::env::var("SINEW_TEST_SEED").ok().map(|text| text.parse::<u64>().expect("SINEW_TEST_SEED"));
    base::Prng::new(chosen.unwrap_or(20_261_121).wrapping_add(scenario))
}

/// A random duration between two numbers of milliseconds.
fn between(prng: &mut base::Prng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(least_ms + prng.below(most_ms - least_ms))
}
