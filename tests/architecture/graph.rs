//! Which file of `src` uses which.
//!
//! The rule: an arrow goes from a file to the file that *defines* what it names. Declaring a module (`mod x;`), re-exporting
//! from it (`pub use x::Y;`) and importing a module by name (`use super::x;`) are no arrows; naming an item through them is.
//! Items of tests, comments and literals do not count. In circles the way from a folder's own module into the folder does
//! not count either ([`leads_into`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{Token, tokens, without_tests};

/// The sources: path below `src` with `/`, text.
pub type Sources = BTreeMap<String, String>;

/// A use of another file, or of another crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: String,
    /// A path below `src`, or the name of a crate.
    pub to: String,
    pub line: usize,
}

/// All arrows of a crate.
#[derive(Debug, Default)]
pub struct Graph {
    /// Between files; none from a file to itself.
    pub arrows: BTreeSet<Arrow>,
    /// To names that are neither modules nor items of the crate: other crates, and types.
    pub outward: BTreeSet<Arrow>,
}

type Path = Vec<String>;

/// What a file declares and imports.
#[derive(Debug, Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// What each imported name stands for: from the crate's root, or from another crate.
    imports: BTreeMap<String, Path>,
    uses: Vec<Use>,
    /// Paths in code, with the inline modules that they stand in.
    paths: Vec<(Path, Path, usize)>,
    /// Single names in code.
    names: BTreeSet<String>,
}

/// An item of a `use`.
#[derive(Debug)]
struct Use {
    path: Path,
    name: String,
    public: bool,
    inline: Path,
    line: usize,
}

/// Reads the sources of a crate.
///
/// # Errors
/// Where a file is not Rust.
pub fn read(sources: &Sources) -> Result<Graph, String> {
    let mut modules: BTreeMap<Path, Module> = BTreeMap::new();
    let mut only_tests = BTreeSet::new();
    for (file, text) in sources {
        let path = module_of(file);
        let all = tokens(text).map_err(|error| format!("src/{file}: {error}"))?;
        let (kept, tests) = without_tests(all);
        only_tests.extend(tests.into_iter().map(|name| joined(&path, &name)));
        modules.insert(path, parse(file, &kept));
    }
    modules.retain(|path, _| !only_tests.iter().any(|test: &Path| path.starts_with(test)));
    for path in modules.keys().cloned().collect::<Vec<_>>() {
        let module = modules.get_mut(&path).expect("it is a key");
        let imports =
            module.uses.iter().filter(|item| item.inline.is_empty()).map(|item| {
                (item.name.clone(), absolute(&path, &item.path, &module.children, &BTreeMap::new()))
            });
        module.imports = imports.collect();
    }
    Ok(arrows(&modules))
}

