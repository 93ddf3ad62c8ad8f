//! `conformance`: what a server of OpenAI's API does as it should, seen from outside.
//!
//! The suite knows nothing of who answers: it sends HTTP and reads what comes, so it runs against any server, and
//! several of them stand beside each other in one matrix.

mod answers;
mod client;
mod completions;
mod errors;
mod events;
mod matrix;
mod others;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use console::files;
use console::interrupt::check_interrupted;
use console::report::{Report, status};

use client::{Client, Missing};
pub use matrix::{Column, Matrix, Outcome};

/// Asks servers what clients will ask.
#[derive(Debug, Args)]
pub struct ConformanceArgs {
    /// Where a server is: http://127.0.0.1:8080; several for a matrix
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    base_url: Vec<String>,

    /// Names of the servers in the matrix, in the same order
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,

    /// Model to ask for, for each server; without it the first one that the server lists
    #[arg(long, value_name = "ID")]
    model_id: Vec<String>,

    /// What the servers want as `Authorization: Bearer KEY`
    #[arg(
        long,
        value_name = "KEY",
        env = "PIPELINE_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,

    /// Only the cases whose name begins like this
    #[arg(long, value_name = "START", default_value = "")]
    only: String,

    /// Write the matrix as a page
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,

    /// End with all outcomes as one line of JSON
    #[arg(long)]
    json: bool,
}

/// One thing that a server should do.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `area.name`
    pub id: &'static str,
    /// The same as a sentence.
    pub what: &'static str,
    check: fn(&Client) -> Result<()>,
}

/// All cases, in the order of the matrix.
pub fn cases() -> Vec<Case> {
    [
        answers::CASES,
        events::CASES,
        completions::CASES,
        errors::CASES,
        others::CASES,
    ]
    .concat()
}

/// Asks every server, and prints what each of them does.
///
/// # Errors
/// If a server is not there.
pub fn run(args: &ConformanceArgs) -> Result<()> {
    if let Some(page) = &args.page {
        files::directory(page).context("page")?;
    }
    let mut cases = cases();
    cases.retain(|case| case.id.starts_with(&args.only));
    ensure!(!cases.is_empty(), "no case begins with {:?}", args.only);
    let servers = args.base_url.iter().enumerate();
    let column = |(index, url): (usize, &String)| column(args, index, url, &cases);
    let matrix = Matrix {
        columns: servers.map(column).collect::<Result<_>>()?,
        cases,
    };
    let mut report = Report::stdout();
    matrix.print(&mut report)?;
    if let Some(page) = &args.page {
        files::replace(page, matrix.page().as_bytes())?;
        report.note(&format!("The matrix is in {}.", page.display()))?;
    }
    if args.json {
        report.json_line(&matrix.json())?;
    }
    Ok(())
}

fn column(args: &ConformanceArgs, index: usize, url: &str, cases: &[Case]) -> Result<Column> {
    let key = args.api_key.clone();
    let client = Client::open(url, key, args.model_id.get(index).cloned())?;
    let name = args.name.get(index).map_or(url, String::as_str).to_owned();
    let mut outcomes = Vec::new();
    for case in cases {
        check_interrupted()?;
        status(&format!("{name}: {}", case.id));
        outcomes.push(outcome(case, &client));
    }
    Ok(Column { name, outcomes })
}

fn outcome(case: &Case, client: &Client) -> Outcome {
    match (case.check)(client) {
        Ok(()) => Outcome::Passed,
        Err(error) if error.is::<Missing>() => Outcome::Missing,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}
