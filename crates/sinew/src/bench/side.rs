//! One service under load: its connections, its processes, and the measuring of one workload.
//!
//! Invariant: processor time is read right before and right after the measured phase, so warm-up and idle time between
//! phases do not count. Used by [`super::run`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::args::Plan;
use super::client::{Caller, Channel, Endpoint};
use super::load::{self, Drive, Outcome};
use super::procfs::{Servers, own_cpu_time};
use super::progress::Progress;
use super::report::{Measurement, SideReport};
use super::watchers::{Deliveries, Watchers};
use super::workload::{Generator, Workload};

/// Fewest clients that write the first version of every key.
const PREFILL_CLIENTS_MIN: usize = 64;
/// Longest time that may take.
const PREFILL_DURATION_MAX: Duration = Duration::from_secs(60 * 60);

/// A service, connected.
pub(super) struct Side {
    name: &'static str,
    endpoints: Vec<Arc<Endpoint>>,
    channels: Vec<Arc<Channel>>,
    servers: Servers,
    unmeasured_because: Option<String>,
    /// Always there between phases; a phase borrows it by taking it.
    generator: Option<Generator>,
}

impl Side {
    /// Connects, and looks for the processes at the other end (`pids`, if not empty).
    ///
    /// # Errors
    /// A sentence for the user, if an endpoint does not answer or a process does not exist.
    pub(super) async fn connect(
        name: &'static str,
        endpoints: &[Arc<Endpoint>],
        pids: &[u32],
        plan: &Plan,
    ) -> Result<Self, String> {
        let (servers, unmeasured_because) = if pids.is_empty() {
            let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address()).collect();
            match Servers::listening(&addresses) {
                Ok(servers) => (servers, None),
                Err(reason) => (Servers::default(), Some(reason)),
            }
        } else {
            (Servers::given(pids)?, None)
        };
        let mut generator = Generator::new(plan.shape.clone(), plan.workloads.contains(&Workload::Cas));
        let mut channels = Vec::new();
        // At least one per endpoint, to know that all of them answer before any figure is taken.
        for number in 0..plan.connections.max(endpoints.len()) {
            let endpoint = &endpoints[number % endpoints.len()];
            let channel = probe(endpoints, number % endpoints.len(), &mut generator);
            let channel = match tokio::time::timeout(plan.drive.timeout, channel).await {
                Ok(channel) => channel?,
                Err(_) => return Err(format!("{}: no answer within {:?}", endpoint.address(), plan.drive.timeout)),
            };
            channels.push(channel);
        }
        channels.truncate(plan.connections);
        let endpoints = endpoints.to_vec();
        Ok(Self { name, endpoints, channels, servers, unmeasured_because, generator: Some(generator) })
    }

    /// Writes every key once.
    ///
    /// # Errors
    /// A sentence for the user, if a write failed or time ran out.
    pub(super) async fn prefill(&mut self, plan: &Plan, interrupted: &AtomicBool) -> Result<(), String> {
        let keys = plan.shape.keys.count();
        let drive = Drive {
            clients: plan.drive.clients.max(PREFILL_CLIENTS_MIN),
            duration: PREFILL_DURATION_MAX,
            total: Some(keys),
            rate: None,
            timeout: plan.drive.timeout,
        };
        let outcome = self.phase(&drive, None, &Progress::new(&format!("prefill {}", self.name)), interrupted).await?;
        if let Some((text, count)) = outcome.errors.first_key_value() {
            return Err(format!("prefill of {}: {count} writes failed: {text}", self.addresses().join(",")));
        }
        if outcome.succeeded < keys && !interrupted.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(format!("prefill: only {} of {keys} keys in {PREFILL_DURATION_MAX:?}", outcome.succeeded));
        }
        Ok(())
    }

    /// Warms up and measures one workload.
    ///
    /// # Errors
    /// A sentence for the user, if the load could not be generated; failed operations are part of the figures.
    pub(super) async fn measure(
        &mut self,
        workload: Workload,
        plan: &Plan,
        interrupted: &AtomicBool,
    ) -> Result<Measurement, String> {
        self.generator.as_mut().expect("there between phases").select(workload);
        let title = format!("{} {}", workload.name(), self.name);
        let watchers = match workload {
            Workload::Watch => {
                let opened = Watchers::open(&self.channels, plan.watchers, plan.shape.keys.prefix()).await;
                Some(opened.map_err(|error| format!("watch of {}: {error}", self.addresses().join(",")))?)
            }
            _ => None,
        };
        let deliveries = watchers.as_ref().map(|watchers| &watchers.deliveries);
        if !plan.warmup.is_zero() {
            let warmup = Drive { duration: plan.warmup, total: None, ..plan.drive.clone() };
            self.phase(&warmup, deliveries, &Progress::new(&format!("{title} warm-up")), interrupted).await?;
        }
        let (servers_before, own_before) = (self.servers.cpu_time(), own_cpu_time());
        let outcome = self.phase(&plan.drive, deliveries, &Progress::new(&title), interrupted).await?;
        let own = own_cpu_time() - own_before;
        let servers = servers_before.zip(self.servers.cpu_time()).map(|(before, after)| after.saturating_sub(before));
        let resident = self.servers.resident_bytes().map(|each| each.iter().map(|(_, bytes)| bytes).sum());
        Ok(Measurement::new(&outcome, servers, own, resident))
    }

    /// What the report says about this side; memory as of now.
    pub(super) fn report(&self) -> SideReport {
        let servers = self.servers.resident_bytes();
        let is_lost = servers.is_none() && self.unmeasured_because.is_none();
        let lost = is_lost.then(|| "one of them ended during the run".to_owned());
        SideReport {
            name: self.name,
            endpoints: self.addresses(),
            servers: servers.map(|each| each.into_iter().map(|(pid, bytes)| (pid.0, bytes)).collect()),
            unmeasured_because: self.unmeasured_because.clone().or(lost),
        }
    }

    fn addresses(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.address().to_owned()).collect()
    }

    async fn phase(
        &mut self,
        drive: &Drive,
        deliveries: Option<&Deliveries>,
        progress: &Progress,
        interrupted: &AtomicBool,
    ) -> Result<Outcome, String> {
        let generator = self.generator.take().expect("there between phases");
        let ran = load::run(drive, &self.channels, generator, deliveries, progress, interrupted).await;
        let (outcome, generator) = ran.map_err(|error| format!("cannot generate load: {error}"))?;
        self.generator = Some(generator);
        Ok(match deliveries {
            Some(deliveries) => deliveries.settle(outcome, drive.timeout).await,
            None => outcome,
        })
    }
}

/// Connects to the endpoint at `home` and reads one key there, because only an answer shows that it is a server of the
/// right kind.
async fn probe(endpoints: &[Arc<Endpoint>], home: usize, generator: &mut Generator) -> Result<Arc<Channel>, String> {
    let at_endpoint = |error| format!("{}: {error}", endpoints[home].address());
    let channel = Channel::connect(endpoints, home).await.map_err(|error| error.to_string())?;
    let operation = generator.probe();
    let answer = Caller::new(&channel).call(operation.call, operation.framed.clone()).await;
    let settled = answer.and_then(|answer| generator.settle(&operation, answer));
    settled.map_err(at_endpoint)?;
    Ok(channel)
}
