//! What documents may name: files, commands and options of the program, targets of make, items of source files, anchors.

use std::collections::{BTreeMap, BTreeSet};

use crate::markdown::{Document, Piece};

/// What there is.
pub struct Facts {
    /// All files of the repository, and their folders (with a `/` at the end), by their paths from its root.
    pub paths: BTreeSet<String>,
    /// The help text of each command: "train", "export gmm"; "" is the program's own.
    pub help: BTreeMap<String, String>,
    /// The targets of the makefile.
    pub targets: BTreeSet<String>,
    /// All documents, by path.
    pub documents: BTreeMap<String, Document>,
}

/// Options of other programs that documents name alone, without the program before them.
const FOREIGN_OPTIONS: [&str; 25] = [
    // mpirun, srun, sbatch.
    "--allow-run-as-root",
    "--bind-to",
    "--oversubscribe",
    "--cpus-per-task",
    "--gpu-bind",
    "--gpus-per-task",
    "--kill-on-bad-exit",
    "--mem-per-cpu",
    "--mpi",
    "--open-mode",
    "--signal",
    "--requeue",
    "--mca",
    // EasyBuild.
    "--robot",
    "--dry-run",
    "--nodes",
    "--ntasks-per-node",
    // relion_reconstruct, cryoDRGN.
    "--sym",
    "--uninvert-data",
    // Scripts of tests and benches, cargo, NVRTC.
    "--check",
    "--expect",
    "--only",
    "--sanitize",
    "--locked",
    "--timeout",
];

/// The folders of the repository that paths in documents begin with.
const FOLDERS: [&str; 7] = ["src/", "kernels/", "tests/", "benches/", "docs/", "slurm/", ".ci/"];

/// Files that documents name to say that they are not there.
const ABSENT: [&str; 1] = ["rust-toolchain.toml"];

/// Endings of names that stand for a file somewhere in the repository.
const SOURCES: [&str; 7] = [".rs", ".cu", ".cuh", ".sh", ".py", ".sbatch", ".toml"];

/// What is wrong in a document, a line each.
pub fn problems(path: &str, facts: &Facts) -> Vec<String> {
    let document = &facts.documents[path];
    let mut found = Vec::new();
    let mut report = |piece: &Piece, problem: String| found.push(format!("{path}:{}: {problem}", piece.line));
    for link in &document.links {
        if let Some(problem) = link_problem(path, &link.text, facts) {
            report(link, problem);
        }
    }
    for piece in document.spans.iter().chain(&document.commands) {
        for word in piece.text.split_whitespace() {
            if let Some(problem) = path_problem(word, facts) {
                report(piece, problem);
            }
        }
        let words: Vec<&str> = piece.text.split_whitespace().collect();
        for (at, _) in words.iter().enumerate().filter(|(_, word)| **word == "make") {
            if let Some(target) =
                words.get(at + 1).filter(|target| is_lower(target) && !facts.targets.contains(**target))
            {
                report(piece, format!("make has no target {target}"));
            }
        }
        for (at, _) in
            words.iter().enumerate().filter(|(_, word)| word.rsplit('/').next() == Some("cryosplat-mpi"))
        {
            for problem in command_problems(&words[at + 1..], facts) {
                report(piece, problem);
            }
        }
    }
    for span in &document.spans {
        let words: Vec<&str> = span.text.split_whitespace().collect();
        let first = words.first().copied().unwrap_or_default();
        if words.len() > 1 && facts.help.contains_key(first) {
            command_problems(&words, facts).into_iter().for_each(|problem| report(span, problem));
        }
        let option = first.split('=').next().unwrap_or_default();
        let known =
            FOREIGN_OPTIONS.contains(&option) || facts.help.values().any(|help| has_option(help, option));
        if option.starts_with("--") && !known {
            report(span, format!("no command has the option {option}"));
        }
    }
    found
}

fn is_lower(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit())
}

