//! Which groups go: the lowest scores, while every component keeps what it must.

use super::groups::Status;
use super::space::Space;

/// How many groups go, and how they are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Each component keeps a positive multiple of this many groups; components that have no more stay whole.
    pub divisible: usize,
    /// Take the lowest-numbered of the lowest-scored groups, as the authors' code does, and do not make up for groups
    /// that a component must keep.
    pub compat: bool,
}

impl Choice {
    /// The groups that may go: those of components wider than `divisible`.
    pub fn eligible(&self, space: &Space) -> Vec<bool> {
        let wide = |c: &super::space::Component| std::iter::repeat_n(c.groups.len() > self.divisible, c.groups.len());
        space.components.iter().flat_map(wide).collect()
    }

    /// `quota` groups that are kept so far, by low `scores` (ties to the lower number), beside `gone` of before. Fewer if
    /// the components cannot give as many.
    pub fn lowest(&self, space: &Space, status: &[Status], scores: &[f64], quota: usize) -> Vec<usize> {
        let eligible = self.eligible(space);
        let mut order: Vec<usize> = (0..scores.len()).filter(|&group| eligible[group]).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
        let gone = status.iter().filter(|&&s| s != Status::Kept).count();
        if self.compat {
            order.truncate(gone + quota);
            order.sort_unstable();
        }
        let component_of = space.component_of();
        let mut left: Vec<usize> = space.components.iter().map(|c| kept(c.groups.clone(), status)).collect();
        let mut chosen = Vec::new();
        for group in order.into_iter().filter(|&group| status[group] == Status::Kept) {
            if chosen.len() == quota {
                break;
            }
            let left = &mut left[component_of[group]];
            if *left > self.divisible || self.compat {
                *left = left.saturating_sub(1);
                chosen.push(group);
            }
        }
        self.rounded(space, status, scores, chosen)
    }

    /// `chosen` without the highest-scored groups of components that would not keep a positive multiple.
    fn rounded(&self, space: &Space, status: &[Status], scores: &[f64], chosen: Vec<usize>) -> Vec<usize> {
        let mut rounded = Vec::with_capacity(chosen.len());
        for component in &space.components {
            let mut of: Vec<usize> = chosen.iter().copied().filter(|g| component.groups.contains(g)).collect();
            of.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
            let before = kept(component.groups.clone(), status);
            let left = before - of.len();
            if !of.is_empty() && (left == 0 || !left.is_multiple_of(self.divisible)) {
                let up = (left / self.divisible + 1) * self.divisible;
                of.truncate(before.saturating_sub(up));
            }
            rounded.extend(of);
        }
        rounded
    }
}

fn kept(groups: std::ops::Range<usize>, status: &[Status]) -> usize {
    status[groups].iter().filter(|&&s| s == Status::Kept).count()
}

/// The number of groups to remove of `eligible` ones: ⌊N · min(K, 0.999)⌋ as the authors' code computes it.
pub fn target(eligible: usize, sparsity: f64) -> usize {
    (eligible as f64 * sparsity.min(0.999)).floor() as usize
}

/// What each of `periods` periods removes of `target` groups: equal parts, the last takes the rest.
pub fn quotas(target: usize, periods: usize) -> Vec<usize> {
    let periods = periods.max(1);
    let each = target / periods;
    (0..periods).map(|p| if p + 1 == periods { target - each * (periods - 1) } else { each }).collect()
}
