//! Histories as files: JSON lines, a header and then one operation per line, as `docs/formats/history.md` has it.
//!
//! Invariant: reading takes one line at a time, of bounded length, and never panics. An unknown field of an operation
//! is refused (a condition that is not understood changes what answers are possible), one of the header is skipped.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::{Header, History, Operation};

/// What the header's `format` says.
pub const FORMAT: &str = "sinew-history";
/// The version this code writes, and the only one it reads.
pub const VERSION: u64 = 1;
/// Longest line in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct HeaderLine {
    format: String,
    version: u64,
    #[serde(flatten)]
    header: Header,
}

/// Why a history could not be read.
#[derive(Debug)]
pub struct ReadError {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ReadError {}

/// Reads a history operation by operation.
pub struct Reader<R> {
    input: R,
    line: usize,
    buffer: Vec<u8>,
    header: Header,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The input is no history, or of another version.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let mut reader = Self { input, line: 0, buffer: Vec::new(), header: Header::default() };
        let not_ours = |found: &dyn fmt::Display| {
            format!(
                "not the header of a history ({found}); the first line must be {{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}"
            )
        };
        if !reader.next_line()? {
            return Err(ReadError { line: 1, reason: not_ours(&"the file is empty") });
        }
        let line: HeaderLine = match serde_json::from_slice(&reader.buffer) {
            Ok(line) => line,
            Err(error) => return Err(reader.error(not_ours(&error))),
        };
        if line.format != FORMAT {
            return Err(reader.error(not_ours(&format!("format is `{}`", line.format))));
        }
        if line.version != VERSION {
            let reason = format!(
                "version {} of the format, and this program reads only version {VERSION}; use the program that wrote it",
                line.version
            );
            return Err(reader.error(reason));
        }
        reader.header = line.header;
        Ok(reader)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The line that was read last.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Reads the next line that is not blank into the buffer; `false` at the end.
    fn next_line(&mut self) -> Result<bool, ReadError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let bound = LINE_BYTES_MAX as u64 + 1;
            let read = self.input.by_ref().take(bound).read_until(b'\n', &mut self.buffer);
            let count = read.map_err(|error| self.error(format!("cannot be read: {error}")))?;
            if count > LINE_BYTES_MAX {
                return Err(self.error(format!("longer than {LINE_BYTES_MAX} bytes; record smaller answers")));
            }
            if count == 0 {
                return Ok(false);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn error(&self, reason: String) -> ReadError {
        ReadError { line: self.line, reason }
    }

    fn operation(&mut self) -> Result<Option<Operation>, ReadError> {
        if !self.next_line()? {
            return Ok(None);
        }
        let is_whole = self.buffer.ends_with(b"\n");
        let operation: Operation = serde_json::from_slice(&self.buffer).map_err(|error| {
            let advice = if error.is_eof() && !is_whole {
                "the recorder was stopped in the middle of it; remove the line"
            } else {
                "see docs/formats/history.md for what a line holds"
            };
            self.error(format!("not an operation: {error}; {advice}"))
        })?;
        operation.validate().map_err(|reason| self.error(format!("operation {}: {reason}", operation.id)))?;
        Ok(Some(operation))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Operation, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.operation().transpose()
    }
}

/// Reads a whole history, in the order of the file.
///
/// # Errors
/// See [`ReadError`]; also two operations with one id.
pub fn read(input: impl BufRead) -> Result<History, ReadError> {
    let mut reader = Reader::new(input)?;
    let mut operations: Vec<Operation> = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    while let Some(operation) = reader.operation()? {
        if !ids.insert(operation.id) {
            return Err(reader.error(format!("operation {} is there twice; ids must be unique", operation.id)));
        }
        operations.push(operation);
    }
    Ok(History { header: reader.header, operations })
}

/// Writes a history operation by operation.
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The output refuses.
    pub fn new(mut output: W, header: &Header) -> io::Result<Self> {
        let line = HeaderLine { format: FORMAT.to_owned(), version: VERSION, header: header.clone() };
        serde_json::to_writer(&mut output, &line)?;
        output.write_all(b"\n")?;
        Ok(Self { output })
    }

    /// Writes one operation.
    ///
    /// # Errors
    /// The output refuses.
    pub fn write(&mut self, operation: &Operation) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, operation)?;
        self.output.write_all(b"\n")
    }

    /// Hands the output back, flushed.
    ///
    /// # Errors
    /// The output refuses.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
