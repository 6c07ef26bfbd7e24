//! The rooms of `src` as docs/architecture.md lists them: every file is in one, arrows between them go down the list only,
//! and no files lead to each other in a circle. See [`graph`] for what an arrow is.

mod graph;
mod lexer;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use graph::{Arrow, Graph, Sources};

/// A room: a folder or a file of `src`.
#[derive(Clone, Debug, PartialEq)]
struct Room {
    /// Its path below `src`, without `.rs`.
    name: String,
    /// Rooms and crates that it must not use, though they are below it.
    never: Vec<String>,
}

/// The cells of each row of the table between `<!-- NAME -->` and `<!-- /NAME -->`, without its head.
fn rows<'a>(document: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let (start, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let table = document.split(start.as_str()).nth(1).and_then(|rest| rest.split(end.as_str()).next());
    let rows = table.unwrap_or_default().lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim().trim_matches('|').split('|').collect()).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rooms of the list: the first cell of a row names a room, the last one what it must not use.
fn rooms(document: &str) -> Vec<Room> {
    let room = |cells: Vec<&str>| {
        let name = quoted(cells.first()?).into_iter().next()?;
        Some(Room { name, never: quoted(cells.last()?) })
    };
    rows(document, "rooms").into_iter().filter_map(room).collect()
}

/// The place in the list of the room that a file is in: the one with the longest path.
fn room_of(file: &str, rooms: &[Room]) -> Option<usize> {
    let stem = file.trim_end_matches(".rs");
    let holds = |room: &Room| stem == room.name || stem.starts_with(&format!("{}/", room.name));
    let all = rooms.iter().enumerate().filter(|(_, room)| holds(room));
    all.max_by_key(|(_, room)| room.name.len()).map(|(place, _)| place)
}

/// The crate's roots, which declare rooms and are in none.
const ROOTS: [&str; 2] = ["lib.rs", "main.rs"];

/// The crates that only some rooms use, from the table between `<!-- crates -->` and `<!-- /crates -->`.
fn crates(document: &str) -> Vec<(String, Vec<String>)> {
    rows(document, "crates")
        .into_iter()
        .filter_map(|cells| Some((quoted(cells.first()?).pop()?, quoted(cells.last()?))))
        .collect()
}

/// What is wrong with the use of crates, a line each.
fn crate_violations(rooms: &[Room], crates: &[(String, Vec<String>)], graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for Arrow { from, to, line } in &graph.outward {
        let Some((_, allowed)) = crates.iter().find(|(name, _)| name == to) else { continue };
        let room = room_of(from, rooms).map_or("", |room| &rooms[room].name);
        if !allowed.iter().any(|name| name == room) {
            found.push(format!(
                "src/{from}:{line}: {room} uses the crate {to}, which belongs to {}",
                allowed.join(", ")
            ));
        }
    }
    for (name, allowed) in crates {
        let used = |room: &&String| {
            graph.outward.iter().any(|arrow| {
                arrow.to == *name && room_of(&arrow.from, rooms).is_some_and(|at| rooms[at].name == **room)
            })
        };
        if let Some(room) = allowed.iter().find(|room| !used(room)) {
            found.push(format!("the list lets {room} use the crate {name}, which it does not"));
        }
    }
    found
}

/// What is wrong with the arrows between rooms, a line each.
fn violations(sources: &Sources, rooms: &[Room], graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for file in sources.keys().filter(|file| !ROOTS.contains(&file.as_str())) {
        if room_of(file, rooms).is_none() {
            found.push(format!("src/{file} is in no room of the list"));
        }
    }
    for room in rooms {
        let place = rooms.iter().position(|other| other.name == room.name);
        if !sources.keys().any(|file| room_of(file, rooms) == place) {
            found.push(format!("the list has the room {}, and src has no file of it", room.name));
        }
    }
    for Arrow { from, to, line } in graph.arrows.iter().filter(|arrow| !ROOTS.contains(&arrow.from.as_str()))
    {
        let (Some(room), Some(other)) = (room_of(from, rooms), room_of(to, rooms)) else { continue };
        if other < room {
            let [room, other] = [room, other].map(|place| &rooms[place].name);
            found.push(format!("src/{from}:{line}: {room} uses {other} (src/{to}), which is above it"));
        }
    }
    for Arrow { from, to, line } in graph.arrows.iter().chain(&graph.outward) {
        let Some(room) = room_of(from, rooms) else { continue };
        let used = room_of(to, rooms).map_or(to, |other| &rooms[other].name);
        if room_of(to, rooms) != Some(room) && rooms[room].never.contains(used) {
            found.push(format!("src/{from}:{line}: {} must not use {used}", rooms[room].name));
        }
    }
    let between =
        graph.arrows.iter().filter(|arrow| !graph::leads_into(&arrow.from, &arrow.to)).cloned().collect();
    for circle in graph::circles(&between) {
        found.push(format!("a circle of files: {}", circle.join(" > ")));
    }
    found
}

