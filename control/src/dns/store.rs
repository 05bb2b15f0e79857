//! Published DNS settings, which are there as long as their owner lives.
//!
//! They are session keys (`kSCDynamicStoreUseSessionKeys`): configd removes them when the connection of the session ends,
//! so a killed process leaves none behind. The session belongs to a thread of its own, because it may not change threads.

use std::sync::mpsc;
use std::thread::JoinHandle;

use system_configuration::core_foundation::array::CFArray;
use system_configuration::core_foundation::base::{CFType, TCFType};
use system_configuration::core_foundation::dictionary::CFDictionary;
use system_configuration::core_foundation::number::CFNumber;
use system_configuration::core_foundation::string::CFString;
use system_configuration::dynamic_store::{SCDynamicStore, SCDynamicStoreBuilder};
use tokio::sync::oneshot;

use super::{Dictionary, DnsError, Value, service_key};

/// DNS settings in force; dropping this withdraws them.
#[derive(Debug)]
pub struct Published {
    dictionary: Dictionary,
    /// Its end ends the thread.
    owner: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Published {
    /// Publishes settings as a service of their own.
    ///
    /// # Errors
    /// [`DnsError`]; nothing is published then.
    pub async fn publish(dictionary: Dictionary) -> Result<Self, DnsError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(std::io::Error::other)?;
        let key = service_key(u128::from_ne_bytes(id));
        let (owner, end) = mpsc::channel();
        let (told, outcome) = oneshot::channel();
        let entries = dictionary.clone();
        let thread = std::thread::Builder::new().name("adit-dns".into()).spawn(move || {
            let store = open()
                .and_then(|store| store.set(key.as_str(), native(&entries)).then_some(store).ok_or(DnsError::Refused));
            let store = match store {
                Ok(store) => store,
                Err(error) => {
                    let _gone = told.send(Err(error));
                    return;
                }
            };
            if told.send(Ok(())).is_ok() {
                // Ends when the owner is dropped.
                let _ended = end.recv();
            }
            if !store.remove(key.as_str()) {
                tracing::debug!("the DNS settings go with their session");
            }
        })?;
        match outcome.await {
            Ok(Ok(())) => Ok(Self { dictionary, owner: Some(owner), thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(DnsError::NoStore),
        }
    }

    /// What is published.
    #[must_use]
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        drop(self.owner.take());
        if let Some(thread) = self.thread.take() {
            // It has one message to send to configd. Had it panicked, the session would have ended with it.
            let _ended = thread.join();
        }
    }
}

fn open() -> Result<SCDynamicStore, DnsError> {
    SCDynamicStoreBuilder::new("adit").session_keys(true).build().ok_or(DnsError::NoStore)
}

fn native(dictionary: &Dictionary) -> CFDictionary {
    let entries: Vec<(CFType, CFType)> = dictionary
        .entries
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Text(text) => CFString::new(text).as_CFType(),
                Value::Texts(texts) => array(texts.iter().map(|text| CFString::new(text).as_CFType())),
                Value::Numbers(numbers) => array(numbers.iter().map(|number| CFNumber::from(*number).as_CFType())),
            };
            (CFString::new(key).as_CFType(), value)
        })
        .collect();
    CFDictionary::from_CFType_pairs(&entries).into_untyped()
}

fn array(items: impl Iterator<Item = CFType>) -> CFType {
    CFArray::from_CFTypes(&items.collect::<Vec<_>>()).as_CFType()
}
