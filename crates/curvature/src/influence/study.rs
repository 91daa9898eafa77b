//! The claims, measured.

use super::demonstration::recall;
use super::problems::{Problem, diabetes, digit_rows, digits, digits_network, facts, largest, mislabelled, worst};
use super::{
    Detail, Directions, Exact, Examples, Fit, Identity, Influence, Lissa, Model, Preconditioner, ProximalBregman,
    Track, TrackedLayers, gauss_newton_matrix, linear_datamodelling_score, power_law_tail, share_of_top,
};
use crate::{Damping, KroneckerInverse, KroneckerLayer};
use candle_core::DType;
use ndarray::{Array2, ArrayView2, Axis as NdAxis};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Progress, Result, Run, Scale, Study, Table};
use offprint_math::stats::{correlation, mean, median, slope};
use offprint_nn::derivatives::Loss;
use rand::seq::index::sample;
use std::time::Instant;

impl Study for Influence {
    fn measure(run: &mut Run) -> Result<()> {
        regression(run)?;
        classification(run)?;
        ranks_of_queries(run)?;
        sparsity(run)?;
        labels(run)?;
        order_of_phrases(run)?;
        run.not_measured(
            "language-model-retraining",
            "needs GPT-2 small finetuned on WikiText-2 some hundred times, which takes GPUs; the score itself is computed \
             here for the digits network, see the metrics",
        )
    }
}

/// The methods whose scores are compared.
const METHODS: [&str; 5] = ["exact", "EK-FAC", "K-FAC", "LiSSA", "dot"];

/// EK-FAC's damping as a share of each layer's mean eigenvalue.
const SHARE: f64 = 0.1;
/// Samples of a batch of LiSSA.
const LISSA_BATCH: usize = 32;

/// Factors of `model` and the damping λ of every coordinate, which all methods share.
fn fitted(model: &Model<'_>, train: &Examples, stream: Stream, progress: &Progress) -> Result<Vec<KroneckerLayer>> {
    Fit::new(stream).layers(model, train, None, progress)
}

fn inverse(model: &Model<'_>, layers: Vec<KroneckerLayer>) -> Result<KroneckerInverse> {
    KroneckerInverse::new(layers, model.tracked.dim(), Damping::OfMean(SHARE))
}

/// Scores of every query and sample under `preconditioner` (q, n).
fn pairwise(
    model: &Model<'_>,
    preconditioner: &dyn Preconditioner,
    gradients: ArrayView2<'_, f64>,
    train: &Examples,
    progress: &Progress,
) -> Result<Array2<f64>> {
    let directions = preconditioner.precondition(gradients, progress)?;
    let directions = Directions::new(model.tracked, directions.view())?;
    Ok(model.scores(&directions, train, Detail::default(), progress)?.total.mapv(f64::from))
}

/// The mean over queries of the correlations of two score matrices (q, n).
fn mean_correlation(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let each: Vec<f64> =
        a.outer_iter().zip(b.outer_iter()).map(|(a, b)| correlation(&a.to_vec(), &b.to_vec())).collect();
    mean(&each)
}

