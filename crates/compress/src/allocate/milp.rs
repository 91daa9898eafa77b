//! The multiple-choice knapsack as a mixed-integer programme, solved by branch and bound over its linear relaxation.

use super::{Assignment, Candidate, check};
use microlp::{ComparisonOp, OptimizationDirection, Problem};
use offprint_core::{Error, Result};

/// The assignment of least cost with a size of at most `budget`, through `microlp`: a yes or no for each option, one yes
/// a layer, sizes within the budget. Costs and sizes are scaled to 1, so answers agree with [`exact`](super::exact) to the
/// solver's tolerance.
///
/// # Errors
/// As [`Solver::solve`](super::Solver::solve); a programme that the solver gives up on.
pub fn integer_program(layers: &[Vec<Candidate>], budget: u64) -> Result<Assignment> {
    check(layers, budget)?;
    let dearest = layers.iter().flatten().map(|option| option.cost).fold(0.0, f64::max);
    let scale = |value: f64, largest: f64| if largest > 0.0 { value / largest } else { 0.0 };
    let mut problem = Problem::new(OptimizationDirection::Minimize);
    let (mut sizes, mut variables) = (Vec::new(), Vec::new());
    for options in layers {
        let own: Vec<_> =
            options.iter().map(|option| problem.add_integer_var(scale(option.cost, dearest), (0, 1))).collect();
        let one: Vec<_> = own.iter().map(|&variable| (variable, 1.0)).collect();
        problem.add_constraint(&one, ComparisonOp::Eq, 1.0);
        sizes.extend(own.iter().zip(options).map(|(&variable, o)| (variable, scale(o.size as f64, budget as f64))));
        variables.push(own);
    }
    problem.add_constraint(&sizes, ComparisonOp::Le, if budget > 0 { 1.0 } else { 0.0 });
    let failed = |problem: String| Error::Numerical(format!("the integer programme was not solved: {problem}"));
    let outcome = problem.solve().map_err(|e| failed(e.to_string()))?;
    let solution = outcome.into_solution().map_err(|_| failed("it ended without an answer".into()))?;
    let choices = variables.iter().map(|own| {
        let value = |at: &usize| solution.var_value(own[*at]);
        (0..own.len()).max_by(|a, b| value(a).total_cmp(&value(b))).expect("checked to have options")
    });
    let assignment = Assignment::of(layers, choices.collect());
    // The solver's tolerance on the constraint could hide a few units of size.
    if assignment.size > budget { super::exact(layers, budget) } else { Ok(assignment) }
}
