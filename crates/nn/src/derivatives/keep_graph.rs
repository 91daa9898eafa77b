//! Backward passes whose gradients can be differentiated again.

use crate::ops;
use candle_core::{DType, Device, Var};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// Candle's switch. A thread looks at it once, at its first backward pass.
const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Runs `f` on a thread where gradients stay on the graph, with the operations of [`ops`] in their differentiable form.
///
/// Candle cuts gradients off the graph unless an environment variable says otherwise when a thread first runs a
/// backward pass. Keeping them costs memory in ordinary training, so this keeps a pool of threads of its own for it.
pub fn keeping_graph<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    pool().install(|| ops::unfused(f))
}

fn pool() -> &'static ThreadPool {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let before = std::env::var_os(SWITCH);
        // SAFETY: Rust code reads and writes the environment under the standard library's lock. What remains is C code
        // that calls getenv on another thread during the microseconds of these two writes, once in a process; none of
        // this workspace's dependencies does so while tensors are computed. Candle offers no other way, and gradients
        // of gradients by differences of gradients would lose half of the digits.
        unsafe { std::env::set_var(SWITCH, "1") };
        let pool = ThreadPoolBuilder::new()
            .num_threads(rayon::current_num_threads())
            .thread_name(|i| format!("second-order-{i}"))
            .build()
            .expect("threads can be started");
        // Another thread whose first backward pass falls into this moment keeps its graphs too: the same numbers.
        pool.broadcast(|_| look_at_switch());
        // SAFETY: as above.
        unsafe {
            match before {
                Some(value) => std::env::set_var(SWITCH, value),
                None => std::env::remove_var(SWITCH),
            }
        }
        pool
    })
}

fn look_at_switch() {
    let scalar = Var::zeros((), DType::F32, &Device::Cpu).expect("a scalar fits into memory");
    scalar.affine(1.0, 0.0).and_then(|y| y.backward()).expect("the derivative of a line exists");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cube_has_three_derivatives() {
        let x = Var::new(2.0, &Device::Cpu).unwrap();
        let third: f64 = keeping_graph(|| {
            let y = x.powf(3.0).unwrap();
            let mut y = y;
            for _ in 0..3 {
                y = y.backward().unwrap().get(&x).unwrap().clone();
            }
            y.to_scalar().unwrap()
        });
        assert_eq!(third, 6.0);
    }
}
