use super::*;
use offprint_core::{Bench, bench::Case};
impl Bench for Oodl {
    fn cases(_seed: u64) -> Result<Vec<Case>> {
        Ok(vec![])
    }
}
