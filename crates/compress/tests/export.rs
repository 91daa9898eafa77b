//! Every format: what is written reads back to the same weights, bit for bit, and stands where other programs look for it.

use candle_core::DType;
use candle_core::{Device, Tensor};
use ndarray::{Array2, arr2};
use offprint_compress::export::{Format, export, layer_tensors, load, network_bytes, packed_bytes, read_gguf, size};
use offprint_compress::methods::{
    Gptq, Magnitude, Rtn, Scope, SparseGpt, Sparsity, Sweep, Target, WeightMethod, mask_lowest,
};
use offprint_compress::quantiser::{Grid, Scheme, ZeroPoint};
use offprint_compress::{Mask, Order, Packed, Pattern, Values, Work, compress, matrix, usual_targets};
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::{Architecture, Network};
use proptest::prelude::*;
use std::sync::LazyLock;

fn mlp() -> Network {
    let config = MlpConfig { widths: vec![64, 32, 32], activation: Activation::Relu };
    Network::fresh(&Architecture::Mlp(config), 3, DType::F32).unwrap()
}

fn compressed(network: &Network, method: &dyn WeightMethod, target: Target) -> (Network, Vec<Packed>) {
    let stream = Streams::new(0).stream("test");
    let inputs = Tensor::randn(0f32, 1.0, (128, 64), &Device::Cpu).unwrap();
    let targets = usual_targets(network, target, &[]).unwrap();
    let work = Work { method, targets: &targets, calibration: Some(&inputs), part: 64, order: Order::Parallel, stream };
    let compressed = compress(network, &work, &Progress::silent()).unwrap();
    (compressed.network, compressed.layers)
}

/// Writes and reads, and gives the layers that were read.
fn round_trip(network: &Network, layers: &[Packed], format: Format) -> Vec<Packed> {
    let directory = tempfile::tempdir().unwrap();
    export(network, layers, format, directory.path()).unwrap();
    let loaded = load(directory.path()).unwrap();
    assert_eq!(loaded.network.architecture(), network.architecture());
    for param in network.params().trained().iter().chain(network.params().buffers()) {
        let bits = |network: &Network| -> Vec<u32> {
            // −0 and 0 are the same weight.
            let values = matrix(network.params().get(&param.name).unwrap()).unwrap();
            values.iter().map(|w| (w + 0.0).to_bits()).collect()
        };
        assert_eq!(bits(&loaded.network), bits(network), "{format:?} {}", param.name);
    }
    loaded.layers
}

