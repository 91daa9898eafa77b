//! The groups of a network in training: which are kept, which are on their way to zero, which are gone.

use super::base::{Base, elements};
use super::saliency::{Moments, moments};
use super::space::Space;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Var, bail};
use offprint_core::{Error, Result};
use offprint_nn::optim::Optimizer;
use offprint_nn::params::Real;
use offprint_nn::{Params, computation};
use std::ops::Range;
use std::sync::Arc;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Trained as ever.
    Kept,
    /// Chosen, and shrinking.
    Shrinking,
    /// Zero for ever.
    Pruned,
}

/// The groups of `space` over the tensors of a network.
pub struct Groups {
    space: Arc<Space>,
    vars: Vec<Var>,
    status: Vec<Status>,
    /// Elements of each tensor that shrink, and that are zero.
    shrinking: Vec<Vec<Range<usize>>>,
    pruned: Vec<Vec<Range<usize>>>,
}

impl Groups {
    /// All groups kept.
    ///
    /// # Errors
    /// Tensors of the space that `params` lack.
    pub fn new(space: Arc<Space>, params: &Params) -> Result<Self> {
        let missing = |name: &str| Error::input("graph", format!("there is no tensor \"{name}\""));
        let vars = space
            .tensors
            .iter()
            .map(|place| params.get(&place.name).cloned().ok_or_else(|| missing(&place.name)))
            .collect::<Result<Vec<_>>>()?;
        let none = vec![Vec::new(); vars.len()];
        let status = vec![Status::Kept; space.groups.len()];
        Ok(Self { space, vars, status, shrinking: none.clone(), pruned: none })
    }

    /// What can be removed.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Where each group stands.
    pub fn status(&self) -> &[Status] {
        &self.status
    }

    /// Which groups are zero for ever.
    pub fn is_pruned(&self) -> Vec<bool> {
        self.status.iter().map(|&status| status == Status::Pruned).collect()
    }

    /// How many groups have `status`.
    pub fn count(&self, status: Status) -> usize {
        self.status.iter().filter(|&&s| s == status).count()
    }

    /// Moves every group in `chosen` to `status`.
    pub fn set(&mut self, chosen: impl IntoIterator<Item = usize>, status: Status) {
        chosen.into_iter().for_each(|group| self.status[group] = status);
        self.shrinking = self.elements_of(Status::Shrinking);
        self.pruned = self.elements_of(Status::Pruned);
    }

    /// All shrinking groups become `status`.
    pub fn settle(&mut self, status: Status) {
        let shrinking: Vec<usize> =
            (0..self.status.len()).filter(|&group| self.status[group] == Status::Shrinking).collect();
        self.set(shrinking, status);
    }

    fn elements_of(&self, status: Status) -> Vec<Vec<Range<usize>>> {
        let mut ranges = vec![Vec::new(); self.vars.len()];
        for (group, _) in self.space.groups.iter().zip(&self.status).filter(|(_, s)| **s == status) {
            group.stretches.iter().for_each(|stretch| ranges[stretch.tensor].push(stretch.elements.clone()));
        }
        ranges
    }

    /// Multiplies the shrinking groups by `factor` and sets the pruned ones to zero.
    pub fn apply(&self, factor: f64) -> candle_core::Result<()> {
        for (var, (shrinking, pruned)) in self.vars.iter().zip(self.shrinking.iter().zip(&self.pruned)) {
            if !shrinking.is_empty() {
                var.inplace_op1(&Scale { elements: shrinking, factor })?;
            }
            if !pruned.is_empty() {
                var.inplace_op1(&Scale { elements: pruned, factor: 0.0 })?;
            }
        }
        Ok(())
    }

