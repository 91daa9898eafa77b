//! Models that were exported to ONNX: tiny ones are written here byte by byte, as the format's definition has them.

#![cfg(feature = "onnx")]

use ndarray::{Array2, array};
use offprint_core::random::Streams;
use offprint_generate::network::{Expected, Labels, Network, Reading, open};
use offprint_generate::{Denoiser, Schedule, normals};
use std::path::PathBuf;
use tempfile::TempDir;

/// Messages in the wire format of protocol buffers.
mod wire {
    pub fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    pub fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }
}
use wire::{bytes, number};

const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// ValueInfoProto; a length of 0 is open.
fn value(name: &str, kind: u64, shape: &[u64]) -> Vec<u8> {
    let dim = |&n: &u64| bytes(1, if n == 0 { bytes(2, "n") } else { number(1, n) });
    let tensor = [number(1, kind), bytes(2, shape.iter().flat_map(dim).collect::<Vec<u8>>())].concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}

/// TensorProto of reals.
fn weight(name: &str, shape: &[u64], values: &[f32]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&n| number(1, n)).collect();
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    [dims, number(2, FLOAT), bytes(8, name), bytes(9, raw)].concat()
}

/// NodeProto, with attributes as they are.
fn node(kind: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name)).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|a| bytes(5, a)).collect();
    [inputs, bytes(2, output), bytes(4, kind), attributes].concat()
}

/// AttributeProto of one integer.
fn integer(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name), number(3, value), number(20, 2)].concat()
}

/// AttributeProto of integers.
fn integers(name: &str, values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|&v| number(8, v as u64)).collect();
    [bytes(1, name), values, number(20, 7)].concat()
}

/// ModelProto of opset 12.
fn model(
    nodes: &[Vec<u8>],
    weights: &[Vec<u8>],
    inputs: &[Vec<u8>],
    output: Vec<u8>,
    words: &[(&str, &str)],
) -> Vec<u8> {
    let repeated = |field: u64, all: &[Vec<u8>]| all.iter().flat_map(|m| bytes(field, m)).collect::<Vec<u8>>();
    let graph =
        [repeated(1, nodes), bytes(2, "g"), repeated(5, weights), repeated(11, inputs), bytes(12, output)].concat();
    let words: Vec<u8> = words.iter().flat_map(|(k, v)| bytes(14, [bytes(1, k), bytes(2, v)].concat())).collect();
    [number(1, 7), bytes(7, graph), bytes(8, [bytes(1, ""), number(2, 12)].concat()), words].concat()
}

/// x W + b + t c: linear in the points (n, 3) and the level (n).
const W: [f32; 9] = [0.5, -0.25, 0.0, 0.125, 1.0, 0.75, -0.5, 0.0, 0.25];
const B: [f32; 3] = [0.1, -0.2, 0.3];
const C: [f32; 3] = [1.0, 2.0, -1.0];

fn affine(names: [&str; 2], rows: u64, words: &[(&str, &str)]) -> Vec<u8> {
    let [x, t] = names;
    model(
        &[
            node("MatMul", &[x, "w"], "xw", &[]),
            node("Add", &["xw", "b"], "xwb", &[]),
            node("Unsqueeze", &[t], "column", &[integers("axes", &[1])]),
            node("Mul", &["column", "c"], "tc", &[]),
            node("Add", &["xwb", "tc"], "out", &[]),
        ],
        &[weight("w", &[3, 3], &W), weight("b", &[3], &B), weight("c", &[1, 3], &C)],
        &[value(x, FLOAT, &[rows, 3]), value(t, FLOAT, &[rows])],
        value("out", FLOAT, &[rows, 3]),
        words,
    )
}

/// What [`affine`] gives for one row.
fn by_hand(x: &[f64], t: f64) -> Vec<f64> {
    let column = |j: usize| (0..3).map(|i| x[i] * f64::from(W[3 * i + j])).sum::<f64>();
    (0..3).map(|j| column(j) + f64::from(B[j]) + t * f64::from(C[j])).collect()
}

struct Saved {
    _folder: TempDir,
    file: PathBuf,
}

fn saved(bytes: &[u8]) -> Saved {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, bytes).unwrap();
    Saved { _folder: folder, file }
}

impl Saved {
    fn open(&self, reading: &str) -> offprint_core::Result<Network> {
        let reading: Option<Reading> = (!reading.is_empty()).then(|| reading.parse().unwrap());
        open(&self.file, reading.as_ref(), &Expected::default())
    }

    fn message(&self, reading: &str) -> String {
        self.open(reading).unwrap_err().to_string()
    }
}

fn points(n: usize) -> Array2<f64> {
    normals(n, 3, Streams::new(7).stream("y"), 0)
}

