//! Medians over rounds, and the ratios of two sides.
//!
//! Invariant: each figure is the median of itself, not the figure of a median round, and a figure missing in one round
//! is missing in the median. Used by [`super::run`] and [`super::report`].

use super::report::{Latency, Measurement};

/// Side A divided by side B; above 1 is better for throughput only. None where B is zero or a figure is missing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Ratios {
    /// Operations per second.
    pub(super) throughput: Option<f64>,
    /// Median latency.
    pub(super) p50: Option<f64>,
    /// 99th percentile of latency.
    pub(super) p99: Option<f64>,
    /// Processor time of the servers per operation.
    pub(super) server_cpu: Option<f64>,
    /// Memory of the servers.
    pub(super) resident: Option<f64>,
}

impl Ratios {
    /// `a` divided by `b`.
    pub(super) fn new(a: &Measurement, b: &Measurement) -> Self {
        let latency =
            |pick: fn(&Latency) -> f64| ratio(a.latency_us.as_ref().map(pick), b.latency_us.as_ref().map(pick));
        Self {
            throughput: ratio(Some(a.throughput), Some(b.throughput)),
            p50: latency(|all| all.p50),
            p99: latency(|all| all.p99),
            server_cpu: ratio(a.server_cpu_us, b.server_cpu_us),
            resident: ratio(a.resident_bytes, b.resident_bytes),
        }
    }
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let (a, b) = (a?, b?);
    (b > 0.0).then(|| a / b)
}

/// One measurement out of several of the same: medians of the figures, sums of the counts.
pub(super) fn median_of_rounds(rounds: &[Measurement]) -> Measurement {
    let all = |pick: &dyn Fn(&Measurement) -> Option<f64>| {
        rounds.iter().map(pick).collect::<Option<Vec<_>>>().and_then(median)
    };
    let latency = |pick: fn(&Latency) -> f64| all(&|round| round.latency_us.as_ref().map(pick));
    let percentiles = || {
        Some(Latency {
            p50: latency(|all| all.p50)?,
            p90: latency(|all| all.p90)?,
            p95: latency(|all| all.p95)?,
            p99: latency(|all| all.p99)?,
            p999: latency(|all| all.p999)?,
            max: latency(|all| all.max)?,
        })
    };
    let mut errors = std::collections::BTreeMap::new();
    for (text, count) in rounds.iter().flat_map(|round| &round.errors) {
        *errors.entry(text.clone()).or_insert(0) += count;
    }
    Measurement {
        throughput: all(&|round| Some(round.throughput)).expect("there is at least one round"),
        operations: rounds.iter().map(|round| round.operations).sum(),
        failed: rounds.iter().map(|round| round.failed).sum(),
        missed: rounds.iter().map(|round| round.missed).sum(),
        unsent: rounds.iter().map(|round| round.unsent).sum(),
        elapsed: rounds.iter().map(|round| round.elapsed).sum(),
        latency_us: percentiles(),
        server_cpu_us: all(&|round| round.server_cpu_us),
        client_cpu_us: all(&|round| round.client_cpu_us),
        resident_bytes: all(&|round| round.resident_bytes),
        errors,
    }
}

/// The middle value, or the mean of the two middle ones; none of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::{Ratios, median, median_of_rounds};
    use crate::bench::report::{Latency, Measurement};

    fn measurement(throughput: f64, p50: f64, server_cpu_us: Option<f64>) -> Measurement {
        let p99 = p50 * 4.0;
        Measurement {
            throughput,
            operations: 10,
            failed: 1,
            missed: 0,
            unsent: 2,
            elapsed: Duration::from_secs(1),
            latency_us: Some(Latency { p50, p90: p50, p95: p50, p99, p999: p99, max: p99 }),
            server_cpu_us,
            client_cpu_us: Some(8.0),
            resident_bytes: Some(1000.0),
            errors: BTreeMap::from([("broken".to_owned(), 1)]),
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0, 6.0]), Some(5.5));
    }

    #[test]
    fn each_figure_is_its_own_median_and_counts_add_up() {
        let rounds = [
            measurement(100.0, 30.0, Some(9.0)),
            measurement(300.0, 10.0, Some(7.0)),
            measurement(200.0, 50.0, Some(8.0)),
        ];
        let median = median_of_rounds(&rounds);
        assert_eq!((median.throughput, median.server_cpu_us), (200.0, Some(8.0)));
        assert_eq!(median.latency_us.map(|all| (all.p50, all.p99)), Some((30.0, 120.0)));
        assert_eq!((median.operations, median.failed, median.unsent), (30, 3, 6));
        assert_eq!(median.errors["broken"], 3);
    }

    #[test]
    fn a_figure_missing_in_one_round_is_missing() {
        let rounds = [measurement(1.0, 1.0, Some(9.0)), measurement(1.0, 1.0, None)];
        assert_eq!(median_of_rounds(&rounds).server_cpu_us, None);
    }

    #[test]
    fn ratios_are_a_over_b_and_absent_without_a_divisor() {
        let (a, b) = (measurement(300.0, 10.0, Some(5.0)), measurement(100.0, 40.0, None));
        let ratios = Ratios::new(&a, &b);
        assert_eq!(ratios.throughput, Some(3.0));
        assert_eq!((ratios.p50, ratios.p99), (Some(0.25), Some(0.25)));
        assert_eq!((ratios.server_cpu, ratios.resident), (None, Some(1.0)));
        let idle = Measurement { throughput: 0.0, latency_us: None, ..b };
        assert_eq!(Ratios::new(&a, &idle).throughput, None);
        assert_eq!(Ratios::new(&a, &idle).p50, None);
    }
}
