//! The laws in their own models: random matrices of which everything is known.

use crate::batch_hessian::spiked::{AdditiveNoise, MultiplicativeNoise};
use crate::{Explicit, lanczos, vector};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Result, Run, Table};
use offprint_math::linalg::{eigh, matmul};
use offprint_math::stats::mean;

fn normal(stream: Stream, index: u64, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), vector::gaussian(stream, index, rows * columns)).expect("as many as asked")
}

/// A Wigner matrix with spikes, at noise of several sizes.
pub fn additive(run: &mut Run) -> Result<()> {
    let (p, draws) = run.scale().pick((300, 2), (1000, 3), (3000, 3));
    let spikes = [4.0, 2.0, 0.5, -1.5];
    let batches = [0.25, 0.5, 1.0, 2.0, 4.0, 16.0];
    let stream = run.stream("wigner");
    let progress = run.progress();
    progress.begin("Wigner matrices with spikes", (batches.len() * draws) as u64);
    let mut found = vec![[Vec::new(), Vec::new(), Vec::new()]; batches.len()];
    for draw in 0..draws as u64 {
        let a = normal(stream, draw, p, p);
        let noise = (&a + &a.t()) / (2.0 * p as f64).sqrt();
        for (batch, found) in batches.iter().zip(&mut found) {
            let mut matrix = &noise / f64::sqrt(*batch);
            spikes.iter().enumerate().for_each(|(i, spike)| matrix[[i, i]] += spike);
            let (values, _) = eigh(matrix.view())?;
            found[0].push(values[p - 1]);
            found[1].push(values[p - 2]);
            found[2].push(values[0]);
            progress.advance(1)?;
        }
    }
    progress.finish();
    let law = |batch: f64| {
        let noise = AdditiveNoise { variance: 1.0 / batch };
        [noise.spike(4.0), noise.spike(2.0), noise.spike(-1.5)]
    };
    let column = |end: usize| found.iter().map(move |f| mean(&f[end])).collect::<Vec<_>>();
    let expected = |end: usize| batches.iter().map(move |&batch| law(batch)[end]).collect::<Vec<_>>();
    let error = (0..3)
        .flat_map(|end| column(end).into_iter().zip(expected(end)).map(|(found, law)| (found / law - 1.0).abs()))
        .fold(0.0, f64::max);
    run.table(
        Table::new("wigner", format!("P = {p}, s = 1, spikes 4, 2, 0.5, −1.5; means over {draws} matrices."))
            .numbers("B", "", batches)
            .numbers("largest", "", column(0))
            .numbers("law", "", expected(0))
            .numbers("second", "", column(1))
            .numbers("law ", "", expected(1))
            .numbers("smallest", "", column(2))
            .numbers("law  ", "", expected(2)),
    )?;
    run.claim("wigner", error, format!("P = {p}, {draws} draws of each size, largest, second and smallest eigenvalue"))
}

/// Covariances of few samples with one spike.
pub fn multiplicative(run: &mut Run) -> Result<()> {
    let (p, draws) = run.scale().pick((300, 4), (1500, 4), (3000, 8));
    let (ratios, spikes) = ([0.25, 1.0, 4.0], [1.5, 3.0, 8.0]);
    let stream = run.stream("covariances");
    let progress = run.progress();
    progress.begin("covariances with a spike", (ratios.len() * draws) as u64);
    let mut found = vec![vec![Vec::new(); spikes.len()]; ratios.len()];
    for (ratio, found) in ratios.iter().zip(&mut found) {
        let samples = (p as f64 / ratio) as usize;
        for draw in 0..draws as u64 {
            let rows = normal(stream, draw, samples, p);
            let plain = matmul(rows.t(), rows.view()) / samples as f64;
            for (spike, found) in spikes.iter().zip(found.iter_mut()) {
                // Samples whose first coordinate has the variance of the spike: its row and column are scaled.
                let mut covariance = plain.clone();
                covariance.row_mut(0).mapv_inplace(|x| x * f64::sqrt(*spike));
                covariance.column_mut(0).mapv_inplace(|x| x * f64::sqrt(*spike));
                let operator = Explicit::new(covariance.view(), "covariance")?;
                let start: Vec<f64> = vector::gaussian(stream.nested(draw).stream("starts"), 0, p);
                // The edge of a bulk takes more steps than a spike: 80 leave an error below 1 ‰.
                found.push(lanczos(&operator, &start, 80, &progress)?.ritz()?.top().0);
            }
            progress.advance(1)?;
        }
    }
    progress.finish();
    let mut table = Table::new(
        "covariances",
        format!("P = {p}, σ² = 1, one spike λ, q = P/B: the largest eigenvalue, means over {draws} draws."),
    );
    table = table.numbers("q", "", ratios);
    let mut error = 0.0f64;
    for (j, &spike) in spikes.iter().enumerate() {
        let law = ratios.map(|ratio| MultiplicativeNoise { ratio, variance: 1.0 }.spike(spike));
        let means: Vec<f64> = found.iter().map(|found| mean(&found[j])).collect();
        error = means.iter().zip(law).map(|(found, law)| (found / law - 1.0).abs()).fold(error, f64::max);
        table = table.numbers(format!("λ = {spike}"), "", means).numbers(format!("law, λ = {spike}"), "", law);
    }
    run.table(table)?;
    run.claim("covariance", error, format!("P = {p}, q = 1/4, 1, 4, λ = 1.5, 3, 8, {draws} draws"))
}
