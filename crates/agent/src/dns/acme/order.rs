//! One certificate: an order, the proof that its names are this server's, and the file that it is put in (RFC 8555 §7.4).

use std::{io, sync::Arc, time::Duration};

use instant_acme::{
    Account, AccountBuilder, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use podnet_dns::{
    chain::AcmeOptions,
    name::Name,
    plugin::{Challenge, Challenges},
};
use tokio::sync::Mutex;

use super::{directory::Http, now, renewal::Validity, storage};

/// How often an order is looked at: at even intervals, until it took so long in all. The library gives up as soon as the next interval would
/// go beyond that.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(2) })
    .backoff(1.0)
    .timeout(Duration::from_secs(120));
/// What an authority says of an account that it does not have (any more).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Held by who makes an account or forgets one: several certificates may have the same.
static ACCOUNTS: Mutex<()> = Mutex::const_new(());

/// What an authority has issued.
pub(super) struct Issued {
    /// The certificate, what stands behind it, and its key.
    pub(super) pem: String,
    /// How long it holds.
    pub(super) validity: Validity,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// There is no way to ask.
    #[error("the authority cannot be asked")]
    Client(#[source] io::Error),
    /// Something that was asked of the authority did not come to pass.
    #[error("the authority did not {action}")]
    Refused {
        /// What.
        action: &'static str,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The authority wants another kind of proof.
    #[error("the authority does not let {domain} be proved by DNS (dns-01)")]
    NoChallenge {
        /// What has to be proved.
        domain: String,
    },
    /// The authority did not see the proof.
    #[error(
        "the authority does not find that {domain} is this server's: {reason}; TXT questions for _acme-challenge.{domain} have to \
         come here, at port 53"
    )]
    NotProved {
        /// What had to be proved.
        domain: String,
        /// What it says.
        reason: String,
    },
    /// What came is not what was asked for.
    #[error("the certificate cannot be used: {reason}")]
    Unusable {
        /// Why not.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}, which storage names")]
    Storage {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("the authority took longer than {seconds} s")]
    Silent {
        /// How long it had.
        seconds: u64,
    },
}

fn refused(action: &'static str) -> impl FnOnce(Error) -> FetchError {
    move |source| FetchError::Refused { action, source }
}

/// Has a certificate issued and puts it where the options say; how long it holds. One that cannot be put there is in `unkept`, from where it
/// is put the next time: authorities count what they issue.
///
/// # Errors
/// When there is none in the end; what was there before stays.
pub(super) async fn fetch(
    options: &AcmeOptions,
    challenges: &Arc<Challenges>,
    unkept: &mut Option<Issued>,
) -> Result<Validity, FetchError> {
    if unkept.as_ref().is_some_and(|issued| issued.validity.renewal(1.0) <= now()) {
        *unkept = None;
    }
    let issued = match unkept {
        Some(issued) => issued,
        None => unkept.insert(issue(options, challenges).await?),
    };
    let (path, validity) = (options.certificate(), issued.validity);
    storage::put(path.clone(), issued.pem.clone()).await.map_err(|source| FetchError::Storage { path, source })?;
    *unkept = None;
    Ok(validity)
}

/// Has a certificate issued.
async fn issue(options: &AcmeOptions, challenges: &Arc<Challenges>) -> Result<Issued, FetchError> {
    // Before anything that the authority counts: what cannot be kept would be asked for again and again.
    let path = options.certificate();
    storage::has_room(path.clone()).await.map_err(|source| FetchError::Storage { path, source })?;
    let (account, kept) = account(options).await?;
    let text = |name: &Name| name.to_string().trim_end_matches('.').to_owned();
    let domains: Vec<Identifier> = options.domains.iter().map(|name| Identifier::Dns(text(name))).collect();
    let ordered = account.new_order(&NewOrder::new(&domains)).await;
    if let Err(Error::Api(problem)) = &ordered
        && problem.r#type.as_deref() == Some(NO_ACCOUNT)
    {
        // The next time another one is made.
        let _alone = ACCOUNTS.lock().await;
        let forgotten = storage::forget(options, &kept).await;
        forgotten.map_err(|source| FetchError::Storage { path: options.account(), source })?;
    }
    let mut order = ordered.map_err(refused("take the order"))?;
    // Answered until the authority has seen them, or it is over.
    let proofs = prove(&mut order, challenges).await?;
    let polled = order.poll_ready(&POLLS).await;
    drop(proofs);
    match polled {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(refusal(&mut order).await),
        Err(source) => return Err(refused("look at the proofs")(source)),
    }
    let key = order.finalize().await.map_err(refused("take the request"))?;
    let chain = order.poll_certificate(&POLLS).await.map_err(refused("issue the certificate"))?;
    let pem = format!("{}\n{key}", chain.trim_end());
    let validity =
        storage::usable(pem.as_bytes(), &options.domains).map_err(|reason| FetchError::Unusable { reason })?;
    if validity.renewal(1.0) <= now() {
        let reason = "it would have to be renewed at once (is this machine's clock right?)".to_owned();
        return Err(FetchError::Unusable { reason });
    }
    Ok(Issued { pem, validity })
}

/// The account at the authority, and as it is kept; where there is none it is made.
async fn account(options: &AcmeOptions) -> Result<(Account, Vec<u8>), FetchError> {
    if let Some(kept) = kept_account(options).await? {
        return Ok(kept);
    }
    let _alone = ACCOUNTS.lock().await;
    // Another one may have made it meanwhile.
    match kept_account(options).await? {
        Some(kept) => Ok(kept),
        None => new_account(options).await,
    }
}

async fn builder(options: &AcmeOptions) -> Result<AccountBuilder, FetchError> {
    Ok(Account::builder_with_http(Box::new(Http::new(options).await.map_err(FetchError::Client)?)))
}

async fn kept_account(options: &AcmeOptions) -> Result<Option<(Account, Vec<u8>)>, FetchError> {
    let failed = |source: io::Error| FetchError::Storage { path: options.account(), source };
    let Some(kept) = storage::account(options).await.map_err(failed)? else { return Ok(None) };
    let credentials = serde_json::from_slice(&kept).map_err(|error| failed(error.into()))?;
    let account = builder(options).await?.from_credentials(credentials).await;
    Ok(Some((account.map_err(refused("tell its directory"))?, kept)))
}

async fn new_account(options: &AcmeOptions) -> Result<(Account, Vec<u8>), FetchError> {
    let contact = options.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let made = builder(options).await?.create(&new, options.directory.clone(), None).await;
    let (account, credentials) = made.map_err(refused("make an account"))?;
    let failed = |source: io::Error| FetchError::Storage { path: options.account(), source };
    let text = serde_json::to_string(&credentials).map_err(|error| failed(error.into()))?;
    storage::put(options.account(), text.clone()).await.map_err(failed)?;
    Ok((account, text.into_bytes()))
}

/// Answers all challenges of an order, and has the authority look. They are answered while what is returned is there.
async fn prove(order: &mut Order, challenges: &Arc<Challenges>) -> Result<Vec<Challenge>, FetchError> {
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(refused("tell what has to be proved"))?;
        // What was proved a while ago need not be proved again.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = match authorization.identifier().identifier {
            Identifier::Dns(domain) => domain.clone(),
            other => format!("{other:?}"),
        };
        let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01) else {
            return Err(FetchError::NoChallenge { domain });
        };
        let text = challenge.key_authorization().dns_value();
        let proof = Name::parse(&domain).and_then(|name| challenges.answer(&name, &text));
        let proof = proof.map_err(|error| FetchError::NotProved { domain, reason: error.to_string() })?;
        proofs.push(proof);
        challenge.set_ready().await.map_err(refused("begin to look at a proof"))?;
    }
    Ok(proofs)
}

