//! Damaged commands and outcomes: refused, or executed like any other.

use bytes::Bytes;
use mvcc::{Command, Engine, Machine, MemEngine, Outcome, OutcomeResult};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::generate;

/// Encoded commands of every kind.
fn commands() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let mut command = || generate::command().new_tree(&mut runner).expect("a command").current();
    (0..60).map(|_| command().encode().to_vec()).collect()
}

#[test]
fn a_command_is_executed_or_refused() {
    let fuzz = commands().into_iter().fold(fuzz::Fuzz::new("command", env!("CARGO_MANIFEST_DIR")), fuzz::Fuzz::seed);
    let engine = MemEngine::new();
    fuzz.run(|input| {
        let Ok(command) = Command::decode(Bytes::copy_from_slice(input)) else { return };
        let again = Command::decode(command.encode());
        assert_eq!(again.as_ref(), Ok(&command), "the bytes of a command lead back to it");
        let mut machine = Machine::open(&engine).expect("a machine");
        let mut apply = machine.begin(engine.view()).expect("a batch");
        let outcome = apply.execute(&command, true).expect("no fault").expect("an outcome");
        let state = apply.state();
        let (batch, _) = apply.finish(Bytes::from_static(b"mark"));
        if matches!(outcome.result, OutcomeResult::Rejected(_)) {
            assert_eq!(batch.rows.len(), 2, "a refused command writes state and mark alone");
        } else if state.keys < 100 {
            engine.write(batch).expect("written");
        }
    });
}

#[test]
fn an_outcome_is_read_or_refused() {
    let engine = MemEngine::new();
    let mut outcomes = fuzz::Fuzz::new("outcome", env!("CARGO_MANIFEST_DIR"));
    let mut machine = Machine::open(&engine).expect("a machine");
    for command in commands() {
        let mut apply = machine.begin(engine.view()).expect("a batch");
        let outcome = apply.command(&command.into(), true).expect("no fault").expect("an outcome");
        outcomes = outcomes.seed(outcome.encode());
        engine.write(apply.finish(Bytes::new()).0).expect("written");
    }
    outcomes.run(|input| {
        if let Ok(outcome) = Outcome::decode(Bytes::copy_from_slice(input)) {
            assert_eq!(Outcome::decode(outcome.encode()), Ok(outcome));
        }
    });
}
