//! NumPy tables and arrays, as cryoSPARC and cryoDRGN write them.

// Each test file uses only some of these.
#![allow(dead_code)]

/// A column of a NumPy structured array: name, type as in the header, and the bytes of each value.
#[derive(Clone)]
pub struct Column(pub &'static str, pub String, pub Vec<Vec<u8>>);

/// A .npy file of a structured array, in format version `version`.
pub fn table(version: u8, columns: &[Column]) -> Vec<u8> {
    let fields: Vec<String> =
        columns.iter().map(|Column(name, kind, _)| format!("('{name}', {kind})")).collect();
    let count = columns[0].2.len();
    let header =
        format!("{{'descr': [{}], 'fortran_order': False, 'shape': ({count},), }}\n", fields.join(", "));
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    for record in 0..count {
        columns.iter().for_each(|Column(_, _, values)| bytes.extend(&values[record]));
    }
    bytes
}

/// An array as NumPy pickles it, without the start and end of the pickle.
pub fn array(shape: &[u32], values: &[f32]) -> Vec<u8> {
    let mut bytes =
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(".to_vec();
    for size in shape {
        bytes.push(b'J');
        bytes.extend(size.to_le_bytes());
    }
    bytes.extend(b"tcnumpy\ndtype\n\x8c\x02f4K\x00K\x01\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B");
    bytes.extend((4 * values.len() as u32).to_le_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes.extend(b"tb");
    bytes
}

/// A pickle of one array, or of a tuple of two.
pub fn pickled(arrays: &[Vec<u8>]) -> Vec<u8> {
    let end: &[u8] = if arrays.len() == 2 { b"\x86." } else { b"." };
    [b"\x80\x04", &arrays.concat()[..], end].concat()
}