/// Why an order came to nothing: what the authority says of the first of its names that was not proved.
async fn refusal(order: &mut Order) -> FetchError {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { break };
        let Ok(state) = authorization.refresh().await else { break };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            let domain = match state.identifier().identifier {
                Identifier::Dns(domain) => domain.clone(),
                other => format!("{other:?}"),
            };
            return FetchError::NotProved { domain, reason: problem.to_string() };
        }
    }
    refused("accept the order")(Error::Other("it does not say why".into()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Of an authority that is not there.
    fn options(storage: &Path) -> AcmeOptions {
        AcmeOptions {
            domains: vec![Name::parse("a.example").unwrap()],
            email: None,
            directory: "https://127.0.0.1:1/".to_owned(),
            storage: storage.display().to_string(),
            authorities: None,
            resolver: None,
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_for_what_cannot_be_kept() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let failed = fetch(&options(&file.join("kept")), &Arc::default(), &mut None).await.unwrap_err();
        assert!(matches!(failed, FetchError::Storage { .. }), "{failed}");
    }

    #[tokio::test]
    async fn what_could_not_be_put_is_put_later_without_another_order() {
        let root = tempfile::tempdir().unwrap();
        let storage = root.path().join("kept");
        std::fs::write(&storage, "").unwrap();
        let validity = Validity { begin: now(), end: now() + 86_400 };
        let mut unkept = Some(Issued { pem: "a certificate".to_owned(), validity });
        let options = options(&storage);
        let failed = fetch(&options, &Arc::default(), &mut unkept).await.unwrap_err();
        assert!(matches!(failed, FetchError::Storage { .. }) && unkept.is_some(), "{failed}");
        std::fs::remove_file(&storage).unwrap();
        assert_eq!(fetch(&options, &Arc::default(), &mut unkept).await.unwrap(), validity);
        assert_eq!(std::fs::read_to_string(options.certificate()).unwrap(), "a certificate");
        assert!(unkept.is_none());
    }
}
