//! Quantisers, packed layers and bits.

use candle_core::{Device, Tensor, Var};
use ndarray::{Array2, arr2};
use offprint_compress::quantiser::{
    ActivationQuantiser, Granularity, Grid, Lsq, Range, RangeTracker, Scheme, Tracking, ZeroPoint,
};
use offprint_compress::{Mask, Packed, Pattern, Values, bits};
use offprint_nn::ops::{self, Beyond};
use proptest::prelude::*;

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Array2<f32>> {
    prop::collection::vec(-3.0..3.0f32, rows * columns)
        .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let granularity = prop_oneof![Just(Granularity::Tensor), Just(Granularity::Row), Just(Granularity::Group(4))];
    (2u32..=8, any::<bool>(), granularity, any::<bool>()).prop_map(|(bits, symmetric, granularity, mse)| Scheme {
        symmetric,
        granularity,
        range: if mse { Range::Mse80 } else { Range::MinMax },
        ..Scheme::asymmetric(bits)
    })
}

proptest! {
    #[test]
    fn levels_are_fixed_points_and_zero_is_one_of_them(w in matrix(3, 8), scheme in schemes()) {
        let grid = Grid::fit("w", w.view(), &scheme).unwrap();
        let fake = grid.fake(w.view());
        prop_assert_eq!(&grid.decode(grid.encode(w.view()).view()), &fake);
        prop_assert_eq!(grid.affine(1, 5).fake(0.0), 0.0);
        let again = grid.fake(fake.view());
        prop_assert!(again.iter().zip(&fake).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn errors_stay_below_half_a_step_within_the_range(w in matrix(2, 8), bits in 2u32..=8, symmetric: bool) {
        let scheme = Scheme { symmetric, ..Scheme::asymmetric(bits) };
        let grid = Grid::fit("w", w.view(), &scheme).unwrap();
        for ((i, j), &w) in w.indexed_iter() {
            let affine = grid.affine(i, j);
            // Rounding the zero may cost the ends another half step.
            let ends = if symmetric { 0.5 } else { 1.0 };
            prop_assert!((w - affine.fake(w)).abs() <= ends * affine.scale * 1.0001);
        }
    }

    #[test]
    fn searched_ranges_are_no_worse_than_the_whole_range(w in matrix(2, 8), bits in 2u32..=4) {
        let error = |range| {
            let grid = Grid::fit("w", w.view(), &Scheme::asymmetric(bits).ranged(range)).unwrap();
            let fake = grid.fake(w.view());
            w.iter().zip(&fake).map(|(w, q)| f64::from((w - q).abs()).powf(2.4)).sum::<f64>()
        };
        prop_assert!(error(Range::Mse80) <= error(Range::MinMax) + 1e-9);
    }

    #[test]
    fn tensors_are_faked_as_matrices_are(w in matrix(3, 8), scheme in schemes()) {
        let grid = Grid::fit("w", w.view(), &scheme).unwrap();
        let tensor = Tensor::from_iter(w.iter().copied(), &Device::Cpu).unwrap().reshape((3, 2, 2, 2)).unwrap();
        let fake = grid.fake_tensor(&tensor, Beyond::Stops).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        prop_assert_eq!(fake, grid.fake(w.view()).into_raw_vec_and_offset().0);
    }

    #[test]
    fn packing_undoes_itself(codes in prop::collection::vec(any::<u8>(), 0..70), bits in 1u32..=8) {
        let codes: Vec<u8> = codes.into_iter().map(|code| code & ((1u16 << bits) - 1) as u8).collect();
        let bytes = bits::pack(codes.iter().copied(), bits);
        prop_assert_eq!(bytes.len(), (codes.len() * bits as usize).div_ceil(8));
        prop_assert_eq!(bits::unpack(&bytes, bits, codes.len()), Some(codes.clone()));
        prop_assert_eq!(bits::unpack_words(&bits::pack_words(&codes, bits), bits, codes.len()), Some(codes));
    }
}

#[test]
fn bits_stand_where_the_formats_want_them() {
    // By hand: 1 + 2·16 + 3·256 + … in nibbles; three bits: 5 + 6·8 + 7·64 = 5 | 48 | 448 = 501.
    assert_eq!(bits::pack_words(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 4), [0x8765_4321_u32 as i32, 9]);
    assert_eq!(bits::pack_words(&[5, 6, 7], 3), [501]);
    assert_eq!(bits::per_word(3), 10);
    assert_eq!(bits::pack([1, 2, 3], 4), [0x21, 0x03]);
    assert_eq!(bits::unpack(&[0x21], 4, 3), None);
}

#[test]
fn quantisers_by_hand() {
    // Asymmetric, 2 bits, range −1 to 2: s = 1, z = 1; codes 0, 1 (0.5 is a tie that goes to the even 0, plus 1), 3.
    let grid = Grid::fit("w", arr2(&[[-1.0, 0.5, 2.0]]).view(), &Scheme::asymmetric(2)).unwrap();
    assert_eq!((grid.scales[[0, 0]], grid.zeros[[0, 0]]), (1.0, 1.0));
    assert_eq!(grid.encode(arr2(&[[-1.0, 0.5, 2.0]]).view()), arr2(&[[0, 1, 3]]));
    // Symmetric, 3 bits: s = 3/3, codes −4 to 3; −3 is code −3, the second from the first.
    let grid = Grid::fit("w", arr2(&[[-3.0, 1.0, 2.0]]).view(), &Scheme::symmetric(3)).unwrap();
    assert_eq!(grid.encode(arr2(&[[-3.0, 1.0, 2.0]]).view()), arr2(&[[1, 5, 6]]));
    // A zero that is no code meets both ends exactly, though 0 is outside.
    let scheme = Scheme { zero: ZeroPoint::Float, holds_zero: false, ..Scheme::asymmetric(2) };
    let w = arr2(&[[1.25, 1.75, 2.75]]);
    let fake = Grid::fit("w", w.view(), &scheme).unwrap().fake(w.view());
    assert!(fake.iter().zip([1.25, 1.75, 2.75]).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{fake}");
    // A range without 0 and a whole zero beyond the codes: s = 1/2, z = −2 (2.5 is a tie), values from 1 on.
    let scheme = Scheme { zero: ZeroPoint::Whole, ..scheme };
    let grid = Grid::fit("w", w.view(), &scheme).unwrap();
    assert_eq!((grid.zeros[[0, 0]], grid.fake(w.view())), (-2.0, arr2(&[[1.0, 2.0, 2.5]])));
    // Equal weights get the least scale and are counted.
    assert_eq!(Grid::fit("w", Array2::zeros((2, 4)).view(), &Scheme::symmetric(4)).unwrap().constant_groups(), 2);
    let half = Scheme { half_scales: true, ..Scheme::symmetric(4) };
    let scale = Grid::fit("w", arr2(&[[0.3f32, 0.1]]).view(), &half).unwrap().scales[[0, 0]];
    assert_eq!(half::f16::from_f32(scale).to_f32(), scale);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let w = Array2::<f32>::zeros((2, 9));
    let error = |scheme: Scheme| Grid::fit("conv1", w.view(), &scheme).unwrap_err().to_string();
    assert!(error(Scheme::asymmetric(9)).contains("bits: got 9") && error(Scheme::asymmetric(0)).contains("bits"));
    assert!(error(Scheme::symmetric(1)).contains("between 2 and 8"));
    let message = error(Scheme::symmetric(4).grouped(4));
    assert!(message.contains("conv1") && message.contains('4') && message.contains('9'), "{message}");
    assert!(error(Scheme::symmetric(4).grouped(0)).contains("group"));
}

#[test]
fn packed_layers_prune_and_are_checked() {
    let w = arr2(&[[1.0f32, -2.0, 3.0, -4.0], [4.0, 3.0, 2.0, 1.0]]);
    let keep = arr2(&[[false, true, false, true], [true, true, false, false]]);
    let mask = Mask { keep, pattern: Pattern::NofM { n: 2, m: 4 } };
    let grid = Grid::fit("l", w.view(), &Scheme::symmetric(8)).unwrap();
    let packed = Packed::coded("l", &[2, 1, 2, 2], w.view(), grid, Some(mask.clone()));
    packed.check().unwrap();
    let weight = packed.dequant();
    assert_eq!((weight[[0, 0]], weight[[1, 3]], packed.sparsity(), packed.bits()), (0.0, 0.0, 0.5, 8));
    assert!((weight[[0, 3]] + 4.0).abs() < 0.02);
    let refused = |packed: Packed, word: &str| {
        let error = packed.check().unwrap_err().to_string();
        assert!(error.contains("\"l\"") && error.contains(word), "{error}");
    };
    refused(Packed { shape: vec![2, 5], ..packed.clone() }, "shape");
    let groups = Mask { pattern: Pattern::Groups(4), ..mask.clone() };
    refused(Packed { mask: Some(groups), ..packed.clone() }, "keeps 2");
    let odd = Mask { pattern: Pattern::NofM { n: 1, m: 3 }, ..mask };
    refused(Packed { mask: Some(odd), ..packed.clone() }, "4 inputs");
    let book = Values::Codebook { codes: arr2(&[[0, 1, 2, 1], [0, 0, 0, 0]]), book: arr2(&[[-1.0, 1.0]]) };
    refused(Packed { values: book, mask: None, ..packed }, "code 2");
}

#[test]
fn ranges_of_activations_follow_what_they_see() {
    let batch = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let tracked = |tracking| {
        let mut tracker = RangeTracker::new(Scheme::asymmetric(8), tracking);
        assert!(tracker.range().is_err());
        tracker.observe(&batch(&[-1.0, 0.0, 1.0, 2.0, 30.0])).unwrap();
        tracker.observe(&batch(&[-3.0, 0.0, 1.0, 2.0, 10.0])).unwrap();
        tracker.range().unwrap()
    };
    assert_eq!(tracked(Tracking::MinMax), (-3.0, 30.0));
    assert_eq!(tracked(Tracking::Percentile { share: 0.25 }), (0.0, 2.0));
    // Without bias: (0.9·0.1·30 + 0.1·10) / (1 − 0.81)
    let (low, high) = tracked(Tracking::Ema { decay: 0.9 });
    assert!((low + (0.09 + 0.3) / 0.19).abs() < 1e-9 && (high - (2.7 + 1.0) / 0.19).abs() < 1e-9);
    // The stored end is divided each time: 30, then (0.9·30 + 0.1·10) / 0.19.
    let (_, high) = tracked(Tracking::CompoundedEma { decay: 0.9 });
    assert!((high - 28.0 / 0.19).abs() < 1e-9);
    let mut tracker = RangeTracker::new(Scheme::asymmetric(8), Tracking::MinMax);
    assert!(tracker.observe(&batch(&[f32::NAN])).is_err());
    tracker.observe(&batch(&[0.0, 255.0])).unwrap();
    tracker.freeze().unwrap();
    let fake = tracker.fake(&batch(&[0.4, 7.6, 300.0])).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(fake, [0.0, 8.0, 255.0]);
}

#[test]
fn learned_steps_begin_and_slow_down_as_published() {
    let w = Tensor::new(&[[1.0f32, -2.0, 3.0], [0.5, 0.5, -0.5]], &Device::Cpu).unwrap();
    let lsq = Lsq::of_weight(&w, 3).unwrap();
    // 2 mean|w| / √3
    let steps = lsq.step.to_vec1::<f32>().unwrap();
    assert!((steps[0] - 4.0 / 3f32.sqrt()).abs() < 1e-6 && (steps[1] - 1.0 / 3f32.sqrt()).abs() < 1e-6);
    let w = Var::from_tensor(&w).unwrap();
    let y = lsq.fake(&w).unwrap();
    let expected = lsq.grid(3).unwrap();
    let as_matrix = arr2(&[[1.0f32, -2.0, 3.0], [0.5, 0.5, -0.5]]);
    assert_eq!(
        y.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        expected.fake(as_matrix.view()).into_raw_vec_and_offset().0
    );
    let gradient = ops::backward(&y.sum_all().unwrap()).unwrap();
    let of_step = gradient.get(&lsq.step).unwrap().to_vec1::<f32>().unwrap();
    // Σ (round(w/s) − w/s) / √(3 · 3) for the first row.
    let s = 4.0 / 3f32.sqrt();
    let by_hand: f32 = [1.0f32, -2.0, 3.0].iter().map(|w| (w / s).round_ties_even() - w / s).sum::<f32>() / 3.0;
    assert!((of_step[0] - by_hand).abs() < 1e-6, "{of_step:?} {by_hand}");
    let mut activations = Lsq::of_activations(2, true).unwrap();
    activations.observe(&Tensor::new(&[1.0f32, 3.0], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(activations.codes(), (0, 3));
    assert!((activations.step.to_vec1::<f32>().unwrap()[0] - 8.0 / 3f32.sqrt()).abs() < 1e-6);
    assert!(Lsq::of_activations(1, false).is_err());
}
