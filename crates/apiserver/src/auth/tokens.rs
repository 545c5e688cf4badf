//! Service account tokens: JWTs (RFC 7519) signed with ES256, bound to the account's uid.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

/// `iss` of every token, and the default audience, as kubeadm sets them.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why a token could not be made or is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key is of no use.
    #[error("preparing the key that signs service account tokens")]
    Key(#[source] jsonwebtoken::errors::Error),
    /// Signing failed.
    #[error("signing a token for service account {account}")]
    Sign {
        /// `namespace/name`.
        account: String,
        /// What the library says.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The token is malformed, expired, for another audience or signed by somebody else.
    #[error("the bearer token is not valid")]
    Refused(#[source] jsonwebtoken::errors::Error),
}

/// The account that a token speaks for. It is only good while the account exists with this uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundAccount {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub name: String,
    /// Its uid when the token was made.
    pub uid: String,
    /// Name and uid of the pod that the token was made for: the token is good while that pod exists.
    pub pod: Option<(String, String)>,
    /// Name and uid of that pod's node: it tells the pod where it is.
    pub node: Option<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    node: Option<Named>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// Makes and checks tokens.
pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Signs and verifies with this P-256 key.
    pub fn new(key: &KeyPair) -> Result<Self, TokenError> {
        let signing = EncodingKey::from_ec_der(key.serialized_der());
        // An uncompressed point (SEC 1, 2.3.3): 0x04, x, y.
        let point = key.public_key_raw().get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        let verifying = DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y))
            .map_err(TokenError::Key)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 10;
        Ok(Self { signing, verifying, validation })
    }

    /// The audience of tokens for this API server.
    pub fn default_audience(&self) -> &'static str {
        ISSUER
    }

    /// A token for an account, good from `now` until `expires` (Unix seconds).
    pub fn issue(
        &self,
        account: &BoundAccount,
        audiences: Vec<String>,
        now: i64,
        expires: i64,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", account.namespace, account.name),
            aud: audiences,
            exp: expires,
            iat: now,
            nbf: now,
            jti: uuid::Uuid::new_v4().to_string(),
            bound: Bound {
                namespace: account.namespace.clone(),
                serviceaccount: Named { name: account.name.clone(), uid: account.uid.clone() },
                pod: account.pod.clone().map(|(name, uid)| Named { name, uid }),
                node: account.node.clone().map(|(name, uid)| Named { name, uid }),
            },
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)
            .map_err(|source| TokenError::Sign { account: format!("{}/{}", account.namespace, account.name), source })
    }

    /// Whom a token speaks for. The caller checks that account and pod still exist with those uids.
    pub fn verify(&self, token: &str) -> Result<BoundAccount, TokenError> {
        let claims: Claims =
            jsonwebtoken::decode(token, &self.verifying, &self.validation).map_err(TokenError::Refused)?.claims;
        let Bound { namespace, serviceaccount, pod, node } = claims.bound;
        let [pod, node] = [pod, node].map(|named| named.map(|named| (named.name, named.uid)));
        Ok(BoundAccount { namespace, name: serviceaccount.name, uid: serviceaccount.uid, pod, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> BoundAccount {
        let named = |name: &str| Some((name.to_owned(), format!("uid of {name}")));
        BoundAccount {
            namespace: "default".to_owned(),
            name: "robot".to_owned(),
            uid: "u-1".to_owned(),
            pod: named("robot-0"),
            node: named("node1"),
        }
    }

    fn now() -> i64 {
        chrono::Utc::now().timestamp()
    }

    #[test]
    fn a_token_speaks_for_its_account() {
        let tokens = Tokens::new(&KeyPair::generate().unwrap()).unwrap();
        let token = tokens.issue(&account(), vec![ISSUER.to_owned()], now(), now() + 600).unwrap();
        assert_eq!(tokens.verify(&token).unwrap(), account());
    }

    #[test]
    fn an_expired_token_a_foreign_audience_and_a_foreign_key_are_refused() {
        let tokens = Tokens::new(&KeyPair::generate().unwrap()).unwrap();
        let expired = tokens.issue(&account(), vec![ISSUER.to_owned()], now() - 600, now() - 60).unwrap();
        assert!(tokens.verify(&expired).is_err());
        let elsewhere = tokens.issue(&account(), vec!["vault".to_owned()], now(), now() + 600).unwrap();
        assert!(tokens.verify(&elsewhere).is_err());
        let others = Tokens::new(&KeyPair::generate().unwrap()).unwrap();
        let foreign = others.issue(&account(), vec![ISSUER.to_owned()], now(), now() + 600).unwrap();
        assert!(tokens.verify(&foreign).is_err());
    }
}
