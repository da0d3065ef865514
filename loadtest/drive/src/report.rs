//! Results as people and programs read them.

use std::{fmt::Write as _, fs, path::Path, process::Command, thread};

use anyhow::{Context, Result};

use crate::{
    results::{Book, Goal, Row, Sheet, shown},
    scenarios::ALL,
};

/// Where the tables begin in `RESULTS.md`; what stands before is written by hand.
const BEGIN: &str = "<!-- From here on written by natter-drive. -->\n";

/// A scenario's figures.
pub fn table(name: &str, sheet: &Sheet) -> String {
    let mut text = format!("## {name}\n\n{}\n\nMeasured {}.\n\n", sheet.about, sheet.at);
    text += "| | median | promised | | all |\n|---|---:|---:|---|---|\n";
    for row in &sheet.rows {
        let (promised, reached) = match row.goal {
            None => (String::new(), ""),
            Some(goal) => {
                let reached = if goal.reached(row.median()) { "yes" } else { "**no**" };
                (bound(goal), reached)
            }
        };
        let all: Vec<_> = row.values.iter().map(|value| shown(*value)).collect();
        let all = if all.len() > 1 { all.join(" · ") } else { String::new() };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} {} | {promised} | {reached} | {all} |",
            row.name,
            shown(row.median()),
            row.unit
        );
    }
    text.push('\n');
    text
}

fn bound(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(bound) => format!("≥ {}", shown(bound)),
        Goal::AtMost(bound) => format!("≤ {}", shown(bound)),
    }
}

/// Deliveries that went wrong.
pub fn faults(sheet: &Sheet) -> f64 {
    let faults = sheet.rows.iter().filter(|row| row.goal == Some(Goal::AtMost(0.0)));
    faults.flat_map(|row| &row.values).sum()
}

/// Writes a scenario's figures into the folder's files, beside those of the others.
///
/// # Errors
/// When they cannot be read or written.
pub fn bring_up_to_date(folder: &Path, name: &str, sheet: Sheet) -> Result<()> {
    let json = folder.join("results.json");
    let mut book: Book = match fs::read_to_string(&json) {
        Ok(text) => serde_json::from_str(&text).context("results.json")?,
        Err(_) => Book::new(),
    };
    book.insert(name.to_owned(), sheet);
    fs::write(&json, serde_json::to_string_pretty(&book)? + "\n")?;
    let page = folder.join("RESULTS.md");
    let before = fs::read_to_string(&page).unwrap_or_default();
    let head = before.split(BEGIN).next().unwrap_or_default();
    let mut text = format!("{head}{BEGIN}\n{}\n", machine());
    text += "![what is reached of what is promised](results.svg)\n\n";
    for scenario in ALL {
        if let Some(sheet) = book.get(scenario.name) {
            text += &table(scenario.name, sheet);
        }
    }
    fs::write(&page, text.trim_end().to_owned() + "\n")?;
    fs::write(folder.join("results.svg"), plot(&book))?;
    Ok(())
}

/// Where and with what it was measured.
fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory: f64 = read("/proc/meminfo", "MemTotal")
        .split(' ')
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
    };
    let nats = natter_cluster::install::nats_server()
        .map(|path| said(&path.to_string_lossy(), &["--version"]))
        .unwrap_or_default();
    let postgres = natter_cluster::install::postgres(None)
        .map(|programs| said(&programs.psql.to_string_lossy(), &["--version"]))
        .unwrap_or_default();
    format!(
        "Last on {cores} cores ({}), {:.0} GiB, Linux {}; {}, {nats}, {postgres}; Natter {}. All \
         processes, the driver among them, share these cores.\n",
        read("/proc/cpuinfo", "model name"),
        memory / 1024.0 / 1024.0,
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
    )
}

/// Each promise as a bar: how much of it is reached, 1 being all of it.
fn plot(book: &Book) -> String {
    let promises: Vec<(String, f64)> = ALL
        .iter()
        .filter_map(|scenario| Some((scenario.name, book.get(scenario.name)?)))
        .flat_map(|(name, sheet)| sheet.rows.iter().filter_map(move |row| kept(name, row)))
        .collect();
    let (left, scale, line) = (430.0, 200.0, 24.0);
    let height = 40.0 + line * promises.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"900\" height=\"{height}\" fill=\"#fff\"/>\n\
         <line x1=\"{x}\" x2=\"{x}\" y1=\"24\" y2=\"{height}\" stroke=\"#555\"/>\n\
         <text x=\"{x}\" y=\"16\" text-anchor=\"middle\" fill=\"#333\">promised</text>\n",
        x = left + scale
    );
    for (n, (name, ratio)) in promises.iter().enumerate() {
        let y = 30.0 + line * n as f64;
        let width = (ratio.clamp(0.0, 2.0)) * scale;
        let colour = if *ratio >= 1.0 { "#2a7f62" } else { "#c0562f" };
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#333\">{}</text>\n\
             <rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{}\" fill=\"#333\">{ratio:.2}</text>",
            left - 8.0,
            y + 12.0,
            name.replace('&', "&amp;").replace('<', "&lt;"),
            left + width + 6.0,
            y + 12.0,
        );
    }
    svg + "</svg>\n"
}

fn kept(scenario: &str, row: &Row) -> Option<(String, f64)> {
    let ratio = match row.goal? {
        Goal::AtMost(0.0) => return None,
        Goal::AtLeast(bound) => row.median() / bound,
        Goal::AtMost(bound) => bound / row.median(),
    };
    Some((format!("{scenario}: {}", row.name), ratio))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_stays_and_scenarios_are_replaced() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("natter-report-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("RESULTS.md"), "# Results\n\nBy hand.\n\n")?;
        for value in [1.0, 2.0] {
            let mut sheet = Sheet::new("About it.");
            sheet.promise("fast", "things", Goal::AtLeast(1.5), value);
            bring_up_to_date(&folder, "hot", sheet)?;
        }
        let page = fs::read_to_string(folder.join("RESULTS.md"))?;
        assert!(page.starts_with("# Results\n\nBy hand.\n\n<!--"), "{page}");
        assert!(page.contains("| fast | 2.00 things | ≥ 1.50 | yes |"), "{page}");
        assert_eq!(page.matches("## hot").count(), 1);
        let svg = fs::read_to_string(folder.join("results.svg"))?;
        assert!(svg.contains("hot: fast") && svg.contains(">1.33<"), "{svg}");
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    #[test]
    fn a_fault_is_one_however_seldom() {
        let mut sheet = Sheet::new("");
        for faults in [0.0, 0.0, 1.0] {
            sheet.promise("lost", "deliveries", Goal::AtMost(0.0), faults);
        }
        assert!(faults(&sheet) > 0.0);
    }
}
