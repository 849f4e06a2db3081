//! `put`, `get`, `del` and `compaction`: from words to requests.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::time::Duration;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use bytes::Bytes;
use clap::Args;

use super::{Failure, bytes_of};
use crate::print::{Format, Style};

/// A range end of one zero byte means: everything from the key on.
const FROM_KEY: &[u8] = b"\0";

/// Arguments of `put`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sinew put [OPTIONS] <KEY> [VALUE]",
    after_help = "Without VALUE the value is read from standard input. Write -- before a value that
starts with '-'.

Examples:
  sinew put color blue
  sinew put config < config.json
  sinew put --prev-kv color red
  sinew put temperature -- -5"
)]
pub(crate) struct PutArgs {
    /// The key, and the value unless it comes from standard input
    #[arg(value_name = "KEY [VALUE]")]
    words: Vec<OsString>,
    /// Lease to attach the key to, in hexadecimal
    #[arg(long, value_name = "ID", default_value = "0", hide_default_value = true)]
    lease: String,
    /// Print the pair as it was before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the present value
    #[arg(long)]
    ignore_value: bool,
    /// Keep the present lease
    #[arg(long)]
    ignore_lease: bool,
}

impl PutArgs {
    /// The request; reads the value from `input` if it is not among the words.
    pub(super) fn request(&self, input: &mut dyn Read) -> Result<PutRequest, Failure> {
        let Some(key) = self.words.first() else {
            return Err(usage("put command needs 1 argument and input from stdin or 2 arguments"));
        };
        if self.ignore_value && self.words.len() > 1 {
            return Err(usage("put command needs only 1 argument when 'ignore-value' is set"));
        }
        if self.words.len() > 2 {
            return Err(usage("too many arguments for put; put a value with spaces in quotes"));
        }
        let lease = parse_hex(&self.lease)
            .ok_or_else(|| usage(&format!("bad lease ID '{}', expecting ID in Hex", self.lease)))?;
        let value = match self.words.get(1) {
            _ if self.ignore_value => Vec::new(),
            Some(value) => bytes_of(value),
            None => {
                let mut value = Vec::new();
                input.read_to_end(&mut value)?;
                if value.is_empty() {
                    return Err(usage("put command needs 1 argument and input from stdin or 2 arguments"));
                }
                value
            }
        };
        Ok(PutRequest {
            key: bytes_of(key).into(),
            value: value.into(),
            lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

/// Arguments of `get`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sinew get [OPTIONS] <KEY> [RANGE_END]",
    after_help = "Examples:
  sinew get color
  sinew get --prefix users/ --keys-only
  sinew get a m                            every key from a up to, not including, m
  sinew get --prefix \"\" --limit 10         the first ten keys of all
  sinew get color --rev 42                 as it was at revision 42
  sinew get color -w json"
)]
pub(crate) struct GetArgs {
    /// The key, and the end of the range if it is one
    #[arg(value_name = "KEY [RANGE_END]")]
    words: Vec<OsString>,
    /// Every key that starts with KEY
    #[arg(long)]
    prefix: bool,
    /// Every key from KEY on
    #[arg(long)]
    from_key: bool,
    /// Read at this revision instead of now
    #[arg(long, default_value_t = 0, hide_default_value = true, allow_hyphen_values = true)]
    rev: i64,
    /// Return at most this many keys
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    limit: i64,
    /// ASCEND or DESCEND
    #[arg(long, default_value = "", hide_default_value = true)]
    order: String,
    /// CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TARGET")]
    sort_by: String,
    /// Leave values out
    #[arg(long)]
    keys_only: bool,
    /// Only count (with -w fields)
    #[arg(long)]
    count_only: bool,
    /// Leave keys out (with -w simple)
    #[arg(long)]
    print_value_only: bool,
    /// l: linearizable; s: serializable, from the asked member's own state, possibly old
    #[arg(long, default_value = "l")]
    consistency: String,
    /// Leave out keys last written before this revision
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REV")]
    min_mod_rev: i64,
    /// Leave out keys last written after this revision
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REV")]
    max_mod_rev: i64,
    /// Leave out keys created before this revision
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REV")]
    min_create_rev: i64,
    /// Leave out keys created after this revision
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REV")]
    max_create_rev: i64,
}

impl GetArgs {
    /// The request.
    pub(super) fn request(&self) -> Result<RangeRequest, Failure> {
        if self.words.is_empty() || self.words.len() > 2 {
            return Err(usage("get command needs one argument as key and an optional argument as range_end"));
        }
        if self.keys_only && self.count_only {
            return Err(usage("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
        }
        let (key, range_end) = span(&self.words, self.prefix, self.from_key)?;
        if self.max_create_rev > 0 && self.min_create_rev > self.max_create_rev {
            return Err(usage("--min-create-rev is above --max-create-rev: nothing can match"));
        }
        if self.max_mod_rev > 0 && self.min_mod_rev > self.max_mod_rev {
            return Err(usage("--min-mod-rev is above --max-mod-rev: nothing can match"));
        }
        let (order, target) = (self.sort_order()?, self.sort_target()?);
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev.max(0),
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: is_serializable(&self.consistency)?,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev.max(0),
            max_mod_revision: self.max_mod_rev.max(0),
            min_create_revision: self.min_create_rev.max(0),
            max_create_revision: self.max_create_rev.max(0),
        })
    }

    fn sort_order(&self) -> Result<SortOrder, Failure> {
        match self.order.to_uppercase().as_str() {
            "" => Ok(SortOrder::None),
            "ASCEND" => Ok(SortOrder::Ascend),
            "DESCEND" => Ok(SortOrder::Descend),
            _ => Err(usage(&format!("bad sort order {}; write ASCEND or DESCEND", self.order))),
        }
    }

    fn sort_target(&self) -> Result<SortTarget, Failure> {
        match self.sort_by.to_uppercase().as_str() {
            "" | "KEY" => Ok(SortTarget::Key),
            "CREATE" => Ok(SortTarget::Create),
            "MODIFY" => Ok(SortTarget::Mod),
            "VALUE" => Ok(SortTarget::Value),
            "VERSION" => Ok(SortTarget::Version),
            _ => Err(usage(&format!("bad sort target {}; write CREATE, KEY, MODIFY, VALUE or VERSION", self.sort_by))),
        }
    }

    /// Checks the flags that need a certain format, and applies them.
    pub(super) fn check_format(&self, style: &mut Style) -> Result<(), Failure> {
        if self.count_only && style.format != Format::Fields {
            return Err(usage("--count-only is only for `--write-out=fields`"));
        }
        if self.print_value_only {
            if style.format != Format::Simple {
                return Err(usage("print-value-only is only for `--write-out=simple`"));
            }
            style.values_only = true;
        }
        Ok(())
    }
}

/// Arguments of `del`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sinew del [OPTIONS] <KEY> [RANGE_END]",
    after_help = "Prints how many keys are gone.

Examples:
  sinew del color
  sinew del --prefix users/ --prev-kv
  sinew del --range a m                    every key from a up to, not including, m"
)]
pub(crate) struct DelArgs {
    /// The key, and the end of the range if it is one
    #[arg(value_name = "KEY [RANGE_END]")]
    words: Vec<OsString>,
    /// Every key that starts with KEY
    #[arg(long)]
    prefix: bool,
    /// Every key from KEY on
    #[arg(long)]
    from_key: bool,
    /// Print the deleted pairs
    #[arg(long)]
    prev_kv: bool,
    /// A range is meant: do not wait two seconds before deleting it
    #[arg(long)]
    range: bool,
}

