//! The laws on which the paper shows its method.

use crate::exact::{Covariances, Mixture};
use ndarray::{Array1, Array2, Array3, array};
use offprint_core::Result;
use offprint_core::random::Stream;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

/// The two mixtures on the line of the paper's first figures: ½N(−3, ¼) + ½N(3, ¼), and a third each of N(−6, ½),
/// N(0, ⅓), N(6, ½) (0.33 for ⅓).
pub fn line() -> Result<(Mixture, Mixture)> {
    let start = Mixture::round(array![0.5, 0.5], array![[-3.0], [3.0]], array![0.25, 0.25].view())?;
    let third = 1.0 / 3.0;
    let end = Mixture::round(Array1::from_elem(3, third), array![[-6.0], [0.0], [6.0]], array![0.5, 0.33, 0.5].view())?;
    Ok((start, end))
}

/// Two mixtures in the plane, as the authors draw them: one Gaussian, and three of equal weight; means 3 N(0, I),
/// covariances AᵀA + ½I with A of standard normal entries.
pub fn plane(stream: Stream) -> Result<(Mixture, Mixture)> {
    let mixture = |count: usize, index: u64| {
        let mut rng = stream.rng(index);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let means = Array2::from_shape_simple_fn((count, 2), || 3.0 * normal());
        let mut covariances = Array3::zeros((count, 2, 2));
        for mut covariance in covariances.outer_iter_mut() {
            let a = Array2::from_shape_simple_fn((2, 2), &mut normal);
            covariance.assign(&(a.t().dot(&a) + Array2::<f64>::eye(2) * 0.5));
        }
        Mixture::new(Array1::from_elem(count, 1.0 / count as f64), means, Covariances::Full(covariances))
    };
    Ok((mixture(1, 0)?, mixture(3, 1)?))
}

/// The standard normal law in `d` dimensions.
pub fn standard_normal(d: usize) -> Result<Mixture> {
    Mixture::round(Array1::ones(1), Array2::zeros((1, d)), Array1::ones(1).view())
}

/// `n` points (n, 2) of a checkerboard of side 8: uniform on eight of its sixteen squares of side 2. Point i comes from
/// generator i of `stream`.
///
/// u is uniform from −2 to 2; w from 0 to 1, moved down by 2 half of the time and up by 1 where ⌊u⌋ is odd; the point is
/// 2(u, w).
pub fn checkerboard(n: usize, stream: Stream) -> Array2<f64> {
    let mut points = Array2::zeros((n, 2));
    for (i, mut point) in points.outer_iter_mut().enumerate() {
        let mut rng = stream.rng(i as u64);
        let u = 4.0 * rng.random::<f64>() - 2.0;
        let down = if rng.random::<bool>() { 2.0 } else { 0.0 };
        let w = rng.random::<f64>() - down + u.floor().rem_euclid(2.0);
        point[0] = 2.0 * u;
        point[1] = 2.0 * w;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn checkerboards_fill_half_of_the_square_evenly() {
        let points = checkerboard(8000, Streams::new(1).stream("board"));
        let mut squares = [0; 16];
        for p in points.outer_iter() {
            assert!(p.iter().all(|x| x.abs() <= 4.0));
            let place = |x: f64| ((x + 4.0) / 2.0).floor().min(3.0) as usize;
            squares[4 * place(p[1]) + place(p[0])] += 1;
        }
        for (i, count) in squares.iter().enumerate() {
            let filled = (i / 4 + i % 4) % 2 == 0;
            assert_eq!(*count > 0, filled, "{squares:?}");
            assert!(!filled || (850..1150).contains(count), "{squares:?}");
        }
    }
}
