//! Behaviour of the state machine, seen from outside: rule by rule, against a naive model under random requests, and in
//! bytes.

#[cfg(test)]
mod codec;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod store;
