//! What compensation costs beside the model: 40 points in 64 dimensions, one step of UniPC-3 with and without.

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::{Array2, ArrayView2};
use offprint_core::Result;
use offprint_core::random::Streams;
use offprint_generate::dc_solver::{Compensation, Ratios, Variant, compensate};
use offprint_generate::sample::Multistep;
use offprint_generate::{Denoiser, Grid, Schedule, normals};
use std::hint::black_box;

const STEPS: usize = 10;

/// Answers with a fixed table: one copy of it is in what is timed.
struct Free(Array2<f64>);

impl Denoiser for Free {
    fn dim(&self) -> usize {
        self.0.ncols()
    }

    fn denoise(&self, _: ArrayView2<'_, f64>, _: f64) -> Result<Array2<f64>> {
        Ok(self.0.clone())
    }
}

fn one_step(c: &mut Criterion) {
    let grid = Grid::uniform_t(&Schedule::scaled_linear(), STEPS, 1.0, 1e-3).unwrap();
    let start = normals(40, 64, Streams::new(0).stream("start"), 0);
    let model = Free(&start * 0.01);
    let sampler = Multistep { history: 3, ..Variant::Latent.sampler() };
    let mut state = sampler.begin(&model, grid.start_from(start), &grid).unwrap();
    for _ in 0..4 {
        sampler.advance(&model, &grid, &mut state, &mut ()).unwrap();
    }
    let mut values = vec![0.9; STEPS];
    values[..2].fill(1.0);
    let ratios = Ratios::new(values, 2).unwrap();
    let mut group = c.benchmark_group("40 points in 64 dimensions");
    group.bench_function("compensation", |b| {
        let mut buffer = state.buffer.clone();
        b.iter(|| compensate(black_box(&mut buffer), 1.0 + 1e-9, 2).unwrap());
    });
    for (name, compensated) in [("step", false), ("compensated step", true)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || state.clone(),
                |mut state| {
                    if compensated {
                        sampler.advance(&model, &grid, &mut state, &mut Compensation(&ratios)).unwrap();
                    } else {
                        sampler.advance(&model, &grid, &mut state, &mut ()).unwrap();
                    }
                    state
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, one_step);
criterion_main!(benches);
