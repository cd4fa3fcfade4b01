//! The process edge: everything else is in the library.

fn main() {}
