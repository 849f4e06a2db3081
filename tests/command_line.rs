//! The command line tool as a person uses it.
