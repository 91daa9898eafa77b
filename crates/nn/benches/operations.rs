//! The fused operations one by one: forward, and forward with backward.
//!
//! Times are those of `offprint` if `CANDLE_NUM_THREADS=1` is set, as it sets it itself.

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_nn::ops::{self, Activation, Conv2d, Mask, Mode, RunningStatistics};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer};
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Values in [−1, 1] without a pattern that a processor could learn.
fn variable(shape: &[usize]) -> Var {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 12.9898).sin()).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).expect("the sizes multiply"))
        .expect("fits in memory")
}

/// Times `f` of variables of the shapes given, which makes `work` multiplications or touches `work` elements.
fn operation(c: &mut Criterion, name: &str, work: usize, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let variables: Vec<Var> = shapes.iter().map(|shape| variable(shape)).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let constants: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
    let mut group = c.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(work as u64));
    group.bench_function("forward", |b| b.iter(|| f(black_box(&constants)).expect("shapes fit")));
    group.bench_function("with backward", |b| {
        b.iter(|| {
            let y = f(black_box(&tensors)).expect("shapes fit");
            ops::backward(&y.sum_all().expect("numbers add up")).expect("has a gradient")
        });
    });
    group.finish();
}

fn products(c: &mut Criterion) {
    let shapes: [&[usize]; 3] = [&[2048, 256], &[1024, 256], &[1024]];
    operation(c, "linear 2048 × 256 → 1024", 2048 * 256 * 1024, &shapes, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
    operation(c, "linear with gelu 2048 × 256 → 1024", 2048 * 256 * 1024, &shapes, |t| {
        ops::linear_activated(&t[0], &t[1], Some(&t[2]), Activation::Gelu)
    });
    operation(c, "causal attention 16 × 8 × 128 × 32", 16 * 8 * 128 * 128 * 32, &[&[16, 128, 768]], |t| {
        ops::self_attention(&t[0], 8, Mask::Causal)
    });
    for (channels, size) in [(16, 32), (64, 8)] {
        let work = 64 * channels * channels * 9 * size * size;
        let shapes: [&[usize]; 2] = [&[64, channels, size, size], &[channels, channels, 3, 3]];
        operation(c, &format!("convolution 64 × {channels} × {size}²"), work, &shapes, |t| {
            ops::conv2d(&t[0], &t[1], None, &Conv2d::same(3))
        });
    }
}

fn norms(c: &mut Criterion) {
    let work = 2048 * 256;
    operation(c, "layer norm 2048 × 256", work, &[&[2048, 256], &[256], &[256]], |t| {
        ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
    });
    operation(c, "rms norm 2048 × 256", work, &[&[2048, 256], &[256]], |t| ops::rms_norm(&t[0], &t[1], 1e-5));
    operation(c, "batch norm with relu 64 × 16 × 32²", 64 * 16 * 32 * 32, &[&[64, 16, 32, 32], &[16], &[16]], |t| {
        let running = RunningStatistics::new(16, DType::F32, &Device::Cpu)?;
        ops::batch_norm_relu(&t[0], &t[1], &t[2], &running, 1e-5, Mode::Training)
    });
    operation(c, "soft-max 2048 × 256", work, &[&[2048, 256]], |t| ops::softmax(&t[0]));
    operation(c, "gelu 2048 × 256", work, &[&[2048, 256]], |t| ops::gelu(&t[0]));
}

fn adam(c: &mut Criterion) {
    let weights = variable(&[1024, 1024]);
    let loss = weights.sqr().and_then(|squares| squares.sum_all()).expect("numbers add up");
    let gradients = ops::backward(&loss).expect("has a gradient");
    let mut adam = Adam::new([("w".to_owned(), weights)], AdamSettings::adamw()).expect("of type f32");
    let mut group = c.benchmark_group("adam");
    group.throughput(Throughput::Elements(1 << 20));
    group.bench_function("step 1024²", |b| b.iter(|| adam.step(black_box(&gradients)).expect("shapes fit")));
    group.finish();
}

criterion_group!(benches, products, norms, adam);
criterion_main!(benches);
