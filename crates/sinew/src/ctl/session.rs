//! A lease that is kept alive as long as the program needs it: what locks and candidacies hang on.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Failure;
use super::client::Client;
use super::lease::{Renewals, pause};

/// A lease with somebody who renews it.
pub(super) struct Session {
    client: Client,
    pub(super) lease: i64,
    lost: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

impl Session {
    /// Makes a lease and starts to renew it.
    pub(super) async fn open(client: &Client, ttl_s: i64) -> Result<Self, Failure> {
        let granted = client.lease_grant(ttl_s).await?;
        let (sender, lost) = watch::channel(false);
        let (keeper_client, id, ttl_s) = (client.clone(), granted.id, granted.ttl);
        let keeper = tokio::spawn(async move {
            keep(&keeper_client, id, ttl_s).await;
            sender.send_replace(true);
        });
        Ok(Self { client: client.clone(), lease: id, lost, keeper })
    }

    /// Whether the lease may have ended.
    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Returns when the lease may have ended.
    pub(super) async fn ended(&self) {
        let mut lost = self.lost.clone();
        // The keeper ends only after it said so, or with the program.
        drop(lost.wait_for(|lost| *lost).await);
    }

    /// What `work` gives, unless the lease ends or somebody wants to stop before.
    pub(super) async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        stopped: impl Future<Output = ()>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.ended() => Err(Failure::Request("session expired".to_owned())),
            () = stopped => Err(Failure::Request("context canceled".to_owned())),
        }
    }

    /// Ends the lease, and with it everything that hangs on it.
    pub(super) async fn close(self) -> Result<(), Failure> {
        self.keeper.abort();
        self.client.lease_revoke(self.lease).await.map(drop)
    }
}

/// Renews until the lease is gone, or nobody could be reached for as long as it lives.
async fn keep(client: &Client, id: i64, ttl_s: i64) {
    let life = pause(ttl_s) * 3;
    let mut renewed = Instant::now();
    loop {
        // Another connection after each failure, so that another endpoint is tried.
        let Some(left) = (renewed + life).checked_duration_since(Instant::now()) else { return };
        if let Ok(Ok(mut renewals)) = timeout(left, Renewals::open(client, id)).await {
            let mut asked = Instant::now();
            while let Some(left) = (renewed + life).checked_duration_since(Instant::now()) {
                match timeout(left.min(life / 2), renewals.next()).await {
                    Ok(Ok(answer)) if answer.ttl > 0 => renewed = asked,
                    Ok(Ok(_)) => return,
                    Ok(Err(_)) | Err(_) => break,
                }
                sleep(pause(ttl_s)).await;
                asked = Instant::now();
            }
        }
        sleep(pause(ttl_s) / 4).await;
    }
}
