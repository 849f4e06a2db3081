//! SIGINT and SIGTERM: the first asks to stop in order, a second one ends the process at once.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ctl::Failure;

/// Exit code after a second signal, as shells report an interrupted program.
const EXIT_INTERRUPTED: i32 = 130;

/// The installed handlers.
pub(crate) struct Signals(mpsc::Receiver<()>);

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
        let listen = move || runtime.block_on(listen(interrupt, terminate, &sender));
        thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(cannot)?;
        Ok(Self(received))
    }

    /// Blocks until a signal comes.
    ///
    /// # Errors
    /// The thread that listens has gone.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        self.0.recv().map_err(|_| Failure::Request("the signal handler has gone".to_owned()))
    }
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, sender: &mpsc::Sender<()>) {
    let mut count = 0;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        count += 1;
        // If nobody listens any more the program is about to end anyway.
        let _ = sender.send(());
        if count == 2 {
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
}
