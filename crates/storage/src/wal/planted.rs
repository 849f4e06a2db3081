//! Bugs that the tests plant on purpose, to prove that their checkers would find them. Outside of this crate's own
//! tests none of them exists.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// Checksums do not cover the address.
    NoAddress,
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
pub(crate) const fn is(_: Bug) -> bool {
    false
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
