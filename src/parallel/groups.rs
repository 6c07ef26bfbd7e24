//! Assignment of ranks to models: one group of ranks per half.

use mpi::topology::Color;

use super::collective::Collective;
use super::world::World;

/// The models and the group of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Indices of the models that this rank trains: one, or all models if there is only one rank.
    pub models: Vec<usize>,
    /// Rank in the group.
    pub rank: usize,
    /// Number of ranks in the group.
    pub size: usize,
}

/// Assigns rank `rank` of `size` ranks to one of `models` (1 or 2) models: the first half of the ranks trains model 0. If `size` is
/// odd, the first group is larger. A single rank trains both models.
///
/// # Panics
/// If `rank >= size` or `models` is neither 1 nor 2.
pub fn assign(rank: usize, size: usize, models: usize) -> Assignment {
    assert!(rank < size && (1..=2).contains(&models));
    if models == 1 || size == 1 {
        return Assignment { models: (0..models).collect(), rank, size };
    }
    let first = size.div_ceil(2);
    if rank < first {
        Assignment { models: vec![0], rank, size: first }
    } else {
        Assignment { models: vec![1], rank: rank - first, size: size - first }
    }
}

/// Number of ranks that train model `model` of `models` (1 or 2), with `size` ranks in total; see [`assign`].
///
/// # Panics
/// If `models` is neither 1 nor 2, `size` is 0, or `model >= models`.
pub fn group_size(size: usize, models: usize, model: usize) -> usize {
    assert!(model < models);
    if model == 0 { assign(0, size, models).size } else { assign(size - 1, size, models).size }
}

/// World rank of the first rank that trains model `model` of `models` (1 or 2), with `size` ranks in total.
///
/// # Panics
/// As [`group_size`].
pub fn first_rank(size: usize, models: usize, model: usize) -> usize {
    // A single rank trains both models.
    if model == 0 || size == 1 { 0 } else { group_size(size, models, 0) }
}

/// The group of ranks that train one model.
pub struct HalfGroup {
    /// Models of this rank, and its rank in the group.
    pub assignment: Assignment,
    /// Communicator of the group.
    pub collective: Collective,
}

impl HalfGroup {
    /// Splits the world communicator. Collective: every rank must call it.
    pub fn split(world: &World, models: usize) -> Self {
        let assignment = assign(world.rank(), world.size(), models);
        let color = Color::with_value(assignment.models[0] as i32);
        let group = world.split_by_color(color);
        Self { assignment, collective: Collective::new(group, world.watch().clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_is_assigned_and_both_halves_are_trained() {
        assert_eq!(assign(0, 1, 2).models, [0, 1]);
        for size in 2..9 {
            let all: Vec<_> = (0..size).map(|rank| assign(rank, size, 2)).collect();
            for model in 0..2 {
                let group: Vec<_> = all.iter().filter(|a| a.models == [model]).collect();
                assert!(group.len() == size / 2 || group.len() == size.div_ceil(2));
                for (k, member) in group.iter().enumerate() {
                    assert_eq!((member.rank, member.size), (k, group.len()));
                }
            }
        }
        assert_eq!(
            [1, 2, 5].map(|size| [0, 1].map(|model| group_size(size, 2, model))),
            [[1, 1], [1, 1], [3, 2]]
        );
        assert_eq!(group_size(5, 1, 0), 5);
        assert_eq!(
            [1, 2, 5].map(|size| [0, 1].map(|model| first_rank(size, 2, model))),
            [[0, 0], [0, 1], [0, 3]]
        );
        assert_eq!(assign(3, 5, 1), Assignment { models: vec![0], rank: 3, size: 5 });
    }
}
