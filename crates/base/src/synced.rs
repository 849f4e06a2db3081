//! Durability as a type.

/// Proof that the value inside is on stable storage. The storage layer attests it after a successful fsync; the
/// kernel takes nothing less before it lets a promise leave the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synced<T>(T);

impl<T> Synced<T> {
    /// Attests that `value` is durable. Only the storage layer, or a simulator's disk, may say so: `xtask tidy`
    /// refuses this call anywhere else.
    #[must_use]
    pub const fn attest(value: T) -> Self {
        Self(value)
    }

    /// What is durable.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// What is durable, by value.
    pub fn into_inner(self) -> T {
        self.0
    }
}