#[test]
fn outputs_are_those_of_the_same_function_in_rust() {
    let schedule = Schedule::scaled_linear();
    for rows in [0, 1, 4] {
        let file = saved(&affine(["sample", "timestep"], rows, &[]));
        let network = file.open("predicts=eps,schedule=scaled-linear,time=index").unwrap();
        assert_eq!((network.dim(), network.classes()), (3, 0));
        let (y, tau) = (points(150), 0.8);
        let denoised = network.unconditional().denoise(y.view(), tau).unwrap();
        let t = schedule.time(tau).unwrap();
        let alpha = schedule.at(t).unwrap().alpha;
        for (y, d) in y.outer_iter().zip(denoised.outer_iter()) {
            let x: Vec<f64> = y.iter().map(|y| alpha * y).collect();
            let eps = by_hand(&x, 1000.0 * t - 1.0);
            // D = (x − σ ε)/α = y − τ ε; single precision of numbers near 700.
            assert!((0..3).all(|j| (d[j] - (y[j] - tau * eps[j])).abs() < 1e-3), "{rows} rows");
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| network.unconditional().denoise(y.view(), tau).unwrap()), denoised);
    }
}

#[test]
fn inputs_are_found_by_name_by_order_and_as_told() {
    let y = points(5);
    let ask = |network: Network| network.unconditional().denoise(y.view(), 0.8).unwrap();
    let expected = ask(saved(&affine(["x", "sigma"], 0, &[])).open("predicts=x0").unwrap());
    // The file's own words; names that are not known, in order; names that are told.
    assert_eq!(ask(saved(&affine(["x", "t"], 0, &[("offprint", "predicts=x0")])).open("").unwrap()), expected);
    let odd = saved(&affine(["first", "second"], 0, &[]));
    assert_eq!(ask(odd.open("predicts=x0").unwrap()), expected);
    assert_eq!(ask(odd.open("predicts=x0,x=first,level=second").unwrap()), expected);
    let by_hand = by_hand(&y.row(2).to_vec(), 0.8);
    assert!((0..3).all(|j| (expected[[2, j]] - by_hand[j]).abs() < 1e-5));
}

#[test]
fn flow_models_count_time_to_the_data() {
    let file = saved(&affine(["x", "t"], 0, &[]));
    let network = file.open("predicts=velocity,schedule=rectified,time=1-t").unwrap();
    let (y, tau) = (array![[0.4, -0.3, 1.2]], 1.5);
    // x = (1 − t) y; the velocity to the data is x₀ − ε, so D = x + t v.
    let t = tau / (1.0 + tau);
    let x: Vec<f64> = y.iter().map(|y| (1.0 - t) * y).collect();
    let v = by_hand(&x, 1.0 - t);
    let d = network.unconditional().denoise(y.view(), tau).unwrap();
    assert!((0..3).all(|j| (d[[0, j]] - (x[j] + t * v[j])).abs() < 1e-5));
}

/// The class's row of a table of 3 classes and none, added to the points.
fn with_classes(one_hot: bool) -> Vec<u8> {
    let table: Vec<f32> = (0..12).map(|v| v as f32).collect();
    let (lookup, label, rows) = if one_hot {
        (node("MatMul", &["label", "table"], "row", &[]), value("label", FLOAT, &[0, 3]), 3)
    } else {
        (node("Gather", &["table", "label"], "row", &[integer("axis", 0)]), value("label", INT64, &[0]), 4)
    };
    model(
        &[
            lookup,
            node("Add", &["x", "row"], "moved", &[]),
            node("Unsqueeze", &["t"], "column", &[integers("axes", &[1])]),
            node("Mul", &["moved", "column"], "out", &[]),
        ],
        &[weight("table", &[rows, 3], &table[..3 * rows as usize])],
        &[value("x", FLOAT, &[0, 3]), value("t", FLOAT, &[0]), label],
        value("out", FLOAT, &[0, 3]),
        &[],
    )
}

