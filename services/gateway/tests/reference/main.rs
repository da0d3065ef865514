//! The documents for app developers: they are what they say they are, and what is committed is
//! what is generated.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use natter_cluster::{
    install::{self, Tool},
    progress::Progress,
};
use natter_gateway::reference::Documents;
use serde_json::json;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference/natter.d.ts");
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference");
const REFRESH: &str = "REFRESH=1 cargo test -p natter-gateway --test reference";

#[test]
fn the_committed_types_are_the_generated_ones() -> Result<()> {
    let generated = Documents::new().typescript;
    if env::var_os("REFRESH").is_some() {
        fs::write(COMMITTED, &generated)?;
    }
    let committed = fs::read_to_string(COMMITTED)?;
    ensure!(committed == generated, "the types have changed; to write them anew: {REFRESH}");
    Ok(())
}

/// Runs Node.js with the readers at hand.
fn node(arguments: &[&str], at: &Path) -> Result<()> {
    let node = install::node_js().context("Node.js is not installed")?.node;
    let readers = install::document_readers().context("the readers are not installed")?;
    let output = Command::new(node)
        .args(arguments)
        .env("NODE_PATH", readers.join("node_modules"))
        .current_dir(at)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\n{complained}");
    Ok(())
}

#[test]
fn the_documents_are_asyncapi_and_openapi() -> Result<()> {
    install::ensure(&[Tool::NodeJs, Tool::DocumentReaders], Progress::Quiet)?;
    let documents = Documents::new();
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("asyncapi.json"), documents.asyncapi.to_string())?;
    fs::write(folder.path().join("openapi.json"), documents.openapi.to_string())?;
    node(&[&format!("{TESTS}/check.cjs"), "."], folder.path())
}

#[test]
fn the_types_are_typescript_and_of_use() -> Result<()> {
    let needed = [Tool::NodeJs, Tool::DocumentReaders, Tool::SocketIoClient];
    install::ensure(&needed, Progress::Quiet)?;
    let readers = install::document_readers().context("no TypeScript")?;
    let client = install::socket_io_client().context("no socket.io-client")?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::write(at("natter.d.ts"), Documents::new().typescript)?;
    fs::copy(format!("{TESTS}/sample.ts"), at("sample.ts"))?;
    symlink(client.join("node_modules"), at("node_modules"))?;
    let options = json!({
        "compilerOptions": {
            "strict": true, "noEmit": true, "target": "es2022", "lib": ["es2022", "dom"],
            "module": "esnext", "moduleResolution": "bundler", "types": [],
        },
        "files": ["natter.d.ts", "sample.ts"],
    });
    fs::write(at("tsconfig.json"), options.to_string())?;
    let compiler = readers.join("node_modules/typescript/bin/tsc");
    node(&[compiler.to_str().context("a strange path")?, "-p", "."], folder.path())
}
