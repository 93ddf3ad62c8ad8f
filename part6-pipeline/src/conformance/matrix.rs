//! What came of it: in the terminal, as JSON, and as a page.

use std::fmt::Write as _;
use std::io::{self, Write};

use console::report::Report;
use serde_json::{Value, json};

use super::Case;

/// What a server makes of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Otherwise, and how.
    Failed(String),
    /// The server has no such path.
    Missing,
}

impl Outcome {
    fn mark(&self) -> &'static str {
        match self {
            Self::Passed => "✓",
            Self::Failed(_) => "✗",
            Self::Missing => "–",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Missing => "missing",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            _ => None,
        }
    }
}

/// One server.
#[derive(Debug)]
pub struct Column {
    /// What it is called in the head.
    pub name: String,
    /// Of each case.
    pub outcomes: Vec<Outcome>,
}

impl Column {
    fn passed(&self) -> usize {
        let passed = |outcome: &&Outcome| **outcome == Outcome::Passed;
        self.outcomes.iter().filter(passed).count()
    }
}

/// All servers and all cases.
#[derive(Debug)]
pub struct Matrix {
    /// The rows.
    pub cases: Vec<Case>,
    /// The servers.
    pub columns: Vec<Column>,
}

impl Matrix {
    /// As a table, with what went wrong below it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print<W: Write>(&self, report: &mut Report<W>) -> io::Result<()> {
        let names = self.columns.iter().map(|column| column.name.as_str());
        let head: Vec<&str> = ["case", "what should be"]
            .into_iter()
            .chain(names)
            .collect();
        let row = |(index, case): (usize, &Case)| {
            let marks = self
                .columns
                .iter()
                .map(|column| column.outcomes[index].mark());
            [case.id, case.what].into_iter().chain(marks).collect()
        };
        let mut rows: Vec<Vec<&str>> = self.cases.iter().enumerate().map(row).collect();
        let counts: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.passed().to_string())
            .collect();
        let of = format!("of {}", self.cases.len());
        let total = ["passed", of.as_str()]
            .into_iter()
            .chain(counts.iter().map(String::as_str));
        rows.push(total.collect());
        report.text_table(&head, &rows, &[0, 1])?;
        for column in &self.columns {
            let both = self.cases.iter().zip(&column.outcomes);
            for (case, why) in both.filter_map(|(case, outcome)| Some((case, outcome.why()?))) {
                report.note(&format!("{}, {}: {why}", column.name, case.id))?;
            }
        }
        Ok(())
    }

    /// As one object.
    pub fn json(&self) -> Value {
        let column = |column: &Column| {
            let both = self.cases.iter().zip(&column.outcomes);
            let outcomes = both.map(|(case, outcome)| {
                json!({"case": case.id, "outcome": outcome.name(), "why": outcome.why()})
            });
            json!({
                "name": column.name, "passed": column.passed(), "of": self.cases.len(),
                "outcomes": outcomes.collect::<Vec<_>>(),
            })
        };
        let cases = self
            .cases
            .iter()
            .map(|case| json!({"id": case.id, "what": case.what}));
        json!({
            "cases": cases.collect::<Vec<_>>(),
            "servers": self.columns.iter().map(column).collect::<Vec<_>>(),
        })
    }

    /// As a page that needs nothing else.
    pub fn page(&self) -> String {
        let mut page = START.to_owned();
        let _ = write!(page, "<tr><th>case<th>what should be");
        for column in &self.columns {
            let (name, passed) = (escaped(&column.name), column.passed());
            let _ = write!(page, "<th>{name}<br>{passed} of {}", self.cases.len());
        }
        for (index, case) in self.cases.iter().enumerate() {
            let _ = write!(
                page,
                "\n<tr><td><code>{}</code><td>{}",
                case.id,
                escaped(case.what)
            );
            for column in &self.columns {
                let outcome = &column.outcomes[index];
                let (name, mark) = (outcome.name(), outcome.mark());
                let _ = write!(page, "<td class={name}>{mark}");
                if let Some(why) = outcome.why() {
                    let _ = write!(page, " <small>{}</small>", escaped(why));
                }
            }
        }
        page + "\n</table>\n"
    }
}

const START: &str = "<!doctype html>
<meta charset=utf-8>
<meta name=viewport content=\"width=device-width\">
<title>What servers of OpenAI's API do as they should</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color-scheme: light dark }
table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .2em .8em; border-bottom: 1px solid #8884 }
.passed { color: #2a9d4a } .failed { color: #d33 } .missing { color: #888 }
</style>
<h1>What servers of OpenAI's API do as they should</h1>
<p>✓ as it should be, ✗ otherwise, – the server has no such path.
<table>
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Matrix {
        let mut cases = super::super::cases();
        cases.truncate(3);
        let outcomes = [
            vec![Outcome::Passed, Outcome::Missing, Outcome::Passed],
            vec![
                Outcome::Failed("status <500>".to_owned()),
                Outcome::Passed,
                Outcome::Passed,
            ],
        ];
        let columns = ["ours", "theirs"].into_iter().zip(outcomes);
        Matrix {
            cases,
            columns: columns
                .map(|(name, outcomes)| Column {
                    name: name.to_owned(),
                    outcomes,
                })
                .collect(),
        }
    }

    #[test]
    fn all_servers_stand_beside_each_other_and_failures_say_why() {
        let mut text = Vec::new();
        matrix().print(&mut Report::plain(&mut text)).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("theirs, chat.answer: status <500>"), "{text}");
        let passed = text.lines().find(|line| line.contains("of 3"));
        let counts: Vec<&str> = passed.unwrap().split_whitespace().rev().take(2).collect();
        assert_eq!(counts, ["2", "2"], "{text}");
        let page = matrix().page();
        assert!(
            page.contains("status &lt;500&gt;") && page.contains("2 of 3"),
            "{page}"
        );
        assert_eq!(
            matrix().json()["servers"][1]["outcomes"][0]["outcome"],
            "failed"
        );
    }

    #[test]
    fn no_two_cases_have_the_same_name() {
        let mut names: Vec<&str> = super::super::cases().iter().map(|case| case.id).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