fn regression(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let scale = run.scale();
    let epochs = scale.pick(20, 60, 60);
    let problem = diabetes(epochs, run.stream("regression").nested(0), &progress)?;
    let Problem { network, loss, train, test } = &problem;
    let function = network.loss(*loss);
    let tracked = TrackedLayers::of(&function, train, &Track::Usual)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: 128 };
    let (n, streams) = (train.len(), run.stream("regression").nested(1));
    let queries = test.range(0..scale.pick(4, 10, 10))?;
    let gradients = model.gradients(&queries, &progress)?;

    let layers = fitted(&model, train, streams.stream("targets"), &progress)?;
    let kfac = inverse(&model, layers.iter().map(|layer| layer.clone().without_refit()).collect())?;
    let ekfac = inverse(&model, layers)?;
    let of_layers = ekfac.damping();
    let damping = tracked.spread(|layer| of_layers[layer]);
    let exact = Exact::fit(&model, train, damping.clone(), &progress)?;
    let batches = streams.stream("batches");
    let alpha = Lissa::scale(&function, &tracked, train, &damping, LISSA_BATCH, batches)?;
    let lissa = Lissa {
        loss: &function,
        tracked: &tracked,
        train,
        damping: damping.clone(),
        scale: alpha,
        steps: scale.pick(n / 8, n, n),
        batch: LISSA_BATCH,
        stream: batches,
    };
    let dot = Identity { dim: tracked.dim() };

    // The response of each query's loss to each point, by minimising the Bregman objective.
    let bregman = ProximalBregman::new(&function, &tracked, train, &damping, 300)?;
    let respond = |points: &[usize], epsilon: f64, progress: &Progress| -> Result<Array2<f64>> {
        let mut changes = Array2::zeros((queries.len(), points.len()));
        progress.begin("Bregman responses", points.len() as u64);
        for (mut column, &point) in changes.axis_iter_mut(NdAxis(1)).zip(points) {
            let (before, after) = bregman.change(point, epsilon, || function.sample_losses(&queries.batch))?;
            column.iter_mut().zip(after.iter().zip(&before)).for_each(|(c, (after, before))| *c = after - before);
            progress.advance(1)?;
        }
        progress.finish();
        Ok(changes)
    };
    let few = sample(&mut streams.stream("points").rng(0), n, scale.pick(5, 20, 20)).into_vec();
    let epsilon = 0.03 / n as f64;
    let small = respond(&few, epsilon, &progress)? / epsilon;
    let points = train.select(&few)?;
    // Upweighting moves the loss of a query by −ε times the score.
    let predicted = -pairwise(&model, &exact, gradients.view(), &points, &progress)?;
    let (x, y): (Vec<f64>, Vec<f64>) = (predicted.iter().copied().collect(), small.iter().copied().collect());
    let how = format!(
        "diabetes, {n} rows, perceptron 10-64-64-1 with tanh in f64, {epochs} epochs; {} points × {} queries, ε = 0.03/N, \
         exact Gauss–Newton matrix, λ of each layer {SHARE} of its mean",
        few.len(),
        queries.len()
    );
    run.claim("bregman-correlation", correlation(&x, &y), how.clone())?;
    run.claim("bregman-slope", slope(&x, &y), how)?;

    let many = sample(&mut streams.stream("points").rng(1), n, scale.pick(8, 40, 40)).into_vec();
    let removed = respond(&many, -1.0 / n as f64, &progress)?;
    let points = train.select(&many)?;
    let methods: [&dyn Preconditioner; 5] = [&exact, &ekfac, &kfac, &lissa, &dot];
    let mut found = Vec::new();
    for method in methods {
        found.push(mean_correlation(&pairwise(&model, method, gradients.view(), &points, &progress)?, &removed));
    }
    let how = format!(
        "{} points × {} queries, ε = −1/N; mean correlation with the response: {}",
        many.len(),
        queries.len(),
        METHODS.iter().zip(&found).map(|(name, r)| format!("{name} {r:.3}")).collect::<Vec<_>>().join(", ")
    );
    run.claim("ekfac-over-dot", found[1] - found[4], how.clone())?;
    run.claim("ekfac-near-lissa", found[1] - found[3], how)?;
    run.metric("correlation of the exact matrix less that of EK-FAC", found[0] - found[1], "");
    run.table(
        Table::new("regression", "Mean correlation over queries of scores and the response to a removed point.")
            .words("method", METHODS)
            .numbers("correlation", "", found.iter().copied()),
    )?;
    run.figure(
        "regression",
        Figure::new(
            "What influence functions approximate, and how well",
            "Left: the change of query losses when a point is upweighted a little, found by minimising the proximal Bregman \
             objective, against the exact damped Gauss–Newton prediction. Right: mean correlation with the response when \
             the point is taken out.",
        )
        .columns(2)
        .panel(
            Plot::new(Axis::new("predicted change / ε"), Axis::new("change / ε"))
                .points("", x.clone(), y, 3.0)
                .reference("equal", vec![lowest(&x), highest(&x)], vec![lowest(&x), highest(&x)]),
        )
        .panel(
            Plot::new(Axis::categories("", METHODS), Axis::new("correlation with the response")).bars("", found),
        ),
    );
    cost(run, &problem, &model, alpha, &damping)
}

