//! Service accounts: their tokens, and whom a token speaks for.
//! <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Api, Place};
use crate::auth::{BoundAccount, Identity, rules::Facts};
use crate::errors::ApiError;
use crate::store::Object;

/// Seconds that a token lives when the request does not say.
const DEFAULT_LIFETIME: i64 = 3600;

/// The shortest and longest life of a token, in seconds: Kubernetes' ten minutes, and a year.
const LIFETIMES: std::ops::RangeInclusive<i64> = 600..=365 * 24 * 3600;

impl Api {
    /// Answers a TokenRequest for the account at a place.
    pub fn request_token(&self, at: &Place<'_>, mut request: Value) -> Result<Value, ApiError> {
        let account = self.existing(at)?;
        if !matches!(request["spec"], Value::Null | Value::Object(_)) {
            return Err(ApiError::bad_request("TokenRequest: spec: an object is expected"));
        }
        let spec = &request["spec"];
        let lifetime = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_LIFETIME);
        if lifetime < *LIFETIMES.start() {
            return Err(ApiError::bad_request(
                "spec.expirationSeconds: may not specify a duration less than 10 minutes",
            ));
        }
        let lifetime = lifetime.min(*LIFETIMES.end());
        let mut audiences: Vec<String> =
            spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences.push(self.tokens().default_audience().to_owned());
        }
        let pod = self.bound_pod(at, &spec["boundObjectRef"])?;
        let uid = account.value["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let node = pod.as_ref().and_then(|(pod, _)| self.node_of_pod(at.namespace, pod));
        let node = node.and_then(|name| {
            let uid = self.store().object("nodes", "", &name)?.value["metadata"]["uid"].as_str()?.to_owned();
            Some((name, uid))
        });
        let bound = BoundAccount { namespace: at.namespace.to_owned(), name: at.name.to_owned(), uid, pod, node };
        let now = Utc::now();
        let end = now + TimeDelta::seconds(lifetime);
        let token = self
            .tokens()
            .issue(&bound, audiences.clone(), now.timestamp(), end.timestamp())
            .map_err(|error| ApiError::internal(&error))?;
        let expiration = end.to_rfc3339_opts(SecondsFormat::Secs, true);
        request["kind"] = json!("TokenRequest");
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = json!(lifetime);
        request["status"] = json!({ "token": token, "expirationTimestamp": expiration });
        Ok(request)
    }

    /// Name and uid of the pod that a token is for.
    fn bound_pod(&self, at: &Place<'_>, reference: &Value) -> Result<Option<(String, String)>, ApiError> {
        let (Some("Pod"), Some(name)) = (reference["kind"].as_str(), reference["name"].as_str()) else {
            return Ok(None);
        };
        let pods = self.registry().builtin("", "pods");
        let pod = self.existing(&Place { resource: &pods, namespace: at.namespace, name })?;
        let uid = pod.value["metadata"]["uid"].as_str().unwrap_or_default();
        match reference["uid"].as_str() {
            Some(wanted) if !wanted.is_empty() && wanted != uid => {
                let why = format!("the UID in the bound object reference ({wanted}) does not match the UID in record");
                Err(ApiError::conflict(&pods, name, &why))
            }
            _ => Ok(Some((name.to_owned(), uid.to_owned()))),
        }
    }

    /// Whom a bearer token speaks for: a service account that still is the one that it was made for, as is its pod.
    pub fn identity_of_token(&self, token: &str) -> Option<Identity> {
        let account = self.account_of_token(token)?;
        Some(Identity::service_account(&account.namespace, &account.name))
    }

    /// Fills in the answer of a TokenReview; of a token that was made for a pod it names the pod and its node, by the keys that
    /// Kubernetes' own API server does.
    pub fn review_token(&self, mut review: Value) -> Value {
        let audiences: Vec<&str> =
            review["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let own = self.tokens().default_audience();
        let is_meant = audiences.is_empty() || audiences.contains(&own);
        let account = self.account_of_token(review["spec"]["token"].as_str().unwrap_or_default());
        review["status"] = match account.filter(|_| is_meant) {
            None => json!({ "authenticated": false, "error": "the token is not valid here" }),
            Some(account) => {
                let identity = Identity::service_account(&account.namespace, &account.name);
                let mut extra = serde_json::Map::new();
                if let Some((pod, uid)) = &account.pod {
                    extra.insert("authentication.kubernetes.io/pod-name".into(), json!([pod]));
                    extra.insert("authentication.kubernetes.io/pod-uid".into(), json!([uid]));
                    if let Some(node) = self.node_of_pod(&account.namespace, pod) {
                        extra.insert("authentication.kubernetes.io/node-name".into(), json!([node]));
                    }
                }
                let (user, groups) = (identity.user, identity.groups);
                let user = json!({ "username": user, "uid": account.uid, "groups": groups, "extra": extra });
                json!({ "authenticated": true, "user": user, "audiences": [own] })
            }
        };
        review
    }

    fn account_of_token(&self, token: &str) -> Option<BoundAccount> {
        let account = match self.tokens().verify(token) {
            Ok(account) => account,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "bearer token refused");
                return None;
            }
        };
        let stored = self.store().object("serviceaccounts", &account.namespace, &account.name)?;
        let is = |object: &Object, uid: &str| object.value["metadata"]["uid"] == uid;
        let carried = account.pod.as_ref().is_none_or(|(pod, uid)| {
            self.store().object("pods", &account.namespace, pod).is_some_and(|stored| is(&stored, uid))
        });
        (carried && is(&stored, &account.uid)).then_some(account)
    }
}
