//! offprint
fn main() {}
