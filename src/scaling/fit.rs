//! Non-negative least squares for a few parameters.

/// The non-negative parameters `x` that minimise `|rows x - values|^2`; each row has one entry per parameter.
///
/// The solution is the unconstrained one of the parameters above zero. Every subset is tried, since there are few parameters. Of
/// linearly dependent columns, all but one get zero.
///
/// # Panics
/// If the rows differ in length, or the number of values differs.
pub fn nonnegative(rows: &[Vec<f64>], values: &[f64]) -> Vec<f64> {
    assert_eq!(rows.len(), values.len());
    let parameters = rows.first().map_or(0, Vec::len);
    let mut best = vec![0.0; parameters];
    let mut best_sum = sum_of_squares(rows, values, &best);
    for subset in 1..1usize << parameters {
        let chosen: Vec<usize> = (0..parameters).filter(|p| subset >> p & 1 == 1).collect();
        let Some(solution) = solve(rows, values, &chosen) else { continue };
        if solution.iter().any(|&x| x < 0.0) {
            continue;
        }
        let mut all = vec![0.0; parameters];
        chosen.iter().zip(solution).for_each(|(&p, x)| all[p] = x);
        let sum = sum_of_squares(rows, values, &all);
        if sum < best_sum {
            (best, best_sum) = (all, sum);
        }
    }
    best
}

fn sum_of_squares(rows: &[Vec<f64>], values: &[f64], x: &[f64]) -> f64 {
    let residual = |(row, value): (&Vec<f64>, &f64)| dot(row, x) - value;
    rows.iter().zip(values).map(residual).map(|d| d * d).sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The least-squares solution for the `chosen` columns by modified Gram-Schmidt; `None` if they are linearly dependent.
fn solve(rows: &[Vec<f64>], values: &[f64], chosen: &[usize]) -> Option<Vec<f64>> {
    /// Minimum relative length of a column after projecting out the others.
    const MIN_LENGTH: f64 = 1e-6;
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let mut upper = vec![vec![0.0; chosen.len()]; chosen.len()];
    for (k, &column) in chosen.iter().enumerate() {
        let mut vector: Vec<f64> = rows.iter().map(|row| row[column]).collect();
        let length = dot(&vector, &vector).sqrt();
        for (i, unit) in basis.iter().enumerate() {
            upper[i][k] = dot(unit, &vector);
            vector.iter_mut().zip(unit).for_each(|(v, u)| *v -= upper[i][k] * u);
        }
        let rest = dot(&vector, &vector).sqrt();
        if rest <= MIN_LENGTH * length {
            return None;
        }
        upper[k][k] = rest;
        vector.iter_mut().for_each(|v| *v /= rest);
        basis.push(vector);
    }
    let mut solution = vec![0.0; chosen.len()];
    let mut rest = values.to_vec();
    let mut projections = vec![0.0; chosen.len()];
    for (k, unit) in basis.iter().enumerate() {
        projections[k] = dot(unit, &rest);
        rest.iter_mut().zip(unit).for_each(|(v, u)| *v -= projections[k] * u);
    }
    for k in (0..chosen.len()).rev() {
        let known: f64 = (k + 1..chosen.len()).map(|j| upper[k][j] * solution[j]).sum();
        solution[k] = (projections[k] - known) / upper[k][k];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn exact_values_recover_the_parameters() {
        let rows: Vec<Vec<f64>> =
            (1..8).map(|i| vec![1.0, f64::from(i), f64::from(i * i), 1.0 / f64::from(i)]).collect();
        for wanted in [[0.5, 2.0, 0.25, 3.0], [0.0, 1.0, 0.0, 2.0], [0.0; 4]] {
            let values: Vec<f64> = rows.iter().map(|row| dot(row, &wanted)).collect();
            let found = nonnegative(&rows, &values);
            assert!(close(&found, &wanted), "{found:?} for {wanted:?}");
        }
    }

    #[test]
    fn a_parameter_that_would_be_negative_is_zero() {
        let rows: Vec<Vec<f64>> = (1..6).map(|i| vec![1.0, f64::from(i)]).collect();
        let falling = [9.0, 7.0, 6.0, 4.0, 1.0];
        assert!(close(&nonnegative(&rows, &falling), &[5.4, 0.0]), "the mean, without a slope");
    }

    #[test]
    fn dependent_columns_and_empty_input_are_accepted() {
        let rows = vec![vec![1.0, 2.0], vec![2.0, 4.0]];
        let found = nonnegative(&rows, &[3.0, 6.0]);
        assert!((found[0] + 2.0 * found[1] - 3.0).abs() < 1e-9 && found.contains(&0.0), "{found:?}");
        assert!(nonnegative(&[], &[]).is_empty());
    }
}
