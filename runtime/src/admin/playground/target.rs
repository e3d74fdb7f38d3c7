//! The place in the guests folder that a topic leads to, and those at which its decoder may be put.

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::context::AdminContext;
use crate::admin::respond::ApiError;
use crate::admin::scope::Scope;
use crate::config::{Config, settings};
use crate::core::route_key::{ANY, DEFAULT, RouteKey, file_name};
use crate::decode::route::table::places;

/// The names in a topic.
#[derive(Clone, Debug)]
pub struct Target {
    pub tenant: String,
    pub message_type: String,
    device: String,
    /// The site of the device, if the gateway knows it.
    pub site: Option<String>,
}

/// A place in the guests folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PlaygroundPlace {
    /// The folder: a tenant, or `_default`.
    tenant: String,
    /// The message type, or `_any`.
    #[serde(rename = "type")]
    message_type: String,
    /// The extension of the file that lies there; `null`: none does.
    file: Option<String>,
    /// The decoder that serves there, as `name@version#digest`.
    guest: Option<String>,
    built_in: Option<String>,
    /// The version that serves there, for `expect_version` of a put.
    version: Option<String>,
}

/// The way of a topic to its decoder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaygroundTarget {
    tenant: String,
    #[serde(rename = "type")]
    message_type: String,
    device: String,
    /// The site of the device, if the gateway knows it.
    site: Option<String>,
    /// The place whose decoder serves the topic.
    serves: Option<PlaygroundPlace>,
    /// Places at which the caller may put a decoder for the topic, the narrowest first.
    places: Vec<PlaygroundPlace>,
}

impl Target {
    /// # Errors
    /// The topic is of no form that is received, or another tenant's.
    pub fn of(context: &AdminContext, config: &Config, scope: &Scope, topic: &str) -> Result<Self, ApiError> {
        let Some(fields) = settings::topics(config).matches(topic) else {
            let message =
                format!("topic = {topic:?} is of no form that is received: {}", settings::topics(config));
            return Err(ApiError { status: 400, code: "BAD_TOPIC", message });
        };
        let (tenant, device) = (fields.tenant.of(topic), fields.device.of(topic));
        if !scope.takes(tenant) {
            return Err(ApiError::not_yours(tenant));
        }
        let admission = &context.handles.admission;
        let known = admission.cache().peek(admission.device_key(tenant, device), tenant, device);
        Ok(Self {
            tenant: tenant.to_owned(),
            message_type: fields.message_type.of(topic).to_owned(),
            device: device.to_owned(),
            site: known.map(|known| known.site.clone()),
        })
    }

    /// The place of a decoder of its own.
    pub fn route_key(&self) -> RouteKey {
        (file_name(&self.tenant), file_name(&self.message_type))
    }

    /// The place that somebody names, as `TENANT/TYPE`; without a name its own.
    ///
    /// # Errors
    /// Its topic is not looked up there, or the caller may not put there.
    pub fn place(&self, scope: &Scope, named: Option<&str>) -> Result<RouteKey, ApiError> {
        let Some(named) = named else { return Ok(self.route_key()) };
        let places = places(&self.tenant, &self.message_type);
        let shown = |(tenant, stem): &RouteKey| format!("{tenant}/{stem}");
        let Some(place) = places.iter().find(|place| shown(place) == named) else {
            let expected = places.iter().map(shown).collect::<Vec<_>>().join(", ");
            let message = format!("place = {named:?}: the topic is looked up at {expected}");
            return Err(ApiError { status: 400, code: "BAD_PLACE", message });
        };
        match scope.takes_folder(&place.0) {
            true => Ok(place.clone()),
            false => Err(ApiError::not_yours(&place.0)),
        }
    }

    /// The way of the topic, for a page that lets somebody edit the decoder.
    pub fn shown(self, context: &AdminContext, scope: &Scope) -> PlaygroundTarget {
        let guests = &context.handles.guests;
        let serving = guests.host().table().place(&self.tenant, &self.message_type);
        let listed = guests.list();
        let place = |(tenant, stem): &RouteKey| {
            let known = listed.iter().find(|guest| guest.tenant == *tenant && guest.message_type == *stem);
            let extension = |file: &str| file.rsplit_once('.').map(|(_, extension)| extension.to_owned());
            PlaygroundPlace {
                tenant: tenant.clone(),
                message_type: stem.clone(),
                file: known.and_then(|guest| extension(&guest.file)),
                guest: known.and_then(|guest| guest.guest.clone()),
                built_in: known.and_then(|guest| guest.built_in.clone()),
                version: known.and_then(|guest| guest.version.clone()),
            }
        };
        // One for any type stands there only if it serves: to put one is not about this topic alone.
        let may =
            |key: &RouteKey| scope.takes_folder(&key.0) && (key.1 != ANY || serving.as_ref() == Some(key));
        let mut places: Vec<_> = places(&self.tenant, &self.message_type);
        places.retain(may);
        debug_assert!(
            places.iter().all(|(tenant, _)| *tenant == file_name(&self.tenant) || tenant == DEFAULT)
        );
        PlaygroundTarget {
            serves: serving.as_ref().map(place),
            places: places.iter().map(place).collect(),
            tenant: self.tenant,
            message_type: self.message_type,
            device: self.device,
            site: self.site,
        }
    }
}
