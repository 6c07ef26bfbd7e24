//! Damage to HDF5 files with the HDF5 library: items of another type or shape, missing items, and wrong links.

use std::path::Path;

use hdf5::dataset::{AllocTime, Layout};
use hdf5::types::{
    CompoundField, CompoundType, EnumMember, EnumType, FloatSize, IntSize, TypeDescriptor as Type,
};
use hdf5::{Extents, File, Group, Location, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A data set, or an attribute of an object.
#[derive(Clone, Debug)]
struct Item {
    object: String,
    attribute: Option<String>,
}

/// A change of one item.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Removes it.
    Remove,
    /// Replaces it by one of another type or shape, without values.
    Remake(Type, Extents, Storage),
    /// Replaces it by one of the same type.
    Reshape(Extents, Storage),
    /// Sets all its numbers to this one.
    Fill(f64),
    /// Replaces it by a link to itself, to the root, to nothing, or to another file.
    Link(u8),
    /// Replaces it by a group.
    Group,
}

/// How a data set is stored.
#[derive(Clone, Copy, Debug)]
pub enum Storage {
    /// Allocated in the file on the first write.
    Late,
    Early,
    Compact,
    Chunked,
    Deflated,
    External,
}

fn types() -> Vec<Type> {
    let field = |name: &str, ty, offset, index| CompoundField { name: name.into(), ty, offset, index };
    let float = Type::Float(FloatSize::U8);
    let member = |name: &str, value| EnumMember { name: name.into(), value };
    vec![
        Type::Integer(IntSize::U1),
        Type::Unsigned(IntSize::U8),
        Type::Float(FloatSize::U2),
        Type::Float(FloatSize::U4),
        float.clone(),
        Type::Boolean,
        Type::Enum(EnumType {
            size: IntSize::U4,
            signed: true,
            members: vec![member("TRUE", 0), member("FALSE", 1), member("NEITHER", 7)],
        }),
        Type::FixedAscii(5),
        Type::FixedUnicode(1 << 12),
        Type::VarLenAscii,
        Type::VarLenUnicode,
        Type::FixedArray(Box::new(float.clone()), 3),
        Type::VarLenArray(Box::new(float.clone())),
        Type::Compound(CompoundType {
            fields: vec![field("a", float, 0, 0), field("b", Type::VarLenUnicode, 8, 1)],
            size: 16,
        }),
    ]
}

fn shapes() -> Vec<Extents> {
    let simple: [&[usize]; 12] = [
        &[0],
        &[1],
        &[2],
        &[7],
        &[9],
        &[99],
        &[1 << 40],
        &[1 << 62, 1],
        &[1 << 31, 1 << 31],
        &[7, 1 << 20, 1 << 20],
        &[0, 1 << 62],
        &[2, 3, 4, 5, 6],
    ];
    let simple = simple.map(|shape| Extents::from(shape.to_vec()));
    [Extents::Null, Extents::Scalar].into_iter().chain(simple).collect()
}

/// Up to three edits, each with the index of its item.
pub fn edits() -> impl Strategy<Value = Vec<(Index, Edit)>> {
    use Storage::*;
    let storage = || select(&[Late, Early, Compact, Chunked, Deflated, External][..]);
    let numbers = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -1.0,
        1e300,
        -1e300,
        7.0,
        4_294_967_295.0,
        1.8446744e19,
        1e-320,
    ];
    let edit = prop_oneof![
        1 => Just(Edit::Remove),
        4 => (select(types()), select(shapes()), storage()).prop_map(|(t, shape, how)| Edit::Remake(t, shape, how)),
        4 => (select(shapes()), storage()).prop_map(|(shape, how)| Edit::Reshape(shape, how)),
        4 => select(numbers.to_vec()).prop_map(Edit::Fill),
        1 => (0..4u8).prop_map(Edit::Link),
        1 => Just(Edit::Group),
    ];
    vec((any::<Index>(), edit), 1..4)
}

/// Applies the edits to the file at `path`. Skips impossible edits.
pub fn edit(path: &Path, edits: &[(Index, Edit)]) {
    let file = File::open_rw(path).unwrap();
    let mut items = Vec::new();
    collect(&file, "", &mut items);
    for (index, edit) in edits {
        let _ = apply(&file, index.get(&items), edit);
    }
    let _ = file.close();
}

