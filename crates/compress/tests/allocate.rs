//! Bit allocation against enumeration and against a solver of integer programmes.

use offprint_compress::allocate::{
    Assignment, Budget, Candidate, LayerCost, LayerOption, Solver, allocate, exact, greedy, integer_program, monotone,
};
use offprint_core::random::Streams;
use proptest::prelude::*;
use rand::RngExt;
use std::time::Instant;

fn layers(most: usize) -> impl Strategy<Value = Vec<Vec<Candidate>>> {
    let option = (0..40u32, 1..30u64).prop_map(|(cost, size)| Candidate { cost: f64::from(cost) / 4.0, size });
    prop::collection::vec(prop::collection::vec(option, 1..4), 1..most)
}

/// All assignments that `allowed` lets through: the least (cost, size) within the budget.
fn enumerated(layers: &[Vec<Candidate>], budget: u64, allowed: impl Fn(&[usize]) -> bool) -> Option<(f64, u64)> {
    let count: usize = layers.iter().map(Vec::len).product();
    (0..count)
        .filter_map(|mut number| {
            let mut choices = Vec::new();
            let (mut cost, mut size) = (0.0, 0);
            for options in layers {
                let choice = number % options.len();
                number /= options.len();
                choices.push(choice);
                cost += options[choice].cost;
                size += options[choice].size;
            }
            (size <= budget && allowed(&choices)).then_some((cost, size))
        })
        .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
}

fn least_size(layers: &[Vec<Candidate>]) -> u64 {
    layers.iter().map(|options| options.iter().map(|o| o.size).min().unwrap()).sum()
}

proptest! {
    #[test]
    fn exact_is_the_best_of_all(layers in layers(7), extra in 0..60u64) {
        let budget = least_size(&layers) + extra;
        let best = enumerated(&layers, budget, |_| true).unwrap();
        let found = exact(&layers, budget).unwrap();
        prop_assert_eq!((found.cost, found.size), best);
        let programme = integer_program(&layers, budget).unwrap();
        prop_assert!((programme.cost - best.0).abs() < 1e-9 && programme.size <= budget);
        let quick = greedy(&layers, budget).unwrap();
        prop_assert!(quick.size <= budget && quick.cost >= best.0);
        prop_assert!(exact(&layers, least_size(&layers).wrapping_sub(1)).is_err() || least_size(&layers) == 0);
    }

    #[test]
    fn monotone_is_the_best_of_those_that_do_not_fall(
        costs in prop::collection::vec(0..40u32, 18), weights in prop::collection::vec(1..9u64, 6), share in 0.0..1.0f64,
    ) {
        let layers: Vec<Vec<Candidate>> = weights.iter().zip(costs.chunks(3)).map(|(&n, costs)| {
            [8, 4, 2].iter().zip(costs).map(|(&bits, &cost)| Candidate { cost: f64::from(cost), size: n * bits }).collect()
        }).collect();
        let (least, most) = (2 * weights.iter().sum::<u64>(), 8 * weights.iter().sum::<u64>());
        let budget = least + ((most - least) as f64 * share) as u64;
        let best = enumerated(&layers, budget, |choices| choices.is_sorted()).unwrap();
        let found = monotone(&layers, budget).unwrap();
        prop_assert!(found.choices.is_sorted());
        prop_assert_eq!((found.cost, found.size), best);
    }
}

/// Layers of a deep network: sizes over three decades, costs that fall fourfold a bit.
fn deep(count: usize) -> Vec<Vec<Candidate>> {
    let mut rng = Streams::new(5).stream("layers").rng(0);
    (0..count)
        .map(|_| {
            let weights = 10f64.powf(rng.random_range(3.0..6.0)) as u64;
            let sensitivity = 10f64.powf(rng.random_range(-3.0..3.0));
            [2, 3, 4, 8]
                .iter()
                .map(|&bits| Candidate {
                    cost: sensitivity * 4f64.powi(-bits) * rng.random_range(0.8..1.2),
                    size: weights * bits as u64,
                })
                .collect()
        })
        .collect()
}

