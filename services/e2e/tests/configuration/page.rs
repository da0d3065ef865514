//! `deploy/settings.md` and the names that programs know are those of the command lines.

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, ensure};
use clap::{Arg, Command, CommandFactory};
use natter_cluster::binaries::workspace;

/// Set to write both files anew, instead of comparing.
const WRITE: &str = "NATTER_WRITE_SETTINGS";
const HOW: &str = "NATTER_WRITE_SETTINGS=1 cargo test -p natter-e2e --test configuration page";

/// What runs for as long as a deployment does, or brings it up to date.
pub(crate) fn services() -> Vec<Command> {
    vec![
        natter_gateway::config::Cli::command(),
        natter_persistence::config::Cli::command(),
        natter_push::config::Cli::command(),
    ]
}

/// Every program with settings, in the page's order.
fn programs() -> Vec<Command> {
    services().into_iter().chain([natter_operator::config::Cli::command()]).collect()
}

#[test]
fn the_page_and_the_known_names_are_those_of_the_programs() -> Result<()> {
    let root = workspace().context("no workspace")?;
    let mut names: Vec<String> =
        programs().iter().flat_map(natter_runtime::config::variables).collect();
    names.sort();
    names.dedup();
    let names: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    same(&root.join("services/shared/runtime/src/variables.txt"), &names)?;
    let page = root.join("deploy/settings.md");
    let before = fs::read_to_string(&page)?;
    // What stands before the table is written by hand.
    let head = before.find(HEAD).unwrap_or(before.len());
    same(&page, &format!("{}{}", &before[..head], table()))
}

fn same(path: &Path, expected: &str) -> Result<()> {
    if env::var_os(WRITE).is_some() {
        return Ok(fs::write(path, expected)?);
    }
    let found = fs::read_to_string(path)?;
    ensure!(found == expected, "{} is not what the programs say:\n{HOW}", path.display());
    Ok(())
}

const HEAD: &str = "| variable, flag | default | meaning | read by |\n|---|---|---|---|\n";

/// A setting, and the programs for which it is the same in every respect.
struct Row {
    variable: String,
    /// Default and meaning.
    cells: [String; 2],
    flag: String,
    programs: Vec<String>,
}

fn table() -> String {
    let mut rows: Vec<Row> = Vec::new();
    for mut program in programs() {
        program.build();
        collect(&program, program.get_name(), &mut rows);
    }
    let mut text = HEAD.to_owned();
    for Row { variable, cells: [default, meaning], flag, programs } in rows {
        let programs = named_once(programs).join("<br>");
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "| `{variable}`<br>`--{flag}` | {default} | {meaning} | {programs} |");
    }
    text
}

/// What more than two of the operators' commands read is a matter of the whole program.
fn named_once(mut programs: Vec<String>) -> Vec<String> {
    let is_operators = |name: &String| name.starts_with("natter ") && name != "natter migrate";
    if programs.iter().filter(|name| is_operators(name)).count() > 2 {
        programs.retain(|name| !is_operators(name));
        programs.push("natter".to_owned());
    }
    programs
}

fn collect(command: &Command, name: &str, rows: &mut Vec<Row>) {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        collect(inner, &format!("{name} {}", inner.get_name()), rows);
    }
    if command.has_subcommands() {
        return;
    }
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let (Some(variable), Some(flag)) = (arg.get_env(), arg.get_long()) else { continue };
        let variable = variable.to_string_lossy().into_owned();
        let cells = [default(arg), meaning(arg)];
        let same = |row: &&mut Row| row.variable == variable && row.cells == cells;
        if let Some(row) = rows.iter_mut().find(same) {
            row.programs.push(name.to_owned());
            continue;
        }
        // Beside what other programs make of it.
        let beside = rows.iter().rposition(|row| row.variable == variable);
        let at = beside.map_or(rows.len(), |at| at + 1);
        let (flag, programs) = (flag.to_owned(), vec![name.to_owned()]);
        rows.insert(at, Row { variable, cells, flag, programs });
    }
}

fn default(arg: &Arg) -> String {
    if arg.is_required_set() {
        return "**required**".to_owned();
    }
    let values: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if values.is_empty() || arg.is_hide_default_value_set() {
        return String::new();
    }
    format!("`{}`", values.join(",").replace(',', ", "))
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut text = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    // Clap drops the last one.
    if !text.ends_with('.') {
        text.push('.');
    }
    let values: Vec<_> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !values.is_empty() {
        text = format!("{text} One of {}.", values.join(", "));
    }
    if arg.is_hide_env_values_set() { format!("**Secret.** {text}") } else { text }
}