fn add_sources(folder: &Path, below: &str, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            add_sources(&entry.path(), &format!("{name}/"), sources);
        } else if name.ends_with(".rs") {
            sources.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[test]
fn rooms_use_only_rooms_below_them_and_no_files_form_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let rooms = rooms(&document);
    let mut sources = Sources::new();
    add_sources(&root.join("src"), "", &mut sources);
    let graph = graph::read(&sources).unwrap();
    // A reader that found nothing would pass everything.
    let distinct: BTreeSet<_> = graph.arrows.iter().map(|arrow| (&arrow.from, &arrow.to)).collect();
    assert!(distinct.len() > 2 * sources.len(), "{} arrows of {} files", distinct.len(), sources.len());
    let mut found = violations(&sources, &rooms, &graph);
    found.extend(crate_violations(&rooms, &crates(&document), &graph));
    assert!(found.is_empty(), "{} violations of docs/architecture.md:\n{}", found.len(), found.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "text\n<!-- rooms -->\n| Room | What | Never uses |\n|---|---|---|\n| `top` | first | |\n\
                         | [`top/inner`](x) | within | |\n| `low` | `code` | `mpi`, `base` |\n| `base` | last | |\n<!-- /rooms -->\n| `no` | |";

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let all = [("lib.rs", ""), ("top/mod.rs", ""), ("top/inner.rs", ""), ("low.rs", ""), ("base.rs", "")];
        let sources: Sources = all.iter().chain(files).map(|&(f, t)| (f.to_owned(), t.to_owned())).collect();
        let graph = graph::read(&sources).unwrap();
        violations(&sources, &rooms(TABLE), &graph)
    }

    #[test]
    fn the_list_is_read_in_its_order() {
        let names: Vec<String> = rooms(TABLE).into_iter().map(|room| room.name).collect();
        assert_eq!(names, ["top", "top/inner", "low", "base"]);
        assert_eq!(rooms(TABLE)[2].never, ["mpi", "base"]);
    }

    #[test]
    fn arrows_down_pass_and_each_planted_fault_is_found() {
        assert!(
            check(&[
                ("top/mod.rs", "use crate::low::X; use crate::top::inner::Y;"),
                ("low.rs", "pub struct X;")
            ])
            .is_empty()
        );
        assert!(check(&[("top/inner/deep.rs", "use crate::low::X;")]).is_empty());
        let only = |files: &[(&str, &str)], text: &str| {
            let found = check(files);
            assert!(found.len() == 1 && found[0].contains(text), "{found:?}");
        };
        only(&[("low.rs", "\nfn f() { crate::top::g() }")], "src/low.rs:2: low uses top");
        only(&[("top/inner.rs", "use super::X;")], "top/inner uses top");
        only(&[("low.rs", "use mpi::World;")], "low must not use mpi");
        only(&[("low.rs", "use crate::base::X;")], "low must not use base");
        only(&[("stray.rs", "")], "src/stray.rs is in no room");
        let there = ("top/a.rs", "use super::b::X;");
        only(&[there, ("top/b.rs", "use super::a::Y;")], "a circle of files: top/a.rs > top/b.rs");
        // The entrance of a folder may lead into it.
        assert!(
            check(&[("top/mod.rs", "mod a; fn f() { a::g() }"), ("top/a.rs", "use super::f;")]).is_empty()
        );
    }

    #[test]
    fn a_crate_in_the_wrong_room_is_found() {
        let sources = Sources::from([("low.rs".to_owned(), "use mpi::World; use other::X;".to_owned())]);
        let graph = graph::read(&sources).unwrap();
        let found = |allowed: &str| {
            let table = format!(
                "<!-- crates -->\n| Crate | Only in |\n|---|---|\n| `mpi` | {allowed} |\n<!-- /crates -->"
            );
            crate_violations(&rooms(TABLE), &crates(&table), &graph).len()
        };
        assert_eq!(["`low`", "`base`", "`low`, `base`"].map(found), [0, 2, 1]);
    }

    #[test]
    fn a_room_without_files_is_found() {
        let sources = Sources::from([("top/mod.rs".to_owned(), String::new())]);
        let found = violations(&sources, &rooms(TABLE), &graph::read(&sources).unwrap());
        assert_eq!(found.len(), 3);
    }
}