#[test]
fn two_hundred_layers_take_less_than_a_second() {
    let layers = deep(200);
    let total: u64 = layers.iter().map(|options| options[3].size).sum();
    let started = Instant::now();
    for share in [0.3, 0.41, 0.5, 0.77] {
        let budget = (total as f64 * share) as u64;
        let (found, quick) = (exact(&layers, budget).unwrap(), greedy(&layers, budget).unwrap());
        assert!(found.size <= budget && found.cost <= quick.cost, "{} {}", found.cost, quick.cost);
    }
    let seconds = started.elapsed().as_secs_f64() / 4.0;
    assert!(seconds < 1.0, "{seconds} s");
    let budget = total / 2;
    let (found, programme) = (exact(&layers, budget).unwrap(), integer_program(&layers, budget).unwrap());
    assert!(found.cost <= programme.cost * (1.0 + 1e-9), "{} {}", found.cost, programme.cost);
    assert!((programme.cost / found.cost - 1.0).abs() < 1e-3, "{} {}", found.cost, programme.cost);
    let mut ranked = deep(200);
    ranked.sort_by(|a, b| b[0].cost.total_cmp(&a[0].cost));
    ranked.iter_mut().for_each(|options| options.reverse());
    let in_rank = monotone(&ranked, budget).unwrap();
    assert!(in_rank.size <= budget && in_rank.cost >= found.cost * 0.999);
}

#[test]
fn budgets_are_in_the_units_people_give() {
    let option = |bits, cost| LayerOption { bits, activation_bits: 8, extra_bits: 16, cost };
    let layer = |weights, scale: f64| LayerCost {
        name: "l".into(),
        weights,
        multiplications: 10 * weights,
        options: vec![option(2, 4.0 * scale), option(4, scale), option(8, 0.0)],
    };
    let layers = [layer(100, 1.0), layer(300, 2.0)];
    let solve = |budget| allocate(&layers, budget, Solver::Exact);
    // 4 bits on average: 1600 bits; (4, 4) costs 3 with 1600, (2, 4) costs 6 with 1400.
    assert_eq!(solve(Budget::MeanBits(4.0)).unwrap(), [1, 1]);
    assert_eq!(solve(Budget::MeanBits(3.9)).unwrap(), [0, 1]);
    // With two scales of 16 bits 1600 bits need 204 bytes.
    assert_eq!(solve(Budget::Bytes(204)).unwrap(), [1, 1]);
    assert_eq!(solve(Budget::Bytes(203)).unwrap(), [0, 1]);
    assert_eq!(solve(Budget::BitOperations(8 * 16_000)).unwrap(), [1, 1]);
    // Within a cost of 3 the least bits: (4, 4).
    assert_eq!(solve(Budget::Degradation(3.0)).unwrap(), [1, 1]);
    assert_eq!(solve(Budget::Degradation(2.5)).unwrap(), [2, 1]);
    assert_eq!(solve(Budget::Degradation(0.0)).unwrap(), [2, 2]);
    let error = solve(Budget::MeanBits(1.0)).unwrap_err().to_string();
    assert!(error.contains("budget: got 1") && error.contains("at least 2,"), "{error}");
    assert!(solve(Budget::MeanBits(f64::NAN)).is_err() && solve(Budget::Bytes(3)).is_err());
    let mut bad = layers.clone();
    bad[1].options[0].cost = f64::NAN;
    assert!(allocate(&bad, Budget::MeanBits(4.0), Solver::Greedy).unwrap_err().to_string().contains("NaN"));
    bad[1].options.clear();
    assert!(allocate(&bad, Budget::Bytes(999), Solver::Exact).unwrap_err().to_string().contains("no option"));
}

#[test]
fn of_equal_costs_the_smaller_is_taken() {
    let same = |size| Candidate { cost: 1.0, size };
    let found = exact(&[vec![same(5), same(3), same(4)]], 10).unwrap();
    assert_eq!(found, Assignment { choices: vec![1], cost: 1.0, size: 3 });
}
