//! Documents name only what there is: files, commands and options of the program, targets of make, items of the source, and
//! headings that links lead to.

mod checks;
mod markdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use checks::{Facts, code_items, defines, problems};
use markdown::Document;

/// Documents beside all of `docs/`. (The changelog also names what is gone.)
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "CONTRIBUTING.md",
    "kernels/README.md",
    "slurm/README.md",
    "slurm/empiar/README.md",
    "tests/emulator/README.md",
    "benches/results/README.md",
];

/// The page whose "Code:" paragraphs name items.
const METHOD: &str = "docs/method.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below `folder`, and their folders.
fn add_paths(folder: &Path, below: &str, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            // What is built or fetched is no part of the repository.
            if ["target", ".git", "demo"].contains(&name.as_str()) {
                continue;
            }
            paths.insert(format!("{name}/"));
            add_paths(&entry.path(), &format!("{name}/"), paths);
        } else {
            paths.insert(name);
        }
    }
}

fn help_of(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cryosplat-mpi"));
    let output = program.args(command.split_whitespace()).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command} --help: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
    lines
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn add_help(command: &str, help: &mut BTreeMap<String, String>) {
    let text = help_of(command);
    for name in commands(&text) {
        add_help(format!("{command} {name}").trim(), help);
    }
    help.insert(command.to_owned(), text);
}

fn facts() -> Facts {
    let mut paths = BTreeSet::new();
    add_paths(root(), "", &mut paths);
    let mut help = BTreeMap::new();
    add_help("", &mut help);
    let makefile = read("Makefile");
    let target = |line: &str| {
        line.split_once(':').map(|(name, _)| name.to_owned()).filter(|name| !name.contains([' ', '\t', '=']))
    };
    let pages = paths.iter().filter(|path| path.starts_with("docs/") && path.ends_with(".md")).cloned();
    let names: Vec<String> = pages.chain(DOCUMENTS.map(str::to_owned)).collect();
    let documents = names.into_iter().map(|path| (path.clone(), Document::read(&read(&path)))).collect();
    Facts { targets: makefile.lines().filter_map(target).collect(), paths, help, documents }
}

#[test]
fn documents_name_only_what_there_is() {
    let facts = facts();
    // Readers that found nothing would pass everything.
    assert!(facts.help.contains_key("export star") && facts.help.len() > 15, "{:?}", facts.help.keys());
    assert!(facts.targets.contains("test"));
    let counts = |of: fn(&Document) -> usize| facts.documents.values().map(of).sum::<usize>();
    assert!(
        counts(|d| d.spans.len()) > 300
            && counts(|d| d.commands.len()) > 30
            && counts(|d| d.links.len()) > 50
    );
    let found: Vec<String> = facts.documents.keys().flat_map(|path| problems(path, &facts)).collect();
    assert!(found.is_empty(), "{} names lead nowhere:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_method_names_items_that_their_files_define() {
    let items = code_items(&Document::read(&read(METHOD)));
    assert!(items.len() > 80, "{} items", items.len());
    let missing = |(file, item, line): &(String, String, usize)| {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        (!defines(&source, item)).then(|| format!("{METHOD}:{line}: {file} does not define {item}"))
    };
    let found: Vec<String> = items.iter().filter_map(missing).collect();
    assert!(found.is_empty(), "{} items are not there:\n{}", found.len(), found.join("\n"));
}