fn lowest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::INFINITY, f64::min)
}

fn highest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Times of fitting and scoring with EK-FAC and with LiSSA, over the number of queries.
fn cost(run: &mut Run, problem: &Problem, model: &Model<'_>, alpha: f64, damping: &[f64]) -> Result<()> {
    let progress = run.progress();
    let (train, stream) = (&problem.train, run.stream("cost"));
    let counts: Vec<usize> = run.scale().pick(vec![2, 4], vec![1, 10, 100], vec![1, 10, 100]);
    let (mut by_ekfac, mut by_lissa) = (Vec::new(), Vec::new());
    for &count in &counts {
        let queries = problem.test.range(0..count)?;
        let start = Instant::now();
        let ekfac = inverse(model, fitted(model, train, stream, &progress)?)?;
        let gradients = model.gradients(&queries, &progress)?;
        pairwise(model, &ekfac, gradients.view(), train, &progress)?;
        by_ekfac.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let lissa = Lissa {
            loss: model.loss,
            tracked: model.tracked,
            train,
            damping: damping.to_vec(),
            scale: alpha,
            steps: run.scale().pick(train.len() / 8, train.len(), train.len()),
            batch: LISSA_BATCH,
            stream,
        };
        let gradients = model.gradients(&queries, &progress)?;
        pairwise(model, &lissa, gradients.view(), train, &progress)?;
        by_lissa.push(start.elapsed().as_secs_f64());
    }
    let (last, count) = (counts.len() - 1, counts[counts.len() - 1]);
    let how = format!(
        "diabetes, {} rows, {count} queries: LiSSA {:.2} s, EK-FAC with its fit {:.3} s",
        train.len(),
        by_lissa[last],
        by_ekfac[last]
    );
    run.claim("cheaper-than-lissa", by_lissa[last] / by_ekfac[last], how)?;
    let x: Vec<f64> = counts.iter().map(|&c| c as f64).collect();
    run.figure(
        "cost",
        Figure::new(
            "Time for all scores of a number of queries",
            "EK-FAC pays once for the fit; LiSSA runs a series of as many products as there are training rows for every \
             query.",
        )
        .panel(
            Plot::new(Axis::log("queries"), Axis::log("time").unit("s"))
                .line("EK-FAC, fit and scores", x.clone(), by_ekfac)
                .line("LiSSA", x, by_lissa),
        ),
    );
    Ok(())
}

fn classification(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let (rows, hidden): (usize, &[usize]) = run.scale().pick((200, &[8]), (1257, &[32, 32]), (1257, &[32, 32]));
    let problem = digits(hidden, rows, 10, DType::F64, run.stream("classification").nested(0), &progress)?;
    let Problem { network, loss, train, test } = &problem;
    let function = network.loss(*loss);
    let tracked = TrackedLayers::of(&function, train, &Track::Usual)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: 128 };
    let queries = test.select(&worst(&problem, run.scale().pick(4, 10, 10))?)?;
    let gradients = model.gradients(&queries, &progress)?;
    let layers = fitted(&model, train, run.stream("targets of the classification"), &progress)?;
    let ekfac = inverse(&model, layers)?;
    let of_layers = ekfac.damping();
    let damping = tracked.spread(|layer| of_layers[layer]);
    let matrix = gauss_newton_matrix(&model, train, &progress)?;
    let by_layer = Exact::by_layer(&tracked, matrix.view(), damping.clone())?;
    let exact = Exact::of_matrix(matrix, damping)?;
    let exact = pairwise(&model, &exact, gradients.view(), train, &progress)?;
    let score = |p: &dyn Preconditioner| -> Result<f64> {
        Ok(mean_correlation(&pairwise(&model, p, gradients.view(), train, &progress)?, &exact))
    };
    let (of_ekfac, of_layers) = (score(&ekfac)?, score(&by_layer)?);
    let of_dot = score(&Identity { dim: tracked.dim() })?;
    let how = format!(
        "digits, {} rows, {} parameters, the {} worst test rows; mean correlation with the exact matrix: EK-FAC \
         {of_ekfac:.3}, exact by layers {of_layers:.3}, dot {of_dot:.3}",
        train.len(),
        tracked.dim(),
        queries.len()
    );
    run.claim("classification-over-dot", of_ekfac - of_dot, how)
}