/// Collects all items below `group`, whose path is `prefix`.
fn collect(group: &Group, prefix: &str, items: &mut Vec<Item>) {
    let mut attributes = |object: &Location, path: &str| {
        let names = object.attr_names().unwrap_or_default();
        items.extend(names.into_iter().map(|name| Item { object: path.to_owned(), attribute: Some(name) }));
    };
    attributes(group, prefix);
    for name in group.member_names().unwrap_or_default() {
        let path = format!("{prefix}/{name}");
        if let Ok(inner) = group.group(&name) {
            collect(&inner, &path, items);
        } else if let Ok(set) = group.dataset(&name) {
            let mut own = set.attr_names().unwrap_or_default();
            own.sort();
            items.extend(own.into_iter().map(|name| Item { object: path.clone(), attribute: Some(name) }));
            items.push(Item { object: path, attribute: None });
        }
    }
}

fn apply(file: &File, item: &Item, edit: &Edit) -> Result<()> {
    match &item.attribute {
        None => apply_to_set(file, &item.object, edit),
        Some(name) => match file.group(if item.object.is_empty() { "/" } else { &item.object }) {
            Ok(group) => apply_to_attribute(&group, name, edit),
            Err(_) => apply_to_attribute(&*file.dataset(&item.object)?, name, edit),
        },
    }
}

fn apply_to_attribute(object: &Location, name: &str, edit: &Edit) -> Result<()> {
    let old = object.attr(name)?;
    let make = |kind: &Type, shape: &Extents| {
        object.delete_attr(name)?;
        object.new_attr_builder().empty_as(kind).shape(shape.clone()).create(name).map(drop)
    };
    match edit {
        Edit::Remove | Edit::Link(_) | Edit::Group => object.delete_attr(name),
        Edit::Remake(kind, shape, _) => make(kind, shape),
        Edit::Reshape(shape, _) => make(&old.dtype()?.to_descriptor()?, shape),
        Edit::Fill(number) => old.write_scalar(number),
    }
}

fn apply_to_set(file: &File, path: &str, edit: &Edit) -> Result<()> {
    let old = file.dataset(path)?;
    let make = |kind: &Type, shape: &Extents, storage: Storage| {
        file.unlink(path)?;
        let builder = file.new_dataset_builder();
        let small = is_small(&shape.dims());
        let piece = vec![3; shape.ndim()];
        let builder = match storage {
            Storage::Late => builder.alloc_time(Some(AllocTime::Late)),
            Storage::Early if small => builder.alloc_time(Some(AllocTime::Early)),
            Storage::Compact if small => builder.layout(Layout::Compact),
            Storage::Chunked => builder.chunk(piece),
            Storage::Deflated => builder.chunk(piece).shuffle(),
            Storage::External => builder.with_dcpl(|list| list.external("/dev/zero", 0, 1 << 30)),
            _ => builder,
        };
        builder.empty_as(kind).shape(shape.clone()).create(path).map(drop)
    };
    match edit {
        Edit::Remove => file.unlink(path),
        Edit::Remake(kind, shape, storage) => make(kind, shape, *storage),
        Edit::Reshape(shape, storage) => make(&old.dtype()?.to_descriptor()?, shape, *storage),
        Edit::Fill(number) if is_small(&old.shape()) => old.write_raw(&vec![*number; old.size()]),
        Edit::Fill(_) => Ok(()),
        Edit::Link(to) => {
            file.unlink(path)?;
            match to {
                0 => file.link_soft(path, path),
                1 => file.link_soft("/", path),
                2 => file.link_soft("/nowhere", path),
                _ => file.link_external("none.h5", "/images", path),
            }
        }
        Edit::Group => {
            file.unlink(path)?;
            file.create_group(path).map(drop)
        }
    }
}

fn is_small(shape: &[usize]) -> bool {
    shape.iter().try_fold(1usize, |all, &count| all.checked_mul(count)).is_some_and(|all| all < 1 << 16)
}
