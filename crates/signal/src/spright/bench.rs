//! Workloads timed beside the peer.
use super::Spright;
use offprint_core::{Bench, Result, bench::Case};
impl Bench for Spright {
    fn cases(_: u64) -> Result<Vec<Case>> {
        Ok(vec![])
    }
}
