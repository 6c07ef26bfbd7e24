use super::*;
use proptest::prelude::*;

const VALID: &str = "\n# version 30001\n\ndata_optics\n\n_rlnOpticsGroup 1 # the only one\n_rlnName 'two words'\n\n\
                     data_particles\n\nloop_ \n_rlnImageName #1 \n_rlnAngleRot #2 [deg]\n\
                     1@data_a.mrcs  10.5 \r\n\n\"2@b c.mrcs\"\t-3e2 # last\n";

fn parse(text: &str) -> Result<Document> {
    Document::parse(Path::new("p.star"), text.to_owned())
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
    let mut cells = Vec::new();
    assert_eq!((optics.name(), optics.len(), optics.line()), ("optics", 1, 6));
    document.cells(optics, 0, &mut cells);
    assert_eq!(cells, ["1", "two words"]);
    assert_eq!((particles.name(), particles.len()), ("particles", 2));
    assert_eq!(particles.column("_rlnAngleRot"), Some(1));
    assert_eq!(document.cells(particles, 0, &mut cells), 14);
    assert_eq!(cells, ["1@data_a.mrcs", "10.5"]);
    assert_eq!(document.cells(particles, 1, &mut cells), 16);
    assert_eq!(cells, ["2@b c.mrcs", "-3e2"]);
}

#[test]
fn line_ends_and_a_byte_order_mark_do_not_matter() {
    let crlf = format!("\u{feff}{}", VALID.replace("\r\n", "\n").replace('\n', "\r\n"));
    let document = parse(&crlf).unwrap();
    let mut cells = Vec::new();
    document.cells(&document.tables()[1], 1, &mut cells);
    assert_eq!(cells, ["2@b c.mrcs", "-3e2"]);
}

#[test]
fn a_row_may_begin_like_a_keyword() {
    let document = parse("data_\nloop_\n_a\n_b\ndata_x/m.mrc 1\nloop_ 2\n").unwrap();
    assert_eq!(document.tables()[0].len(), 2);
}

#[test]
fn damage_is_named_with_its_line() {
    refused("data_a\nloop_\n_x #1\n_y #2\n1 2\n3\n", &["p.star: line 6", "holds 1 values, expected 2"]);
    refused("data_a\nloop_\n_x\n1 2\n", &["line 4", "holds 2 values, expected 1"]);
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

/// Whatever parses can be read back, row by row.
fn walk(text: &str) {
    if let Ok(document) = parse(text) {
        let mut cells = Vec::new();
        for table in document.tables() {
            for row in 0..table.len() {
                document.cells(table, row, &mut cells);
                assert_eq!(cells.len(), table.width(), "{text:?}");
            }
        }
    }
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
