//! What can be asked for.

use axum::http::{Method, StatusCode};

use super::Refusal;

/// What somebody asks for.
#[derive(Clone, Copy)]
pub(super) enum Matter {
    Flows,
    Capture,
    Probe,
    Forwarding,
    Ends,
}

impl Matter {
    pub(super) fn of(path: &str, method: &Method) -> Result<Self, Refusal> {
        let (matter, asked, why) = match path {
            "/flows" => (Self::Flows, Method::GET, "flows are read with GET"),
            "/capture" => (Self::Capture, Method::POST, "packets are captured with POST"),
            "/probe" => (Self::Probe, Method::POST, "probes are watched and sent with POST"),
            "/forwarding" => (Self::Forwarding, Method::GET, "what the kernel has is read with GET"),
            "/ends" => (Self::Ends, Method::POST, "which flows are told here is asked with POST"),
            _ => {
                let why = "there is nothing here but /flows, /capture, /probe, /forwarding and /ends";
                return Err(Refusal::new(StatusCode::NOT_FOUND, why));
            }
        };
        if *method == asked { Ok(matter) } else { Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)) }
    }
}
