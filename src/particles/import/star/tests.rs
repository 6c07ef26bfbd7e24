use super::*;
use proptest::prelude::*;

const VALID: &str = "\n# version 30001\n\ndata_optics\n\n_rlnOpticsGroup 1 # the only one\n_rlnName 'two words'\n\n\
                     data_particles\n\nloop_ \n_rlnImageName #1 \n_rlnAngleRot #2 [deg]\n\
                     1@data_a.mrcs  10.5 \r\n\n\"2@b c.mrcs\"\t-3e2 # last\n";

fn parse(text: &str) -> Result<Document> {
    // The file needs no name once it is open.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.star");
    std::fs::write(&path, text).unwrap();
    Document::read(&path)
}

/// Lines and cells of all rows.
fn rows(document: &Document, table: &Table) -> Vec<(usize, Vec<String>)> {
    let mut rows = document.rows(table);
    let mut all = Vec::new();
    while rows.advance().unwrap() {
        all.push((rows.line(), (0..table.width()).map(|column| rows.cell(column).to_owned()).collect()));
    }
    all
}

fn row(line: usize, cells: [&str; 2]) -> (usize, Vec<String>) {
    (line, cells.map(str::to_owned).into())
}

fn refused(text: &str, fragments: &[&str]) {
    let message = parse(text).unwrap_err().to_string();
    assert!(fragments.iter().all(|f| message.contains(f)), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn loops_and_pairs_are_read_with_their_lines() {
    let document = parse(VALID).unwrap();
    let [optics, particles] = document.tables() else { panic!("{document:?}") };
    assert_eq!((optics.name(), optics.len(), optics.line()), ("optics", 1, 6));
    assert_eq!(rows(&document, optics), [row(6, ["1", "two words"])]);
    assert_eq!((particles.name(), particles.len()), ("particles", 2));
    assert_eq!(particles.column("_rlnAngleRot"), Some(1));
    let expected = [row(14, ["1@data_a.mrcs", "10.5"]), row(16, ["2@b c.mrcs", "-3e2"])];
    assert_eq!(rows(&document, particles), expected);
}

#[test]
fn line_ends_and_a_byte_order_mark_do_not_matter() {
    let crlf = format!("\u{feff}{}", VALID.replace("\r\n", "\n").replace('\n', "\r\n"));
    let document = parse(&crlf).unwrap();
    assert_eq!(rows(&document, &document.tables()[1])[1], row(16, ["2@b c.mrcs", "-3e2"]));
}

#[test]
fn a_row_may_begin_like_a_keyword() {
    let document = parse("data_\nloop_\n_a\n_b\ndata_x/m.mrc 1\nloop_ 2\n").unwrap();
    assert_eq!(document.tables()[0].len(), 2);
}

#[test]
fn damage_is_named_with_its_line() {
    refused("data_a\nloop_\n_x #1\n_y #2\n1 2\n3\n", &["p.star: line 6", "has 1 values, expected 2"]);
    refused("data_a\nloop_\n_x\n1 2\n", &["line 4", "has 2 values, expected 1"]);
    refused("data_a\n_x\n", &["line 2", "`_x` has no value"]);
    refused("data_a\nloop_\n_x\n_x\n", &["line 4", "twice"]);
    refused("data_a\n_x \"open\n", &["line 2", "not closed"]);
    refused("data_a\nloop_\n1 2\n", &["line 3", "expected data_, loop_"]);
    refused("hello\n", &["line 1", "data_ block", "`hello`"]);
    refused("", &["no data_ block"]);
    refused(&format!("{}\n", "x\u{1}".repeat(500)), &["line 1", "..."]);
}

#[test]
fn half_a_million_rows_take_seconds() {
    let mut text = String::from("data_particles\nloop_\n");
    (0..26).for_each(|i| text += &format!("_c{i} #{i}\n"));
    text += &format!("{}\n", "  12345.678901".repeat(26)).repeat(500_000);
    let started = std::time::Instant::now();
    assert_eq!(parse(&text).unwrap().tables()[0].len(), 500_000);
    // About a second on one busy core; the bound only catches a parser that is not linear.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// A column costs the same whatever their number: quadratic, this would take minutes.
#[test]
fn a_hundred_thousand_columns_or_blocks_are_read() {
    const COUNT: usize = 100_000;
    let mut text = String::from("data_particles\nloop_\n");
    (0..COUNT).for_each(|i| text += &format!("_c{i}\n"));
    text += &"1 ".repeat(COUNT);
    let document = parse(&text).unwrap();
    assert_eq!((document.tables()[0].width(), document.tables()[0].len()), (COUNT, 1));
    let blocks: String = (0..COUNT).map(|i| format!("data_{i}\n_x {i}\n")).collect();
    assert_eq!(parse(&blocks).unwrap().tables().len(), COUNT);
    refused(&format!("{blocks}_x 2\n"), &["line 200001", "twice in data_99999"]);
}

/// Whatever parses can be read back, row by row.
fn walk(text: &str) {
    if let Ok(document) = parse(text) {
        for table in document.tables() {
            assert_eq!(rows(&document, table).len(), table.len(), "{text:?}");
        }
    }
}

#[test]
fn letters_that_are_not_utf8_are_lost_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.star");
    std::fs::write(&path, b"data_\nloop_\n_a\n_b\nM\xfcnchen.mrc 1\n").unwrap();
    let document = Document::read(&path).unwrap();
    assert_eq!(rows(&document, &document.tables()[0]), [row(5, ["M\u{fffd}nchen.mrc", "1"])]);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.star");
    for (text, line) in
        [("data_\nloop_\n_a\n_b\n1 2\n", "line 5"), ("data_\nloop_\n_a\n_b\n1 2\n3 4 5\n", "line 6")]
    {
        std::fs::write(&path, "data_\nloop_\n_a\n_b\n1 2\n3 4\n").unwrap();
        let document = Document::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let mut rows = document.rows(&document.tables()[0]);
        assert!(rows.advance().unwrap());
        let message = rows.advance().unwrap_err().to_string();
        assert!(message.contains(line) && message.contains("changed"), "{message}");
    }
}

#[test]
fn what_cannot_be_read_twice_is_refused() {
    let message = Document::read(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(message.contains("is a device, expected a regular file"), "{message}");
    refused(&format!("data_\n{}", "x".repeat(1 << 20)), &["line 2", "longer than"]);
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "(?s).{0,300}") {
        walk(&text);
    }

    #[test]
    fn star_like_text_is_parsed_or_refused(
        words in prop::collection::vec(
            prop::sample::select(vec!["data_", "loop_", "_a", "_b", "1", "'", "\"x y\"", "#", " ", "\n", "\r\n", "é"]),
            0..60,
        ),
    ) {
        walk(&words.concat());
    }

    #[test]
    fn mutated_files_are_parsed_or_refused(at in 0usize..250, cut in 0usize..20, with in "(?s).{0,5}") {
        let text: Vec<char> = VALID.chars().collect();
        let from = at.min(text.len());
        let to = (from + cut).min(text.len());
        let mutated: String = text[..from].iter().copied().chain(with.chars()).chain(text[to..].iter().copied()).collect();
        walk(&mutated);
    }
}