    /// The parameters of all tensors as they are now.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(match self.dtype() {
            DType::F32 => Snapshot::F32(self.read()?),
            _ => Snapshot::F64(self.read()?),
        })
    }

    fn dtype(&self) -> DType {
        self.vars.first().map_or(DType::F32, |var| var.dtype())
    }

    fn read<T: Real>(&self) -> Result<Vec<Vec<T>>> {
        self.vars.iter().map(|var| elements(var)).collect()
    }

    /// The moments of all groups for the parameters in `before` and the direction of the last step of `optimizer`.
    pub fn moments(&self, before: &Snapshot, base: &Base, optimizer: &dyn Optimizer) -> Result<Vec<Moments>> {
        let names: Vec<String> = self.space.tensors.iter().map(|place| place.name.clone()).collect();
        let lengths: Vec<usize> = self.vars.iter().map(|var| var.elem_count()).collect();
        Ok(match before {
            Snapshot::F32(p) => moments(&self.space.groups, p, &base.direction(optimizer, &names, &lengths)?),
            Snapshot::F64(p) => moments(&self.space.groups, p, &base.direction(optimizer, &names, &lengths)?),
        })
    }

    /// Shortens each shrinking group by `shrink` along its own direction, and gives those whose value then has an inner
    /// product below `epsilon` ‖x‖² with the value x in `before`.
    pub fn project(&self, before: &Snapshot, shrink: f64, epsilon: f64) -> Result<Vec<usize>> {
        match before {
            Snapshot::F32(before) => self.project_from(before, shrink, epsilon),
            Snapshot::F64(before) => self.project_from(before, shrink, epsilon),
        }
    }

    fn project_from<T: Real>(&self, before: &[Vec<T>], shrink: f64, epsilon: f64) -> Result<Vec<usize>> {
        let now: Vec<Vec<T>> = self.read()?;
        let mut leaving = Vec::new();
        let all = moments(&self.space.groups, before, &now);
        for (group, of) in all.iter().enumerate().filter(|(group, _)| self.status[*group] == Status::Shrinking) {
            let shorter = (1.0 - shrink / of.direction.sqrt().max(f64::MIN_POSITIVE)).max(0.0);
            if shorter * of.along < epsilon * of.magnitude || shorter == 0.0 {
                leaving.push(group);
                continue;
            }
            for stretch in &self.space.groups[group].stretches {
                let elements = std::slice::from_ref(&stretch.elements);
                self.vars[stretch.tensor].inplace_op1(&Scale { elements, factor: shorter }).map_err(computation)?;
            }
        }
        Ok(leaving)
    }

    /// An error that names the first group whose score is not finite.
    ///
    /// # Errors
    /// Such a group.
    pub fn check_scores(&self, scores: &[f64]) -> Result<()> {
        let Some(group) = scores.iter().position(|score| !score.is_finite()) else { return Ok(()) };
        let of = self.space.components.iter().find(|c| c.groups.contains(&group));
        let (name, number) = of.map_or(("?", group), |c| (c.name.as_str(), group - c.groups.start));
        Err(Error::Numerical(format!(
            "the saliency of group {number} of \"{name}\" is {}; a smaller learning rate may help",
            scores[group]
        )))
    }
}

/// The elements of all tensors at one moment.
pub enum Snapshot {
    /// In single precision.
    F32(Vec<Vec<f32>>),
    /// In double precision.
    F64(Vec<Vec<f64>>),
}

/// Multiplies stretches of a tensor in place.
struct Scale<'a> {
    elements: &'a [Range<usize>],
    factor: f64,
}

impl InplaceOp1 for Scale<'_> {
    fn name(&self) -> &'static str {
        "scale-groups"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, _)) = layout.contiguous_offsets() else {
            bail!("a parameter of shape {:?} is not contiguous in memory", layout.dims());
        };
        match storage {
            CpuStorage::F32(values) => scale(&mut values[start..], self.elements, self.factor as f32),
            CpuStorage::F64(values) => scale(&mut values[start..], self.elements, self.factor),
            _ => bail!("parameters are of type F32 or F64"),
        }
        Ok(())
    }
}

fn scale<T: Real>(values: &mut [T], elements: &[Range<usize>], factor: T) {
    for range in elements {
        let part = &mut values[range.clone()];
        // Zero is set, not multiplied: it must not depend on what training made of the values.
        if factor == T::zero() { part.fill(factor) } else { part.iter_mut().for_each(|x| *x *= factor) }
    }
}
