//! Colour transfer: an image takes on the colours of a reference.
//!
//! Both images are reduced to palettes by k-means; a plan between the palettes says what each colour becomes: the mean of
//! the reference colours it is sent to (the barycentric map), at most k of them with a sparse plan.

use super::problem::Problem;
use crate::plan::Plan;
use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3};
use offprint_core::random::Rng;
use offprint_core::{Error, Progress, Result};
use rand::RngExt;
use rayon::prelude::*;

/// Colours of an image and how often each occurs.
#[derive(Debug, Clone)]
pub struct Palette {
    /// The colours (colours, 3), red, green and blue in 0..=1.
    pub colours: Array2<f64>,
    /// The part of all pixels that has each colour; sums to one (colours).
    pub weights: Array1<f64>,
    /// Index of the colour of each pixel, row by row (pixels).
    pub labels: Vec<usize>,
}

/// Reduces an image (height, width, 3) to at most `count` colours by Lloyd's iteration from k-means++ seeds.
///
/// # Errors
/// A stop by the user.
pub fn palette(image: ArrayView3<'_, f64>, count: usize, rng: &mut Rng, progress: &Progress) -> Result<Palette> {
    let pixels: Vec<[f64; 3]> = image.rows().into_iter().map(|p| [p[0], p[1], p[2]]).collect();
    let mut centres = seeds(&pixels, count.min(pixels.len()), rng);
    let mut labels = vec![0; pixels.len()];
    for _ in 0..30 {
        progress.check()?;
        let nearest: Vec<usize> = pixels.par_iter().map(|p| nearest(p, &centres).0).collect();
        let settled = nearest == labels;
        labels = nearest;
        let mut sums = vec![[0.0; 4]; centres.len()];
        for (p, &l) in pixels.iter().zip(&labels) {
            for c in 0..3 {
                sums[l][c] += p[c];
            }
            sums[l][3] += 1.0;
        }
        for (centre, sum) in centres.iter_mut().zip(&sums).filter(|(_, s)| s[3] > 0.0) {
            *centre = [sum[0] / sum[3], sum[1] / sum[3], sum[2] / sum[3]];
        }
        if settled {
            break;
        }
    }
    // Colours that no pixel has are left out.
    let mut counts = vec![0usize; centres.len()];
    labels.iter().for_each(|&l| counts[l] += 1);
    let kept: Vec<usize> = (0..centres.len()).filter(|&c| counts[c] > 0).collect();
    let mut renamed = vec![usize::MAX; centres.len()];
    kept.iter().enumerate().for_each(|(new, &old)| renamed[old] = new);
    labels.iter_mut().for_each(|l| *l = renamed[*l]);
    Ok(Palette {
        colours: Array2::from_shape_fn((kept.len(), 3), |(i, c)| centres[kept[i]][c]),
        weights: kept.iter().map(|&c| counts[c] as f64 / pixels.len() as f64).collect(),
        labels,
    })
}

/// The transport problem from the reference's palette (rows) to the image's (columns), so that a bound on columns bounds
/// how many reference colours each of the image's colours draws on. Cost: squared distance, as part of the largest.
///
/// # Errors
/// Palettes of one and the same colour alone.
pub fn palette_problem(reference: &Palette, image: &Palette) -> Result<Problem> {
    let distances = squared_distances(reference.colours.view(), image.colours.view());
    let largest = distances.iter().fold(0.0f64, |l, &c| l.max(c));
    if largest == 0.0 {
        return Err(Error::input("image", "has one colour, the same as the reference's: there is nothing to transfer"));
    }
    Problem::new((distances / largest).view(), reference.weights.view(), image.weights.view())
}

/// The image with every colour moved by what the barycentric map of `plan` moves its palette colour. Pixels keep their
/// difference to the palette, so that no steps appear.
pub fn recolour(image: ArrayView3<'_, f64>, from: &Palette, reference: &Palette, plan: &Plan) -> Array3<f64> {
    let shifts: Vec<[f64; 3]> = (0..plan.columns())
        .map(|j| {
            let mass: f64 = plan.column(j).map(|e| e.1).sum();
            std::array::from_fn(|c| {
                let mean = plan.column(j).map(|(i, t)| t * reference.colours[[i, c]]).sum::<f64>() / mass;
                if mass > 0.0 { mean - from.colours[[j, c]] } else { 0.0 }
            })
        })
        .collect();
    let mut moved = image.to_owned();
    for (mut pixel, &label) in moved.rows_mut().into_iter().zip(&from.labels) {
        for c in 0..3 {
            pixel[c] = (pixel[c] + shifts[label][c]).clamp(0.0, 1.0);
        }
    }
    moved
}

/// |x_i − y_j|² (rows of x, rows of y).
pub(super) fn squared_distances(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Array2<f64> {
    Array2::from_shape_fn((x.nrows(), y.nrows()), |(i, j)| {
        x.row(i).iter().zip(y.row(j)).map(|(a, b)| (a - b) * (a - b)).sum()
    })
}

fn nearest(p: &[f64; 3], centres: &[[f64; 3]]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (l, c) in centres.iter().enumerate() {
        let d = (p[0] - c[0]).powi(2) + (p[1] - c[1]).powi(2) + (p[2] - c[2]).powi(2);
        if d < best.1 {
            best = (l, d);
        }
    }
    best
}

/// k-means++ (Arthur & Vassilvitskii 2007): each seed is drawn with a chance in proportion to its squared distance from
/// those before. Ends early if every pixel is a seed.
fn seeds(pixels: &[[f64; 3]], count: usize, rng: &mut Rng) -> Vec<[f64; 3]> {
    let mut chosen = vec![pixels[rng.random_range(0..pixels.len())]];
    let mut distance: Vec<f64> = pixels.iter().map(|p| nearest(p, &chosen).1).collect();
    while chosen.len() < count {
        let total: f64 = distance.iter().sum();
        if total <= 0.0 {
            break;
        }
        let mut target = rng.random::<f64>() * total;
        let next = distance.iter().position(|d| {
            target -= d;
            target < 0.0
        });
        let next = pixels[next.unwrap_or(pixels.len() - 1)];
        for (d, p) in distance.iter_mut().zip(pixels) {
            *d = d.min(nearest(p, &[next]).1);
        }
        chosen.push(next);
    }
    chosen
}
