//! Small symmetric systems.

use super::REFINED;

/// A symmetric matrix of the refined numbers.
pub(crate) type Matrix = [[f64; REFINED]; REFINED];
/// A number for each refined one.
pub(crate) type Vector = [f64; REFINED];

/// The solution of `matrix` x = `right` for the refined numbers, 0 for the others. `None` unless the matrix is positive definite.
pub(crate) fn solve(matrix: &Matrix, right: &Vector, is_refined: impl Fn(usize) -> bool) -> Option<Vector> {
    let used: Vec<usize> = (0..REFINED).filter(|&p| is_refined(p)).collect();
    let n = used.len();
    let mut lower = [[0.0f64; REFINED]; REFINED];
    for i in 0..n {
        for j in 0..=i {
            let rest = matrix[used[i]][used[j]] - (0..j).map(|k| lower[i][k] * lower[j][k]).sum::<f64>();
            lower[i][j] = if i == j {
                if !(rest > 0.0 && rest.is_finite()) {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / lower[j][j]
            };
        }
    }
    let mut x = [0.0; REFINED];
    for i in 0..n {
        x[i] = (right[used[i]] - (0..i).map(|k| lower[i][k] * x[k]).sum::<f64>()) / lower[i][i];
    }
    for i in (0..n).rev() {
        x[i] = (x[i] - (i + 1..n).map(|k| lower[k][i] * x[k]).sum::<f64>()) / lower[i][i];
    }
    let mut solution = [0.0; REFINED];
    used.iter().zip(x).for_each(|(&p, value)| solution[p] = value);
    solution.iter().all(|v| v.is_finite()).then_some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_no_solution() {
        let is_refined = |p| p != 5;
        let mut matrix = [[0.0; REFINED]; REFINED];
        (0..REFINED).for_each(|p| matrix[p][p] = 2.0);
        matrix[0][3] = 1.0;
        matrix[3][0] = 1.0;
        let right = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let x = solve(&matrix, &right, is_refined).unwrap();
        assert_eq!(x[5], 0.0);
        for p in 0..5 {
            let product: f64 = (0..5).map(|q| matrix[p][q] * x[q]).sum();
            assert!((product - right[p]).abs() < 1e-12);
        }
        matrix[1][1] = -1.0;
        assert_eq!(solve(&matrix, &right, is_refined), None);
        matrix[1][1] = f64::NAN;
        assert_eq!(solve(&matrix, &right, is_refined), None);
    }
}
