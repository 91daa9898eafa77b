//! Whole trainings side by side: on images of 8 × 8 pixels threads pay between trainings, not within one.

use offprint_core::{Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `work` on the numbers below `count`, as many at a time as there are threads, each on one thread of its own; the results in
/// order. What a number gives does not depend on the others.
///
/// # Errors
/// The first number's that fails, in order.
pub(super) fn side_by_side<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let take_turns = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            break;
        }
        let result = work(number);
        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, result));
    };
    let pools: Vec<rayon::ThreadPool> = (0..rayon::current_num_threads().min(count))
        .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Numerical(format!("cannot start a thread: {e}")))?;
    std::thread::scope(|scope| {
        for pool in &pools {
            scope.spawn(move || pool.install(take_turns));
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
