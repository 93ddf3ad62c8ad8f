//! The parts that there are, with the command that runs each.

use std::fmt::Write as _;

use crate::change::Step;
use crate::series::Series;

pub(super) fn render(series: &Series, steps: &[Step]) -> String {
    let mut text = "| part | what it shows | run it | its lesson |\n\
                    | --- | --- | --- | --- |\n"
        .to_owned();
    for part in &series.parts {
        let package = &part.package;
        let step = steps.iter().find(|step| step.part.number == part.number);
        let step = step.filter(|step| step.changes.share());
        let diff = step.map_or_else(
            || "all of it is new".to_owned(),
            |step| format!("`cargo xtask diff {} {}`", step.before.number, part.number),
        );
        let _ = writeln!(
            text,
            "| [{}]({package}) | {} | `cargo run -p {package}` | {diff} |",
            part.number, part.what
        );
    }
    text
}