impl DelArgs {
    /// The request.
    pub(super) fn request(&self) -> Result<DeleteRangeRequest, Failure> {
        if self.words.is_empty() || self.words.len() > 2 {
            return Err(usage("del command needs one argument as key and an optional argument as range_end"));
        }
        let (key, range_end) = span(&self.words, self.prefix, self.from_key)?;
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }

    /// Two keys may be a typing error for two deletes, so a range waits unless `--range` says that it is meant.
    pub(super) async fn give_time_to_think(&self, err: &mut dyn Write) -> Result<(), Failure> {
        if let [from, to] = self.words.as_slice()
            && !self.range
        {
            writeln!(
                err,
                "Warning: Keys between {from:?} and {to:?} will be deleted. Please interrupt the command within next \
                 2 seconds to cancel. You can provide `--range` flag to avoid the delay."
            )?;
            err.flush()?;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }
}

/// Arguments of `compaction`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sinew compaction 1000                    revisions below 1000 can no longer be read
  sinew compaction 1000 --physical         the same, and wait until the space is free")]
pub(crate) struct CompactionArgs {
    /// Oldest revision that stays readable
    #[arg(value_name = "REVISION", required = true, allow_hyphen_values = true)]
    revision: i64,
    /// Wait until the space is free
    #[arg(long)]
    physical: bool,
}

impl CompactionArgs {
    /// The request.
    pub(super) fn request(&self) -> Result<CompactionRequest, Failure> {
        if self.revision < 0 {
            return Err(usage("a revision cannot be negative"));
        }
        Ok(CompactionRequest { revision: self.revision, physical: self.physical })
    }
}

/// `l` or `s`.
pub(super) fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "l" => Ok(false),
        "s" => Ok(true),
        other => Err(usage(&format!("unknown consistency flag {other:?}; write l or s"))),
    }
}