#[test]
fn every_format_gives_the_weights_back() {
    let network = mlp();
    let half = |scheme: Scheme| Scheme { half_scales: true, ..scheme };
    let symmetric = half(Scheme::symmetric(4).grouped(32));
    for (scheme, formats) in [
        (
            symmetric,
            &[Format::Fake, Format::Plain, Format::Packed, Format::CompressedTensors, Format::Gptq, Format::Gguf][..],
        ),
        (
            half(Scheme::symmetric(8).grouped(32)),
            &[Format::Plain, Format::Gguf, Format::Gptq, Format::CompressedTensors],
        ),
        (Scheme::asymmetric(3).grouped(16), &[Format::Plain, Format::Packed, Format::CompressedTensors]),
        (Scheme::asymmetric(8), &[Format::Plain, Format::Packed, Format::CompressedTensors]),
        (Scheme { zero: ZeroPoint::Float, ..Scheme::asymmetric(5) }, &[Format::Plain, Format::Packed]),
        (
            Scheme { granularity: offprint_compress::quantiser::Granularity::Tensor, ..Scheme::asymmetric(2) },
            &[Format::Plain, Format::Packed, Format::CompressedTensors],
        ),
    ] {
        let (network, layers) = compressed(&network, &Rtn::AsGiven, Target::quantised(scheme));
        for &format in formats {
            let read = round_trip(&network, &layers, format);
            assert_eq!(read.len(), if format == Format::Fake { 0 } else { 2 }, "{format:?}");
            if matches!(format, Format::Plain | Format::Packed | Format::CompressedTensors) {
                assert_eq!(read, layers, "{format:?}");
            }
        }
    }
    // Columns in another order.
    let act_order = Gptq { sweep: Sweep { by_diagonal: true, ..Sweep::default() } };
    let (ordered, layers) = compressed(&network, &act_order, Target::quantised(symmetric));
    for format in [Format::Plain, Format::Packed, Format::CompressedTensors, Format::Gptq] {
        round_trip(&ordered, &layers, format);
    }
    // Pruned floats, pruned codes, groups.
    let two_four = Sparsity::NofM { n: 2, m: 4 };
    for (sparsity, scheme, format) in [
        (two_four, None, Format::SparseBitmask),
        (Sparsity::Unstructured(0.6), None, Format::SparseBitmask),
        (Sparsity::Unstructured(0.6), None, Format::Packed),
        (Sparsity::Unstructured(0.6), None, Format::Plain),
        (two_four, Some(Scheme::asymmetric(4)), Format::Packed),
        (two_four, Some(Scheme::symmetric(4)), Format::Plain),
        (two_four, Some(symmetric), Format::Gguf),
        (Sparsity::Groups { size: 16, share: 0.5 }, Some(half(Scheme::asymmetric(4).grouped(16))), Format::Bsr),
        (Sparsity::Groups { size: 16, share: 0.3 }, Some(half(Scheme::symmetric(2).grouped(16))), Format::Bsr),
    ] {
        let (pruned, layers) = compressed(&network, &Magnitude, Target { scheme, sparsity: Some(sparsity) });
        let read = round_trip(&pruned, &layers, format);
        if matches!(format, Format::SparseBitmask | Format::Bsr) {
            assert!(read.iter().zip(&layers).all(|(a, b)| a.mask == b.mask && a.dequant() == b.dequant()));
        }
    }
    let joint = Target::both(Scheme::symmetric(4), Sparsity::Unstructured(0.5));
    let (pruned, layers) = compressed(&network, &SparseGpt::default(), joint);
    round_trip(&pruned, &layers, Format::Packed);
}

#[test]
fn convolutions_travel_as_matrices() {
    let network = offprint_compress::examples::Example::DigitsCnn.load().unwrap().network;
    let targets = usual_targets(&network, Target::quantised(Scheme::symmetric(4)), &[]).unwrap();
    let stream = Streams::new(0).stream("test");
    let work = Work {
        method: &Rtn::LeastError,
        targets: &targets,
        calibration: None,
        part: 1,
        order: Order::Parallel,
        stream,
    };
    let quantised = compress(&network, &work, &Progress::silent()).unwrap();
    for format in [Format::Plain, Format::Packed, Format::CompressedTensors, Format::Fake] {
        round_trip(&quantised.network, &quantised.layers, format);
    }
    // 33 k weights of 4 bits, 154 rows of scales, and what stays float.
    let weights: usize = targets.iter().map(|(place, _)| place.weights()).sum();
    let bytes = packed_bytes(&quantised.layers).unwrap();
    assert!(bytes >= weights as u64 / 2 + 154 * 2 && bytes <= weights as u64 / 2 + 154 * 4 + 8, "{bytes}");
    let all = network_bytes(&quantised.network, &quantised.layers).unwrap();
    let whole = network_bytes(&network, &[]).unwrap();
    assert_eq!(whole - all, 4 * weights as u64 - bytes);
}

