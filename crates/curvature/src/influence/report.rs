//! What a run tells: lists of the most influential rows, figures, files with the sign of the score beside them.

use super::inputs::{Rows, Words};
use super::problems::largest;
use super::run::InfluenceParams;
use super::{Model, Scores, share_of_top};
use ndarray::ArrayView1;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Result, Run, Table};
use serde_json::json;

/// What a score's sign means.
pub(super) const SIGN: &str = "positive helps: training on the row more lowers the loss of the query";
/// The heading of scores in tables.
pub(super) const SCORE: &str = "score (positive helps)";

/// Queries whose curves are drawn.
const DRAWN: usize = 4;

/// Characters of a text in a table.
const SHOWN: usize = 80;

/// One row of a list of influential rows.
struct Ranked {
    query: usize,
    helps: bool,
    rank: usize,
    row: usize,
    score: f64,
}

fn ranked(scores: &Scores, top: usize) -> Vec<Ranked> {
    let mut all = Vec::new();
    for (query, row) in scores.total.outer_iter().enumerate() {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let lowered: Vec<f64> = row.iter().map(|x| -x).collect();
        for (helps, order) in [(true, largest(&row, top)), (false, largest(&lowered, top))] {
            for (rank, sample) in
                order.into_iter().enumerate().filter(|&(_, i)| (row[i] > 0.0) == helps && row[i] != 0.0)
            {
                all.push(Ranked { query, helps, rank: rank + 1, row: sample, score: row[sample] });
            }
        }
    }
    all
}

/// Reports scores of queries and training rows.
pub(super) fn scores(
    params: &InfluenceParams,
    model: &Model<'_>,
    scores: &Scores,
    rows: &Rows,
    run: &mut Run,
) -> Result<()> {
    let ranked = ranked(scores, params.top);
    let mut table = Table::new("top", format!("The most influential training rows, counted from 0. {SIGN}."))
        .integers("query", "", ranked.iter().map(|r| r.query as i64))
        .words("effect", ranked.iter().map(|r| if r.helps { "helps" } else { "harms" }))
        .integers("rank", "", ranked.iter().map(|r| r.rank as i64))
        .integers("row", "", ranked.iter().map(|r| rows.numbers[r.row] as i64))
        .numbers(SCORE, "", ranked.iter().map(|r| r.score));
    if !rows.words.train.is_empty() {
        table = table.words("text", ranked.iter().map(|r| shortened(&rows.words.train[r.row])));
    }
    run.table(table)?;
    let list: Vec<_> = ranked
        .iter()
        .map(|r| {
            let mut item = json!({
                "query": r.query, "effect": if r.helps { "helps" } else { "harms" }, "rank": r.rank,
                "row": rows.numbers[r.row], "score": r.score,
            });
            if let (Some(text), Some(query)) = (rows.words.train.get(r.row), rows.words.queries.get(r.query)) {
                item["text"] = json!(text);
                item["query_text"] = json!(query);
            }
            item
        })
        .collect();
    run.save_json("top.json", &json!({ "sign": SIGN, "rows": list }))?;
    let shares: Vec<f64> =
        scores.total.outer_iter().map(|row| share_of_top(row, 0.01)).filter(|s| s.is_finite()).collect();
    if !shares.is_empty() {
        run.metric("positive influence held by the top 1 % of rows", offprint_math::stats::mean(&shares), "");
    }
    run.figure("curves", curves(scores));
    let layers: Vec<&str> = model.tracked.layers().iter().map(|layer| layer.name.as_str()).collect();
    if let Some(by_layer) = &scores.layers {
        let sizes: Vec<f64> = (0..layers.len())
            .map(|l| {
                let part = by_layer.index_axis(ndarray::Axis(2), l);
                part.iter().map(|x| f64::from(x.abs())).sum::<f64>() / part.len() as f64
            })
            .collect();
        run.figure(
            "layers",
            Figure::new("Where the influence flows", "Mean absolute part of each layer in the scores.").panel(
                Plot::new(Axis::categories("layer", layers.iter().copied()), Axis::new("mean |score|")).bars("", sizes),
            ),
        );
        run.save_array("layers.npy", by_layer.clone())?;
    }
    if let Some(by_token) = &scores.tokens {
        run.save_array("tokens.npy", by_token.clone())?;
    }
    let (queries, count) = scores.total.dim();
    run.save_json(
        "scores.json",
        &json!({
            "sign": SIGN,
            "scores.npy": { "shape": [queries, count], "axes": ["query", "training row"] },
            "layers.npy": scores.layers.as_ref().map(|_| json!({ "axes": ["query", "training row", "layer"], "layers": layers })),
            "tokens.npy": scores.tokens.as_ref().map(|_| json!({ "axes": ["query", "training row", "position"] })),
            "rows": (rows.numbers.len() != rows.numbers.iter().max().map_or(0, |last| last + 1)).then_some(&rows.numbers),
        }),
    )?;
    run.save_array("scores.npy", scores.total.clone())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Scores of the first queries, from the most helpful to the most harmful row.
fn curves(scores: &Scores) -> Figure {
    let mut plot = Plot::new(Axis::new("share of training rows"), Axis::new(SCORE));
    for (query, row) in scores.total.outer_iter().enumerate().take(DRAWN) {
        let sorted = descending(row);
        let places = places_of_curve(sorted.len());
        let share = |i: usize| i as f64 / (sorted.len() - 1).max(1) as f64;
        plot = plot.curve(
            format!("query {query}"),
            places.iter().map(|&i| share(i)).collect(),
            places.iter().map(|&i| sorted[i]).collect(),
        );
    }
    Figure::new("Few rows matter", "Scores of the training rows, sorted; most rows hardly touch the query.").panel(plot)
}

fn descending(row: ArrayView1<'_, f32>) -> Vec<f64> {
    let mut sorted: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted
}

/// At most 400 places of a curve, close together at both ends, where it bends.
fn places_of_curve(n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..400)
        .map(|i| {
            let x = f64::from(i) / 399.0;
            // A smooth step: flat at both ends.
            (x * x * (3.0 - 2.0 * x) * (n - 1) as f64).round() as usize
        })
        .collect();
    places.dedup();
    places
}

/// Reports self-influence of training rows.
pub(super) fn self_influence(params: &InfluenceParams, scores: &[f64], words: &Words, run: &mut Run) -> Result<()> {
    let order = largest(scores, params.top);
    let median = offprint_math::stats::median(scores);
    run.metric("median self-influence", median, "");
    run.metric("largest self-influence", scores[order[0]], "");
    let mut table = Table::new(
        "top",
        "Training rows, counted from 0, that shaped their own prediction most: look at their labels first.",
    )
    .integers("rank", "", (1..=order.len()).map(|r| r as i64))
    .integers("row", "", order.iter().map(|&i| i as i64))
    .numbers("self-influence", "", order.iter().map(|&i| scores[i]));
    if !words.train.is_empty() {
        table = table.words("text", order.iter().map(|&i| shortened(&words.train[i])));
    }
    run.table(table)?;
    let single: Vec<f32> = scores.iter().map(|&x| x as f32).collect();
    let sorted = descending(ArrayView1::from(&single));
    let places = places_of_curve(sorted.len());
    run.figure(
        "self",
        Figure::new("Rows that the model had to learn by heart", "Self-influence of the training rows, sorted.").panel(
            Plot::new(Axis::new("rank"), Axis::log("self-influence")).curve(
                "",
                places.iter().map(|&i| (i + 1) as f64).collect(),
                places.iter().map(|&i| sorted[i]).collect(),
            ),
        ),
    );
    run.save_array("self.npy", single)
}
