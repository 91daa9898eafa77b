//! What a run shows.

use super::{Counts, EDGE_BITS, History, QuantisedViT, Reading};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Result, Run, Table};

fn percent(rate: f64) -> f64 {
    100.0 * rate
}

/// Bins of a histogram of distances.
const BINS: usize = 50;

/// The density of distances to the nearest boundary, in bins from 0 to 1, in per cent of all weights.
fn density(readings: &[Reading]) -> (Vec<f64>, Vec<f64>) {
    let (mut counts, mut all) = (vec![0_u32; BINS], 0_u32);
    for distance in readings.iter().flat_map(Reading::to_boundary) {
        counts[((distance * BINS as f32) as usize).min(BINS - 1)] += 1;
        all += 1;
    }
    let middle = |bin| (bin as f64 + 0.5) / BINS as f64;
    let share = counts.into_iter().map(|count| percent(f64::from(count) / f64::from(all.max(1))));
    ((0..BINS).map(middle).collect(), share.collect())
}

/// Flips and oscillations, epoch by epoch.
pub(super) fn phases(phases: &[(&str, History)], run: &mut Run) -> Result<()> {
    let mut rows: Vec<(&str, Counts, f64)> = Vec::new();
    for (name, history) in phases {
        let losses = history.losses.chunks(history.epoch).map(|l| l.iter().sum::<f64>() / l.len() as f64);
        rows.extend(history.epochs().into_iter().zip(losses).map(|(counts, loss)| (*name, counts, loss)));
        let last = history.last(2);
        run.metric(&format!("flips at the end of {name}"), percent(last.flip_rate()), "% of weights a step");
        run.metric(
            &format!("oscillations at the end of {name}"),
            percent(last.oscillation_rate()),
            "% of weights a step",
        );
        run.metric(&format!("weights oscillating at the end of {name}"), percent(history.oscillating), "%");
    }
    let column = |f: fn(&Counts) -> f64| rows.iter().map(|(_, counts, _)| f(counts)).collect::<Vec<f64>>();
    let flips = column(|c| percent(c.flip_rate()));
    let oscillations = column(|c| percent(c.oscillation_rate()));
    let epochs: Vec<f64> = (1..=rows.len()).map(|i| i as f64).collect();
    let mut plot = Plot::new(Axis::new("epoch"), Axis::log("weights a step").unit("%"))
        .line("flips", epochs.clone(), flips.clone())
        .line("oscillations", epochs, oscillations.clone());
    if let [(_, first), _, ..] = phases {
        plot = plot.vertical("annealing begins", first.epochs().len() as f64 + 0.5);
    }
    run.figure(
        "oscillation",
        Figure::new(
            "Weights that change their level",
            "A flip is a code that differs from the step before; an oscillation is a flip against the direction of the same \
             weight's last one.",
        )
        .panel(plot),
    );
    run.table(
        Table::new("epochs", "An epoch of the training.")
            .words("phase", rows.iter().map(|row| row.0))
            .numbers("loss", "nat", rows.iter().map(|row| row.2))
            .numbers("flips", "% a step", flips)
            .numbers("oscillations", "% a step", oscillations)
            .numbers("flips by the scale", "%", column(|c| percent(c.share_by_scale()))),
    )
}

/// What happened in each matrix.
pub(super) fn matrices(network: &QuantisedViT, phases: &[(&str, History)], run: &mut Run) -> Result<()> {
    let readings = network.readings()?;
    let near = |reading: &Reading| {
        reading.trainable(0.05).iter().filter(|&&t| t).count() as f64 / reading.weights.len().max(1) as f64
    };
    let mut table = Table::new("matrices", "A quantised matrix; rates are those of the last two epochs of each phase.")
        .words("matrix", readings.iter().map(|r| r.name.clone()))
        .integers("rows", "", readings.iter().map(|r| (r.weights.len() / r.columns.max(1)) as i64))
        .integers("columns", "", readings.iter().map(|r| r.columns as i64))
        .numbers("within 0.05 of a boundary", "%", readings.iter().map(|r| percent(near(r))));
    for (name, history) in phases {
        let rates = history.last_by_matrix(2).into_iter().map(|c| percent(c.oscillation_rate()));
        table = table.numbers(format!("oscillations, {name}"), "% a step", rates);
    }
    run.table(table)
}

/// Where the weights lie between the boundaries.
pub(super) fn positions(before: &[Reading], network: &QuantisedViT, annealed: bool, run: &mut Run) -> Result<()> {
    let (x, trained) = density(before);
    let mut plot = Plot::new(Axis::new("distance to the nearest boundary"), Axis::new("weights").unit("%")).curve(
        if annealed { "trained" } else { "" },
        x.clone(),
        trained,
    );
    if annealed {
        plot = plot.curve("annealed", x, density(&network.readings()?).1);
    }
    run.figure(
        "positions",
        Figure::new(
            "Where the weights lie",
            "In units of the distance between two levels: at 0 a weight lies on the boundary between them, at ½ on a level, \
             beyond ½ outside the first or last level.",
        )
        .panel(plot),
    );
    Ok(())
}

/// How often each code occurs.
pub(super) fn codes(network: &QuantisedViT, run: &mut Run) -> Result<()> {
    let readings = network.readings()?;
    let Some((first, last)) = readings.first().map(|reading| reading.levels.codes()) else { return Ok(()) };
    let mut counts = vec![0_u32; (last - first) as usize + 1];
    readings.iter().flat_map(Reading::codes).for_each(|code| counts[(i32::from(code) - first) as usize] += 1);
    let all: u32 = counts.iter().sum();
    let share = counts.iter().map(|&count| percent(f64::from(count) / f64::from(all.max(1)))).collect();
    run.metric("quantised weights of the blocks", f64::from(all), "");
    run.figure(
        "codes",
        Figure::new(
            "How often each code occurs",
            "Over all matrices of the blocks; neighbouring codes are neighbouring levels.",
        )
        .panel(
            Plot::new(Axis::categories("code", (first..=last).map(|k| k.to_string())), Axis::new("weights").unit("%"))
                .bars("", share),
        ),
    );
    Ok(())
}

/// Bytes, as they are stored.
pub(super) fn sizes(network: &QuantisedViT, coded: usize, run: &mut Run) -> Result<()> {
    let config = network.config();
    let params = network.network().params();
    let (mut floats, mut matrices) = (0, 0);
    for param in params.trained() {
        let count = param.var.elem_count();
        let is_coded = param.name.ends_with(".weight") && param.var.dims().len() > 1;
        *(if is_coded { &mut matrices } else { &mut floats }) += count;
    }
    let activations: usize = network.activations().flat_map(|a| a.vars()).map(|(_, var)| var.elem_count()).sum();
    run.metric("size, floats", 4.0 * params.count() as f64 / 1e3, "kB");
    run.metric("size, quantised", (coded + 4 * (floats + activations)) as f64 / 1e3, "kB");
    run.metric("of it codes and scales", coded as f64 / 1e3, "kB");
    run.metric("bits a weight, scales included", 8.0 * coded as f64 / matrices.max(1) as f64, "");
    if matches!(network.precision().form, super::Form::Qkr { .. }) {
        run.metric("entries of the products over those of queries and keys", config.heads as f64 / 2.0, "");
    }
    run.metric("bits of the first layer and the head", f64::from(EDGE_BITS), "");
    Ok(())
}
