//! What the environment says about the hub.
use std::path::PathBuf;

/// Where the hub is, where its files are kept, and whether it may be asked at all.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The hub's address, without a slash at the end. `HF_ENDPOINT`; a mirror can stand in.
    pub endpoint: String,
    /// The cache directory. `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The access token. `None`: `HF_TOKEN`, or the file that `hf auth login` wrote, if any.
    pub token: Option<String>,
    /// Make no request. `HF_HUB_OFFLINE`.
    pub offline: bool,
}

impl HubSettings {
    /// Reads the variables that all Hugging Face tools share.
    pub fn from_env() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: hf_hub::resolve_cache_dir(),
            token: None,
            // hf-hub does not know this variable; the values are those of `huggingface_hub`.
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| {
                matches!(
                    value.to_ascii_uppercase().as_str(),
                    "1" | "ON" | "YES" | "TRUE"
                )
            }),
        }
    }
}
