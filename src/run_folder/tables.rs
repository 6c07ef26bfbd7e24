//! The tables of a run about its particles: particles.csv and noise.csv.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::particles::noise::NoisePower;
use crate::particles::refinement::{Refinement, RotationAngles};
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::run_folder::appraisal::Appraised;
use crate::run_folder::names;

const REMEDY: &str = "remove the file, or give the folder of another run";

/// What a run has found out about the particles of a model.
#[derive(Clone, Copy, Debug)]
pub struct ParticleTable<'a> {
    /// The rows of the model.
    pub model: &'a SubsetRows,
    /// How each row fits the model; empty if they were not compared.
    pub appraised: &'a [Appraised],
    /// What is refined of each row; empty if nothing.
    pub refined: &'a [Refinement],
}

/// The columns that a refinement adds.
const REFINED: &str = "in_plane_deg,tilt_deg,rotation_deg,offset_x_A,offset_y_A,defocus_change_A,";

/// Writes particles.csv: each particle of the models, in the order of the particle file.
///
/// # Errors
/// When the particle file cannot be read, or the table cannot be written.
pub fn write_particles(folder: &Path, store: &Store, models: &[ParticleTable]) -> Result<()> {
    const ROWS_PER_READ: usize = 4096;
    let reader = store.reader();
    let stacks = &store.header().source_files;
    let refines = models.iter().any(|table| !table.refined.is_empty());
    let mut lines = Vec::new();
    files::write_atomically(&folder.join(names::PARTICLES), |file| {
        let refined = if refines { REFINED } else { "" };
        writeln!(file, "particle,half,optics_group,score,gain,weight,contrast,{refined}image,stack")?;
        for ParticleTable { model: SubsetRows { subset, rows }, appraised, refined } in models {
            for start in rows.clone().step_by(ROWS_PER_READ) {
                let block = start..rows.end.min(start + ROWS_PER_READ);
                let particles = reader.particles(block.clone()).map_err(std::io::Error::other)?;
                lines.clear();
                for (row, particle) in block.zip(particles) {
                    let half = 1 + usize::from(row >= store.header().halves[0]);
                    let group = particle.optics_group + 1;
                    write!(lines, "{},{half},{group},", row + 1)?;
                    write_appraised(&mut lines, appraised.get(row - rows.start))?;
                    if refines {
                        write_refined(&mut lines, refined.get(row - rows.start), store.header().pixel_size)?;
                    }
                    match particle.source {
                        Some(source) => {
                            let stack = stacks.get(source.file as usize).map_or("", String::as_str);
                            writeln!(lines, "{},{}", source.index + 1, files::csv_cell(stack))?;
                        }
                        None => writeln!(lines, ",")?,
                    }
                }
                file.write_all(&lines)?;
            }
            tracing::debug!("{subset}: table of particles written");
        }
        Ok(())
    })
}

fn write_appraised(lines: &mut Vec<u8>, found: Option<&Appraised>) -> std::io::Result<()> {
    match found {
        None => write!(lines, ",,,,"),
        Some(Appraised { score, gain, weight, contrast }) if score.is_finite() => {
            write!(lines, "{score:.4},{gain:.3},{weight:.4},{contrast:.4},")
        }
        Some(Appraised { weight, contrast, .. }) => write!(lines, ",,{weight:.4},{contrast:.4},"),
    }
}

fn write_refined(lines: &mut Vec<u8>, refined: Option<&Refinement>, pixel_size: f64) -> std::io::Result<()> {
    let Some(refined) = refined else { return write!(lines, ",,,,,,") };
    let RotationAngles { in_plane, tilt, total } = refined.angles();
    let [x, y] = refined.offset.map(|pixels| pixels * pixel_size);
    write!(lines, "{in_plane:.4},{tilt:.4},{total:.4},{x:.4},{y:.4},{:.2},", refined.defocus)
}

/// The score, gain, contrast and weight in particles.csv of the run in `folder`, with the row of each particle from 0, NaN where the run has
/// none; `None` if there is no such table.
///
/// # Errors
/// When the table cannot be read or a line is not one of this table; names the line.
pub fn read_particles(folder: &Path) -> Result<Option<Vec<(usize, Appraised)>>> {
    let path = folder.join(names::PARTICLES);
    let Some(text) = text(&path)? else { return Ok(None) };
    let of_line = |line: &str| -> Option<(usize, Appraised)> {
        let cells: Vec<&str> = line.splitn(8, ',').collect();
        let number = |i: usize| -> Option<f32> {
            let cell = cells.get(i)?;
            if cell.is_empty() { Some(f32::NAN) } else { cell.parse().ok().filter(|v: &f32| v.is_finite()) }
        };
        let row = cells.first()?.parse::<usize>().ok()?.checked_sub(1)?;
        let (score, gain, weight, contrast) = (number(3)?, number(4)?, number(5)?, number(6)?);
        Some((row, Appraised { score, gain, contrast, weight }))
    };
    lines(&text, &path, of_line).map(Some)
}

