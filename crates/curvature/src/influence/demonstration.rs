//! The default run: digits learned with one label in ten wrong, and what influence tells about them.

use super::inputs::Rows;
use super::problems::{Problem, digit_rows, digits_network, largest, mislabelled, worst};
use super::run::{InfluenceParams, NO_WORDS, Task, directions, kronecker, scores};
use super::{Detail, Model, Scores, TrackedLayers, report};
use candle_core::DType;
use offprint_core::figure::{Axis, Figure, ImageGrid, Plot};
use offprint_core::{Result, Run, Table};
use offprint_nn::derivatives::Loss;
use offprint_nn::{Network, computation};

/// Queries: the test images that the network gets most wrong.
const QUERIES: usize = 5;
/// Helpful and harmful images shown for each.
const SHOWN: usize = 5;
/// Share of wrong labels.
const WRONG: f64 = 0.1;
/// Epochs of training.
const EPOCHS: u64 = 10;

pub(super) fn run(params: &InfluenceParams, run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let dtype = if params.double { DType::F64 } else { DType::F32 };
    let (rows, test) = digit_rows(dtype)?;
    let (train, wrong) = mislabelled(&rows, WRONG, 10, run.streams())?;
    let network = digits_network(&[32, 32], &train, EPOCHS, run.streams(), &progress)?;
    let problem = Problem { network, loss: Loss::CrossEntropy, train: train.into(), test: test.into() };
    let asked = worst(&problem, QUERIES)?;
    let queries = problem.test.select(&asked)?;
    let numbers = (0..problem.train.len()).collect();
    let Problem { network, loss, train, .. } = problem;
    run.metric("accuracy on test images", accuracy(&network, &problem.test.batch)?, "");
    let rows = Rows { network, loss, train, queries, numbers, words: NO_WORDS };
    let function = rows.network.loss(rows.loss);
    let tracked = TrackedLayers::of(&function, &rows.train, &params.tracking()?)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: params.chunk };
    run.metric("training rows", rows.train.len() as f64, "");
    run.metric("tracked parameters", tracked.dim() as f64, "");
    if params.task == Task::SelfInfluence || !params.is_kronecker() {
        if params.task == Task::Scores {
            let scores = scores(params, &model, &rows, run)?;
            run.figure("digits", gallery(&rows, &scores, &wrong)?);
            return report::scores(params, &model, &scores, &rows, run);
        }
        let of_self = super::run::self_influence(params, &model, &rows.train, run)?;
        found(&rows, &of_self, &wrong, run)?;
        return report::self_influence(params, &of_self, &rows.words, run);
    }
    // One fit serves both questions.
    let inverse = kronecker(params, &model, &rows.train, run)?;
    let of_self = model.kronecker_self_influence(&inverse, &rows.train, &progress)?.to_vec();
    let directions = directions(params, &model, &inverse, &rows.queries, &progress)?;
    let scores =
        model.scores(&directions, &rows.train, Detail { layers: params.by_layer, tokens: false }, &progress)?;
    run.figure("digits", gallery(&rows, &scores, &wrong)?);
    found(&rows, &of_self, &wrong, run)?;
    report::scores(params, &model, &scores, &rows, run)?;
    run.save_array("self.npy", of_self.iter().map(|&x| x as f32).collect::<Vec<f32>>())
}

fn accuracy(network: &Network, test: &offprint_nn::Batch) -> Result<f64> {
    let right = || -> candle_core::Result<f64> {
        let best = network.forward(&test.inputs)?.argmax(1)?;
        best.eq(&test.targets)?.to_dtype(DType::F64)?.mean_all()?.to_scalar()
    };
    right().map_err(computation)
}