fn ranks_of_queries(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let hidden: &[usize] = run.scale().pick(&[64], &[256, 256], &[256, 256]);
    let rows = run.scale().pick(200, 1257, 1257);
    let problem = digits(hidden, rows, 5, DType::F32, run.stream("ranks").nested(0), &progress)?;
    let Problem { network, loss, train, test } = &problem;
    let function = network.loss(*loss);
    let tracked = TrackedLayers::of(&function, train, &Track::Usual)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: 128 };
    let queries = test.select(&worst(&problem, run.scale().pick(3, 20, 20))?)?;
    let ekfac = inverse(&model, fitted(&model, train, run.stream("targets of the ranks"), &progress)?)?;
    let directions = ekfac.precondition(model.gradients(&queries, &progress)?.view(), &progress)?;
    let whole = Directions::new(&tracked, directions.view())?;
    let scores = |directions: &Directions| -> Result<Array2<f64>> {
        Ok(model.scores(directions, train, Detail::default(), &progress)?.total.mapv(f64::from))
    };
    let reference = scores(&whole)?;
    let ranks: Vec<usize> = vec![1, 2, 4, 8, 16, 32, 64];
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    for &rank in &ranks {
        let small = whole.compressed(&tracked, rank)?;
        found.push(mean_correlation(&scores(&small)?, &reference));
        sizes.push(small.size() as f64 / whole.size() as f64);
    }
    let at = ranks.iter().position(|&rank| rank == 32).expect("among the ranks");
    let how = format!(
        "digits, perceptron with hidden layers {hidden:?}, {} queries: memory {:.2} of the whole",
        queries.len(),
        sizes[at]
    );
    run.claim("rank-32", found[at], how)?;
    run.table(
        Table::new("ranks", "Scores from compressed directions beside those from whole ones.")
            .integers("rank", "", ranks.iter().map(|&rank| rank as i64))
            .numbers("correlation", "", found)
            .numbers("memory", "of the whole", sizes),
    )
}

fn sparsity(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let rows = run.scale().pick(200, 1257, 1257);
    let problem = digits(&[32, 32], rows, 10, DType::F32, run.stream("sparsity").nested(0), &progress)?;
    let Problem { network, loss, train, test } = &problem;
    let function = network.loss(*loss);
    let tracked = TrackedLayers::of(&function, train, &Track::Usual)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: 128 };
    let queries =
        test.select(&sample(&mut run.stream("queries").rng(0), test.len(), run.scale().pick(5, 20, 20)).into_vec())?;
    let ekfac = inverse(&model, fitted(&model, train, run.stream("targets of sparsity"), &progress)?)?;
    let gradients = model.gradients(&queries, &progress)?;
    let directions = Directions::new(&tracked, ekfac.precondition(gradients.view(), &progress)?.view())?;
    let scores = model.scores(&directions, train, Detail::default(), &progress)?;
    let shares: Vec<f64> = scores.total.outer_iter().map(|row| share_of_top(row, 0.01)).collect();
    let (mut exponents, mut plausible) = (Vec::new(), Vec::new());
    for (query, row) in scores.total.outer_iter().enumerate() {
        let values: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let stream = run.stream("tails").nested(query as u64).stream("bootstrap");
        if let Ok(tail) = power_law_tail(&values, 50, run.scale().pick(50, 500, 2500), stream) {
            exponents.push(tail.exponent);
            plausible.push(f64::from(tail.p > 0.1));
        }
    }
    let sparse = shares.iter().filter(|share| **share >= 0.12).count() as f64 / shares.len() as f64;
    let how = format!(
        "digits, {} rows, {} random test rows: the top 1 % hold {:.2} to {:.2} (median {:.2}); power law on the top 50: α \
         {:.2} to {:.2} (median {:.2}), plausible (p > 0.1) for {:.0} %",
        train.len(),
        shares.len(),
        lowest(&shares),
        highest(&shares),
        median(&shares),
        lowest(&exponents),
        highest(&exponents),
        median(&exponents),
        100.0 * mean(&plausible)
    );
    run.metric("median exponent of the tail", median(&exponents), "");
    run.metric("tails that a power law may have made", mean(&plausible), "");
    run.claim("sparse", sparse, how)
}