/// Writes noise.csv: the power of the noise of each model, `(name, noise)`, optics group and shell.
///
/// # Errors
/// When the table cannot be written.
pub fn write_noise(folder: &Path, models: &[(&str, &NoisePower)], box_edge: f64) -> Result<()> {
    files::write_atomically(&folder.join(names::NOISE), |file| {
        writeln!(file, "model,optics_group,frequency,power")?;
        for (name, noise) in models {
            for (group, powers) in noise.groups.iter().enumerate() {
                for (shell, power) in powers.iter().enumerate() {
                    let frequency = shell as f64 / box_edge;
                    writeln!(file, "{name},{},{frequency:.6},{power:.6e}", group + 1)?;
                }
            }
        }
        Ok(())
    })
}

/// The curves (frequency in 1/A, power) in noise.csv of the run in `folder`, each with its model and optics group; empty if there
/// is no such table.
///
/// # Errors
/// When the table cannot be read or a line is not one of this table; names the line.
pub fn read_noise(folder: &Path) -> Result<Vec<(String, Vec<[f64; 2]>)>> {
    let path = folder.join(names::NOISE);
    let Some(text) = text(&path)? else { return Ok(Vec::new()) };
    let of_line = |line: &str| -> Option<(String, [f64; 2])> {
        let [model, group, frequency, power] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
        let number = |cell: &str| cell.parse::<f64>().ok().filter(|value| value.is_finite());
        Some((format!("{model}, optics group {group}"), [number(frequency)?, number(power)?]))
    };
    let mut curves: Vec<(String, Vec<[f64; 2]>)> = Vec::new();
    for (name, point) in lines(&text, &path, of_line)? {
        match curves.last_mut() {
            Some((last, points)) if *last == name => points.push(point),
            _ => curves.push((name, vec![point])),
        }
    }
    Ok(curves)
}

/// The text of a table; `None` if it does not exist.
fn text(path: &Path) -> Result<Option<String>> {
    match files::read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read the table", REMEDY)(error)),
    }
}

/// The lines of a table after its head.
fn lines<T>(text: &str, path: &Path, of_line: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let read = |(at, line): (usize, &str)| {
        of_line(line).ok_or_else(|| {
            let shown: String = line.chars().take(60).collect();
            Error::input(path, format!("line {}", at + 1), format!("is not of this table: {shown}"), REMEDY)
        })
    };
    text.lines().enumerate().skip(1).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_read_as_written_and_foreign_lines_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let noise = NoisePower { groups: vec![vec![2.0, 1.0], vec![0.5, 0.25]], particles: vec![3, 4] };
        write_noise(folder.path(), &[("half1", &noise), ("half2", &noise)], 100.0).unwrap();
        let curves = read_noise(folder.path()).unwrap();
        assert_eq!(curves.len(), 4);
        assert_eq!(curves[1], ("half1, optics group 2".into(), vec![[0.0, 0.5], [0.01, 0.25]]));
        std::fs::write(folder.path().join(names::NOISE), "model\nhalf1,1,x,2\n").unwrap();
        assert!(read_noise(folder.path()).unwrap_err().to_string().contains("line 2"));
        assert_eq!(read_particles(folder.path()).unwrap(), None);
        let table = folder.path().join(names::PARTICLES);
        std::fs::write(&table, "head\n3,1,1,,,1.0,0.9,7,\"a,b.mrcs\"\n").unwrap();
        let found = read_particles(folder.path()).unwrap().unwrap();
        assert_eq!((found[0].0, found[0].1.contrast, found[0].1.weight), (2, 0.9, 1.0));
        assert!(found[0].1.score.is_nan());
        std::fs::write(&table, "head\n0,1,1,1,1,1,1,,\n").unwrap();
        assert!(read_particles(folder.path()).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn particles_have_columns_of_the_refinement() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::run_folder::refinement_report::tests::store(folder.path());
        let halves = SubsetRows::of(&store, crate::particles::selection::Models::Both);
        let refined = Refinement { rotation: [0.0, 0.1, 0.0], offset: [0.5, -0.25], defocus: 12.5 };
        let appraised = vec![Appraised { score: 1.0, gain: 2.0, contrast: 0.5, weight: 0.25 }; 3];
        let tables = [
            ParticleTable { model: &halves[0], appraised: &appraised, refined: &[refined; 3] },
            ParticleTable { model: &halves[1], appraised: &[], refined: &[] },
        ];
        write_particles(folder.path(), &store, &tables).unwrap();
        let text = std::fs::read_to_string(folder.path().join(names::PARTICLES)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            format!("particle,half,optics_group,score,gain,weight,contrast,{REFINED}image,stack")
        );
        assert_eq!(lines[3], "3,1,1,1.0000,2.000,0.2500,0.5000,0.0000,5.7296,5.7296,1.0000,-0.5000,12.50,,");
        assert_eq!(lines[4], "4,2,1,,,,,,,,,,,,");
        let columns = |line: &str| line.matches(',').count();
        assert!(lines.iter().all(|line| columns(line) == columns(lines[0])));
        let found = read_particles(folder.path()).unwrap().unwrap();
        assert_eq!((found[0].1.weight, found[0].1.is_compared()), (0.25, true));
        assert!(!found[4].1.is_compared());
        // Without a refinement, the columns are those of earlier versions.
        write_particles(folder.path(), &store, &[ParticleTable { refined: &[], ..tables[0] }]).unwrap();
        let text = std::fs::read_to_string(folder.path().join(names::PARTICLES)).unwrap();
        assert!(text.starts_with("particle,half,optics_group,score,gain,weight,contrast,image,stack\n1,1,1,1.0000,2.000,0.2500,0.5000,,\n"), "{text}");
    }
}
