//! K-FAC and EK-FAC against the Kronecker product written out, and against the exact Fisher matrix of one layer.

use ndarray::{Array1, Array2, Array3, s};
use offprint_core::random::Streams;
use offprint_curvature::{Damping, Inverse, KroneckerFactors, KroneckerInverse, LayerPlace, vector};
use offprint_math::linalg;

fn normal(shape: (usize, usize, usize), index: u64) -> Array3<f64> {
    let values = vector::gaussian(Streams::new(5).stream("tests"), index, shape.0 * shape.1 * shape.2);
    Array3::from_shape_vec(shape, values).unwrap()
}

fn place(outputs: usize, inputs: usize, bias: bool, start: usize) -> LayerPlace {
    let weight = start..start + outputs * inputs;
    let bias = bias.then(|| weight.end..weight.end + outputs);
    LayerPlace { name: "layer".into(), weight, bias, outputs, inputs }
}

/// The coordinates of the flattened layer in the order of the Kronecker product A ⊗ S: column (input) by column.
fn order(outputs: usize, inputs: usize, bias: bool) -> Vec<usize> {
    let columns = inputs + usize::from(bias);
    let at = |o: usize, i: usize| if i == inputs { outputs * inputs + o } else { o * inputs + i };
    (0..columns).flat_map(|i| (0..outputs).map(move |o| at(o, i))).collect()
}

fn kronecker(a: &Array2<f64>, s: &Array2<f64>) -> Array2<f64> {
    let p = s.nrows();
    Array2::from_shape_fn((a.nrows() * p, a.nrows() * p), |(k, l)| a[[k / p, l / p]] * s[[k % p, l % p]])
}

/// `matrix` given in the order of the Kronecker product, in that of the flattened vector.
fn reordered(matrix: &Array2<f64>, order: &[usize]) -> Array2<f64> {
    let mut moved = Array2::zeros(matrix.raw_dim());
    for (k, &i) in order.iter().enumerate() {
        for (l, &j) in order.iter().enumerate() {
            moved[[i, j]] = matrix[[k, l]];
        }
    }
    moved
}

fn assert_inverse(found: &KroneckerInverse, matrix: &Array2<f64>, damp: f64) {
    let n = matrix.nrows();
    let exact = linalg::inverse((matrix + &(Array2::<f64>::eye(n) * damp)).view()).unwrap();
    let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for k in 0..n {
        let mut unit = vec![0.0; n];
        unit[k] = 1.0;
        for (a, b) in found.apply_inverse(&unit).unwrap().iter().zip(exact.row(k)) {
            assert!((a - b).abs() < 1e-9 * largest, "{a} {b}");
        }
    }
    for (a, b) in found.diag_inverse().unwrap().iter().zip(exact.diag()) {
        assert!((a - b).abs() < 1e-9 * largest);
    }
}

#[test]
fn k_fac_inverts_the_damped_kronecker_product() {
    for bias in [false, true] {
        let (n, t, inputs, outputs) = (30, 2, 4, 3);
        let (a, g) = (normal((n, t, inputs), 0), normal((n, t, outputs), 1));
        let mut factors = KroneckerFactors::new(place(outputs, inputs, bias, 0)).unwrap();
        factors.add(a.slice(s![..10, .., ..]), g.slice(s![..10, .., ..]), None).unwrap();
        factors.add(a.slice(s![10.., .., ..]), g.slice(s![10.., .., ..]), None).unwrap();
        let columns = inputs + usize::from(bias);
        let mut covariance = Array2::<f64>::zeros((columns, columns));
        for sample in a.outer_iter() {
            for position in sample.outer_iter() {
                let mut with_one = position.to_vec();
                with_one.extend(bias.then_some(1.0));
                let v = Array1::from(with_one).insert_axis(ndarray::Axis(1));
                covariance += &v.dot(&v.t());
            }
        }
        covariance /= (n * t) as f64;
        assert!((&factors.activation_covariance() - &covariance).iter().all(|x| x.abs() < 1e-12));
        let product = kronecker(&covariance, &factors.gradient_covariance());
        let dim = product.nrows();
        let layer = factors.decompose().unwrap();
        let inverse = KroneckerInverse::new(vec![layer], dim, Damping::Fixed(0.05)).unwrap();
        assert_inverse(&inverse, &reordered(&product, &order(outputs, inputs, bias)), 0.05);
    }
}