/// Codes 0, 1, …, 7 repeated, scale ½, zero 3 of 3 bits.
fn known(rows: usize, columns: usize, bits: u32, symmetric: bool) -> Packed {
    let scheme = if symmetric { Scheme::symmetric(bits) } else { Scheme::asymmetric(bits) };
    let mut grid = Grid::blank(rows, columns, &scheme);
    grid.scales.fill(0.5);
    grid.zeros.fill(if symmetric { 0.0 } else { 3.0 });
    let codes = Array2::from_shape_fn((rows, columns), |(i, j)| ((i + j) % 8) as u8);
    Packed { name: "x".into(), shape: vec![rows, columns], values: Values::Codes { codes, grid }, mask: None }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn words_of_compressed_tensors_by_hand() {
    let tensors = layer_tensors(&known(2, 12, 3, false), Format::CompressedTensors).unwrap();
    let packed = &tensors["x.weight_packed"];
    assert_eq!(packed.shape, [2, 2]);
    // Ten codes of three bits a word: octal digits from the right; the second row begins with 1.
    assert_eq!(words(&packed.bytes), [0o1076543210, 0o32, 0o2107654321, 0o43]);
    // Zeros 3 and 3 along the rows.
    assert_eq!(
        (tensors["x.weight_zero_point"].shape.as_slice(), words(&tensors["x.weight_zero_point"].bytes)),
        (&[1, 1][..], vec![0o33])
    );
    assert_eq!(tensors["x.weight_shape"].bytes[..8], 2_i64.to_le_bytes());
    assert!(
        !layer_tensors(&known(2, 8, 4, true), Format::CompressedTensors).unwrap().contains_key("x.weight_zero_point")
    );
    let mask = Mask {
        keep: arr2(&[[true, false, false, true, true, true, false, false, false, true]]),
        pattern: Pattern::Unstructured,
    };
    let pruned = Packed::floats("x", &[1, 10], Array2::from_shape_fn((1, 10), |(_, j)| j as f32), Some(mask));
    let tensors = layer_tensors(&pruned, Format::SparseBitmask).unwrap();
    // Columns 0, 3, 4, 5 are bits 1 + 8 + 16 + 32, column 9 is bit 1 of the second byte.
    assert_eq!(tensors["x.bitmask"].bytes, [57, 2]);
    assert_eq!((tensors["x.compressed"].shape.as_slice(), tensors["x.row_offsets"].bytes.len()), (&[5][..], 8));
}

#[test]
fn words_of_gptq_by_hand() {
    let tensors = layer_tensors(&known(8, 8, 4, false), Format::Gptq).unwrap();
    // Along the inputs: row 0 holds 0, 1, …, 7, row 1 begins with 1.
    let packed = &tensors["x.qweight"];
    assert_eq!(
        (packed.shape.as_slice(), words(&packed.bytes)[0], words(&packed.bytes)[1]),
        (&[1, 8][..], 0x7654_3210, 0x0765_4321)
    );
    // Zeros are stored less 1, along the outputs.
    assert_eq!(words(&tensors["x.qzeros"].bytes), [0x2222_2222]);
    assert_eq!((tensors["x.scales"].shape.as_slice(), tensors["x.g_idx"].shape.as_slice()), (&[1, 8][..], &[8][..]));
}

#[test]
fn blocks_of_gguf_by_hand() {
    let mut packed = known(1, 32, 4, true);
    let Values::Codes { codes, .. } = &mut packed.values else { panic!() };
    codes.iter_mut().enumerate().for_each(|(j, code)| *code = if j < 16 { j as u8 } else { 15 });
    let directory = tempfile::tempdir().unwrap();
    let network = mlp();
    export(&network, &[packed], Format::Gguf, directory.path()).unwrap();
    let file = std::fs::read(directory.path().join("model.gguf")).unwrap();
    assert_eq!((&file[..4], &file[4..8]), (&b"GGUF"[..], &3_u32.to_le_bytes()[..]));
    let tensors = read_gguf(&directory.path().join("model.gguf")).unwrap();
    let x = tensors.iter().find(|tensor| tensor.name == "x.weight").unwrap();
    let values: Vec<f32> = (0..32).map(|j| if j < 16 { (j as f32 - 8.0) / 2.0 } else { 3.5 }).collect();
    assert_eq!(x.values(), values);
    // ½ in half precision is 0x3800; the low nibbles are weights 0 to 15, the high ones 16 to 31.
    let block: Vec<u8> = [0x00, 0x38].into_iter().chain((0..16).map(|j| 0xf0 | j)).collect();
    assert!(file.windows(18).any(|window| window == block));
    // Cut anywhere, it is refused and nothing breaks.
    for cut in [0, 3, 7, 20, 60, file.len() / 2, file.len() - 40] {
        let path = directory.path().join("cut.gguf");
        std::fs::write(&path, &file[..cut]).unwrap();
        assert!(read_gguf(&path).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn damaged_gguf_is_an_error_and_no_panic(at in 0usize..200, byte: u8) {
        static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let directory = tempfile::tempdir().unwrap();
            export(&mlp(), &[known(1, 32, 4, true)], Format::Gguf, directory.path()).unwrap();
            std::fs::read(directory.path().join("model.gguf")).unwrap()
        });
        let mut file = FILE.clone();
        file[at] = byte;
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, file).unwrap();
        let _ = read_gguf(&path);
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_never_rounded() {
    let error = |packed: &Packed, format| {
        let directory = tempfile::tempdir().unwrap();
        export(&mlp(), std::slice::from_ref(packed), format, directory.path()).unwrap_err().to_string()
    };
    let mut uneven = known(8, 32, 4, true);
    let Values::Codes { grid, .. } = &mut uneven.values else { panic!() };
    grid.scales.fill(0.1);
    assert!(error(&uneven, Format::Gptq).contains("half precision"));
    assert!(error(&uneven, Format::Gguf).contains("change weights by up to"));
    assert!(error(&known(8, 24, 4, true), Format::Gguf).contains("24 inputs"));
    assert!(error(&known(8, 32, 5, false), Format::Gguf).contains("no type"));
    assert!(error(&known(7, 32, 4, true), Format::Gptq).contains("7 outputs"));
    assert!(error(&known(8, 32, 3, true), Format::Gptq).contains("not 3"));
    let mut zero = known(8, 32, 4, false);
    let Values::Codes { grid, .. } = &mut zero.values else { panic!() };
    grid.zeros.fill(0.0);
    assert!(error(&zero, Format::Gptq).contains("less 1"));
    grid_zero(&mut zero, 1.5);
    assert!(error(&zero, Format::CompressedTensors).contains("1.5"));
    assert!(error(&zero, Format::Bsr).contains("whole groups"));
    assert!(error(&zero, Format::SparseBitmask).contains("holds codes"));
    let floats = Packed::floats("x", &[1, 4], arr2(&[[1.0, 2.0, 3.0, 4.0]]), None);
    assert!(error(&floats, Format::SparseBitmask).contains("nothing is pruned"));
    assert!(error(&floats, Format::CompressedTensors).contains("floats"));
    let scores = arr2(&[[1.0, 2.0, 3.0, 4.0]]);
    let mask = mask_lowest(scores.view(), &Sparsity::NofM { n: 2, m: 4 }, Scope::Row);
    let mut masked = known(1, 4, 4, true);
    masked.mask = Some(mask);
    assert!(error(&masked, Format::CompressedTensors).contains("mask"));
}

fn grid_zero(packed: &mut Packed, value: f32) {
    let Values::Codes { grid, .. } = &mut packed.values else { panic!("no codes") };
    grid.zeros.fill(value);
}

#[test]
fn damaged_directories_are_named() {
    let network = mlp();
    let (network, layers) = compressed(&network, &Rtn::AsGiven, Target::quantised(Scheme::symmetric(4)));
    let directory = tempfile::tempdir().unwrap();
    let written = |format| {
        export(&network, &layers, format, directory.path()).unwrap();
        directory.path().join("config.json")
    };
    let config = written(Format::CompressedTensors);
    let text = std::fs::read_to_string(&config).unwrap();
    let error = || load(directory.path()).unwrap_err().to_string();
    std::fs::write(&config, text.replace("\"layers.0\"", "\"other\"")).unwrap();
    assert!(error().contains("layers.0.weight_packed") && error().contains("names its layer"), "{}", error());
    std::fs::write(&config, text.replace("\"num_bits\": 4", "\"num_bits\": 40")).unwrap();
    assert!(error().contains("num_bits"), "{}", error());
    std::fs::write(&config, text.replace("\"num_bits\": 4", "\"num_bits\": 3")).unwrap();
    assert!(error().contains("weight_packed"), "{}", error());
    std::fs::write(&config, text.replace("32,\n", "31,\n")).unwrap();
    assert!(load(directory.path()).is_err());
    std::fs::write(&config, "{").unwrap();
    assert!(error().contains("config.json"), "{}", error());
    std::fs::remove_file(&config).unwrap();
    assert!(error().contains("cannot read"), "{}", error());
    assert_eq!(size(&layer_tensors(&layers[0], Format::Plain).unwrap()), 32 * 64 + 4 * 32);
}