/// How many of the wrong labels are found by looking at rows in the order of self-influence, beside the order of losses.
fn found(rows: &Rows, of_self: &[f64], wrong: &[usize], run: &mut Run) -> Result<()> {
    let losses = rows.network.loss(rows.loss).sample_losses(&rows.train.batch)?;
    let n = of_self.len();
    let looked: Vec<f64> = (0..=100).map(|percent| f64::from(percent) / 100.0).collect();
    let curve = |values: &[f64]| -> Vec<f64> {
        let order = largest(values, n);
        looked.iter().map(|share| recall(&order, wrong, *share)).collect()
    };
    let (by_self, by_loss) = (curve(of_self), curve(&losses));
    run.metric("wrong labels among the 10 % with the highest self-influence", by_self[10], "");
    run.metric("wrong labels among the 10 % with the highest loss", by_loss[10], "");
    run.figure(
        "labels",
        Figure::new(
            "Finding wrong labels",
            "Share of the wrong labels among the training rows looked at, in the order of self-influence and in that of \
             the loss.",
        )
        .panel(
            Plot::new(
                Axis::new("share of rows looked at").limits(0.0, 1.0),
                Axis::new("share of wrong labels found").limits(0.0, 1.0),
            )
            .curve("self-influence", looked.clone(), by_self)
            .curve("loss", looked.clone(), by_loss)
            .reference("at random", looked.clone(), looked),
        ),
    );
    let order = largest(of_self, 20);
    let labels: Vec<u32> = rows.train.batch.targets.to_vec1().map_err(computation)?;
    run.table(
        Table::new("suspects", "Training rows, counted from 0, with the highest self-influence.")
            .integers("row", "", order.iter().map(|&i| i as i64))
            .integers("label", "", order.iter().map(|&i| i64::from(labels[i])))
            .words(
                "truth",
                order.iter().map(|i| if wrong.binary_search(i).is_ok() { "wrong label" } else { "right label" }),
            )
            .numbers("self-influence", "", order.iter().map(|&i| of_self[i])),
    )
}

/// Of `wrong`, the share among the first `share` of `order`.
pub(super) fn recall(order: &[usize], wrong: &[usize], share: f64) -> f64 {
    let looked = (share * order.len() as f64).round() as usize;
    let hits = order[..looked].iter().filter(|i| wrong.binary_search(i).is_ok()).count();
    hits as f64 / wrong.len().max(1) as f64
}

/// Each query beside the training images that help and harm it most.
fn gallery(rows: &Rows, scores: &Scores, wrong: &[usize]) -> Result<Figure> {
    let images = |batch: &offprint_nn::Batch| -> Result<(Vec<Vec<u8>>, Vec<u32>)> {
        let pixels = batch.inputs.to_dtype(DType::F64).and_then(|t| t.to_vec2::<f64>()).map_err(computation)?;
        let ink = pixels.iter().map(|row| row.iter().map(|&x| 255 - (255.0 * x).round() as u8).collect()).collect();
        Ok((ink, batch.targets.to_vec1().map_err(computation)?))
    };
    let (train, labels) = images(&rows.train.batch)?;
    let (asked, targets) = images(&rows.queries.batch)?;
    let mut grid = ImageGrid {
        title: String::new(),
        height: 8,
        width: 8,
        channels: 1,
        per_row: 1 + 2 * SHOWN,
        images: Vec::new(),
        labels: Vec::new(),
    };
    for (query, row) in scores.total.outer_iter().enumerate() {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let lowered: Vec<f64> = row.iter().map(|x| -x).collect();
        grid.images.push(asked[query].clone());
        grid.labels.push(format!("query {}", targets[query]));
        for (sign, order) in [("+", largest(&row, SHOWN)), ("−", largest(&lowered, SHOWN))] {
            for i in order {
                grid.images.push(train[i].clone());
                let mark = if wrong.binary_search(&i).is_ok() { " ✗" } else { "" };
                grid.labels.push(format!("{sign} {}{mark}", labels[i]));
            }
        }
    }
    Ok(Figure::new(
        "Which training digits made the network err?",
        "Left the test digits with the highest losses and what they are; then the training digits that help each most \
         (+) and harm it most (−), under the labels that the network was given. ✗ marks labels that are wrong.",
    )
    .panel(grid))
}
