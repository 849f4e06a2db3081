//! The `sinew` binary: server, throw-away cluster, client and load generator in one.
//!
//! This crate is the edge: it turns words, environment and files into checked values (`server::Config`, requests) and
//! answers into text. Nothing in it decides anything about the data.

mod bench;
mod check;
mod cli;
mod ctl;
mod demo;
mod flags;
mod logging;
mod member;
mod print;
mod quote;
mod serve;
mod signals;
mod sim;
mod status;

use std::io::{self, Write};
use std::process::ExitCode;

use cli::Invocation;
use ctl::{Failure, Streams};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The cluster refused, or the server failed.
const FAILED: u8 = 1;
/// The command makes no sense as it was typed.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let words = std::env::args_os().collect();
    match cli::parse(words, &|name| std::env::var_os(name)) {
        Ok(Invocation::Serve(flags, ignored)) => exit(serve::run(*flags, &ignored)),
        Ok(Invocation::Demo(arguments)) => exit(demo::run(&arguments)),
        Ok(Invocation::Bench(arguments)) => bench::run(*arguments),
        Ok(Invocation::Sim(arguments)) => exit(sim::run(&arguments)),
        Ok(Invocation::CompareProtocols(arguments)) => exit(sim::compare::run(&arguments)),
        Ok(Invocation::Check(arguments, globals)) => {
            exit(globals.settings().and_then(|settings| check::run(*arguments, &settings)))
        }
        Ok(Invocation::Status(globals)) => exit(
            globals
                .settings()
                .and_then(|settings| client_runtime()?.block_on(status::run(&settings, &mut io::stdout().lock()))),
        ),
        Ok(Invocation::Client(verb, globals)) => exit(globals.settings().and_then(|settings| {
            let mut streams =
                Streams { input: &mut io::stdin(), out: &mut io::stdout().lock(), err: &mut io::stderr() };
            client_runtime()?.block_on(ctl::run(*verb, settings, &mut streams))
        })),
        Err(error) => {
            // clap picks the stream; if even that is closed there is nobody left to tell.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

/// Clients wait for one answer at a time: one thread is enough.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Request(format!("cannot start the client: {error}")))
}

/// Says what went wrong and picks the exit code.
fn exit(result: Result<(), Failure>) -> ExitCode {
    let (code, text) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Silent) => return ExitCode::from(FAILED),
        Err(Failure::Exit(code)) => return ExitCode::from(code),
        Err(Failure::Usage(text)) => (WRONG_USAGE, text),
        Err(Failure::Request(text)) => (FAILED, text),
    };
    // If standard error is closed there is nobody left to tell; the exit code still says it.
    let _ = writeln!(io::stderr(), "Error: {text}");
    ExitCode::from(code)
}
