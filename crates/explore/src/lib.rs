//! Exhaustive model check of the production kernel: every order of events, up to a bound.
