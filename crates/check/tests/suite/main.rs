//! Do the checkers accept what is legal, however odd, and refuse what is not, however slightly wrong?
//!
//! `legal` and `broken` are histories written by hand, one thing odd or wrong in each. `mutation` corrupts generated
//! histories; `generate` makes them with a store of its own, so that one mistake cannot be in both.

mod broken;
mod build;
mod generate;
mod leases;
mod legal;
mod locks;
mod model;
mod mutation;
mod random;
mod speed;
mod watches;