#[test]
fn classes_are_numbers_or_ones_among_zeros() {
    let y = Array2::zeros((3, 3));
    for (one_hot, words, without) in
        [(false, "predicts=x0,classes=3", [9.0, 10.0, 11.0]), (true, "predicts=x0", [0.0; 3])]
    {
        let network = saved(&with_classes(one_hot)).open(words).unwrap();
        assert_eq!(network.classes(), 3);
        let model = network.conditioned(Labels::Each(vec![2, 0, 1])).unwrap();
        let d = model.denoise(y.view(), 1.0).unwrap();
        assert_eq!(d, array![[6.0, 7.0, 8.0], [0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
        let d = network.unconditional().denoise(y.view(), 1.0).unwrap();
        assert_eq!(d.row(0).to_vec(), without);
        assert!(network.conditioned(Labels::All(3)).is_err());
    }
    assert!(saved(&with_classes(false)).message("predicts=x0").contains("classes="));
    assert!(saved(&with_classes(true)).message("predicts=x0,classes=5").contains("3 classes"));
}

#[test]
fn pictures_keep_their_shape_and_learned_variances_are_left_out() {
    let pictures = |channels: u64| {
        model(
            &[node("Concat", &["sample", "sample"], "out", &[integer("axis", 1)])],
            &[],
            &[value("sample", FLOAT, &[0, channels, 0, 0]), value("t", FLOAT, &[0])],
            value("out", FLOAT, &[0, 0, 0, 0]),
            &[],
        )
    };
    let network = saved(&pictures(3)).open("predicts=x0,shape=3x2x2");
    // The level is not used: whether the file says so or not, it is fed.
    let network = network.unwrap();
    assert_eq!(network.picture().map(|p| (p.channels, p.height, p.width)), Some((3, 2, 2)));
    let y = normals(70, 12, Streams::new(1).stream("y"), 0);
    let d = network.unconditional().denoise(y.view(), 0.5).unwrap();
    assert!(d.iter().zip(&y).all(|(d, y)| (d - y).abs() < 1e-6));
    assert!(saved(&pictures(3)).message("predicts=x0").contains("shape="));
    assert!(saved(&pictures(3)).message("predicts=x0,shape=1x2x2").contains("another shape"));
}

#[test]
fn hostile_files_get_answers() {
    let good = affine(["x", "t"], 0, &[]);
    let words = "predicts=x0";
    assert!(saved(&good).message("").contains("--onnx predicts="));
    let metadata = affine(["x", "t"], 0, &[("offprint", "predicts=noise")]);
    assert!(saved(&metadata).message("").contains("predicts"));
    for length in [0, 1, 10, good.len() / 2, good.len() - 1] {
        saved(&good[..length]).message(words);
    }
    for at in (0..good.len()).step_by(3) {
        let mut broken = good.clone();
        broken[at] ^= 0x55;
        // Some changes only rename; what must not happen is a panic that reaches the user.
        if let Ok(network) = saved(&broken).open(words) {
            let _ = network.unconditional().denoise(Array2::zeros((2, network.dim())).view(), 0.5);
        }
    }
    let named = saved(&good).message("predicts=x0,x=points");
    assert!(named.contains("no input \"points\"") && named.contains("\"x\", \"t\""), "{named}");
    let message = saved(&good).message("predicts=x0,shape=4");
    assert!(message.contains("another shape"), "{message}");
    // Points of 3 numbers, outputs of 2.
    let narrow = model(
        &[node("MatMul", &["x", "w"], "xw", &[]), node("Mul", &["xw", "t"], "out", &[])],
        &[weight("w", &[3, 2], &W[..6])],
        &[value("x", FLOAT, &[0, 3]), value("t", FLOAT, &[0, 1])],
        value("out", FLOAT, &[0, 2]),
        &[],
    );
    let message = saved(&narrow).message(words);
    assert!(message.contains("outputs of shape [1, 2]"), "{message}");
    // Weights whose shapes do not fit each other, an operation that nobody knows, one input only.
    let inputs = [value("x", FLOAT, &[0, 3]), value("t", FLOAT, &[0])];
    let out = || value("out", FLOAT, &[0, 3]);
    let clash =
        model(&[node("MatMul", &["x", "w"], "out", &[])], &[weight("w", &[5, 3], &[0.0; 15])], &inputs, out(), &[]);
    saved(&clash).message(words);
    let unknown = model(&[node("Conjure", &["x", "t"], "out", &[])], &[], &inputs, out(), &[]);
    assert!(saved(&unknown).message(words).contains("Conjure"));
    let alone = model(&[node("Relu", &["x"], "out", &[])], &[], &inputs[..1], out(), &[]);
    assert!(saved(&alone).message(words).contains("\"x\""));
    // A weight that claims more numbers than it has, and one from another folder.
    let hollow =
        model(&[node("MatMul", &["x", "w"], "out", &[])], &[weight("w", &[3, 1 << 40], &W)], &inputs, out(), &[]);
    assert!(saved(&hollow).message(words).contains("not its numbers"));
    let place = bytes(13, [bytes(1, "location"), bytes(2, "../secret.bin")].concat());
    let outside = [number(1, 3), number(1, 3), number(2, FLOAT), bytes(8, "w"), place, number(14, 1)].concat();
    let outside = model(&[node("MatMul", &["x", "w"], "out", &[])], &[outside], &inputs, out(), &[]);
    assert!(saved(&outside).message(words).contains("outside its folder"));
    let expected = Expected { dim: Some(64), ..Expected::default() };
    let reading = words.parse().unwrap();
    let message = open(&saved(&good).file, Some(&reading), &expected).unwrap_err().to_string();
    assert!(message.contains("dimension 3, but 64"), "{message}");
    assert!(saved(&good).open(words).unwrap().save("anywhere.safetensors".as_ref()).is_err());
}
