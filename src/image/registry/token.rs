//! Getting a token from the server that a registry names (distribution's "Token Authentication" and "OAuth2").

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    answer,
    client::{Payload, Web},
    credentials::Credentials,
    error::RegistryError,
    url::{Url, field},
};

type Result<T> = std::result::Result<T, RegistryError>;

const LARGEST: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Who asks for what.
pub struct Wish<'a> {
    /// As it is named, for errors.
    pub registry: &'a str,
    pub repository: &'a str,
    pub base: &'a Url,
    pub service: Option<&'a str>,
    pub scopes: &'a [String],
    pub credentials: Option<&'a Credentials>,
}

/// The header to send: `Bearer …`.
pub fn fetch(web: &Web, realm: &str, wish: &Wish<'_>) -> Result<String> {
    let led = |why: &str| RegistryError::Led {
        registry: wish.registry.to_owned(),
        to: realm.chars().take(200).collect(),
        why: why.to_owned(),
    };
    let mut url = wish.base.join(realm).ok_or_else(|| led("that is no place for tokens"))?;
    if wish.base.secure && !url.secure {
        return Err(led("tokens in the clear, though it has TLS itself"));
    }
    // Whoever listens on the way to another host would have them.
    let clear = !url.secure && !url.same_origin(wish.base);
    if clear && wish.credentials.is_some() {
        return Err(led("credentials are sent to another host only by HTTPS"));
    }
    let mut headers = Vec::new();
    let mut form = None;
    match wish.credentials {
        Some(Credentials::Identity(token)) => {
            let mut text = field("grant_type", "refresh_token") + "&" + &field("client_id", "fumehood");
            text = text + "&" + &field("refresh_token", token) + "&" + &field("scope", &wish.scopes.join(" "));
            if let Some(service) = wish.service {
                text = text + "&" + &field("service", service);
            }
            headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
            form = Some(text);
        }
        found => {
            if let Some(Credentials::Password { user, password }) = found {
                headers.push(("authorization", basic(user, password)));
                url = url.with("account", user);
            }
            if let Some(service) = wish.service {
                url = url.with("service", service);
            }
            for scope in wish.scopes {
                url = url.with("scope", scope);
            }
        }
    }
    let response = match &form {
        Some(form) => web.once("POST", &url, &headers, Payload::Bytes(form.as_bytes())),
        None => web.once("GET", &url, &headers, Payload::None),
    }?;
    if !response.status().is_success() {
        let error = answer::error(wish.registry, wish.repository, "the request for a token", response);
        return Err(match error {
            RegistryError::Status { status: 400 | 401 | 403, said, registry, .. } => {
                let who = if wish.credentials.is_some() {
                    "it does not take the credentials"
                } else {
                    "there are no credentials"
                };
                RegistryError::Login { registry, why: format!("{who}{said}") }
            }
            other => other,
        });
    }
    let mut body = Vec::new();
    let read = response.into_body().into_reader().take(LARGEST).read_to_end(&mut body);
    read.map_err(|error| RegistryError::of(wish.registry, &url.authority(), ureq::Error::from(error)))?;
    let token = serde_json::from_slice(&body).ok().and_then(|answer: Answer| answer.token.or(answer.access_token));
    // It goes into a header.
    let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
    let token = token.ok_or_else(|| RegistryError::Login {
        registry: wish.registry.to_owned(),
        why: format!("there is no token in what {} answers", url.authority()),
    })?;
    Ok(format!("Bearer {token}"))
}

#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
