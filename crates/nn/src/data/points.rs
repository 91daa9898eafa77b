//! Point clouds on which generative models and classifiers are shown.

use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::f64::consts::PI;

/// Two interleaved half circles of radius 1: points (n, 2) and the moon 0 or 1 that each belongs to (n). `noise` is the
/// standard deviation of what is added to each coordinate. Point i comes from generator i of `stream`.
pub fn two_moons(n: usize, noise: f64, stream: Stream) -> (Array2<f64>, Vec<u32>) {
    let mut points = Array2::zeros((n, 2));
    let moons = (0..n)
        .map(|i| {
            let mut rng = stream.rng(i as u64);
            let (moon, angle) = ((i % 2) as u32, PI * rng.random::<f64>());
            let (x, y) = if moon == 0 { (angle.cos(), angle.sin()) } else { (1.0 - angle.cos(), 0.5 - angle.sin()) };
            let (e, f): (f64, f64) = (StandardNormal.sample(&mut rng), StandardNormal.sample(&mut rng));
            points[[i, 0]] = x + noise * e;
            points[[i, 1]] = y + noise * f;
            moon
        })
        .collect();
    (points, moons)
}

/// A mixture of round Gaussians with equal weights: `centres` (k, d), one standard deviation for all. Points (n, d) and
/// the component of each (n).
pub fn gaussian_mixture(
    n: usize,
    centres: ArrayView2<f64>,
    deviation: f64,
    stream: Stream,
) -> Result<(Array2<f64>, Vec<u32>)> {
    if centres.nrows() == 0 {
        return Err(Error::parameter("centres", "none", "at least one"));
    }
    let mut points = Array2::zeros((n, centres.ncols()));
    let mut components = Vec::with_capacity(n);
    for (i, mut point) in points.outer_iter_mut().enumerate() {
        let mut rng = stream.rng(i as u64);
        let component = rng.random_range(0..centres.nrows());
        for (x, &centre) in point.iter_mut().zip(centres.row(component)) {
            let z: f64 = StandardNormal.sample(&mut rng);
            *x = centre + deviation * z;
        }
        components.push(component as u32);
    }
    Ok((points, components))
}

/// `k` Gaussians in the plane, evenly on a circle: the usual test of whether a generative model keeps all modes.
pub fn ring_of_gaussians(
    n: usize,
    k: usize,
    radius: f64,
    deviation: f64,
    stream: Stream,
) -> Result<(Array2<f64>, Vec<u32>)> {
    let centres = Array2::from_shape_fn((k, 2), |(j, axis)| {
        let angle = 2.0 * PI * j as f64 / k as f64;
        radius * if axis == 0 { angle.cos() } else { angle.sin() }
    });
    gaussian_mixture(n, centres.view(), deviation, stream)
}

/// A sheet rolled up in three dimensions: points (n, 3) = (t cos t, h, t sin t) with t from 1.5π to 4.5π and h from 0 to
/// 21, and t for each (n). `noise` is the standard deviation of what is added to each coordinate.
pub fn swiss_roll(n: usize, noise: f64, stream: Stream) -> (Array2<f64>, Array1<f64>) {
    let mut points = Array2::zeros((n, 3));
    let along = (0..n)
        .map(|i| {
            let mut rng = stream.rng(i as u64);
            let t = 1.5 * PI * (1.0 + 2.0 * rng.random::<f64>());
            let place = [t * t.cos(), 21.0 * rng.random::<f64>(), t * t.sin()];
            for (x, place) in points.row_mut(i).iter_mut().zip(place) {
                let z: f64 = StandardNormal.sample(&mut rng);
                *x = place + noise * z;
            }
            t
        })
        .collect();
    (points, along)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn points_without_noise_lie_on_their_curves() {
        let stream = Streams::new(1).stream("points");
        let (points, moons) = two_moons(50, 0.0, stream);
        for (p, moon) in points.outer_iter().zip(moons) {
            let centre = [f64::from(moon), 0.5 * f64::from(moon)];
            assert!(((p[0] - centre[0]).hypot(p[1] - centre[1]) - 1.0).abs() < 1e-12);
            assert!(if moon == 0 { p[1] >= 0.0 } else { p[1] <= 0.5 });
        }
        let (points, along) = swiss_roll(50, 0.0, stream);
        for (p, t) in points.outer_iter().zip(along) {
            assert!((p[0].hypot(p[2]) - t).abs() < 1e-12 && (0.0..21.0).contains(&p[1]));
        }
    }

    #[test]
    fn mixtures_have_their_components_moments() {
        let (points, components) = ring_of_gaussians(8000, 8, 2.0, 0.1, Streams::new(2).stream("points")).unwrap();
        for k in 0..8u32 {
            let own: Vec<_> = points.outer_iter().zip(&components).filter(|(_, c)| **c == k).map(|(p, _)| p).collect();
            assert!((850..1150).contains(&own.len()), "{}", own.len());
            let angle = PI * f64::from(k) / 4.0;
            for (axis, centre) in [2.0 * angle.cos(), 2.0 * angle.sin()].into_iter().enumerate() {
                let mean = own.iter().map(|p| p[axis]).sum::<f64>() / own.len() as f64;
                let variance = own.iter().map(|p| (p[axis] - mean).powi(2)).sum::<f64>() / own.len() as f64;
                // Four standard errors of a mean and of a variance over about 1000 points.
                assert!((mean - centre).abs() < 4.0 * 0.1 / 29.0, "{mean} {centre}");
                assert!((variance - 0.01).abs() < 4.0 * 0.01 * (2.0f64 / 850.0).sqrt(), "{variance}");
            }
        }
        let none = Array2::zeros((0, 2));
        let error = gaussian_mixture(1, none.view(), 1.0, Streams::new(0).stream("points")).unwrap_err();
        assert!(error.to_string().starts_with("centres"));
    }
}