fn link_problem(path: &str, target: &str, facts: &Facts) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let full = if file.is_empty() { path.to_owned() } else { joined(path, file) };
    if !exists(&full, facts) {
        return Some(format!("the link to {target} leads to no file"));
    }
    let anchors = facts.documents.get(&full).map(|document| &document.anchors);
    let missing =
        !anchor.is_empty() && anchors.is_some_and(|anchors| !anchors.iter().any(|known| known == anchor));
    missing.then(|| format!("the link to {target} leads to no heading of {full}"))
}

/// A path as a document of the repository writes it, from the root.
fn joined(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn exists(path: &str, facts: &Facts) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    path.is_empty() || facts.paths.contains(path) || facts.paths.contains(&folder)
}

/// A word that stands for a file of the repository, and for none that is there.
fn path_problem(word: &str, facts: &Facts) -> Option<String> {
    let word = word.trim_matches(['(', ')', ',', ';', '"', '\'']).trim_end_matches(['.', ':']);
    // A name to be filled in.
    let open = word.split(['/', '.', '_', '-']).any(|part| {
        part.len() > 1
            && part.chars().all(|c| c.is_ascii_uppercase())
            && part != "README"
            && part != "CONTRIBUTING"
            && part != "CHANGELOG"
    });
    if open || word.contains(['$', '<', '{', '=']) {
        return None;
    }
    let there = if ABSENT.contains(&word) {
        true
    } else if let Some((before, after)) = word.split_once('*') {
        facts.paths.iter().any(|path| path.starts_with(before) && path.ends_with(after))
    } else if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
        exists(word, facts)
    } else if SOURCES.iter().any(|end| word.ends_with(end) && word != *end) && !word.contains('/') {
        facts.paths.iter().any(|path| path == word || path.ends_with(&format!("/{word}")))
    } else {
        true
    };
    let starred = word.contains('*') && !FOLDERS.iter().any(|folder| word.starts_with(folder));
    (!there && !starred).then(|| format!("there is no file {word}"))
}

/// What is wrong with the words after the program's name.
fn command_problems(words: &[&str], facts: &Facts) -> Vec<String> {
    let ends = |word: &&&str| !["|", "||", "&&", "&", ";", ">", "2>"].contains(*word);
    let words: Vec<&str> = words.iter().take_while(ends).copied().collect();
    let (mut command, mut found) = (String::new(), Vec::new());
    let mut options = Vec::new();
    for word in words {
        let option = word.split('=').next().unwrap_or_default().trim_end_matches([',', ';', ':']);
        let longer = if command.is_empty() { word.to_owned() } else { format!("{command} {word}") };
        if option.starts_with("--") && option.len() > 2 {
            options.push(option);
        } else if (command.is_empty() || options.is_empty()) && facts.help.contains_key(&longer) {
            command = longer;
        } else if command.is_empty() && options.is_empty() && is_lower(word) && word != "help" {
            found.push(format!("the program has no command {word}"));
            return found;
        }
    }
    let help = &facts.help[&command];
    let unknown = options
        .into_iter()
        .filter(|option| !has_option(help, option) && !has_option(&facts.help[""], option));
    found.extend(unknown.map(|option| format!("`cryosplat-mpi {command}` has no option {option}")));
    found
}

/// Whether a help text lists an option.
fn has_option(help: &str, option: &str) -> bool {
    help.match_indices(option)
        .any(|(at, _)| !help[at + option.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '-'))
}

/// The items that "Code:" paragraphs name, with their files: `path`: `item`, `item`; `path`: ...
pub fn code_items(document: &Document) -> Vec<(String, String, usize)> {
    let mut items = Vec::new();
    for piece in document.paragraphs.iter().filter(|piece| piece.text.starts_with("Code: ")) {
        let mut file = None;
        for span in piece.text.split('`').skip(1).step_by(2) {
            if span.contains('/') {
                file = Some(span.to_owned());
            } else if let Some(file) = &file {
                items.push((file.clone(), span.to_owned(), piece.line));
            }
        }
    }
    items
}