/// Scores that predict retraining: the linear datamodelling score of EK-FAC and of inner products.
fn retraining(run: &mut Run, progress: &Progress) -> Result<()> {
    let subsets = run.scale().pick(4, 40, 100);
    let rows = run.scale().pick(200, 1257, 1257);
    let streams = run.stream("retraining").nested(0);
    let problem = digits(&[32, 32], rows, 10, DType::F32, streams, progress)?;
    let Problem { network, loss, train, test } = &problem;
    let function = network.loss(*loss);
    let tracked = TrackedLayers::of(&function, train, &Track::Usual)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: 128 };
    let queries = test.select(&worst(&problem, 20)?)?;
    let gradients = model.gradients(&queries, progress)?;
    let ekfac = inverse(&model, fitted(&model, train, streams.stream("targets"), progress)?)?;
    let chosen: Vec<Vec<usize>> = (0..subsets)
        .map(|i| sample(&mut streams.stream("subsets").rng(i), train.len(), train.len() / 2).into_vec())
        .collect();
    let mut losses = Array2::zeros((chosen.len(), queries.len()));
    for (mut row, subset) in losses.outer_iter_mut().zip(&chosen) {
        // The same initial weights and order of samples each time: only the rows differ.
        let again = digits_network(&[32, 32], &train.select(subset)?.batch, 10, streams, progress)?;
        row.assign(&ndarray::aview1(&again.loss(*loss).sample_losses(&queries.batch)?));
    }
    for (name, method) in [("EK-FAC", &ekfac as &dyn Preconditioner), ("dot", &Identity { dim: tracked.dim() })] {
        let scores = pairwise(&model, method, gradients.view(), train, progress)?.mapv(|x| x as f32);
        let found = linear_datamodelling_score(scores.view(), &chosen, losses.view())?;
        run.metric(&format!("linear datamodelling score, {name}"), found, "");
    }
    Ok(())
}

fn labels(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    retraining(run, &progress)?;
    let seeds = run.scale().pick(1, 5, 10);
    let (rows, _) = digit_rows(DType::F32)?;
    // The last of the trainings goes on until the network has learned many of the wrong labels by heart.
    let trainings = [10, run.scale().pick(20, 100, 100)];
    let mut found: [[Vec<f64>; 4]; 2] = Default::default();
    for seed in 0..seeds {
        let streams: Streams = run.stream("labels").nested(seed);
        let (train, wrong) = mislabelled(&rows, 0.1, 10, streams)?;
        for (epochs, found) in trainings.into_iter().zip(&mut found) {
            let network = digits_network(&[32, 32], &train, epochs, streams, &progress)?;
            let function = network.loss(Loss::CrossEntropy);
            let train = Examples::from(train.clone());
            let tracked = TrackedLayers::of(&function, &train, &Track::Usual)?;
            let model = Model { loss: &function, tracked: &tracked, chunk: 128 };
            let ekfac = inverse(&model, fitted(&model, &train, streams.stream("targets"), &progress)?)?;
            let by_self = largest(&model.kronecker_self_influence(&ekfac, &train, &progress)?.to_vec(), train.len());
            let by_loss = largest(&function.sample_losses(&train.batch)?, train.len());
            for (part, (order, share)) in
                [(&by_self, 0.1), (&by_self, 0.2), (&by_loss, 0.1), (&by_loss, 0.2)].into_iter().enumerate()
            {
                found[part].push(recall(order, &wrong, share));
            }
        }
    }
    let [short, long] = found.map(|parts| parts.map(|all| mean(&all)));
    let how = format!(
        "digits, 1257 rows, 10 % of labels replaced, {seeds} networks trained for 10 epochs; by the loss alone {:.3} and {:.3}",
        short[2], short[3]
    );
    run.claim("labels-at-10", short[0], how.clone())?;
    run.claim("labels-at-20", short[1], how.clone())?;
    let how = format!(
        "{how}. After {} epochs, when many wrong labels are learned by heart: self-influence {:.3} and {:.3}, loss {:.3} and \
         {:.3}",
        trainings[1], long[0], long[1], long[2], long[3]
    );
    run.claim("labels-over-loss", short[0] - short[2], how)?;
    let column = |part: usize| [short[part], long[part]];
    run.table(
        Table::new("labels", "Share of the wrong labels among the rows looked at first, means over networks.")
            .integers("epochs", "", trainings.map(|epochs| epochs as i64))
            .numbers("self-influence, 10 % of rows", "", column(0))
            .numbers("self-influence, 20 %", "", column(1))
            .numbers("loss, 10 %", "", column(2))
            .numbers("loss, 20 %", "", column(3)),
    )
}

