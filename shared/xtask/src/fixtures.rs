//! (to be written)

/// Placeholder.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {}

/// Placeholder.
///
/// # Errors
/// Always.
pub fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
