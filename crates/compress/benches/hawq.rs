//! A product with a block's Hessian, layer by layer and through the whole network; the allocators.

use criterion::{Criterion, criterion_group, criterion_main};
use offprint_compress::allocate::exact;
use offprint_compress::examples::Example;
use offprint_compress::hawq::{layer_curvatures, resnet18};
use offprint_core::random::Streams;
use offprint_curvature::batch_hessian::DiagonalBlock;
use offprint_curvature::network::{LossOperator, Matrix};
use offprint_curvature::{LinearOperator, vector};
use offprint_nn::derivatives::Loss;
use std::hint::black_box;

fn products(c: &mut Criterion) {
    let subject = Example::DigitsCnn.load().expect("compiled in");
    let samples = subject.train.narrow(0, 512).expect("within the data");
    let places = subject.network.layers().expect("the built-in network");
    let mut group = c.benchmark_group("digits-cnn, 512 images");
    group.sample_size(10);
    let conv3 = [&places[2]];
    group.bench_function("inputs and gradients of conv3", |b| {
        b.iter(|| layer_curvatures(&subject.network, black_box(&conv3), &samples, 128));
    });
    let layer = layer_curvatures(&subject.network, &conv3, &samples, 128).expect("a classifier").remove(0);
    let x: Vec<f32> = vector::gaussian(Streams::new(0).stream("x"), 0, places[2].weights());
    let mut y = x.clone();
    group.bench_function("product with the Hessian of conv3, layer by layer", |b| {
        b.iter(|| layer.apply(black_box(&x), &mut y));
    });
    let loss = subject.network.loss(Loss::CrossEntropy);
    let whole = LossOperator::new(&loss, Matrix::Hessian, &samples, 128).expect("some samples");
    let range = loss.blocks().into_iter().find(|b| b.name == places[2].weight).expect("a parameter").range;
    let block = DiagonalBlock::new::<f32>(&whole, range).expect("within the parameters");
    group.bench_function("product with the Hessian of conv3, by differentiating twice", |b| {
        b.iter(|| block.apply(black_box(&x), &mut y));
    });
    group.finish();
}

fn allocators(c: &mut Criterion) {
    let instance = resnet18::instance(0.5);
    c.bench_function("the published ResNet-18 instance, exactly", |b| {
        b.iter(|| exact(black_box(&instance.options), instance.budget));
    });
}

criterion_group!(benches, products, allocators);
criterion_main!(benches);
