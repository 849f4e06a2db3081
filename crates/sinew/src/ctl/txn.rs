//! `txn`: reads compares and operations from standard input, in etcdctl's little language.
//!
//! Three sections, each ended by an empty line:
//!
//! ```text
//! mod("key1") > "0"            compares: value, version, create, mod or lease; = != < >
//!
//! put key1 "overwritten"       if all hold: get, put and del, as on the command line
//!
//! put key1 "created"           otherwise
//!
//! ```

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt as _;

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, RequestOp, TxnRequest};
use clap::{Args, FromArgMatches, Parser, Subcommand};

use super::kv::{DelArgs, GetArgs, PutArgs, parse_hex};
use super::{Failure, Streams};
use crate::flags::go_style;
use crate::quote::unquote;

/// Arguments of `txn`.
#[derive(Debug, Args)]
#[command(after_help = r#"Three sections, each ended by an empty line: conditions, what to do if all
hold, what to do otherwise.

  condition   TARGET("KEY") OP "NUMBER OR VALUE"
              TARGET is value, version, create, mod or lease; OP is =, !=, < or >
  operation   put KEY "VALUE", get KEY or del KEY, with the flags they have on the command line

Example: create a key unless it is there, and read it if it is
  printf 'create("color") = "0"\n\nput color blue\n\nget color\n\n' | sinew txn"#)]
pub(crate) struct TxnArgs {
    /// Ask for each section
    #[arg(long, short = 'i')]
    interactive: bool,
}

impl TxnArgs {
    /// Reads the request from the input.
    pub(super) fn request(&self, streams: &mut Streams<'_>) -> Result<TxnRequest, Failure> {
        let mut input = BufReader::new(&mut *streams.input);
        let mut ask = |text: &str| {
            if self.interactive { writeln!(streams.out, "{text}").and_then(|()| streams.out.flush()) } else { Ok(()) }
        };
        ask("compares:")?;
        let compare = section(&mut input, parse_compare)?;
        ask("success requests (get, put, del):")?;
        let success = section(&mut input, parse_operation)?;
        ask("failure requests (get, put, del):")?;
        let failure = section(&mut input, parse_operation)?;
        Ok(TxnRequest { compare, success, failure })
    }
}

/// Reads lines up to an empty one. The input must not end before: half a transaction is not what was meant.
fn section<T>(input: &mut impl BufRead, parse: fn(&str) -> Result<T, String>) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(Failure::Usage(
                "the input ends in the middle of the transaction: each of the three sections ends with an empty line"
                    .to_owned(),
            ));
        }
        match line.trim() {
            "" => return Ok(items),
            line => items.push(parse(line).map_err(Failure::Usage)?),
        }
    }
}

/// Parses `target("key") op "value"`.
fn parse_compare(line: &str) -> Result<Compare, String> {
    let malformed = || format!("malformed comparison: {line}; write for example mod(\"key\") > \"0\"");
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = unquote(rest.trim_start()).ok_or_else(malformed)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (operator, rest) = rest.split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (value, rest) = unquote(rest.trim_start()).ok_or_else(malformed)?;
    if !rest.trim().is_empty() {
        return Err(malformed());
    }
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(format!("malformed comparison: {line} (unknown operator {operator}; write =, !=, < or >)")),
    };
    let invalid = || format!("invalid txn compare request: {line}");
    let number = |parse: fn(&str) -> Option<i64>| std::str::from_utf8(&value).ok().and_then(parse).ok_or_else(invalid);
    let decimal = |text: &str| text.parse().ok();
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(decimal)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(decimal)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(decimal)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(parse_hex)?)),
        other => {
            return Err(format!(
                "malformed comparison: {line} (unknown target {other}; write value, version, create, mod or lease)"
            ));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(union),
    })
}

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand)]
enum Operation {
    Put(PutArgs),
    Get(GetArgs),
    Del(DelArgs),
}

/// Parses one operation, written as on the command line.
fn parse_operation(line: &str) -> Result<RequestOp, String> {
    let words = split_words(line)?;
    if words.len() < 2 {
        return Err(format!("invalid txn request: {line}; write put KEY VALUE, get KEY or del KEY"));
    }
    let command = go_style(<Line as clap::CommandFactory>::command()).no_binary_name(true);
    let parsed = command.try_get_matches_from(words).and_then(|matches| Line::from_arg_matches(&matches));
    let parsed = parsed.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().next().unwrap_or_default();
        format!("invalid txn request: {line} ({})", reason.trim_start_matches("error: "))
    })?;
    let request = match parsed.operation {
        // No value comes from the input here: the input is the transaction.
        Operation::Put(put) => put.request(&mut std::io::empty()).map(Request::RequestPut),
        Operation::Get(get) => get.request().map(Request::RequestRange),
        Operation::Del(del) => del.request().map(Request::RequestDeleteRange),
    };
    match request {
        Ok(request) => Ok(RequestOp { request: Some(request) }),
        Err(Failure::Usage(reason) | Failure::Request(reason)) => {
            Err(format!("invalid txn request: {line} ({reason})"))
        }
        Err(Failure::Silent | Failure::Exit(_)) => Err(format!("invalid txn request: {line}")),
    }
}

