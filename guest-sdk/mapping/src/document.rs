//! A payload of JSON, CBOR or MessagePack as a tree, in which pointers find values.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_objects::{Container, Leaf, Walk};

use crate::limits::{DEPTH_MAX, NODES_MAX};

/// A value with the key under which it stands.
#[derive(Debug)]
struct Node<'a> {
    /// Empty for elements of arrays.
    key: Cow<'a, str>,
    value: NodeValue<'a>,
    /// The index behind the value and all values in it.
    next: usize,
}

#[derive(Debug)]
enum NodeValue<'a> {
    Leaf(Leaf<'a>),
    Container(Container),
}

/// A payload as a tree. The nodes lie in the order of the payload.
#[derive(Debug, Default)]
pub struct Document<'a> {
    nodes: Vec<Node<'a>>,
}

/// The place of a value in a document.
pub type NodeId = usize;

/// The whole document.
pub const ROOT: NodeId = 0;

/// Makes a document from its values in their order.
#[derive(Debug, Default)]
pub struct Builder<'a> {
    nodes: Vec<Node<'a>>,
    open: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, key: Cow<'a, str>, value: NodeValue<'a>) -> Result<(), Refusal> {
        if self.nodes.len() == NODES_MAX {
            let detail = format!("the payload has more than {NODES_MAX} values: send fewer in one message");
            return Err(Refusal::new("TOO_MANY_VALUES", detail));
        }
        let next = self.nodes.len() + 1;
        self.nodes.push(Node { key, value, next });
        Ok(())
    }

    pub fn leaf(&mut self, key: Cow<'a, str>, leaf: Leaf<'a>) -> Result<(), Refusal> {
        self.add(key, NodeValue::Leaf(leaf))
    }

    pub fn begin(&mut self, key: Cow<'a, str>, kind: Container) -> Result<(), Refusal> {
        if self.open.len() == DEPTH_MAX {
            let detail = format!("a value is nested more than {DEPTH_MAX} levels deep");
            return Err(Refusal::new("TOO_DEEP", detail));
        }
        self.open.push(self.nodes.len());
        self.add(key, NodeValue::Container(kind))
    }

    pub fn end(&mut self) {
        if let Some(index) = self.open.pop() {
            self.nodes[index].next = self.nodes.len();
        }
    }

    pub fn finish(self) -> Document<'a> {
        Document { nodes: self.nodes }
    }
}

/// The way to a value: keys of objects and indices of arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The text, for people.
    pub text: String,
    parts: Vec<(String, Option<usize>)>,
}

impl Pointer {
    /// Reads a JSON pointer (RFC 6901).
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self { text: String::new(), parts: Vec::new() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("{text:?} is no pointer: expected one such as /sensors/0/temp"));
        };
        let part = |part: &str| {
            let key = part.replace("~1", "/").replace("~0", "~");
            let is_index = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            (key, if is_index { part.parse().ok() } else { None })
        };
        let parts: Vec<_> = rest.split('/').map(part).collect();
        if parts.len() > DEPTH_MAX {
            return Err(format!("a pointer of {} parts: expected at most {DEPTH_MAX}", parts.len()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl<'a> Document<'a> {
    /// The value that a pointer finds, from a value on.
    pub fn find(&self, from: NodeId, pointer: &Pointer) -> Option<NodeId> {
        pointer.parts.iter().try_fold(from, |at, (key, index)| match (&self.nodes.get(at)?.value, index) {
            (NodeValue::Container(Container::Object), _) => {
                self.children(at).find(|child| self.nodes[*child].key == *key)
            }
            (NodeValue::Container(Container::Array), Some(index)) => self.children(at).nth(*index),
            _ => None,
        })
    }

    /// The members of an object or the elements of an array.
    pub fn children(&self, of: NodeId) -> impl Iterator<Item = NodeId> {
        let end = self.nodes.get(of).map_or(of, |node| node.next);
        let first = Some(of + 1).filter(|first| *first < end);
        std::iter::successors(first, move |at| Some(self.nodes[*at].next).filter(|next| *next < end))
    }

    /// A value that is no container.
    pub fn leaf(&self, at: NodeId) -> Option<&Leaf<'a>> {
        match &self.nodes.get(at)?.value {
            NodeValue::Leaf(leaf) => Some(leaf),
            NodeValue::Container(_) => None,
        }
    }

    pub fn container(&self, at: NodeId) -> Option<Container> {
        match &self.nodes.get(at)?.value {
            NodeValue::Leaf(_) => None,
            NodeValue::Container(kind) => Some(*kind),
        }
    }

    /// Walks a value and all values in it.
    ///
    /// # Errors
    /// A ceiling of the walk.
    pub fn push(&self, at: NodeId, walk: &mut Walk<'_, 'a>) -> Result<(), Refusal> {
        match &self.nodes[at].value {
            NodeValue::Leaf(leaf) => walk.leaf(leaf.clone()),
            NodeValue::Container(kind) => {
                walk.begin(*kind)?;
                match kind {
                    Container::Object => self.push_members(at, walk)?,
                    Container::Array => {
                        self.children(at).try_for_each(|child| self.push(child, walk))?;
                    }
                }
                walk.end();
                Ok(())
            }
        }
    }

    /// Walks the members of an object, without its begin and end.
    ///
    /// # Errors
    /// A ceiling of the walk.
    pub fn push_members(&self, at: NodeId, walk: &mut Walk<'_, 'a>) -> Result<(), Refusal> {
        self.children(at).try_for_each(|child| {
            walk.key(&self.nodes[child].key);
            self.push(child, walk)
        })
    }

    /// Its kind, for people.
    pub fn kind_name(&self, at: NodeId) -> &'static str {
        match self.nodes.get(at).map(|node| &node.value) {
            Some(NodeValue::Container(Container::Object)) => "an object",
            Some(NodeValue::Container(Container::Array)) => "an array",
            Some(NodeValue::Leaf(_)) => "a single value",
            None => "empty",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_members_and_elements() {
        let mut builder = Builder::default();
        builder.begin("".into(), Container::Object).unwrap();
        builder.begin("a".into(), Container::Array).unwrap();
        builder.leaf("".into(), Leaf::Integer(1)).unwrap();
        builder.begin("".into(), Container::Object).unwrap();
        builder.leaf("x/y".into(), Leaf::Integer(2)).unwrap();
        builder.end();
        builder.end();
        builder.leaf("0".into(), Leaf::Integer(3)).unwrap();
        builder.end();
        let document = builder.finish();
        let found = |pointer: &str| {
            let at = document.find(ROOT, &Pointer::parse(pointer).unwrap())?;
            document.leaf(at)?.as_i64()
        };
        assert_eq!(found("/a/0"), Some(1));
        assert_eq!(found("/a/1/x~1y"), Some(2));
        assert_eq!(found("/0"), Some(3));
        for missing in ["/a", "/a/2", "/b", "/a/0/x", "/a/x", "/"] {
            assert_eq!(found(missing), None, "{missing}");
        }
        assert_eq!(document.children(ROOT).count(), 2);
        assert!(Pointer::parse("a/b").unwrap_err().contains("/sensors/0/temp"));
    }
}
