use super::text::{unescaped_bytes, unescaped_text};
use super::*;

fn parse(bytes: &[u8]) -> Result<Pickle> {
    Pickle::parse(Path::new("p.pkl"), bytes.to_vec())
}

fn refused(bytes: &[u8], fragments: &[&str]) {
    let message = parse(bytes).unwrap_err().to_string();
    assert!(message.starts_with("p.pkl: byte "), "{message}");
    assert!(fragments.iter().all(|fragment| message.contains(fragment)), "{message}");
}

/// The same objects in protocols 0 to 5, as NumPy 2.4 writes them: an f32 array [[1.5, -2], [3, 4]]; a big-endian 64-bit
/// array of 0 to 5 with 3 columns, in Fortran order; the list [0, 300, -7, 2^40, 0.25]; the integers 2, 0, 200; an f32
/// scalar 2.5; None.
const OBJECTS: [&[u8]; 6] = [
    b"(cnumpy._core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nc_codecs\nencode\np3\n(Vb\np4\nVlatin1\np5\ntp6\nRp7\ntp8\nRp9\n(I1\n(I2\nI2\ntp10\ncnumpy\ndtype\np11\n(Vf4\np12\nI00\nI01\ntp13\nRp14\n(I3\nV<\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\ng3\n(V\\u0000\\u0000\xc0?\\u0000\\u0000\\u0000\xc0\\u0000\\u0000@@\\u0000\\u0000\x80@\np17\ng5\ntp18\nRp19\ntp20\nbg0\n(g1\n(I0\ntp21\ng7\ntp22\nRp23\n(I1\n(I2\nI3\ntp24\ng11\n(Vf8\np25\nI00\nI01\ntp26\nRp27\n(I3\nV>\np28\nNNNI-1\nI-1\nI0\ntp29\nbI01\ng3\n(V\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000@\x08\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000?\xf0\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000@\x10\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000@\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000@\x14\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\np30\ng5\ntp31\nRp32\ntp33\nb(lp34\nI0\naI300\naI-7\naL1099511627776L\naF0.25\nag0\n(g1\n(I0\ntp35\ng7\ntp36\nRp37\n(I1\n(I3\ntp38\ng11\n(Vi8\np39\nI00\nI01\ntp40\nRp41\n(I3\ng15\nNNNI-1\nI-1\nI0\ntp42\nbI00\ng3\n(V\x02\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\xc8\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\np43\ng5\ntp44\nRp45\ntp46\nbcnumpy._core.multiarray\nscalar\np47\n(g14\ng3\n(V\\u0000\\u0000 @\np48\ng5\ntp49\nRp50\ntp51\nRp52\nNtp53\n.",
    b"(cnumpy._core.multiarray\n_reconstruct\nq\x00(cnumpy\nndarray\nq\x01(K\x00tq\x02c_codecs\nencode\nq\x03(X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05tq\x06Rq\x07tq\x08Rq\x09(K\x01(K\x02K\x02tq\ncnumpy\ndtype\nq\x0b(X\x02\x00\x00\x00f4q\x0cI00\nI01\ntq\x0dRq\x0e(K\x03X\x01\x00\x00\x00<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10bI00\nh\x03(X\x13\x00\x00\x00\x00\x00\xc3\x80?\x00\x00\x00\xc3\x80\x00\x00@@\x00\x00\xc2\x80@q\x11h\x05tq\x12Rq\x13tq\x14bh\x00(h\x01(K\x00tq\x15h\x07tq\x16Rq\x17(K\x01(K\x02K\x03tq\x18h\x0b(X\x02\x00\x00\x00f8q\x19I00\nI01\ntq\x1aRq\x1b(K\x03X\x01\x00\x00\x00>q\x1cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x1dbI01\nh\x03(X1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00@\x08\x00\x00\x00\x00\x00\x00?\xc3\xb0\x00\x00\x00\x00\x00\x00@\x10\x00\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00@\x14\x00\x00\x00\x00\x00\x00q\x1eh\x05tq\x1fRq tq!b]q\"(K\x00M,\x01J\xf9\xff\xff\xffL1099511627776L\nG?\xd0\x00\x00\x00\x00\x00\x00eh\x00(h\x01(K\x00tq#h\x07tq$Rq%(K\x01(K\x03tq&h\x0b(X\x02\x00\x00\x00i8q'I00\nI01\ntq(Rq)(K\x03h\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq*bI00\nh\x03(X\x19\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc3\x88\x00\x00\x00\x00\x00\x00\x00q+h\x05tq,Rq-tq.bcnumpy._core.multiarray\nscalar\nq/(h\x0eh\x03(X\x04\x00\x00\x00\x00\x00 @q0h\x05tq1Rq2tq3Rq4Ntq5.",
    b"\x80\x02(cnumpy._core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02c_codecs\nencode\nq\x03X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09(K\x01K\x02K\x02\x86q\ncnumpy\ndtype\nq\x0bX\x02\x00\x00\x00f4q\x0c\x89\x88\x87q\x0dRq\x0e(K\x03X\x01\x00\x00\x00<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89h\x03X\x13\x00\x00\x00\x00\x00\xc3\x80?\x00\x00\x00\xc3\x80\x00\x00@@\x00\x00\xc2\x80@q\x11h\x05\x86q\x12Rq\x13tq\x14bh\x00h\x01K\x00\x85q\x15h\x07\x87q\x16Rq\x17(K\x01K\x02K\x03\x86q\x18h\x0bX\x02\x00\x00\x00f8q\x19\x89\x88\x87q\x1aRq\x1b(K\x03X\x01\x00\x00\x00>q\x1cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x1db\x88h\x03X1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00@\x08\x00\x00\x00\x00\x00\x00?\xc3\xb0\x00\x00\x00\x00\x00\x00@\x10\x00\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00@\x14\x00\x00\x00\x00\x00\x00q\x1eh\x05\x86q\x1fRq tq!b]q\"(K\x00M,\x01J\xf9\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01G?\xd0\x00\x00\x00\x00\x00\x00eh\x00h\x01K\x00\x85q#h\x07\x87q$Rq%(K\x01K\x03\x85q&h\x0bX\x02\x00\x00\x00i8q'\x89\x88\x87q(Rq)(K\x03h\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq*b\x89h\x03X\x19\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc3\x88\x00\x00\x00\x00\x00\x00\x00q+h\x05\x86q,Rq-tq.bcnumpy._core.multiarray\nscalar\nq/h\x0eh\x03X\x04\x00\x00\x00\x00\x00 @q0h\x05\x86q1Rq2\x86q3Rq4Ntq5.",
    b"\x80\x03(cnumpy._core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\x03\x87q\x04Rq\x05(K\x01K\x02K\x02\x86q\x06cnumpy\ndtype\nq\x07X\x02\x00\x00\x00f4q\x08\x89\x88\x87q\x09Rq\n(K\x03X\x01\x00\x00\x00<q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89C\x10\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00@@\x00\x00\x80@q\x0dtq\x0ebh\x00h\x01K\x00\x85q\x0fh\x03\x87q\x10Rq\x11(K\x01K\x02K\x03\x86q\x12h\x07X\x02\x00\x00\x00f8q\x13\x89\x88\x87q\x14Rq\x15(K\x03X\x01\x00\x00\x00>q\x16NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x17b\x88C0\x00\x00\x00\x00\x00\x00\x00\x00@\x08\x00\x00\x00\x00\x00\x00?\xf0\x00\x00\x00\x00\x00\x00@\x10\x00\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00@\x14\x00\x00\x00\x00\x00\x00q\x18tq\x19b]q\x1a(K\x00M,\x01J\xf9\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01G?\xd0\x00\x00\x00\x00\x00\x00eh\x00h\x01K\x00\x85q\x1bh\x03\x87q\x1cRq\x1d(K\x01K\x03\x85q\x1eh\x07X\x02\x00\x00\x00i8q\x1f\x89\x88\x87q Rq!(K\x03h\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\"b\x89C\x18\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc8\x00\x00\x00\x00\x00\x00\x00q#tq$bcnumpy._core.multiarray\nscalar\nq%h\nC\x04\x00\x00 @q&\x86q'Rq(Ntq).",
    b"\x80\x04\x95\xa4\x01\x00\x00\x00\x00\x00\x00(\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x02\x86\x94h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x10\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00@@\x00\x00\x80@\x94t\x94bh\x02h\x05K\x00\x85\x94h\x07\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x0c\x8c\x02f8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01>\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x88C0\x00\x00\x00\x00\x00\x00\x00\x00@\x08\x00\x00\x00\x00\x00\x00?\xf0\x00\x00\x00\x00\x00\x00@\x10\x00\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00@\x14\x00\x00\x00\x00\x00\x00\x94t\x94b]\x94(K\x00M,\x01J\xf9\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01G?\xd0\x00\x00\x00\x00\x00\x00eh\x02h\x05K\x00\x85\x94h\x07\x87\x94R\x94(K\x01K\x03\x85\x94h\x0c\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03h\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x18\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc8\x00\x00\x00\x00\x00\x00\x00\x94t\x94bh\x00\x8c\x06scalar\x94\x93\x94h\x0fC\x04\x00\x00 @\x94\x86\x94R\x94Nt\x94.",
    b"\x80\x05\x95\x9e\x01\x00\x00\x00\x00\x00\x00(\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00@@\x00\x00\x80@\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x02\x86\x94\x8c\x01C\x94t\x94R\x94h\x02(\x960\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00@\x08\x00\x00\x00\x00\x00\x00?\xf0\x00\x00\x00\x00\x00\x00@\x10\x00\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00@\x14\x00\x00\x00\x00\x00\x00\x94h\x06\x8c\x02f8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01>\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01F\x94t\x94R\x94]\x94(K\x00M,\x01J\xf9\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01G?\xd0\x00\x00\x00\x00\x00\x00eh\x02(\x96\x18\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc8\x00\x00\x00\x00\x00\x00\x00\x94h\x06\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03h\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x03\x85\x94h\x0dt\x94R\x94\x8c\x16numpy._core.multiarray\x94\x8c\x06scalar\x94\x93\x94h\x09C\x04\x00\x00 @\x94\x86\x94R\x94Nt\x94.",
];

