//! The templates of a gateway: each topic matches one of them at most.

use crate::limits::TOPIC_TEMPLATES_MAX;
use crate::topic::error::{TopicError, TopicTemplatesError};
use crate::topic::fields::TopicFields;
use crate::topic::level_table::LevelTable;
use crate::topic::template::TopicTemplate;

/// Bytes of the templates that an error lists.
const FORMS_BYTES_MAX: usize = 400;

/// One or more templates.
#[derive(Clone, Debug)]
pub struct TopicTemplates {
    templates: Vec<TopicTemplate>,
    /// None: there is one template, which needs no choice.
    table: Option<LevelTable>,
    /// All templates, for an error.
    forms: String,
}

impl From<TopicTemplate> for TopicTemplates {
    fn from(template: TopicTemplate) -> Self {
        Self { templates: vec![template], table: None, forms: String::new() }
    }
}

impl TopicTemplates {
    /// Some templates, at least one.
    ///
    /// # Errors
    /// A topic matches two of them, or they are too many.
    pub fn new(mut templates: Vec<TopicTemplate>) -> Result<Self, TopicTemplatesError> {
        if templates.len() > TOPIC_TEMPLATES_MAX {
            return Err(TopicTemplatesError::TooMany);
        }
        for (index, template) in templates.iter_mut().enumerate() {
            template.index = index as u8;
        }
        for (index, second) in templates.iter().enumerate() {
            for first in &templates[..index] {
                if let Some(topic) = common_topic(first, second) {
                    let first = first.as_str().to_owned();
                    return Err(TopicTemplatesError::Overlap { index, first, topic });
                }
            }
        }
        let table = (templates.len() > 1).then(|| LevelTable::new(&templates));
        let mut forms = templates.iter().map(TopicTemplate::as_str).collect::<Vec<_>>().join(", ");
        if forms.len() > FORMS_BYTES_MAX {
            forms.truncate(forms.floor_char_boundary(FORMS_BYTES_MAX));
            forms.push_str(" …");
        }
        Ok(Self { templates, table, forms })
    }

    pub fn iter(&self) -> impl Iterator<Item = &TopicTemplate> {
        self.templates.iter()
    }

    /// The template that gave these names.
    #[inline]
    pub fn template(&self, fields: &TopicFields) -> &TopicTemplate {
        &self.templates[usize::from(fields.template)]
    }

    /// The template of a topic.
    #[inline]
    fn choose(&self, topic: &str) -> Option<&TopicTemplate> {
        match &self.table {
            None => self.templates.first(),
            Some(table) => table.find(topic).map(|index| &self.templates[index]),
        }
    }

    /// The names that a topic gives. `None` if `read` refuses it.
    pub fn matches(&self, topic: &str) -> Option<TopicFields> {
        self.choose(topic)?.matches(topic)
    }

    /// The names that a topic gives.
    ///
    /// # Errors
    /// No template matches, or the errors of `TopicTemplate::read`.
    #[inline]
    pub fn read(&self, topic: &str) -> Result<TopicFields, TopicError> {
        self.choose(topic).ok_or_else(|| self.no_form())?.read(topic)
    }

    /// The same for a topic that no subscription brought, so that its filter is yet to be asked.
    ///
    /// # Errors
    /// The errors of `read`; a topic that no filter matches is of no form.
    #[inline]
    pub fn read_delivered(&self, topic: &str) -> Result<TopicFields, TopicError> {
        self.choose(topic).ok_or_else(|| self.no_form())?.read_delivered(topic)
    }

    fn no_form(&self) -> TopicError {
        TopicError::NoForm(self.forms.clone())
    }
}

impl std::fmt::Display for TopicTemplates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.templates[..] {
            [one] => f.write_str(one.as_str()),
            _ => f.write_str(&self.forms),
        }
    }
}

/// A topic that the filters of both match.
fn common_topic(a: &TopicTemplate, b: &TopicTemplate) -> Option<String> {
    let (mut topic, mut of_a, mut of_b) = (Vec::new(), a.filter_levels(), b.filter_levels());
    loop {
        let level = match (of_a.next(), of_b.next()) {
            (None, None) => break,
            // `/#` matches the level before it, too.
            (None, Some(level)) if a.is_open() => level.unwrap_or("x"),
            (Some(level), None) if b.is_open() => level.unwrap_or("x"),
            (None, Some(_)) | (Some(_), None) => return None,
            (Some(Some(a)), Some(Some(b))) if a != b => return None,
            (Some(Some(literal)), Some(None)) | (Some(None), Some(Some(literal)))
                if topic.is_empty() && literal.starts_with('$') =>
            {
                return None;
            }
            (Some(a), Some(b)) => a.or(b).unwrap_or("x"),
        };
        topic.push(level);
    }
    Some(topic.join("/"))
}

#[cfg(test)]
mod tests;
