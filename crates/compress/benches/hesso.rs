//! What pruning costs beside training, and what it saves afterwards.

use candle_core::{DType, Device, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_compress::hesso::{
    Base, Choice, Criteria, Hesso, Inside, Net, Pace, Ranking, Settings, Space, compact, digits_mlp, moments, prune_now,
};
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::optim::{Optimizer, Sgd, SgdSettings};
use offprint_nn::{Architecture, Network, Params};
use std::hint::black_box;
use std::sync::Arc;

/// Three hidden layers of 1024: 2.2 M parameters.
fn wide() -> (Net, Arc<Space>) {
    let config = MlpConfig { widths: vec![64, 1024, 1024, 1024, 10], activation: Activation::Relu };
    let network = Network::fresh(&Architecture::Mlp(config), 0, DType::F32).expect("a plain perceptron");
    let net = Net::of(&network, &[64]).expect("rows of 64");
    let space = Arc::new(Space::search(&net, Inside::Heads, &[]).expect("a plain perceptron"));
    (net, space)
}

fn sgd() -> SgdSettings {
    SgdSettings { learning_rate: 1e-6, momentum: 0.9, ..SgdSettings::default() }
}

/// The gradient of ½ Σ w²: w itself, without a forward pass.
fn gradients(params: &Params) -> candle_core::backprop::GradStore {
    let vars: Vec<Var> = params.trained().iter().map(|p| p.var.clone()).collect();
    let squares = vars.iter().map(|v| v.sqr()?.sum_all()).collect::<Result<Vec<_>, _>>().expect("sums");
    Tensor::stack(&squares, 0).and_then(|s| (s.sum_all()? * 0.5)?.backward()).expect("gradients")
}

/// The streaming reduction behind all criteria: two arrays read once.
fn saliency(c: &mut Criterion) {
    let (net, space) = wide();
    let p: Vec<Vec<f32>> = space
        .tensors
        .iter()
        .map(|place| net.params().get(&place.name).expect("a tensor").flatten_all().unwrap().to_vec1().unwrap())
        .collect();
    let owned: usize = space.groups.iter().map(|group| group.size()).sum();
    let mut group = c.benchmark_group("saliency");
    group.throughput(Throughput::Bytes(8 * owned as u64));
    group.bench_function("moments of 3072 groups", |b| b.iter(|| moments(&space.groups, black_box(&p), &p)));
    group.throughput(Throughput::Bytes(4 * owned as u64));
    group.bench_function("read once", |b| b.iter(|| p.iter().flatten().copied().sum::<f32>()));
    group.finish();
}

/// A step of HESSO while groups shrink, and while most are gone, beside the optimiser underneath.
fn step(c: &mut Criterion) {
    let (net, space) = wide();
    let gradients = gradients(net.params());
    let settings = Settings {
        sparsity: 0.7,
        start: 0,
        steps: 1 << 40,
        periods: 1,
        choice: Choice { divisible: 1, compat: false },
        ranking: Ranking::Saliency(Criteria::MIXTURE),
        pace: Pace::Shrinking,
    };
    let mut group = c.benchmark_group("step of 2.2 M parameters");
    let mut plain = Sgd::new(net.params().vars(), sgd()).expect("plain settings");
    group.bench_function("SGD", |b| b.iter(|| plain.step(&gradients)));
    let mut shrinking = Hesso::new(net.params(), space.clone(), Base::Sgd(sgd()), settings).expect("plain settings");
    group.bench_function("HESSO, shrinking 70 %", |b| b.iter(|| shrinking.step(&gradients)));
    let at_once = Settings { pace: Pace::AtOnce, ..settings };
    let mut pruned = Hesso::new(net.params(), space, Base::Sgd(sgd()), at_once).expect("plain settings");
    group.bench_function("HESSO, 70 % gone", |b| b.iter(|| pruned.step(&gradients)));
    group.finish();
}

fn forward(c: &mut Criterion) {
    let net = digits_mlp(&[512, 512], 0, DType::F32).expect("a plain perceptron");
    let space = Arc::new(Space::search(&net, Inside::Heads, &[]).expect("a plain perceptron"));
    let settings = Settings {
        sparsity: 0.7,
        start: 0,
        steps: 1,
        periods: 1,
        choice: Choice { divisible: 1, compat: false },
        ranking: Ranking::Saliency(Criteria::MIXTURE),
        pace: Pace::AtOnce,
    };
    let removed = prune_now(net.params(), space.clone(), &settings).expect("groups to remove").is_pruned();
    let small = compact(&net, &space, &removed).expect("zero groups");
    let x = Tensor::ones((256, 64), DType::F32, &Device::Cpu).expect("a batch");
    let mut group = c.benchmark_group("forward, 256 rows through 64-512-512-10");
    group.bench_function("full", |b| b.iter(|| net.forward(black_box(&x))));
    group.bench_function("compact at K = 0.7", |b| b.iter(|| small.forward(black_box(&x))));
    group.finish();
}

criterion_group!(benches, saliency, step, forward);
criterion_main!(benches);