#[test]
fn ek_fac_keeps_the_diagonal_of_the_fisher_matrix_in_its_basis() {
    for t in [1, 3] {
        let (n, inputs, outputs) = (40, 3, 2);
        let (a, g) = (normal((n, t, inputs), 2), normal((n, t, outputs), 3));
        let dim = outputs * (inputs + 1);
        // The exact Fisher matrix of the layer, from each sample's gradient summed over its positions.
        let mut fisher = Array2::<f64>::zeros((dim, dim));
        for i in 0..n {
            let mut gradient = Array1::<f64>::zeros(dim);
            for p in 0..t {
                for o in 0..outputs {
                    (0..inputs).for_each(|k| gradient[o * inputs + k] += g[[i, p, o]] * a[[i, p, k]]);
                    gradient[outputs * inputs + o] += g[[i, p, o]];
                }
            }
            let column = gradient.insert_axis(ndarray::Axis(1));
            fisher += &(column.dot(&column.t()) / n as f64);
        }
        let mut factors = KroneckerFactors::new(place(outputs, inputs, true, 0)).unwrap();
        factors.add(a.view(), g.view(), None).unwrap();
        let mut layer = factors.decompose().unwrap();
        let basis = {
            let (_, of_a) = linalg::eigh(factors.activation_covariance().view()).unwrap();
            let (_, of_s) = linalg::eigh(factors.gradient_covariance().view()).unwrap();
            let whole = kronecker(&of_a, &of_s);
            // Rows to the flattened order, columns as they are.
            let mut moved = Array2::zeros(whole.raw_dim());
            order(outputs, inputs, true).iter().enumerate().for_each(|(k, &i)| moved.row_mut(i).assign(&whole.row(k)));
            moved
        };
        layer.add(a.slice(s![..7, .., ..]), g.slice(s![..7, .., ..])).unwrap();
        layer.add(a.slice(s![7.., .., ..]), g.slice(s![7.., .., ..])).unwrap();
        let layer = layer.refitted().unwrap();
        let in_basis = basis.t().dot(&fisher).dot(&basis);
        let kept = Array2::from_diag(&in_basis.diag());
        let trace = layer.eigenvalues().sum();
        assert!((trace - fisher.diag().sum()).abs() < 1e-10 * trace, "the trace is exact");
        let inverse = KroneckerInverse::new(vec![layer], dim, Damping::OfMean(0.1)).unwrap();
        let damp = inverse.damping()[0];
        assert!((damp - 0.1 * trace / dim as f64).abs() < 1e-12);
        assert_inverse(&inverse, &basis.dot(&kept).dot(&basis.t()), damp);
    }
}

#[test]
fn padding_does_not_count() {
    let (a, g) = (normal((6, 3, 4), 4), normal((6, 3, 2), 5));
    let mask = Array2::from_shape_fn((6, 3), |(i, t)| t < 1 + i % 3);
    let mut padded = KroneckerFactors::new(place(2, 4, true, 0)).unwrap();
    padded.add(a.view(), g.view(), Some(mask.view())).unwrap();
    let mut plain = KroneckerFactors::new(place(2, 4, true, 0)).unwrap();
    for ((i, t), _) in mask.indexed_iter().filter(|(_, real)| **real) {
        let (one, other) = (s![i..i + 1, t..t + 1, ..], s![i..i + 1, t..t + 1, ..]);
        plain.add(a.slice(one), g.slice(other), None).unwrap();
    }
    let difference = &padded.activation_covariance() - &plain.activation_covariance();
    assert!(difference.iter().all(|x| x.abs() < 1e-12));
    let difference = &padded.gradient_covariance() - &plain.gradient_covariance();
    assert!(difference.iter().all(|x| x.abs() < 1e-12));
}

#[test]
fn bad_layers_are_named() {
    let (a, g) = (normal((6, 1, 4), 6), normal((6, 1, 2), 7));
    let ready = |start| {
        let mut factors = KroneckerFactors::new(place(2, 4, false, start)).unwrap();
        factors.add(a.view(), g.view(), None).unwrap();
        factors.decompose().unwrap()
    };
    let words = |layers, dim, damping| KroneckerInverse::new(layers, dim, damping).unwrap_err().to_string();
    assert!(words(vec![ready(0)], 9, Damping::Fixed(1.0)).contains("cover 8 coordinates of 9"));
    assert!(words(vec![ready(1)], 9, Damping::Fixed(1.0)).contains("coordinate 0"));
    assert!(words(vec![ready(0), ready(4)], 12, Damping::Fixed(1.0)).contains("coordinate 8"));
    assert!(words(vec![ready(0)], 8, Damping::Fixed(0.0)).starts_with("damp"));
    assert!(KroneckerInverse::new(vec![ready(8), ready(0)], 16, Damping::Fixed(0.1)).is_ok(), "in any order");
    let mut dead = KroneckerFactors::new(place(2, 4, false, 0)).unwrap();
    dead.add(a.view(), Array3::<f64>::zeros((6, 1, 2)).view(), None).unwrap();
    assert!(words(vec![dead.decompose().unwrap()], 8, Damping::OfMean(0.1)).contains("received no gradient"));
    let mut factors = KroneckerFactors::new(place(2, 4, false, 0)).unwrap();
    assert!(factors.decompose().unwrap_err().to_string().starts_with("layer"));
    assert!(factors.add(g.view(), a.view(), None).unwrap_err().to_string().contains("(n, positions, 4)"));
    let mut holed = a.clone();
    holed[[3, 0, 1]] = f64::NAN;
    assert!(factors.add(holed.view(), g.view(), None).unwrap_err().to_string().contains("sample 3"));
    assert!(ready(0).refitted().is_err());
    let odd = LayerPlace { name: "odd".into(), weight: 0..7, bias: None, outputs: 2, inputs: 4 };
    assert!(KroneckerFactors::new(odd).unwrap_err().to_string().starts_with("odd"));
}