/// Key and range end on the wire.
pub(super) fn span(words: &[OsString], prefix: bool, from_key: bool) -> Result<(Bytes, Bytes), Failure> {
    if prefix && from_key {
        return Err(usage("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    if words.len() > 1 && (prefix || from_key) {
        return Err(usage("too many arguments, only accept one argument when `--prefix` or `--from-key` is set"));
    }
    let key = words.first().map(bytes_of).unwrap_or_default();
    if (prefix || from_key) && key.is_empty() {
        return Ok((Bytes::from_static(FROM_KEY), Bytes::from_static(FROM_KEY)));
    }
    let end = if prefix {
        end_of_prefix(&key)
    } else if from_key {
        FROM_KEY.to_vec()
    } else {
        words.get(1).map(bytes_of).unwrap_or_default()
    };
    Ok((key.into(), end.into()))
}

/// The first key after all that start with `prefix`: the prefix plus one, with carry; there is none above `\xff...`.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|&byte| byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => FROM_KEY.to_vec(),
    }
}

/// A signed number in hexadecimal.
pub(super) fn parse_hex(text: &str) -> Option<i64> {
    i64::from_str_radix(text, 16).ok()
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Only<T: Args> {
        #[command(flatten)]
        inner: T,
    }

    fn parse<T: Args>(words: &[&str]) -> T {
        let command = crate::flags::go_style(<Only<T> as clap::CommandFactory>::command());
        let matches = command.no_binary_name(true).try_get_matches_from(words).expect("parses");
        Only::from_arg_matches(&matches).expect("fits").inner
    }

    #[test]
    fn put_takes_the_value_from_words_or_input() {
        let request = |words: &[&str], mut input: &[u8]| parse::<PutArgs>(words).request(&mut input);
        let put = request(&["k", "v", "--lease=7b", "--prev-kv"], b"").expect("fine");
        assert_eq!((&put.key[..], &put.value[..], put.lease, put.prev_kv), (&b"k"[..], &b"v"[..], 0x7b, true));
        assert_eq!(request(&["k"], b"from\nstdin\n").expect("fine").value, &b"from\nstdin\n"[..]);
        assert_eq!(request(&["k", "--", "-5"], b"").expect("fine").value, &b"-5"[..]);
        assert_eq!(request(&["k", "--ignore-value"], b"unread").expect("fine").value, &b""[..]);
        for (words, input) in
            [(&[][..], &b"x"[..]), (&["k"], b""), (&["k", "v", "w"], b""), (&["k", "v", "--lease=zz"], b"")]
        {
            assert!(matches!(request(words, input), Err(Failure::Usage(_))), "{words:?}");
        }
        assert!(request(&["k", "v", "--ignore-value"], b"").is_err());
    }

    #[test]
    fn ranges_become_key_and_end() {
        let span = |words: &[&str]| {
            let request = parse::<GetArgs>(words).request().expect("fine");
            (request.key.to_vec(), request.range_end.to_vec())
        };
        assert_eq!(span(&["a"]), (b"a".to_vec(), vec![]));
        assert_eq!(span(&["a", "c"]), (b"a".to_vec(), b"c".to_vec()));
        assert_eq!(span(&["a", "--prefix"]), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(span(&["", "--prefix"]), (b"\0".to_vec(), b"\0".to_vec()));
        assert_eq!(span(&["a", "--from-key"]), (b"a".to_vec(), b"\0".to_vec()));
        assert_eq!(span(&["", "--from-key"]), (b"\0".to_vec(), b"\0".to_vec()));
        assert_eq!(span(&["a", "--prefix=false"]), (b"a".to_vec(), vec![]));
        assert_eq!(end_of_prefix(b"a\xff\xff"), b"b");
        assert_eq!(end_of_prefix(b"\xff"), b"\0");
    }

    #[test]
    fn get_flags_reach_the_request() {
        let words = ["k", "--rev=3", "--limit=2", "--order=descend", "--sort-by=modify", "--consistency=s"];
        let more = ["--min-mod-rev=1", "--max-mod-rev=9", "--min-create-rev=2", "--max-create-rev=8", "--keys-only"];
        let request = parse::<GetArgs>(&[&words[..], &more[..]].concat()).request().expect("fine");
        let expected = RangeRequest {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::new(),
            limit: 2,
            revision: 3,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            serializable: true,
            keys_only: true,
            count_only: false,
            min_mod_revision: 1,
            max_mod_revision: 9,
            min_create_revision: 2,
            max_create_revision: 8,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn contradictions_are_refused() {
        for words in [
            &[][..],
            &["a", "b", "c"],
            &["a", "--prefix", "--from-key"],
            &["a", "b", "--prefix"],
            &["a", "--keys-only", "--count-only"],
            &["a", "--order=up"],
            &["a", "--sort-by=size"],
            &["a", "--consistency=x"],
            &["a", "--min-mod-rev=5", "--max-mod-rev=4"],
        ] {
            assert!(matches!(parse::<GetArgs>(words).request(), Err(Failure::Usage(_))), "{words:?}");
        }
        let mut style = Style { format: Format::Json, hex: false, values_only: false };
        assert!(parse::<GetArgs>(&["a", "--count-only"]).check_format(&mut style).is_err());
        assert!(parse::<GetArgs>(&["a", "--print-value-only"]).check_format(&mut style).is_err());
        style.format = Format::Simple;
        parse::<GetArgs>(&["a", "--print-value-only"]).check_format(&mut style).expect("fits");
        assert!(style.values_only);
    }

    #[test]
    fn delete_takes_the_same_ranges() {
        let request = parse::<DelArgs>(&["a", "--prefix", "--prev-kv"]).request().expect("fine");
        assert_eq!((&request.key[..], &request.range_end[..], request.prev_kv), (&b"a"[..], &b"b"[..], true));
        assert!(parse::<DelArgs>(&["a", "b", "c"]).request().is_err());
        assert!(parse::<CompactionArgs>(&["-5"]).request().is_err());
    }
}
