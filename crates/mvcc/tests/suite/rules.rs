//! The rules of etcd's data model, one by one. Each module header names the part of the protocol; each test is a rule.

mod alarms;
mod history;
mod leases;
mod members;
mod reads;
mod transactions;
mod writes;
