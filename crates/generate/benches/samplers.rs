//! What samplers cost beside the model: 256 points in 64 dimensions, 20 steps, a model that answers at once.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, ArrayView2};
use offprint_core::Result;
use offprint_core::random::Streams;
use offprint_generate::sample::named;
use offprint_generate::{Denoiser, Grid, Kernel, Schedule};
use std::hint::black_box;

const POINTS: usize = 256;
const DIMENSIONS: usize = 64;
const STEPS: usize = 20;

/// Answers with a fixed table: what is timed around it is the sampler, and one copy of the table a call.
struct Free(Array2<f64>);

impl Denoiser for Free {
    fn dim(&self) -> usize {
        DIMENSIONS
    }

    fn denoise(&self, _: ArrayView2<'_, f64>, _: f64) -> Result<Array2<f64>> {
        Ok(self.0.clone())
    }
}

fn overhead(c: &mut Criterion) {
    let schedule = Schedule::vp_linear();
    let grid = Grid::uniform_lambda(&schedule, STEPS, 1.0, 1e-3).unwrap();
    let stream = Streams::new(0).stream("start");
    let start = grid.start(POINTS, DIMENSIONS, Kernel::Gaussian, stream);
    let model = Free(&start * 0.01);
    let mut group = c.benchmark_group("20 steps without a model");
    group.throughput(Throughput::Elements(STEPS as u64));
    for name in ["ddim", "heun", "dpm++2m", "deis-tab3", "unipc-3-bh1", "sde-dpm"] {
        let sampler = named(name, STEPS, &schedule).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| sampler.run(black_box(&model), start.clone(), &grid, stream).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
