//! A whole cluster in one thread and virtual time, with every fault we can think of; same seed, same run.
