//! Thousands of random runs against the model, and proof that they would notice a defect.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mvcc::{Command, OpResult, Outcome, OutcomeResult, Reject};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::driver::{Defect, run};
use crate::store::Store;
use crate::{generate, model};

proptest! {
    #![proptest_config(Config { cases: 3000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn answers_and_history_equal_the_model(actions in prop::collection::vec(generate::action(), 1..60)) {
        run(&actions, Defect::None)?;
    }

    #[test]
    fn static_checks_equal_the_model(command in generate::command(), ops_max in 0usize..6) {
        prop_assert_eq!(command.validate(&model::limits(ops_max)), model::validate(&command, ops_max));
    }

    #[test]
    fn commands_survive_encoding(command in generate::command()) {
        prop_assert_eq!(Command::decode(command.encode()), Ok(command));
    }

    #[test]
    fn damaged_commands_never_panic(command in generate::command(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = command.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Command::decode(bytes.clone().into()) {
            prop_assert_eq!(Command::decode(read.encode()), Ok(read));
        }
        prop_assert!(Command::decode(bytes[..at].to_vec().into()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Command::decode(bytes.clone().into());
        let _ = Outcome::decode(bytes.into());
    }
}

/// A random run is worth nothing if it never gets to the rare cases.
#[test]
fn random_requests_reach_every_refusal_and_every_kind_of_row() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut refused = std::collections::BTreeMap::new();
    let mut ranks = [0; 3];
    let (mut compacted, mut nested_writes, mut failed_compares) = (0, 0, 0);
    let (mut revoked_keys, mut expired, mut checkpointed, mut alarms) = (0, 0, 0, 0);
    for _ in 0..800 {
        let mut store = Store::new();
        let commands = prop::collection::vec(generate::command(), 30).new_tree(&mut runner).unwrap().current();
        for command in commands {
            let before = store.machine.state().revision;
            match store.apply(&command).result {
                OutcomeResult::Rejected(reject) => *refused.entry(reject.to_string()).or_insert(0) += 1,
                OutcomeResult::Compact(_) => compacted += 1,
                OutcomeResult::Txn(result) => {
                    failed_compares += i32::from(!result.succeeded);
                    let nested = result.responses.iter().any(|op| matches!(op.result, OpResult::Txn(_)));
                    nested_writes += i32::from(nested && store.machine.state().revision > before);
                }
                OutcomeResult::LeaseRevoke => revoked_keys += store.machine.state().revision.0 - before.0,
                OutcomeResult::LeaseExpire(count) => expired += count,
                OutcomeResult::LeaseCheckpoint(count) => checkpointed += count,
                OutcomeResult::Alarm(changed) => alarms += i32::from(changed),
                OutcomeResult::Put(_)
                | OutcomeResult::DeleteRange(_)
                | OutcomeResult::LeaseGrant(_)
                | OutcomeResult::Member
                | OutcomeResult::AnswerTooLarge => {}
            }
        }
        for (key, _) in store.engine.rows() {
            if key[0] == b'h' {
                ranks[usize::from(key[key.len() - 1])] += 1;
            }
        }
    }
    // Limits on operations are not checked by the machine.
    for reject in Reject::ALL.into_iter().filter(|reject| *reject != Reject::TooManyOperations) {
        assert!(refused.get(&reject.to_string()).is_some_and(|count| *count >= 10), "{reject}: {refused:?}");
    }
    let counts = [ranks[0], ranks[1], ranks[2], compacted, nested_writes, failed_compares];
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
    assert!(revoked_keys >= 20 && expired >= 20 && checkpointed >= 20, "{revoked_keys} {expired} {checkpointed}");
    assert!(alarms >= 20, "{alarms}");
}

/// The number of runs until the comparison fails.
fn runs_until_found(defect: Defect) -> Option<u32> {
    let config = Config { cases: 1000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runs = std::cell::Cell::new(0);
    let result = runner.run(&prop::collection::vec(generate::action(), 1..60), |actions| {
        runs.set(runs.get() + 1);
        // A defect may also trip an assertion of the code under test.
        catch_unwind(AssertUnwindSafe(|| run(&actions, defect)))
            .unwrap_or_else(|_| Err(TestCaseError::fail("an assertion failed")))
    });
    result.err().map(|_| runs.get())
}

#[test]
fn planted_defects_are_found() {
    for defect in [
        Defect::ScanIncludesEnd,
        Defect::ScanBackSkipsLast,
        Defect::LosesTombstones,
        Defect::LosesDeletes,
        Defect::SweepTakesFloor,
        Defect::LosesMark,
        Defect::LosesAttachments,
        Defect::ModelFloorOffByOne,
    ] {
        let runs = runs_until_found(defect);
        assert!(runs.is_some_and(|runs| runs <= 200), "{defect:?} found after {runs:?} runs");
    }
    assert_eq!(runs_until_found(Defect::None), None);
}
