//! Bugs that the tests plant on purpose, to prove that their checkers would find them. In this crate's own tests they
//! are switched on here; in other builds those that have a number are `base::planted`'s, and the others do not exist.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// Checksums do not cover the address.
    NoAddress,
    /// Records are read without a look at their checksum.
    RecordUnchecked,
    /// Damage in the middle is cut off like a torn tail.
    DamageIsTail,
    /// Frames behind the cut stay.
    TailNotWiped,
    /// A failed sync counts as one.
    SyncErrorIgnored,
    /// A file is reused before its old name is durably gone.
    NoDirectorySync,
    /// A segment is given back without keeping what is still needed of it.
    NothingKept,
}

#[cfg(not(test))]
pub(crate) fn is(bug: Bug) -> bool {
    use base::Defect;
    match bug {
        Bug::NoAddress => base::planted::planted(Defect::AddressUnchecked),
        Bug::RecordUnchecked => base::planted::planted(Defect::ChecksumSkipped),
        Bug::DamageIsTail => base::planted::planted(Defect::DamageTruncated),
        Bug::SyncErrorIgnored => base::planted::planted(Defect::SyncRetried),
        Bug::NoDirectorySync => base::planted::planted(Defect::DirectoryUnsynced),
        Bug::TailNotWiped | Bug::NothingKept => false,
    }
}

#[cfg(test)]
pub(crate) use hooks::{is, with};

#[cfg(test)]
mod hooks {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Runs `work` with the bug planted, on this thread only.
    pub(crate) fn with<R>(bug: Bug, work: impl FnOnce() -> R) -> R {
        PLANTED.set(Some(bug));
        let result = work();
        PLANTED.set(None);
        result
    }
}