/// A row of an array.
fn row(array: Array, row: usize) -> Vec<f64> {
    (0..array.shape()[1]).map(|column| array.value(&[row, column])).collect()
}

#[test]
fn every_protocol_builds_the_same() {
    for (protocol, bytes) in OBJECTS.iter().enumerate() {
        let old = String::from_utf8_lossy(bytes).into_owned().replace("numpy._core", "numpy.core");
        let mut both = vec![bytes.to_vec()];
        // Newer protocols have length prefixes, which would change with the name.
        if protocol < 3 && old.is_ascii() {
            both.push(old.into_bytes());
        }
        for bytes in both {
            let pickle = parse(&bytes).unwrap();
            let items = pickle.items(pickle.root()).unwrap();
            let array = |k: usize| pickle.array(items[k]).unwrap();
            assert_eq!(
                (array(0).shape(), array(1).shape(), array(3).shape()),
                (&[2, 2][..], &[2, 3][..], &[3][..])
            );
            assert_eq!([row(array(0), 0), row(array(0), 1)], [[1.5, -2.0], [3.0, 4.0]], "{protocol}");
            assert_eq!(
                [row(array(1), 0), row(array(1), 1)],
                [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
                "{protocol}"
            );
            let list: Vec<f64> =
                pickle.items(items[2]).unwrap().iter().map(|&item| pickle.number(item).unwrap()).collect();
            assert_eq!(list, [0.0, 300.0, -7.0, 1_099_511_627_776.0, 0.25]);
            assert_eq!([0, 1, 2].map(|k| array(3).index(&[k])), [Some(2), Some(0), Some(200)]);
            assert!(array(3).is_integer() && !array(0).is_integer());
            assert_eq!(pickle.number(items[4]), Some(2.5));
            assert!(pickle.is_none(items[5]));
            assert_eq!(pickle.describe(pickle.root()), "a tuple of 6");
            assert_eq!(pickle.describe(items[1]), "an array of shape (2, 3)");
        }
    }
}

/// Protocol 2 of Python 2, which stores bytes as strings: one row of 16-bit integers [258, -2].
const PYTHON_2: &[u8] = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87R(K\x01K\x01\
      K\x02\x86cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\
      \x89U\x04\x02\x01\xfe\xfftb.";

#[test]
fn python_2_pickles_are_read() {
    let pickle = parse(PYTHON_2).unwrap();
    assert_eq!(row(pickle.array(pickle.root()).unwrap(), 0), [258.0, -2.0]);
    // The same in protocol 0, which stores bytes as a literal.
    let text = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI2\ntcnumpy\ndtype\n\
          (S'i2'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS\"\\x02\\x01\\xfe\\xff\"\ntb.";
    let pickle = parse(text).unwrap();
    assert_eq!(row(pickle.array(pickle.root()).unwrap(), 0), [258.0, -2.0]);
    assert_eq!(unescaped_bytes(br"a\n\t\'\\\x41"), Some(b"a\n\t'\\A".to_vec()));
    assert_eq!(unescaped_text(b"a\\u0394\\U0001f600\xe9").as_deref(), Some("a\u{394}\u{1f600}\u{e9}"));
}

#[test]
fn permuted_dimensions_are_read() {
    // Written by NumPy 2.4 in protocol 5 for a transposed 3-dimensional array: stored shape (1, 3, 2), axes (0, 2, 1).
    let bytes = b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(\x96\x06\0\0\0\0\0\0\0\x00\x01\x02\x03\x04\x05cnumpy\ndtype\n\
          \x8c\x02u1\x85RK\x01K\x03K\x02\x87\x8c\x01KK\x00K\x02K\x01\x87tR.";
    let pickle = parse(bytes).unwrap();
    let array = pickle.array(pickle.root()).unwrap();
    assert_eq!(array.shape(), [1, 2, 3]);
    let values: Vec<f64> = (0..6).map(|i| array.value(&[0, i / 3, i % 3])).collect();
    assert_eq!(values, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    let twice = bytes.strip_suffix(b"K\x02K\x01\x87tR.").unwrap();
    refused(&[twice, b"K\x01K\x01\x87tR."].concat(), &["an unknown way"]);
}

#[test]
fn other_objects_are_refused() {
    refused(b"cos\nsystem\n(S'true'\ntR.", &["`os.system`", "NumPy arrays"]);
    refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", &["`builtins.eval`"]);
    refused(b"(ios\nsystem\n.", &["an object of some class"]);
    refused(b"\x80\x02ccopy_reg\n_reconstructor\n.", &["`copy_reg._reconstructor`"]);
    refused(b"\x80\x03}.", &["a dictionary"]);
    refused(b"\x80\x04\x8f.", &["a set"]);
    refused(b"Pfile\n.", &["not in the file"]);
    refused(b"\x80\x06N.", &["protocol 6"]);
    refused(b"\xf0", &["opcode 0xf0"]);
    let object = PYTHON_2.to_vec();
    let at = object.windows(2).position(|w| w == b"i2").unwrap();
    refused(&[&object[..at], b"O8", &object[at + 2..]].concat(), &["`O8`", "numbers"]);
}

#[test]
fn malformed_pickles_are_refused() {
    for bytes in [
        &b""[..],
        b".",
        b"(",
        b"K",
        b"I1",
        b"0",
        b"t.",
        b"h\x00.",
        b"a",
        b"K\x01K\x02a.",
        b"K\x01\x85R.",
        b"K\x01K\x02b.",
    ] {
        refused(bytes, &["not a valid pickle"]);
    }
    // Lengths beyond the end of the file.
    refused(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff", &["truncated"]);
    refused(b"\x8b\xff\xff\xff\x7f", &["truncated"]);
    refused(b"\x8a\x09123456789.", &["more than 8 bytes"]);
    refused(b"(K\x01K\x02\x87.", &["pops from an empty stack"]);
    // Two values for three elements.
    let at = PYTHON_2.windows(4).position(|w| w == b"K\x02\x86c").unwrap();
    refused(&[&PYTHON_2[..at], b"K\x03", &PYTHON_2[at + 2..]].concat(), &["an unknown way"]);
    for end in 0..PYTHON_2.len() {
        assert!(parse(&PYTHON_2[..end]).is_err(), "{end}");
    }
}

#[test]
fn nesting_does_not_recurse() {
    // A million nested tuples.
    let bytes = [b"N".to_vec(), vec![0x85; 1 << 20], b".".to_vec()].concat();
    assert_eq!(parse(&bytes).unwrap().items(parse(&bytes).unwrap().root()).unwrap().len(), 1);
    // A list that contains itself.
    let pickle = parse(b"\x80\x02]q\x00h\x00a.").unwrap();
    assert_eq!(pickle.items(pickle.root()), Some(&[pickle.root()][..]));
    // The same string decoded repeatedly.
    let many = [
        &b"c_codecs\nencode\nq\x00V"[..],
        &[b'a'; 1000],
        b"\nVlatin1\n\x86q\x01",
        &b"h\x00h\x01R0".repeat(100),
        b"N.",
    ];
    refused(&many.concat(), &["repeatedly"]);
}
