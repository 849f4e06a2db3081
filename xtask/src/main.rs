//! Entry point of `cargo xtask`: picks the task, reports its error, sets the exit code.

use std::process::ExitCode;

use xtask::{codegen, conformance, root, say, soak, tidy, verify};

const USAGE: &str = "usage: cargo xtask TASK
  verify              format, lints, tidy, generated code, tests; writes nothing
  fix                 generated code, lints with a mechanical fix, format
  tidy                the rules of the house
  codegen [--check]   generated code from proto/, or only check that it is fresh
  conformance [--only etcdctl|etcdctl-3.5|etcd3|aetcd|node|clientv3|etcd-client]
                      drive three real nodes through other people's clients, and compare what these are told with
                      what etcd tells them (installs all of them below target/)
  soak --minutes N    clusters in the simulator for so long, then every planted defect
  soak --ci [--turn WORD]
                      what CI runs of that: fixed seeds, and ten planted defects in turn";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let outcome = match words.as_slice() {
        ["verify"] => verify::verify(&root),
        ["fix"] => verify::fix(&root),
        ["tidy"] => tidy::run(&root),
        ["codegen"] => codegen::run(false),
        ["codegen", "--check"] => codegen::run(true),
        ["conformance"] => conformance::run(&root, None),
        ["soak", words @ ..] => soak::run(&root, words),
        ["conformance", "--only", name] => conformance::run(&root, Some(name)),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}
