//! Asking about a key without redeeming it.

use reqwest::Method;

use super::{
    failure::{Refusal, RestError},
    rest::{JsonBody, Rest},
    wire,
};
use crate::model::{KeyFacts, Secret};

impl Rest {
    /// Asks whether the server knows a key: shows it with a host whose version no server admits, which is refused after
    /// the key was looked up and before a use is spent (protocol page, "Order of checks"). Returns what the server says
    /// of the key, `None` unless it speaks our extension header.
    ///
    /// # Errors
    /// [`RestError::Status`] with a [`Refusal`] if the server does not know the key.
    pub async fn ask_about(&self, token: &Secret, host: &wire::Host) -> Result<Option<KeyFacts>, RestError> {
        let path = format!("/api/v1/host/register/{}", token.expose());
        let response = self.send(self.request(Method::POST, &path).json_body(host)?).await?;
        let told = response.headers().get(wire::KEY_HEADER).map(|value| value.as_bytes().to_vec());
        if response.status().as_u16() == 200 {
            tracing::warn!(
                "the server took a question for a registration: a use may be spent, for a host without a name"
            );
            return Ok(None);
        }
        let error = self.refusal(response).await;
        match error.refusal() {
            Some(Refusal::Version) => Ok(told.as_deref().and_then(facts)),
            Some(_) | None => Err(error),
        }
    }
}

fn facts(told: &[u8]) -> Option<KeyFacts> {
    let wire::KeyAnnouncement { disabled, expires_at, networks, ranges, tags, uses_left } =
        serde_json::from_slice(told).ok()?;
    let [networks, tags] = [networks, tags].map(|names| names.iter().map(|name| printable(name)).collect());
    let ranges = ranges.iter().filter_map(|range| range.parse().ok()).collect();
    Some(KeyFacts { disabled, expires_at, networks, ranges, tags, uses_left })
}

/// What a server says ends up on a terminal.
fn printable(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_without_what_no_terminal_should_show() {
        let told = facts(br#"{"networks":["office\u001b[2J"],"uses_left":3,"later":true}"#).unwrap();

        assert_eq!(told.networks, ["office[2J".to_owned()].into());
        assert_eq!((told.uses_left, told.expires_at, told.disabled), (Some(3), None, false));
        assert_eq!(facts(b"<html>"), None);
    }
}