fn order_of_phrases(run: &mut Run) -> Result<()> {
    let progress = run.progress();
    let (count, epochs) = run.scale().pick((12, 10), (100, 60), (400, 60));
    let told = facts(count, epochs, run.stream("facts").nested(0), &progress)?;
    let Problem { network, loss, train, test } = &told.problem;
    let function = network.loss(*loss);
    let tracked = TrackedLayers::of(&function, train, &Track::Usual)?;
    let model = Model { loss: &function, tracked: &tracked, chunk: 64 };
    let ekfac = inverse(&model, fitted(&model, train, run.stream("targets of facts"), &progress)?)?;
    let queries = test.range(0..run.scale().pick(6, 50, 50))?;
    let gradients = model.gradients(&queries, &progress)?;
    let scores = pairwise(&model, &ekfac, gradients.view(), train, &progress)?;
    let own = |reversed: usize| mean(&(0..queries.len()).map(|q| scores[[q, 2 * q + reversed]]).collect::<Vec<_>>());
    let others: Vec<f64> = (0..queries.len())
        .flat_map(|q| (0..2 * told.count).filter(move |i| i / 2 != q).map(move |i| (q, i)))
        .map(|(q, i)| scores[[q, i]].abs())
        .collect();
    let (same, reversed) = (own(0), own(1));
    let losses = function.sample_losses(&queries.batch)?;
    let how = format!(
        "{count} facts in both orders, transformer of two blocks of width 64, {epochs} epochs, {} queries with a mean loss \
         of {:.3}: mean score of the fact in the order asked {same:.3}, in the other {reversed:.3}, mean |score| of other \
         facts {:.3}",
        queries.len(),
        mean(&losses),
        mean(&others)
    );
    run.claim("order-of-phrases", same / reversed.abs(), how)?;
    if run.scale() != Scale::Quick {
        let directions = ekfac.precondition(gradients.view(), &progress)?;
        let whole = Directions::new(&tracked, directions.view())?;
        let small = model.scores(&whole.compressed(&tracked, 32)?, train, Detail::default(), &progress)?;
        run.metric("correlation at rank 32, transformer", mean_correlation(&small.total.mapv(f64::from), &scores), "");
    }
    let bars = [same, reversed, mean(&others)];
    run.figure(
        "order",
        Figure::new(
            "Influence follows the order of the words",
            "Queries ask for B after “A is the parent of”. The training sentence in that order carries the influence; the \
             same fact told as “B is the child of A” hardly any.",
        )
        .panel(
            Plot::new(
                Axis::categories("training sentence", ["same fact, same order", "same fact, other order", "other facts (mean size)"]),
                Axis::new("mean score"),
            )
            .bars("", bars.to_vec()),
        ),
    );
    Ok(())
}
