//! What ends a running member: SIGINT and SIGTERM, of which the first asks to stop in order and a second one ends the
//! process at once; or the member itself, which stops rather than go on with a broken disk.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ctl::Failure;

/// Exit code after a second signal, as shells report an interrupted program.
const EXIT_INTERRUPTED: i32 = 130;

/// Why it is time to stop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Somebody asked.
    Signal,
    /// A member stopped by itself: its name, and why.
    Fault(String, String),
}

/// The installed handlers.
pub(crate) struct Signals {
    sender: mpsc::Sender<Reason>,
    received: mpsc::Receiver<Reason>,
}

impl Signals {
    /// Installs the handlers; from now on the default action (sudden death) is off.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn install() -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::Request(format!("cannot handle signals: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let (interrupt, terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt()).map_err(cannot)?, signal(SignalKind::terminate()).map_err(cannot)?)
        };
        let (sender, received) = mpsc::channel();
        let heard = sender.clone();
        let listen = move || runtime.block_on(listen(interrupt, terminate, &heard));
        thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(cannot)?;
        Ok(Self { sender, received })
    }

    /// Also listens to the member `name`, whose `ended` blocks until it stops.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn watch(
        &self,
        name: &str,
        ended: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), Failure> {
        let (name, sender) = (name.to_owned(), self.sender.clone());
        let watch = move || {
            if let Err(fault) = ended() {
                // If nobody listens any more the program is about to end anyway.
                let _ = sender.send(Reason::Fault(name, fault));
            }
        };
        let spawned = thread::Builder::new().name("watch".to_owned()).spawn(watch);
        spawned.map(drop).map_err(|error| Failure::Request(format!("cannot watch the member: {error}")))
    }

    /// Blocks until there is a reason to stop.
    pub(crate) fn wait(&self) -> Reason {
        self.received.recv().expect("a sender lives as long as the receiver")
    }
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, sender: &mpsc::Sender<Reason>) {
    let mut count = 0;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        count += 1;
        // If nobody listens any more the program is about to end anyway.
        let _ = sender.send(Reason::Signal);
        if count == 2 {
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
}
