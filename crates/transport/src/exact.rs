//! Unregularised optimal transport by the network simplex method.
//!
//! Solves min ⟨T, C⟩ over T ≥ 0, T 1 = a, Tᵀ 1 = b on the dense bipartite graph, from an artificial root, with block
//! pricing and strongly feasible bases (Cunningham 1976), which rule out cycling. Masses are counted in integers of 2⁻⁶⁰
//! of the total, so that this rule is exact however degenerate the problem is; costs stay in floating point. The answer
//! carries potentials α, β with α_i + β_j ≤ c_ij, equal on the support of the plan: its own certificate.
//!
//! A pivot costs the length of its cycle plus the size of the subtree that moves; pricing scans a block of arcs. About
//! n² ln n in practice for n rows and columns: a second at n = 1000. Memory is the cost's plus O(m + n).

use crate::plan::Plan;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use offprint_core::{Error, Result};

/// An optimal plan and the potentials that prove it.
#[derive(Debug, Clone)]
pub struct Exact {
    /// The plan; at most m + n − 1 non-zeros.
    pub plan: Plan,
    /// Potentials of the rows (m).
    pub alpha: Array1<f64>,
    /// Potentials of the columns (n).
    pub beta: Array1<f64>,
    /// The optimal transport cost ⟨T, C⟩.
    pub value: f64,
    /// Pivots made.
    pub pivots: usize,
}

/// Solves the transport problem with cost (m, n) and marginals `a` (m) and `b` (n), non-negative with equal sums.
///
/// # Errors
/// Shapes that do not fit, entries that are not finite, marginals that are negative, zero in all or of different sums.
pub fn exact(cost: ArrayView2<'_, f64>, a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> Result<Exact> {
    check_cost(cost)?;
    check_marginals(cost.dim(), a, b)?;
    // Rows and columns without mass take no part; their potentials follow from the others'.
    let rows: Vec<usize> = (0..a.len()).filter(|&i| a[i] > 0.0).collect();
    let columns: Vec<usize> = (0..b.len()).filter(|&j| b[j] > 0.0).collect();
    let inner = Array2::from_shape_fn((rows.len(), columns.len()), |(i, j)| cost[[rows[i], columns[j]]]);
    let supplies = in_units(rows.iter().map(|&i| a[i]));
    let demands = in_units(columns.iter().map(|&j| b[j]));
    let mut simplex = Simplex::new(inner, &supplies, &demands);
    simplex.solve()?;

    let mut dense_columns: Vec<Vec<(usize, f64)>> = vec![Vec::new(); b.len()];
    let total: f64 = a.sum();
    for (i, j, units) in simplex.flows() {
        // Fewer units than this are left-overs of rounding the marginals to units.
        if units > UNITS >> 50 {
            dense_columns[columns[j]].push((rows[i], units as f64 / UNITS as f64 * total));
        }
    }
    let mut plan = Plan::with_rows(a.len(), rows.len() + columns.len());
    for mut column in dense_columns {
        column.sort_unstable_by_key(|&(i, _)| i);
        plan.push_column(column);
    }

    let (inner_alpha, inner_beta) = simplex.potentials();
    let mut beta = Array1::from_elem(b.len(), f64::NAN);
    for (&j, &p) in columns.iter().zip(&inner_beta) {
        beta[j] = p;
    }
    let mut alpha = Array1::from_elem(a.len(), f64::NAN);
    for (&i, &p) in rows.iter().zip(&inner_alpha) {
        alpha[i] = p;
    }
    for i in (0..a.len()).filter(|&i| a[i] == 0.0) {
        alpha[i] = columns.iter().map(|&j| cost[[i, j]] - beta[j]).fold(f64::INFINITY, f64::min);
    }
    for j in (0..b.len()).filter(|&j| b[j] == 0.0) {
        beta[j] = (0..a.len()).map(|i| cost[[i, j]] - alpha[i]).fold(f64::INFINITY, f64::min);
    }
    let value = plan.cost(cost);
    Ok(Exact { plan, alpha, beta, value, pivots: simplex.pivots })
}

