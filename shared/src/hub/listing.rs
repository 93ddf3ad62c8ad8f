//! What the hub says that a revision is: a commit, and the files at its top with sizes and etags.
use std::collections::BTreeMap;

use hf_hub::repository::ModelInfo;
use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::{Budget, Failure, Hub};
use super::ids::{Commit, Etag, is_plain_name};
use super::source::RepoId;

/// The files of one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: Commit,
    pub(super) files: BTreeMap<String, Listed>,
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) size: u64,
    /// `None`: what is listed is no hash.
    pub(super) etag: Option<Etag>,
}

/// An entry of the hub's `tree`. Not hf-hub's type, which has another name for the hash of a large
/// file than the hub uses there, and so never has it.
#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    oid: String,
}

impl Listing {
    /// Asks for a revision, and then for the files of its commit, so that all files belong together.
    pub(super) fn fetch(hub: &Hub, repo: &RepoId, revision: &str) -> Result<Self, Failure> {
        let mut budget = Budget::new(hub.limits());
        let model = ["api", "models", &repo.owner, &repo.name];
        let url = hub.address(&[&model[..], &["revision", revision]].concat());
        let info: ModelInfo = parse(&hub.text(url, &mut budget)?.0)?;
        let commit = commit(info.sha.as_deref().unwrap_or_default(), revision)?;
        let mut files = BTreeMap::new();
        let mut page = Some(hub.address(&[&model[..], &["tree", commit.as_str()]].concat()));
        let mut pages = 0..hub.limits().pages;
        while let Some(url) = page {
            if pages.next().is_none() {
                return Err(Failure::Senseless(
                    "its list of files does not end".to_string(),
                ));
            }
            let (text, headers) = hub.text(url.clone(), &mut budget)?;
            files.extend(
                parse::<Vec<Entry>>(&text)?
                    .into_iter()
                    .filter_map(Entry::listed),
            );
            page = next_page(hub, &url, &headers)?;
        }
        Ok(Self { commit, files })
    }
}

/// The commit that the hub names; if it was asked for one, that one.
fn commit(sha: &str, revision: &str) -> Result<Commit, Failure> {
    let senseless = || Failure::Senseless(format!("it names {sha:?} as the commit"));
    let commit = Commit::parse(sha).ok_or_else(senseless)?;
    if Commit::parse(revision).is_some_and(|asked| asked != commit) {
        return Err(senseless());
    }
    Ok(commit)
}

impl Entry {
    fn listed(self) -> Option<(String, Listed)> {
        let oid = self.lfs.map_or(self.oid, |large| large.oid);
        let listed = Listed {
            size: self.size,
            etag: Etag::parse(&oid),
        };
        (self.r#type == "file" && is_plain_name(&self.path)).then_some((self.path, listed))
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(text)
        .map_err(|error| Failure::Senseless(format!("its answer cannot be read: {error}")))
}

/// Where the list goes on: `Link: <address>; rel="next"`. The token goes with it, so it must be on the
/// endpoint's own host.
fn next_page(hub: &Hub, page: &Url, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    let links = headers
        .get_all(LINK)
        .iter()
        .filter_map(|link| link.to_str().ok());
    // A header can have several links, and an address can have a comma in it.
    let mut before = links.filter_map(|link| Some(link.split_once("rel=\"next\"")?.0));
    let Some(next) = before.next() else {
        return Ok(None);
    };
    let address = next
        .rsplit_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    let address = address.map_or("", |(address, _)| address);
    match page.join(address).ok() {
        Some(url) if hub.is_own(&url) => Ok(Some(url)),
        _ => Err(Failure::Senseless(format!(
            "its list of files goes on at another address ({address}), which is not asked"
        ))),
    }
}