fn joined(path: &[String], name: &str) -> Path {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// The module of a file: `a/b.rs` and `a/b/mod.rs` are `a::b`, `lib.rs` and `main.rs` the root.
fn module_of(file: &str) -> Path {
    let stem = file.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    match stem {
        "lib" => Vec::new(),
        _ => stem.split('/').map(str::to_owned).collect(),
    }
}

fn parse(file: &str, all: &[Token]) -> Module {
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    let (mut inline, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let text = |at: usize| all.get(at).map_or("", |token| token.text.as_str());
    let before = |at: usize| if at == 0 { "" } else { text(at - 1) };
    let mut at = 0;
    while at < all.len() {
        let line = all[at].line;
        let inside: Path = inline.iter().map(|(name, _)| name.clone()).collect();
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|&(_, of)| of <= depth);
            }
            "mod" if text(at + 2) == ";" => {
                module.children.insert(text(at + 1).to_owned());
                at += 2;
            }
            "mod" if text(at + 2) == "{" => {
                inline.push((text(at + 1).to_owned(), depth + 1));
                depth += 1;
                at += 2;
            }
            "use" => {
                let end = (at..all.len()).find(|&i| text(i) == ";").unwrap_or(all.len());
                let public = at > 0 && (before(at) == "pub" || before(at) == ")");
                let mut items = Vec::new();
                use_tree(&all[at + 1..end], &[], &mut items);
                let items = items.into_iter().map(|(path, name)| Use {
                    path,
                    name,
                    public,
                    inline: inside.clone(),
                    line,
                });
                module.uses.extend(items);
                at = end;
            }
            _ if all[at].is_name() && before(at) != "::" && before(at) != "." => {
                let mut path = vec![text(at).to_owned()];
                let mut end = at;
                while text(end + 1) == "::" && all.get(end + 2).is_some_and(Token::is_name) {
                    path.push(text(end + 2).to_owned());
                    end += 2;
                }
                let defined =
                    ["fn", "struct", "enum", "trait", "type", "const", "static"].contains(&before(at));
                if path.len() > 1 {
                    module.paths.push((path, inside, line));
                } else if !defined {
                    module.names.extend(path);
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    module
}

/// The items of a `use`, each with the name that it has here.
fn use_tree(tree: &[Token], before: &[String], items: &mut Vec<(Path, String)>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < tree.len() {
        match tree[at].text.as_str() {
            "::" | "*" => {}
            "{" => {
                let (mut depth, mut start) = (0, at + 1);
                for (i, token) in tree.iter().enumerate().skip(at) {
                    match token.text.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if (depth == 1 && token.text == ",") || depth == 0 {
                        use_tree(&tree[start..i], &path, items);
                        start = i + 1;
                    }
                    if depth == 0 {
                        return;
                    }
                }
                return;
            }
            "as" => {
                let name = tree.get(at + 1).map_or(String::new(), |token| token.text.clone());
                items.push((path, name));
                return;
            }
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    if path.len() > before.len() || tree.iter().any(|token| token.text == "self" || token.text == "*") {
        let name = path.last().cloned().unwrap_or_default();
        items.push((path, name));
    }
}

/// A path from the crate's root, as it stands in a module with these children and imports.
fn absolute(
    module: &[String],
    path: &[String],
    children: &BTreeSet<String>,
    imports: &BTreeMap<String, Path>,
) -> Path {
    let head = path[0].as_str();
    let mut from = match head {
        "crate" | "cryosplat_mpi" => return path[1..].to_vec(),
        "self" => module.to_vec(),
        "super" => {
            let up = path.iter().take_while(|name| *name == "super").count();
            let mut from = module[..module.len().saturating_sub(up)].to_vec();
            from.extend_from_slice(&path[up..]);
            return from;
        }
        _ if children.contains(head) => joined(module, head),
        _ => match imports.get(head) {
            Some(import) => import.clone(),
            None => vec![OUTSIDE.to_owned(), head.to_owned()],
        },
    };
    from.extend_from_slice(&path[1..]);
    from
}

/// The first name of a path that leads out of the crate.
const OUTSIDE: &str = "::";

/// Where a path leads.
enum Place {
    /// To an item that a file defines.
    Item(String),
    /// To a module, which is no use yet.
    Module,
    Outside(String),
}

fn resolve(modules: &BTreeMap<Path, Module>, path: &[String], left: usize) -> Place {
    if path.first().is_some_and(|name| name == OUTSIDE) {
        return Place::Outside(path[1].clone());
    }
    let depth = (0..=path.len()).rev().find(|&n| modules.contains_key(&path[..n])).unwrap_or(0);
    let Some(module) = modules.get(&path[..depth]) else { return Place::Module };
    let Some(item) = path.get(depth) else { return Place::Module };
    match module.imports.get(item) {
        // An import that stands for itself would never end.
        Some(import) if left > 0 && import != &path[..=depth] => {
            let further: Path = import.iter().chain(&path[depth + 1..]).cloned().collect();
            resolve(modules, &further, left - 1)
        }
        _ => Place::Item(module.file.clone()),
    }
}

fn arrows(modules: &BTreeMap<Path, Module>) -> Graph {
    let mut graph = Graph::default();
    for (path, module) in modules {
        let mut add = |target: &[String], line: usize| {
            let arrow = |to| Arrow { from: module.file.clone(), to, line };
            match resolve(modules, target, 8) {
                Place::Item(file) if file != module.file => _ = graph.arrows.insert(arrow(file)),
                Place::Outside(name) => _ = graph.outward.insert(arrow(name)),
                _ => {}
            }
        };
        for item in &module.uses {
            let here: Path = path.iter().chain(&item.inline).cloned().collect();
            // A re-export is a use where the file names it itself.
            if !item.public || module.names.contains(&item.name) {
                add(&absolute(&here, &item.path, &module.children, &BTreeMap::new()), item.line);
            }
        }
        for (used, inline, line) in &module.paths {
            let here: Path = path.iter().chain(inline).cloned().collect();
            add(&absolute(&here, used, &module.children, &module.imports), *line);
        }
    }
    graph
}

/// True where `from` is the parent module of `to`, or a parent of that: the entrance of the folder that `to` lies in, which
/// calls what it declares and holds what its children share.
pub fn leads_into(from: &str, to: &str) -> bool {
    let (from, to) = (module_of(from), module_of(to));
    to.len() > from.len() && to.starts_with(&from)
}

/// A circle of files in each set of files that all lead to each other: each leads to the next, and the last is the first.
pub fn circles(arrows: &BTreeSet<Arrow>) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        next.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let (mut found, mut in_a_circle) = (Vec::new(), BTreeSet::new());
    for &start in next.keys() {
        if in_a_circle.contains(start) {
            continue;
        }
        let forward = reached(&next, start);
        let Some(circle) = shortest_way_back(&next, start) else { continue };
        in_a_circle.extend(forward.into_iter().filter(|file| reached(&next, file).contains(start)));
        found.push(circle.into_iter().map(str::to_owned).collect());
    }
    found
}

/// All that `start` leads to.
fn reached<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![start]);
    while let Some(file) = waiting.pop() {
        for &to in next.get(file).into_iter().flatten() {
            if seen.insert(to) {
                waiting.push(to);
            }
        }
    }
    seen
}

fn shortest_way_back<'a>(
    next: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
) -> Option<Vec<&'a str>> {
    let mut ways = std::collections::VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = *way.last().expect("a way has a beginning");
        for &to in next.get(last).into_iter().flatten() {
            let further: Vec<&str> = way.iter().copied().chain([to]).collect();
            if to == start {
                return Some(further);
            }
            if seen.insert(to) {
                ways.push_back(further);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|&(file, text)| (file.to_owned(), text.to_owned())).collect();
        read(&sources)
            .unwrap()
            .arrows
            .into_iter()
            .map(|arrow| format!("{} > {}", arrow.from, arrow.to))
            .collect()
    }

    #[test]
    fn an_arrow_goes_to_the_file_that_defines_the_item() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "pub mod x; pub use x::Y; pub fn own() {}"),
            ("a/x.rs", "pub struct Y; impl Y { pub fn new() {} }"),
            ("b.rs", "use crate::a; fn f() { a::Y::new() }"),
        ];
        assert_eq!(graph(&files), ["b.rs > a/x.rs"]);
        let with = |text| graph(&[files[0], files[1], files[2], ("b.rs", text)]);
        assert_eq!(with("use crate::a::{self, own};"), ["b.rs > a/mod.rs"]);
        assert_eq!(with("use crate::a::{x::{self as other, Y as Z}};"), ["b.rs > a/x.rs"]);
        assert_eq!(with("fn f() -> crate::a::x::Y { g }"), ["b.rs > a/x.rs"]);
        assert_eq!(with("fn f() { let a = self.a.x; } // crate::a::Y"), [""; 0]);
        assert_eq!(with("#[cfg(test)] mod tests { use crate::a::Y; }"), [""; 0]);
        assert_eq!(with("mod inner { fn f() { super::g() } } fn g() {}"), [""; 0]);
        assert_eq!(with("macro_rules! m { () => { $crate::a::own() } }"), ["b.rs > a/mod.rs"]);
    }

    #[test]
    fn declaring_and_re_exporting_is_no_use_but_naming_is() {
        let parent = |text| {
            graph(&[("lib.rs", "mod a;"), ("a/mod.rs", text), ("a/x.rs", "use super::own; pub fn y() {}")])
        };
        assert_eq!(parent("pub mod x; pub use x::y; pub fn own() {}"), ["a/x.rs > a/mod.rs"]);
        let both = ["a/mod.rs > a/x.rs", "a/x.rs > a/mod.rs"];
        assert_eq!(parent("mod x; pub fn own() { x::y() }"), both);
        assert_eq!(parent("mod x; use x::y; pub fn own() { y() }"), both);
        assert_eq!(parent("mod x; pub(crate) use x::y; pub fn own() { y() }"), both);
    }

    #[test]
    fn tests_in_files_of_their_own_and_other_crates_are_apart() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "use mpi::World; #[cfg(test)] mod tests;"),
            ("a/tests.rs", "use crate::b;"),
        ];
        assert_eq!(graph(&files), [""; 0]);
        let sources = files.iter().map(|&(file, text)| (file.to_owned(), text.to_owned())).collect();
        let outward = read(&sources).unwrap().outward;
        assert_eq!(outward.into_iter().map(|arrow| arrow.to).collect::<Vec<_>>(), ["mpi"]);
    }

    #[test]
    fn circles_are_found_once_each() {
        let arrow = |from: &str, to: &str| Arrow { from: from.into(), to: to.into(), line: 1 };
        let arrows = BTreeSet::from([
            arrow("a", "b"),
            arrow("b", "c"),
            arrow("c", "a"),
            arrow("c", "d"),
            arrow("d", "e"),
            arrow("e", "d"),
            arrow("f", "a"),
        ]);
        assert_eq!(circles(&arrows), [vec!["a", "b", "c", "a"], vec!["d", "e", "d"]]);
        assert!(circles(&BTreeSet::from([arrow("a", "b"), arrow("a", "c"), arrow("b", "c")])).is_empty());
        assert!(leads_into("a/mod.rs", "a/b/c.rs") && leads_into("a.rs", "a/b.rs"));
        assert!(
            !leads_into("a/b.rs", "a/mod.rs")
                && !leads_into("a/b.rs", "a/c.rs")
                && !leads_into("a.rs", "ab/c.rs")
        );
    }
}
