//! What samplers cost beside the model: 256 points in 64 dimensions, 20 steps, a model that answers at once.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, ArrayView2};
use offprint_core::Result;
use offprint_core::random::Streams;
use offprint_generate::exact::ExactEmpirical;
use offprint_generate::network::Digits8;
use offprint_generate::sample::named;
use offprint_generate::{Denoiser, Grid, Kernel, Schedule, normals};
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

/// What one call of the digits' network costs at the same size: the measure of the overhead.
fn model(c: &mut Criterion) {
    let digits = Digits8::shipped().unwrap();
    let denoiser = digits.network.unconditional();
    let y = normals(POINTS, DIMENSIONS, Streams::new(0).stream("points"), 0);
    c.bench_function("one call of digits8", |b| b.iter(|| denoiser.denoise(black_box(y.view()), 0.5).unwrap()));
    let table = ExactEmpirical::new(digits.data.train.clone(), Kernel::Gaussian).unwrap();
    c.bench_function("one call of the exact denoiser of 1437 digits", |b| {
        b.iter(|| table.denoise(black_box(y.view()), 0.5).unwrap());
    });
}

criterion_group!(benches, overhead, model);
criterion_main!(benches);
