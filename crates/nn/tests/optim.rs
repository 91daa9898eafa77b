//! Optimisers against PyTorch, and their state.

use candle_core::{DType, Device, Tensor, Var};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};

const GRADIENTS: [[f64; 3]; 3] = [[0.1, -0.2, 0.3], [-0.4, 0.0, 0.5], [0.2, 0.7, -0.1]];

fn start(dtype: DType) -> Var {
    Var::from_tensor(&Tensor::new(&[0.5, -1.0, 2.0], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()).unwrap()
}

/// A step under a loss whose gradient is `gradient`.
fn step(optimizer: &mut dyn Optimizer, w: &Var, gradient: &[f64]) {
    let gradient = Tensor::new(gradient, &Device::Cpu).unwrap().to_dtype(w.dtype()).unwrap();
    let loss = (w.as_tensor() * gradient).unwrap().sum_all().unwrap();
    optimizer.step(&loss.backward().unwrap()).unwrap();
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Where the three gradients lead from (0.5, −1, 2), in f64 and in f32.
fn leads_to(make: impl Fn(Var) -> Box<dyn Optimizer>, expected: [f64; 3]) {
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
        let w = start(dtype);
        let mut optimizer = make(w.clone());
        GRADIENTS.iter().for_each(|g| step(optimizer.as_mut(), &w, g));
        for (got, want) in values(&w).into_iter().zip(expected) {
            assert!((got - want).abs() < tolerance, "{dtype:?}: got {got}, PyTorch has {want}");
        }
    }
}

fn sgd(settings: SgdSettings) -> impl Fn(Var) -> Box<dyn Optimizer> {
    move |w| Box::new(Sgd::new([("w".to_owned(), w)], settings).unwrap())
}

fn adam(settings: AdamSettings) -> impl Fn(Var) -> Box<dyn Optimizer> {
    move |w| Box::new(Adam::new([("w".to_owned(), w)], settings).unwrap())
}

// The figures are those of torch.optim 2.15.0 in float64 with the same settings.

#[test]
fn sgd_is_that_of_pytorch() {
    let plain = SgdSettings { learning_rate: 0.1, ..SgdSettings::default() };
    leads_to(sgd(plain), [0.51, -1.05, 1.93]);
    let momentum = SgdSettings { momentum: 0.9, weight_decay: 0.01, ..plain };
    leads_to(sgd(momentum), [0.5260953895, -1.010270779, 1.822653568]);
    let nesterov = SgdSettings { nesterov: true, ..momentum };
    leads_to(sgd(nesterov), [0.5319509619805, -1.056390723961, 1.7647490365120002]);
}

#[test]
fn adam_is_that_of_pytorch() {
    let plain = AdamSettings { learning_rate: 0.1, ..AdamSettings::default() };
    leads_to(adam(plain), [0.4669677234642677, -0.8802060591100438, 1.7376497905395814]);
    let penalty = AdamSettings { betas: (0.8, 0.99), eps: 1e-3, weight_decay: 0.1, ..plain };
    leads_to(adam(penalty), [0.44062439966798944, -0.8538251860698947, 1.7210116333460899]);
    let decoupled = AdamSettings { learning_rate: 0.1, weight_decay: 0.1, ..AdamSettings::adamw() };
    leads_to(adam(decoupled), [0.45354771979041636, -0.8531651172172883, 1.681220582308852]);
}

#[test]
fn a_restored_optimiser_goes_on_bit_for_bit() {
    let momentum = SgdSettings { momentum: 0.9, learning_rate: 0.1, ..SgdSettings::default() };
    type Make = Box<dyn Fn(Var) -> Box<dyn Optimizer>>;
    let makers: [Make; 2] = [Box::new(sgd(momentum)), Box::new(adam(AdamSettings::adamw()))];
    for make in makers {
        let w = start(DType::F32);
        let mut optimizer = make(w.clone());
        step(optimizer.as_mut(), &w, &GRADIENTS[0]);
        let (saved, state) = (w.as_tensor().copy().unwrap(), optimizer.state().unwrap());
        step(optimizer.as_mut(), &w, &GRADIENTS[1]);

        let resumed = Var::from_tensor(&saved).unwrap();
        let mut other = make(resumed.clone());
        other.restore(&state).unwrap();
        step(other.as_mut(), &resumed, &GRADIENTS[1]);
        assert_eq!(values(&resumed), values(&w));

        // Without the state it would have gone elsewhere.
        let forgotten = Var::from_tensor(&saved).unwrap();
        step(make(forgotten.clone()).as_mut(), &forgotten, &GRADIENTS[1]);
        assert_ne!(values(&forgotten), values(&w));
    }
}

#[test]
fn a_state_of_another_network_is_refused() {
    let mut optimizer = Adam::new([("w".to_owned(), start(DType::F32))], AdamSettings::default()).unwrap();
    let message = |state: &[(String, Tensor)]| {
        let mut other = Adam::new([("w".to_owned(), start(DType::F32))], AdamSettings::default()).unwrap();
        other.restore(state).unwrap_err().to_string()
    };
    let state = optimizer.state().unwrap();
    assert!(message(&state[..1]).contains("no tensor \"exp_avg.w\""));
    let mut narrow = state.clone();
    narrow[1].1 = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
    assert!(message(&narrow).contains("\"exp_avg.w\" has shape [2]"));
    let mut double = state.clone();
    double[2].1 = Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap();
    assert!(message(&double).contains("type F64"));
    optimizer.restore(&state).unwrap();
}

#[test]
fn parameters_without_a_gradient_and_of_many_chunks() {
    let (w, still) = (Var::ones(100_003, DType::F32, &Device::Cpu).unwrap(), start(DType::F32));
    let named = [("w".to_owned(), w.clone()), ("still".to_owned(), still.clone())];
    let settings = SgdSettings { learning_rate: 0.25, ..SgdSettings::default() };
    let mut optimizer = Sgd::new(named, settings).unwrap();
    optimizer.step(&w.sum_all().unwrap().backward().unwrap()).unwrap();
    assert!(values(&w).iter().all(|&w| w == 0.75));
    assert_eq!(values(&still), [0.5, -1.0, 2.0]);
    assert!(Sgd::new([], SgdSettings { nesterov: true, ..settings }).unwrap_err().to_string().contains("momentum"));
}
