//! The module map of each `lib.rs` is whole, since everything else is read from it.

use anyhow::Result;

use crate::finding::Finding;
use crate::series::Series;
use crate::series::map::TAUGHT;
use crate::source;

pub(super) fn findings(series: &Series) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for part in &series.parts {
        let library = part.named("src/lib.rs");
        if !part.map.iter().any(|module| module.taught) {
            found.push(Finding::new(
                &library,
                format!("its documentation has no list below `{TAUGHT}:`"),
                "write what the part teaches: lines like //! - [`cache`]: how keys are kept",
            ));
        }
        for module in source::modules(&source::parse(&part.path("src/lib.rs"))?) {
            if !part.map.iter().any(|entry| entry.name == module) {
                found.push(Finding::new(
                    &library,
                    format!("`{module}` is missing in the map"),
                    format!(
                        "add a line //! - [`{module}`]: below `{TAUGHT}:` if it is taught, \
                         else to the list after it"
                    ),
                ));
            }
        }
    }
    Ok(found)
}
