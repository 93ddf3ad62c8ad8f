//! `POST /what-if`

use axum::Json;
use axum::extract::{Request, State};

use super::{App, body};
use crate::api::{ApiError, ErrorBody};
use crate::what_if::{Told, WhatIf};

/// Simulates what was seen of this server with other users and other limits.
///
/// # Cost
/// Up to a second or two of one core, which is the model's as long: so one at a time.
#[utoipa::path(
    post,
    path = "/what-if",
    request_body = WhatIf,
    responses(
        (status = 200, description = "What would be, beside what was", body = Told),
        (status = "default", description = "It was not answered, and why", body = ErrorBody),
    ),
)]
pub(super) async fn simulate(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Told>, ApiError> {
    let bytes = body::read(&app, request).await?;
    let busy = |_| ApiError::busy("A simulation runs already: try again later.");
    let turn = app
        .0
        .simulations
        .clone()
        .try_acquire_owned()
        .map_err(busy)?;
    let work = move || {
        let _turn = turn; // also if the client leaves
        let what_if: WhatIf = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::request(format!("The trace cannot be read: {error}.")))?;
        let refused = |error: anyhow::Error| ApiError::request(format!("{error:#}"));
        what_if.check().map_err(refused)?;
        let limits = app.live().limits();
        let limits = limits.ok_or_else(|| ApiError::fault("The engine has no limits."))?;
        what_if.simulate(limits).map_err(refused)
    };
    let told = tokio::task::spawn_blocking(work).await;
    told.map_err(|_| ApiError::fault("The simulation failed."))?
        .map(Json)
}