/// Refuses a cost that is empty or not finite.
pub(crate) fn check_cost(cost: ArrayView2<'_, f64>) -> Result<()> {
    if cost.is_empty() {
        return Err(Error::input("cost", format!("is empty (shape {:?})", cost.shape())));
    }
    match cost.indexed_iter().find(|(_, c)| !c.is_finite()) {
        Some(((i, j), c)) => Err(Error::input("cost", format!("row {i}, column {j} (counted from 0) is {c}"))),
        None => Ok(()),
    }
}

/// Refuses marginals that are not those of a plan of this shape.
pub(crate) fn check_marginals((m, n): (usize, usize), a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> Result<()> {
    check_marginal("a", "rows", m, a)?;
    check_marginal("b", "columns", n, b)?;
    let (sum_a, sum_b) = (a.sum(), b.sum());
    if (sum_a - sum_b).abs() > 1e-8 * sum_a.max(sum_b) {
        return Err(Error::input(
            "marginals",
            format!("a sums to {sum_a} and b to {sum_b}; a plan needs equal sums (to 1e-8 of them)"),
        ));
    }
    Ok(())
}

/// Refuses a marginal that has another length than the cost, a negative or unreal entry, or no mass.
pub(crate) fn check_marginal(name: &str, side: &str, length: usize, masses: ArrayView1<'_, f64>) -> Result<()> {
    if masses.len() != length {
        return Err(Error::input(name, format!("has {} masses, but the cost has {length} {side}", masses.len())));
    }
    if let Some((i, &x)) = masses.iter().enumerate().find(|&(_, &x)| !x.is_finite() || x < 0.0) {
        return Err(Error::input(name, format!("mass {i} (counted from 0) is {x}; masses are at least 0 and finite")));
    }
    if masses.sum() <= 0.0 || !masses.sum().is_finite() {
        return Err(Error::input(name, format!("sums to {}; some mass is needed", masses.sum())));
    }
    Ok(())
}

/// The total mass in units.
const UNITS: i64 = 1 << 60;

/// Masses rounded to integers that add up to [`UNITS`].
fn in_units(masses: impl Iterator<Item = f64> + Clone) -> Vec<i64> {
    let total: f64 = masses.clone().sum();
    let mut units: Vec<i64> = masses.map(|x| ((x / total * UNITS as f64).round() as i64).max(1)).collect();
    let mut excess = units.iter().sum::<i64>() - UNITS;
    // Taken from the largest, where it matters least.
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_unstable_by_key(|&i| std::cmp::Reverse(units[i]));
    for &i in &order {
        let taken = excess.min(units[i] - 1);
        units[i] -= taken;
        excess -= taken;
    }
    units
}

/// A spanning tree over rows 0..m, columns m..m+n and the root m+n.
struct Simplex {
    /// (m, n).
    cost: Array2<f64>,
    parent: Vec<usize>,
    /// Whether the tree arc between a node and its parent points to the parent.
    upward: Vec<bool>,
    /// Flow of that arc, in units.
    flow: Vec<i64>,
    depth: Vec<usize>,
    /// Children as a doubly linked list.
    first_child: Vec<usize>,
    next_sibling: Vec<usize>,
    previous_sibling: Vec<usize>,
    /// α_i for rows, −β_j for columns, 0 at the root: an arc u → v is priced c − p_u + p_v.
    potential: Vec<f64>,
    /// Cost of the arcs from the root to columns.
    artificial: f64,
    /// Stack of the subtree walk.
    stack: Vec<usize>,
    next_arc: usize,
    pivots: usize,
}

const NONE: usize = usize::MAX;

impl Simplex {
    fn new(cost: Array2<f64>, supplies: &[i64], demands: &[i64]) -> Self {
        let (m, n) = cost.dim();
        let (nodes, root) = (m + n + 1, m + n);
        let largest = cost.iter().fold(0.0f64, |l, c| l.max(c.abs()));
        // More than any path can cost.
        let artificial = (if largest > 0.0 { largest } else { 1.0 }) * 2.0 * nodes as f64;
        let mut flow = supplies.to_vec();
        flow.extend(demands);
        flow.push(0);
        let mut potential = vec![0.0; nodes];
        potential[m..root].fill(-artificial);
        let mut simplex = Self {
            cost,
            parent: vec![root; nodes],
            upward: (0..nodes).map(|v| v < m).collect(),
            flow,
            depth: vec![1; nodes],
            first_child: vec![NONE; nodes],
            next_sibling: vec![NONE; nodes],
            previous_sibling: vec![NONE; nodes],
            potential,
            artificial,
            stack: Vec::with_capacity(nodes),
            next_arc: 0,
            pivots: 0,
        };
        simplex.parent[root] = NONE;
        simplex.depth[root] = 0;
        for node in 0..root {
            simplex.attach(node, root);
        }
        simplex
    }

    fn root(&self) -> usize {
        self.parent.len() - 1
    }

    fn attach(&mut self, node: usize, parent: usize) {
        let first = self.first_child[parent];
        self.parent[node] = parent;
        self.next_sibling[node] = first;
        self.previous_sibling[node] = NONE;
        if first != NONE {
            self.previous_sibling[first] = node;
        }
        self.first_child[parent] = node;
    }

    fn detach(&mut self, node: usize) {
        let (previous, next) = (self.previous_sibling[node], self.next_sibling[node]);
        if previous == NONE {
            self.first_child[self.parent[node]] = next;
        } else {
            self.next_sibling[previous] = next;
        }
        if next != NONE {
            self.previous_sibling[next] = previous;
        }
    }

    fn solve(&mut self) -> Result<()> {
        let (m, n) = self.cost.dim();
        // Far beyond what any instance needs; guards against rounding of costs at a scale no tolerance foresees.
        let most = 200 * (m + n) * ((m + n).ilog2() as usize + 1) + 10_000;
        while let Some((i, j)) = self.entering() {
            self.pivot(i, m + j);
            self.pivots += 1;
            if self.pivots > most {
                return Err(Error::Numerical(format!(
                    "the network simplex made {most} pivots on a {m} × {n} cost without an end; are the costs of wildly different sizes?"
                )));
            }
        }
        Ok(())
    }

    /// The arc of the most negative price in the first block that has one.
    fn entering(&mut self) -> Option<(usize, usize)> {
        let (m, n) = self.cost.dim();
        let arcs = m * n;
        let block = (arcs as f64).sqrt().ceil().max(16.0) as usize;
        let costs = self.cost.as_slice().expect("built in standard layout");
        let (rows, columns) = self.potential.split_at(m);
        let largest = self.artificial / (2.0 * (m + n + 1) as f64);
        let tolerance = 1e-13 * largest * ((m + n) as f64).sqrt().max(8.0);
        let mut scanned = 0;
        let mut arc = self.next_arc;
        let (mut best, mut best_price) = (None, -tolerance);
        while scanned < arcs {
            // One run of arcs within a row at a time.
            let (i, j) = (arc / n, arc % n);
            let until_block_ends = block - scanned % block;
            let run = (n - j).min(until_block_ends).min(arcs - scanned);
            let p = rows[i];
            for (l, (c, q)) in costs[arc..arc + run].iter().zip(&columns[j..j + run]).enumerate() {
                let price = c - p + q;
                if price < best_price {
                    best_price = price;
                    best = Some((i, j + l));
                }
            }
            scanned += run;
            arc += run;
            if arc == arcs {
                arc = 0;
            }
            if best.is_some() && scanned.is_multiple_of(block) {
                break;
            }
        }
        self.next_arc = arc;
        best
    }

    /// Brings the arc u → v into the tree.
    fn pivot(&mut self, u: usize, v: usize) {
        // The leaving arc: the last of least flow against the cycle's direction, seen from the join (strong feasibility).
        let (mut x, mut y) = (u, v);
        while x != y {
            if self.depth[x] >= self.depth[y] {
                x = self.parent[x];
            } else {
                y = self.parent[y];
            }
        }
        let join = x;
        let (mut delta, mut leaving, mut on_u_side) = (i64::MAX, NONE, true);
        let mut x = u;
        while x != join {
            if self.upward[x] && self.flow[x] < delta {
                (delta, leaving, on_u_side) = (self.flow[x], x, true);
            }
            x = self.parent[x];
        }
        let mut y = v;
        while y != join {
            if !self.upward[y] && self.flow[y] <= delta {
                (delta, leaving, on_u_side) = (self.flow[y], y, false);
            }
            y = self.parent[y];
        }
        debug_assert!(leaving != NONE, "a cycle of a transport problem has arcs both ways");

        let mut x = u;
        while x != join {
            self.flow[x] += if self.upward[x] { -delta } else { delta };
            x = self.parent[x];
        }
        let mut y = v;
        while y != join {
            self.flow[y] += if self.upward[y] { delta } else { -delta };
            y = self.parent[y];
        }

        // The subtree below the leaving arc is hung from the entering arc: its parents reverse up to `leaving`.
        let (inside, outside) = if on_u_side { (u, v) } else { (v, u) };
        let (mut node, mut new_parent) = (inside, outside);
        let (mut arc_upward, mut arc_flow) = (on_u_side, delta);
        loop {
            let old_parent = self.parent[node];
            self.detach(node);
            self.attach(node, new_parent);
            std::mem::swap(&mut self.upward[node], &mut arc_upward);
            std::mem::swap(&mut self.flow[node], &mut arc_flow);
            if node == leaving {
                break;
            }
            // The same arc, seen from its other end.
            arc_upward = !arc_upward;
            (new_parent, node) = (node, old_parent);
        }

        // Potentials of the subtree move by what makes the entering arc's price zero.
        let m = self.cost.nrows();
        let price = self.cost[[u, v - m]] - self.potential[u] + self.potential[v];
        let shift = if on_u_side { price } else { -price };
        self.stack.push(inside);
        while let Some(node) = self.stack.pop() {
            self.potential[node] += shift;
            self.depth[node] = self.depth[self.parent[node]] + 1;
            let mut child = self.first_child[node];
            while child != NONE {
                self.stack.push(child);
                child = self.next_sibling[child];
            }
        }
    }

    /// The non-zero flows as (row, column, units).
    fn flows(&self) -> impl Iterator<Item = (usize, usize, i64)> + '_ {
        let m = self.cost.nrows();
        let root = self.root();
        (0..root).filter(move |&v| self.parent[v] != root && self.flow[v] > 0).map(move |v| {
            let (row, column) = if v < m { (v, self.parent[v]) } else { (self.parent[v], v) };
            (row, column - m, self.flow[v])
        })
    }

    /// α and β computed anew from the tree, free of what the pivots' shifts have rounded.
    ///
    /// Artificial arcs that stay in the optimal tree carry no flow but may join parts of the graph whose potentials are
    /// the artificial cost apart; such a part is shifted as a whole to where it is feasible.
    fn potentials(&self) -> (Vec<f64>, Vec<f64>) {
        let (m, n) = self.cost.dim();
        let root = self.root();
        let mut potential = vec![0.0; root];
        // Parts of the tree below the root, each potential relative to its top.
        let mut part = vec![NONE; root];
        let mut tops = Vec::new();
        let mut stack = Vec::new();
        let mut top = self.first_child[root];
        while top != NONE {
            part[top] = tops.len();
            stack.push(top);
            while let Some(node) = stack.pop() {
                let mut child = self.first_child[node];
                while child != NONE {
                    let (row, column) = if child < m { (child, node - m) } else { (node, child - m) };
                    let c = self.cost[[row, column]];
                    // p_row − p_column = c, in the simplex's signs.
                    potential[child] = if child < m { potential[node] + c } else { potential[node] - c };
                    part[child] = part[top];
                    stack.push(child);
                    child = self.next_sibling[child];
                }
            }
            tops.push(top);
            top = self.next_sibling[top];
        }
        if tops.len() > 1 {
            self.join_parts(&mut potential, &part, tops.len());
        }
        let beta = potential[m..m + n].iter().map(|p| -p).collect();
        potential.truncate(m);
        (potential, beta)
    }

    /// Shifts the parts of the forest so that every arc between them is feasible: shortest paths between parts
    /// (Bellman & Ford), which exist because the optimal tree has no negative cycle.
    fn join_parts(&self, potential: &mut [f64], part: &[usize], parts: usize) {
        let (m, n) = self.cost.dim();
        // slack[p][q]: least price of an arc from part p to part q; the shift obeys shift_p ≤ shift_q + slack.
        let mut slack = Array2::from_elem((parts, parts), f64::INFINITY);
        for i in 0..m {
            for j in 0..n {
                let (p, q) = (part[i], part[m + j]);
                if p != q {
                    let price = self.cost[[i, j]] - potential[i] + potential[m + j];
                    slack[[p, q]] = slack[[p, q]].min(price);
                }
            }
        }
        let mut shift = vec![0.0; parts];
        for _ in 0..parts {
            let mut changed = false;
            for p in 0..parts {
                for q in 0..parts {
                    if shift[q] + slack[[p, q]] < shift[p] {
                        shift[p] = shift[q] + slack[[p, q]];
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        for (v, p) in potential.iter_mut().enumerate() {
            *p += shift[part[v]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn certified(cost: ArrayView2<'_, f64>, a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> Exact {
        let found = exact(cost, a, b).unwrap();
        let scale = cost.iter().fold(0.0f64, |l, c| l.max(c.abs()));
        let (rows, columns) = found.plan.marginal_errors(a, b);
        assert!(rows.max(columns) <= 1e-14 * a.sum(), "{rows} {columns}");
        for ((i, j), c) in cost.indexed_iter() {
            assert!(found.alpha[i] + found.beta[j] <= c + 1e-11 * scale, "arc {i} {j} prices below zero");
        }
        let dual = found.alpha.dot(&a) + found.beta.dot(&b);
        assert!((found.value - dual).abs() <= 1e-11 * scale * a.sum(), "{} {dual}", found.value);
        found
    }

    #[test]
    fn the_hitchcock_example_has_its_known_cost() {
        // Winston, "Operations Research", the Powerco problem: supplies 35, 50, 40, demands 45, 20, 30, 30, cost 1020.
        let cost = array![[8.0, 6.0, 10.0, 9.0], [9.0, 12.0, 13.0, 7.0], [14.0, 9.0, 16.0, 5.0]];
        let found = certified(cost.view(), array![35.0, 50.0, 40.0].view(), array![45.0, 20.0, 30.0, 30.0].view());
        assert!((found.value - 1020.0).abs() < 1e-9);
    }

    #[test]
    fn on_a_line_the_optimal_plan_is_monotone() {
        // In one dimension with a convex cost the k-th smallest goes to the k-th smallest.
        let x: Vec<f64> = (0..60).map(|i| f64::from((i * 37) % 60) + 0.1).collect();
        let y: Vec<f64> = (0..60).map(|i| f64::from((i * 23) % 60) * 1.5).collect();
        let cost = Array2::from_shape_fn((60, 60), |(i, j)| (x[i] - y[j]).powi(2));
        let uniform = Array1::from_elem(60, 1.0 / 60.0);
        let found = certified(cost.view(), uniform.view(), uniform.view());
        let sorted = |v: &[f64]| {
            let mut v = v.to_vec();
            v.sort_by(f64::total_cmp);
            v
        };
        let expected: f64 = sorted(&x).iter().zip(&sorted(&y)).map(|(x, y)| (x - y).powi(2) / 60.0).sum();
        assert!((found.value - expected).abs() < 1e-11 * expected);
        assert_eq!(found.plan.max_column_nnz(), 1);
    }

    #[test]
    fn edge_sizes_zero_masses_and_ties() {
        certified(array![[3.0]].view(), array![2.0].view(), array![2.0].view());
        certified(array![[3.0, 1.0, 0.0]].view(), array![1.0].view(), array![0.5, 0.25, 0.25].view());
        certified(
            Array2::zeros((4, 3)).view(),
            Array1::from_elem(4, 0.25).view(),
            Array1::from_elem(3, 1.0 / 3.0).view(),
        );
        let cost = array![[1.0, 2.0, 3.0], [4.0, 1.0, 1.0], [2.0, 2.0, 0.5]];
        certified(cost.view(), array![0.0, 0.5, 0.5].view(), array![0.5, 0.0, 0.5].view());
        certified((&cost * 1e9).view(), array![1e-3, 1e3, 1.0].view(), array![1.0, 1e3, 1e-3].view());
    }

    #[test]
    fn bad_marginals_name_both_sums() {
        let message = |a: Array1<f64>, b: Array1<f64>| {
            exact(Array2::zeros((2, 2)).view(), a.view(), b.view()).unwrap_err().to_string()
        };
        assert!(message(array![0.5, 0.5], array![0.5, 0.4]).contains("a sums to 1 and b to 0.9"));
        assert!(message(array![0.5, -0.5], array![0.0, 0.0]).contains("mass 1"));
        assert!(message(array![1.0], array![0.5, 0.5]).contains("2 rows"));
        assert!(message(array![0.0, 0.0], array![0.0, 0.0]).contains("some mass"));
        assert!(exact(array![[f64::NAN]].view(), array![1.0].view(), array![1.0].view()).is_err());
    }
}
