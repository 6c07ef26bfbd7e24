//! Chemical elements: symbols, scattering factors, and the element of a PDB record.

/// Scattering factor of an element that is not in the table: about that of carbon.
pub(super) const UNKNOWN: f64 = 2.5;

/// Electron scattering factors at zero angle in angstrom (Peng et al., Acta Cryst. A52 (1996) 257).
const SCATTERING: [(&str, f64); 21] = [
    ("H", 0.53),
    ("D", 0.53),
    ("C", 2.51),
    ("N", 2.21),
    ("O", 1.98),
    ("F", 1.80),
    ("NA", 4.78),
    ("MG", 5.21),
    ("AL", 5.89),
    ("SI", 5.83),
    ("P", 5.49),
    ("S", 5.16),
    ("CL", 4.86),
    ("K", 9.0),
    ("CA", 9.91),
    ("MN", 7.51),
    ("FE", 7.17),
    ("CO", 6.85),
    ("NI", 6.57),
    ("CU", 5.60),
    ("ZN", 6.07),
];

/// The symbols of all elements, and of deuterium.
const SYMBOLS: [&str; 119] = [
    "H", "D", "HE", "LI", "BE", "B", "C", "N", "O", "F", "NE", "NA", "MG", "AL", "SI", "P", "S", "CL", "AR",
    "K", "CA", "SC", "TI", "V", "CR", "MN", "FE", "CO", "NI", "CU", "ZN", "GA", "GE", "AS", "SE", "BR", "KR",
    "RB", "SR", "Y", "ZR", "NB", "MO", "TC", "RU", "RH", "PD", "AG", "CD", "IN", "SN", "SB", "TE", "I", "XE",
    "CS", "BA", "LA", "CE", "PR", "ND", "PM", "SM", "EU", "GD", "TB", "DY", "HO", "ER", "TM", "YB", "LU",
    "HF", "TA", "W", "RE", "OS", "IR", "PT", "AU", "HG", "TL", "PB", "BI", "PO", "AT", "RN", "FR", "RA",
    "AC", "TH", "PA", "U", "NP", "PU", "AM", "CM", "BK", "CF", "ES", "FM", "MD", "NO", "LR", "RF", "DB",
    "SG", "BH", "HS", "MT", "DS", "RG", "CN", "NH", "FL", "MC", "LV", "TS", "OG",
];

/// Residues whose atoms are hydrogen, carbon, nitrogen, oxygen, phosphorus and sulphur only.
const BIOPOLYMER: [&str; 31] = [
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE", "PRO",
    "SER", "THR", "TRP", "TYR", "VAL", "ASX", "GLX", "A", "C", "G", "U", "DA", "DC", "DG", "DT", "HOH",
];

fn known_factor(element: &str) -> Option<f64> {
    SCATTERING.iter().find(|(symbol, _)| element.eq_ignore_ascii_case(symbol)).map(|&(_, f)| f)
}

/// Scattering factor at zero angle in angstrom of an element, by its symbol (case is ignored).
pub fn scattering(element: &str) -> f64 {
    known_factor(element).unwrap_or(UNKNOWN)
}

/// Whether the table has a scattering factor for an element.
pub(super) fn is_known(element: &str) -> bool {
    known_factor(element).is_some()
}

fn symbol(text: &str) -> Option<&'static str> {
    SYMBOLS.into_iter().find(|symbol| text.eq_ignore_ascii_case(symbol))
}

/// The element of an ATOM or HETATM record, in capitals: columns 77 and 78; where they hold none, as in old files, from the atom
/// name in columns 13 to 16. `None` if neither names an element.
pub(super) fn of_pdb_record(line: &str) -> Option<&'static str> {
    let field = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or("");
    symbol(field(76, 78).trim()).or_else(|| of_atom_name(field(12, 16), field(17, 20).trim()))
}

/// The element of an atom of `residue` from its name, four characters with their blanks. The element is right-aligned in the first
/// two, so that " CA " is carbon and "CA  " calcium. Names of four characters leave no blank: "HG11" is hydrogen.
fn of_atom_name(name: &str, residue: &str) -> Option<&'static str> {
    let letters = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic());
    let (first, second) = (name.get(..1)?, name.get(1..2).unwrap_or(" "));
    if first == " " || first.as_bytes()[0].is_ascii_digit() {
        return symbol(second);
    }
    if !letters(second) {
        return symbol(first);
    }
    // Of the elements that begin with H or D, only these two have names of four characters.
    let full = name.len() == 4 && !name.ends_with(' ');
    let one_letter = full && matches!(first, "H" | "h" | "D" | "d");
    // Some programs align all names left. No residue of a biopolymer holds a metal.
    if one_letter || BIOPOLYMER.contains(&residue) {
        return symbol(first);
    }
    symbol(&name[..2]).or_else(|| symbol(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_element_of_a_record_is_in_its_columns() {
        let element = |name: &str, residue: &str, end: &str| {
            of_pdb_record(&format!(
                "ATOM      1 {name} {residue:>3} A   1      10.633   0.272  11.430  1.00 20.00{end}"
            ))
        };
        let old = |name: &str, residue: &str| element(name, residue, "").unwrap_or("none");
        for (name, residue, expected) in [
            (" CA ", "ALA", "C"),
            ("CA  ", "CA", "CA"),
            ("CA  ", "ALA", "C"),
            ("HG11", "VAL", "H"),
            ("HG11", "LIG", "H"),
            ("1HG1", "VAL", "H"),
            (" HG ", "SER", "H"),
            ("HG  ", "HG", "HG"),
            ("HG  ", "SER", "H"),
            ("DG11", "VAL", "D"),
            ("ZN  ", "ZN", "ZN"),
            ("FE1 ", "SF4", "FE"),
            ("C210", "LIG", "C"),
            ("CB12", "LIG", "C"),
            ("CL12", "LIG", "CL"),
            (" P  ", "DA", "P"),
            ("2MG ", "LIG", "none"),
            (" XX ", "LIG", "none"),
            ("\u{e9}A ", "LIG", "none"),
        ] {
            assert_eq!(old(name, residue), expected, "{name:?} of {residue}");
        }
        // Columns 77 and 78 decide, wherever the symbol stands in them, with a charge behind it.
        assert_eq!(element("HG  ", "HG", "           C  "), Some("C"));
        assert_eq!(element("CA  ", "CA", "          ZN2+"), Some("ZN"));
        assert_eq!(element("CA  ", "CA", "          K   "), Some("K"));
        assert_eq!(element(" CA ", "ALA", "          Ca  "), Some("CA"));
        // What is no element there does not count.
        assert_eq!(element(" CA ", "ALA", "          1   "), Some("C"));
    }

    #[test]
    fn every_factor_belongs_to_an_element() {
        assert!(SCATTERING.iter().all(|(element, _)| symbol(element).is_some()));
        assert_eq!((scattering("Hg"), is_known("hg"), is_known("zn")), (UNKNOWN, false, true));
    }
}