/// Splits into words: bare ones end at a space, `'...'` is taken as it is, `"..."` has escapes.
pub(super) fn split_words(line: &str) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let open = || format!("invalid txn request: {line} (a quote is not closed, or a backslash does not fit)");
        if rest.starts_with('"') {
            let (bytes, after) = unquote(rest).ok_or_else(open)?;
            words.push(OsString::from_vec(bytes));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('\'') {
            let (text, after) = inner.split_once('\'').ok_or_else(open)?;
            words.push(text.into());
            rest = after;
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].into());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(text: &str, interactive: bool) -> (Result<TxnRequest, Failure>, String) {
        let (mut input, mut out, mut err) = (text.as_bytes(), Vec::new(), Vec::new());
        let mut streams = Streams { input: &mut input, out: &mut out, err: &mut err };
        let request = TxnArgs { interactive }.request(&mut streams);
        (request, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn compares_are_read() {
        let cases = [
            (r#"mod("key1") > "0""#, CompareResult::Greater, CompareTarget::Mod, TargetUnion::ModRevision(0)),
            (r#"m("key1") = "5""#, CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(5)),
            (r#"ver("key1") < "-1""#, CompareResult::Less, CompareTarget::Version, TargetUnion::Version(-1)),
            (r#"version("key1") != "1""#, CompareResult::NotEqual, CompareTarget::Version, TargetUnion::Version(1)),
            (r#"c("key1") = "2""#, CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(2)),
            (
                r#"create( "key1" )  =  "2" "#,
                CompareResult::Equal,
                CompareTarget::Create,
                TargetUnion::CreateRevision(2),
            ),
            (r#"lease("key1") = "7b""#, CompareResult::Equal, CompareTarget::Lease, TargetUnion::Lease(0x7b)),
            (
                r#"value("key1") = "a\"b\n""#,
                CompareResult::Equal,
                CompareTarget::Value,
                TargetUnion::Value(Bytes::from_static(b"a\"b\n")),
            ),
            (r#"val("key1") > """#, CompareResult::Greater, CompareTarget::Value, TargetUnion::Value(Bytes::new())),
        ];
        for (line, result, target, union) in cases {
            let compare = parse_compare(line).expect(line);
            assert_eq!(compare.key, "key1", "{line}");
            assert_eq!((compare.result(), compare.target()), (result, target), "{line}");
            assert_eq!(compare.target_union, Some(union), "{line}");
        }
    }

    #[test]
    fn malformed_compares_are_refused() {
        for line in [
            "bogus",
            r#"bogus("a") > "0""#,
            r#"mod("a") ! "0""#,
            r#"mod("a") >= "0""#,
            r#"mod(a) > "0""#,
            r#"mod("a" > "0""#,
            r#"mod("a") > 0"#,
            r#"mod("a") > "0" x"#,
            r#"mod("a") = "x""#,
            r#"lease("a") = "xyz""#,
            r#"mod("a") = """#,
        ] {
            assert!(parse_compare(line).is_err(), "{line}");
        }
    }

    #[test]
    fn operations_are_read_as_on_the_command_line() {
        let put = |line: &str| match parse_operation(line).expect(line).request {
            Some(Request::RequestPut(put)) => (put.key.to_vec(), put.value.to_vec(), put.lease),
            other => panic!("{other:?}"),
        };
        assert_eq!(put(r#"put key1 "some \"value\"""#), (b"key1".to_vec(), b"some \"value\"".to_vec(), 0));
        assert_eq!(put("put key1 'a b' --lease=1f"), (b"key1".to_vec(), b"a b".to_vec(), 0x1f));
        assert_eq!(put("put   'k' v"), (b"k".to_vec(), b"v".to_vec(), 0));
        assert_eq!(put(r#"put "\x00k" "\xff""#), (b"\0k".to_vec(), b"\xff".to_vec(), 0));
        let get = parse_operation("get a --prefix --limit 3").expect("get").request;
        assert!(matches!(get, Some(Request::RequestRange(range)) if range.limit == 3 && range.range_end == "b"));
        let del = parse_operation("del a --prev-kv").expect("del").request;
        assert!(matches!(del, Some(Request::RequestDeleteRange(delete)) if delete.prev_kv));
    }

    #[test]
    fn malformed_operations_are_refused() {
        for line in ["foo a", "put", "put a", "get", "get a --bogus", "put a 'b", "put a \"b", "del a b c", "help x"] {
            assert!(parse_operation(line).is_err(), "{line}");
        }
    }

    #[test]
    fn three_sections_make_a_transaction() {
        let text = "mod(\"a\") > \"0\"\n\nput b 1\nget b\n\nput a 2\n\n";
        let (request, prompts) = read(text, true);
        let request = request.expect("fine");
        assert_eq!((request.compare.len(), request.success.len(), request.failure.len()), (1, 2, 1));
        assert_eq!(prompts, "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n");
        let (request, prompts) = read("\n\n\n", false);
        assert_eq!((request, prompts), (Ok(TxnRequest::default()), String::new()));
    }

    #[test]
    fn half_a_transaction_is_refused() {
        for text in ["", "\n\n", "\nput a b", "\nput a b\n\n"] {
            assert!(matches!(read(text, false).0, Err(Failure::Usage(_))), "{text:?}");
        }
    }
}
