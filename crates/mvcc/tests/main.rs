//! Behaviour of the state machine, seen from outside: rule by rule, against a naive model under random requests, and in
//! bytes.

mod codec;
mod driver;
mod generate;
mod model;
mod random;
mod rules;
mod store;
