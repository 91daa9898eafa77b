//! Student noise, the exact denoiser of the digits at several D, and the posterior weights of all phases.

use criterion::{Criterion, criterion_group, criterion_main};
use offprint_core::random::Streams;
use offprint_generate::Denoiser;
use offprint_generate::exact::ExactEmpirical;
use offprint_generate::pfgmpp::{Augmentation, Scaled, distance_to_uniform, quantise};
use std::hint::black_box;

fn kernels(c: &mut Criterion) {
    let digits = Scaled::new(offprint_data::digits().0.view()).expect("images that vary").points;
    let stream = Streams::new(0).stream("noise");
    let mut group = c.benchmark_group("pfgmpp");
    group.sample_size(20);
    for d in [8.0, 128.0, f64::INFINITY] {
        let kernel = Augmentation::new(d).expect("positive").kernel();
        group.bench_function(format!("noise 1797 x 64 D={d}"), |b| b.iter(|| kernel.noise(1797, 64, 0.5, stream, 0)));
        let y = &digits + &kernel.noise(1797, 64, 0.5, stream, 0);
        let model = ExactEmpirical::new(digits.clone(), kernel).expect("finite data");
        group.bench_function(format!("denoise 1797 digits D={d}"), |b| {
            b.iter(|| model.denoise(black_box(y.view()), 0.5).expect("points of the data's dimension"));
        });
        let some = y.slice(ndarray::s![..300, ..]);
        group.bench_function(format!("distance to uniform of 300 digits D={d}"), |b| {
            b.iter(|| distance_to_uniform(&model, black_box(some), 0.5).expect("points of the data's dimension"));
        });
    }
    let weights: Vec<f32> = stream_of_weights();
    group.bench_function("quantise 175424 weights to 4 bits", |b| {
        b.iter(|| {
            let mut weights = weights.clone();
            quantise(&mut weights, 4).expect("finite weights");
            weights
        });
    });
    group.finish();
}

fn stream_of_weights() -> Vec<f32> {
    let normals = offprint_generate::normals(175_424, 1, Streams::new(0).stream("weights"), 0);
    normals.iter().map(|&w| w as f32).collect()
}

criterion_group!(benches, kernels);
criterion_main!(benches);
