//! Partial assignments in dynamic programmes: only those that no other one beats in both cost and size.

use super::{Assignment, Candidate};

/// The assignment of the first layers.
#[derive(Debug, Clone, Copy)]
pub struct State {
    pub cost: f64,
    pub size: u64,
    /// Where its choices stand in the [`History`].
    at: u32,
}

/// The choices behind all states, as chains from the last layer back.
#[derive(Debug, Default)]
pub struct History(Vec<(u32, u8)>);

/// The chain of nothing.
const NOTHING: u32 = u32::MAX;

impl History {
    /// No layer, no cost.
    pub fn start() -> (Self, State) {
        (Self::default(), State { cost: 0.0, size: 0, at: NOTHING })
    }

    /// `state` with one more layer.
    pub fn with(&mut self, state: &State, choice: usize, candidate: Candidate) -> State {
        self.0.push((state.at, choice as u8));
        State { cost: state.cost + candidate.cost, size: state.size + candidate.size, at: self.0.len() as u32 - 1 }
    }

    /// The assignment of `state`.
    pub fn assignment(&self, state: &State, layers: &[Vec<Candidate>]) -> Assignment {
        let (mut choices, mut at) = (Vec::new(), state.at);
        while at != NOTHING {
            let (before, choice) = self.0[at as usize];
            choices.push(usize::from(choice));
            at = before;
        }
        choices.reverse();
        Assignment::of(layers, choices)
    }
}

/// Leaves of `states` those that no other beats, in order of rising size.
pub fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| a.size.cmp(&b.size).then(a.cost.total_cmp(&b.cost)));
    let mut least = f64::INFINITY;
    states.retain(|state| {
        let better = state.cost < least;
        least = least.min(state.cost);
        better
    });
    states
}
