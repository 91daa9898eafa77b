//! The parts of a step of AdaDFQ on digits, and whole steps.

use candle_core::Var;
use criterion::{Criterion, criterion_group, criterion_main};
use offprint_compress::adadfq::{
    Bits, Conditioning, Generator, ImageShape, Normalisation, Problem, Recipe, Settings, Student, Teacher, quantise,
};
use offprint_compress::examples::Example;
use offprint_core::random::Streams;
use offprint_nn::ops::backward;
use std::hint::black_box;
use std::time::Duration;

fn parts(c: &mut Criterion) {
    // SAFETY: nothing else runs yet that reads the environment.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    let subject = Example::DigitsCnn.load().expect("built in");
    let normalisation = Normalisation::of(&subject.train.inputs).expect("images");
    let teacher = Teacher::new(subject.network).expect("built in");
    let student = Student::new(teacher.network(), Bits { weights: 2, activations: 2 }, false).expect("fits");
    let shape = ImageShape { classes: 10, channels: 1, height: 8, width: 8 };
    let generator = Generator::fresh(shape, Conditioning::Product, 0).expect("fits");
    let streams = Streams::new(0);
    let (z, labels) = generator.draw(16, streams.stream("bench"), 0).expect("draws");
    let images = Var::from_tensor(&subject.train.inputs.narrow(0, 0, 16).expect("images")).expect("a tensor");
    student.observe(&images).expect("finite");
    let mut group = c.benchmark_group("16 images of 8 × 8");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function("generator, forward and backward", |b| {
        b.iter(|| backward(&generator.forward(black_box(&z), &labels)?.sqr()?.sum_all()?));
    });
    group.bench_function("float network and statistics, to the images", |b| {
        b.iter(|| {
            let (logits, distance) = teacher.logits_and_statistics(black_box(&images)).expect("fits");
            backward(&(logits.sqr()?.sum_all()? + distance)?)
        });
    });
    group.bench_function("quantised network, to the images", |b| {
        b.iter(|| backward(&student.logits_frozen(black_box(&images)).expect("fits").sqr()?.sum_all()?));
    });
    group.bench_function("quantised network, to the weights", |b| {
        b.iter(|| backward(&student.logits(&images.detach()).expect("fits").sqr()?.sum_all()?));
    });
    let settings = Settings { steps: 10, warmup: 0, observed: 1, ..Settings::default() };
    let problem = Problem { teacher: &teacher, shape, normalisation: &normalisation, real: None };
    group.bench_function("ten steps", |b| {
        b.iter(|| {
            quantise(&problem, Recipe::AdaDfq, &settings, streams, &mut || Ok(())).expect("finite").history.len()
        });
    });
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