/// Whether a source file defines an item: after a keyword in Rust, with a parameter list or as a macro in CUDA.
pub fn defines(source: &str, item: &str) -> bool {
    let whole = |at: usize| {
        let name = |c: char| c.is_alphanumeric() || c == '_';
        !source[..at].ends_with(name) && !source[at + item.len()..].starts_with(name)
    };
    let keywords =
        ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "macro_rules!", "#define"];
    source.match_indices(item).filter(|&(at, _)| whole(at)).any(|(at, _)| {
        let (before, after) = (source[..at].trim_end(), &source[at + item.len()..]);
        let keyword = before.rsplit(|c: char| c.is_whitespace()).next().unwrap_or_default();
        let line = source[..at].rsplit('\n').next().unwrap_or_default();
        let device = after.starts_with('(')
            && (line.contains("__device__") || before.ends_with(')'))
            && !line.contains("//");
        keywords.contains(&keyword) || device
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Facts {
        let names = ["src/a.rs", "src/", "docs/x.md", "docs/", "docs/y.md", "kernels/k.cu", "kernels/"];
        let help = [
            ("", "Commands:\n --log --help"),
            ("train", "--batch <B>\n--batch-per-rank"),
            ("export", ""),
            ("export gmm", "--map"),
        ];
        Facts {
            paths: names.map(str::to_owned).into(),
            help: help.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            targets: ["test".to_owned()].into(),
            documents: [("docs/x.md", text), ("docs/y.md", "# There")]
                .map(|(name, text)| (name.to_owned(), Document::read(text)))
                .into(),
        }
    }

    #[test]
    fn what_is_there_passes() {
        let text = "# Head\n[a](y.md#there) [b](#head) [c](../src/a.rs) [d](https://x.org) `src/a.rs` `a.rs` `src/NAME.rs` `kernels/*.cu`\n\
                    `--batch 8` `train --batch=8` `make test` `--bind-to none` `export gmm --map`\n\n\
                    \x20   mpirun -n 2 cryosplat-mpi --log x train p.h5 \\\n        --batch 8 | head --lines 3\n    cryosplat-mpi COMMAND --help\n";
        assert_eq!(problems("docs/x.md", &facts(text)), [""; 0]);
    }

    #[test]
    fn each_planted_fault_is_found() {
        for (text, problem) in [
            ("[a](z.md)", "leads to no file"),
            ("[a](y.md#here)", "leads to no heading"),
            ("[a](#here)", "leads to no heading"),
            ("`src/b.rs`", "no file src/b.rs"),
            ("`b.rs`", "no file b.rs"),
            ("`kernels/*.ptx`", "no file kernels/*.ptx"),
            ("    python3 src/b.py", "no file src/b.py"),
            ("`cryosplat-mpi tain p.h5`", "no command tain"),
            ("    cryosplat-mpi train --batches 3", "no option --batches"),
            ("    cryosplat-mpi train \\\n    --map", "no option --map"),
            ("    ./cryosplat-mpi export gmm --batch 3", "`cryosplat-mpi export gmm` has no option --batch"),
            ("`export gmm --nap`", "no option --nap"),
            ("`--batch-per`", "no command has the option --batch-per"),
            ("`make tests`", "no target tests"),
        ] {
            let found = problems("docs/x.md", &facts(text));
            assert!(found.len() == 1 && found[0].contains(problem), "{text}: {found:?}");
        }
    }

    #[test]
    fn items_are_definitions_not_uses() {
        let document = Document::read("Code: `src/a.rs`: `x`, `Y`;\n`kernels/k.cu`: `z`.\n");
        let items: Vec<_> =
            code_items(&document).into_iter().map(|(file, item, _)| format!("{file} {item}")).collect();
        assert_eq!(items, ["src/a.rs x", "src/a.rs Y", "kernels/k.cu z"]);
        assert!(defines("pub fn x() {}", "x") && defines("pub(crate) const X: u8 = 1;", "X"));
        assert!(!defines("fn xx() { x(); use a::x; }", "x") && !defines("// fn of x", "x"));
        assert!(defines("__global__ void __launch_bounds__(T)\n    k(const float *a)", "k"));
        assert!(defines("__device__ float h(int a)", "h") && !defines("v = h(1);", "h"));
    }
}
