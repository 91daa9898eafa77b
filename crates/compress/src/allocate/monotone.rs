//! HAWQ's ranking as a constraint: a layer of higher rank gets no fewer bits.

use super::states::{History, State, undominated};
use super::{Assignment, Candidate, check};
use offprint_core::{Error, Result};

/// The assignment of least cost with a size of at most `budget` in which choices never fall from a layer to the next:
/// `layers` in falling rank, each with the same options in falling bits.
///
/// # Errors
/// As [`Solver::solve`](super::Solver::solve); layers with different numbers of options.
pub fn monotone(layers: &[Vec<Candidate>], budget: u64) -> Result<Assignment> {
    check(layers, budget)?;
    let options = layers.first().map_or(0, Vec::len);
    if let Some(other) = layers.iter().find(|layer| layer.len() != options || options > 256) {
        let allowed = format!("the {options} of the first layer (at most 256) for every layer");
        return Err(Error::parameter("options", other.len(), allowed));
    }
    let (mut history, first) = History::start();
    // States by their last choice; before the first layer any choice may follow.
    let mut by_last: Vec<Vec<State>> = vec![Vec::new(); options.max(1)];
    by_last[0].push(first);
    for layer in layers {
        let mut next = Vec::with_capacity(options);
        let mut reachable: Vec<State> = Vec::new();
        for (choice, option) in layer.iter().enumerate() {
            reachable.extend(&by_last[choice]);
            reachable = undominated(reachable);
            let fits = reachable.iter().filter(|state| state.size.saturating_add(option.size) <= budget);
            let grown: Vec<State> = fits.map(|state| history.with(state, choice, *option)).collect();
            next.push(grown);
        }
        by_last = next;
    }
    let finished = undominated(by_last.into_iter().flatten().collect());
    let best = finished.last().ok_or_else(|| {
        let smallest = (0..options).map(|o| layers.iter().map(|layer| layer[o].size).sum::<u64>()).min().unwrap_or(0);
        Error::parameter("budget", budget, format!("about {smallest}, what one option for all layers takes"))
    })?;
    Ok(history.assignment(best, layers))
}
