//! Fits what operators take on a core to counts: `fit_costs CORE DIR`, where DIR has `NAME.edge` and, of the same
//! networks, `NAME.CORE` with lines of an operator's place, from 1, and its instructions. Networks whose name
//! starts with `held-` are only compared with. Prints coefficients for `convert/src/cost/coefficients.rs`, how far off
//! they are, and lines for `convert/tests/costs.txt`.

use convert::cost::{Row, TERMS, counted, fit};
use core::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [core, dir] = args.as_slice() else { return Err("fit_costs CORE DIR".into()) };
    let mut files: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut networks = Vec::new();
    for file in files {
        let path = file.path();
        if path.extension().is_none_or(|e| e != "edge") || !path.with_extension(core).exists() {
            continue;
        }
        networks.push((path.clone(), rows(&path, &path.with_extension(core))?));
    }
    let is_held = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("held-"))
    };
    let fitted: Vec<Row> = networks
        .iter()
        .filter(|(path, _)| !is_held(path))
        .flat_map(|(_, rows)| rows.iter().cloned())
        .collect();
    let coefficients = fit(&fitted);
    println!("pub(super) const {}: Terms = [", core.to_uppercase().replace('-', "_"));
    for (term, value) in TERMS.iter().zip(coefficients) {
        println!("    {value:.4}, // {term:?}");
    }
    println!("];");
    let mut held_back = String::new();
    for (path, rows) in &networks {
        let guess = |row: &Row| row.terms.iter().zip(coefficients).map(|(a, b)| a * b).sum::<f64>();
        let (counted, guessed): (f64, f64) =
            (rows.iter().map(|row| row.count).sum(), rows.iter().map(guess).sum());
        let worst = rows.iter().filter(|row| row.count > 0.02 * counted);
        let worst = worst.map(|row| guess(row) / row.count - 1.0);
        let worst = worst.fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        println!(
            "// {:<32} {counted:>12} {guessed:>14.0} {:>6.1} % (operators: {:.0} %)",
            path.file_stem().unwrap_or_default().to_string_lossy(),
            100.0 * (guessed / counted - 1.0),
            100.0 * worst,
        );
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(held) = name.strip_prefix("held-") {
            held_back += &format!("{core} {} {counted}\n", held.replace('-', " "));
        }
    }
    print!("{held_back}");
    Ok(())
}

/// Terms and counts of a network's operators.
fn rows(edge: &Path, counts: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let file = std::fs::read(edge)?;
    let file = runtime::AlignedBuf::from_slice(&file);
    let artifact = artifact::Artifact::parse(&file)?;
    let text = std::fs::read_to_string(counts)?;
    let pairs = text.lines().filter_map(|line| {
        let (index, count) = line.trim().split_once(' ')?;
        Some((index.parse::<usize>().ok()?, count.parse::<f64>().ok()?))
    });
    let counts: std::collections::HashMap<usize, f64> = pairs.collect();
    let rows = counted(&artifact).into_iter().map(|(index, terms)| {
        let count = *counts.get(&(index + 1)).ok_or(format!("no operator {index}"))?;
        Ok(Row { terms, count })
    });
    rows.collect()
}
