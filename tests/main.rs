//! Black-box tests: real processes, real clients, kill -9.
