//! The parts that there are, with the command that runs each.

use std::fmt::Write as _;

use crate::series::Series;

pub(super) fn render(series: &Series) -> String {
    let mut text = "| part | what it shows | run it | measure it | its lesson |\n\
                    | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for part in &series.parts {
        let package = &part.package;
        let bench = match part.path("benches").is_dir() {
            true => format!("`cargo bench -p {package}`"),
            false => String::new(),
        };
        let diff = series.before(part).map_or_else(String::new, |before| {
            format!("`cargo xtask diff {} {}`", before.number, part.number)
        });
        let _ = writeln!(
            text,
            "| [{}]({package}) | {} | `cargo run -p {package}` | {bench} | {diff} |",
            part.number, part.what
        );
    }
    text
}
