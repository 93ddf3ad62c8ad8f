//! Is there room on the disk for what is to come? Asked before a download, which else ends after minutes
//! with a full disk that other programs have to live with.
use anyhow::Result;
use console::report::warn;

use super::cache::RepoCache;
use super::explain::Request;
use super::transfer::Wanted;
use crate::machine;

/// Refuses a download that does not fit. A file system that does not tell what it has free is no reason.
pub(super) fn check_room(
    request: &Request<'_>,
    cache: &RepoCache,
    wanted: &[Wanted<'_>],
) -> Result<()> {
    let lacking = wanted
        .iter()
        .map(|wanted| cache.lacking(wanted.etag, wanted.size));
    let needed = lacking.fold(0, u64::saturating_add);
    match machine::free_bytes(&cache.root.join("blobs")) {
        Some(free) if free < needed => {
            let refusal = request.no_room(needed, free);
            if machine::MAKES_ROOM {
                warn(&format!("{refusal:#}"));
                return Ok(());
            }
            Err(refusal)
        }
        _ => Ok(()),
    }
}
