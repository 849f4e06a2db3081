//! How many bytes an answer may take: what a transaction reads, and the pairs that writes replaced or deleted.
//!
//! Invariant: once exceeded it stays exceeded, and nothing more is gathered for that answer. What a command writes does
//! not depend on it, since only the node with the client gathers an answer at all.

/// Bytes of pairs that may still go into an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    left: usize,
    exceeded: bool,
}

impl Budget {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self { left: bytes, exceeded: false }
    }

    /// For commands nobody wants an answer to: there is nothing to gather.
    pub(crate) const fn none() -> Self {
        Self { left: 0, exceeded: true }
    }

    /// Whether this much still fits; takes it off if so.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        self.exceeded |= bytes > self.left;
        if !self.exceeded {
            self.left -= bytes;
        }
        !self.exceeded
    }

    /// Something did not fit.
    pub(crate) fn exceed(&mut self) {
        self.exceeded = true;
    }

    pub(crate) const fn left(&self) -> usize {
        self.left
    }

    /// Whether anything may still be gathered.
    pub(crate) const fn is_open(&self) -> bool {
        !self.exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_first_excess_does_not_fit_either() {
        let mut budget = Budget::new(10);
        assert!(budget.take(6));
        assert!(!budget.take(5));
        assert!(!budget.take(1), "an answer with a hole is no answer");
        assert!(!budget.is_open());
        assert!(!Budget::none().take(0));
    }
}
