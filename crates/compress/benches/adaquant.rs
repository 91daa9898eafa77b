//! What calibrating a layer costs: steps on batches, and steps on second moments.

use candle_core::{DType, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use offprint_compress::adaquant::{Bits, FloatLayer, Pairs, Settings, calibrate_layer};
use offprint_compress::calibration::record;
use offprint_compress::examples::Example;
use offprint_compress::model::fold_batch_norms;
use offprint_core::Progress;
use offprint_core::random::Streams;

fn layer(c: &mut Criterion) {
    let subject = Example::DigitsCnn.load().expect("compiled in");
    let (folded, _) = fold_batch_norms(&subject.network).expect("a network with norms");
    let images = subject.calibration(256).expect("there are more").inputs;
    let place = folded.layers().expect("it runs").into_iter().find(|place| place.name == "conv4").expect("its layer");
    let (inputs, outputs) = record(&folded, &place.weight, &images, None).expect("it is used");
    let weight = folded.params().get(&place.weight).expect("its weight").as_detached_tensor();
    let bias = Tensor::zeros(place.outputs(), DType::F32, weight.device()).expect("a small tensor");
    let pairs = Pairs { inputs, outputs };
    let mut group = c.benchmark_group("conv4 of digits-cnn (64 × 288), 256 images, 20 steps");
    group.sample_size(10);
    let settings = Settings { steps: 20, ..Settings::default() };
    for (name, input) in [("batches, 4-bit inputs", Some(4)), ("moments, float inputs", None)] {
        let bits = Bits { weight: 4, input };
        let stream = Streams::new(0).stream("bench");
        group.bench_function(name, |b| {
            b.iter(|| {
                calibrate_layer(
                    FloatLayer { place: &place, weight: &weight, bias: Some(&bias) },
                    &pairs,
                    bits,
                    &settings,
                    stream,
                    &Progress::silent(),
                )
                .expect("pairs that fit")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, layer);
criterion_main!(benches);
