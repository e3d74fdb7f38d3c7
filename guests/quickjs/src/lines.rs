//! The lines of an answer.

use std::borrow::Cow;

use tidegate_guest::{Lines, Refusal};
use tidegate_objects::{Container, Leaf, ObjectRules, Objects, Walk};

use crate::codec::Answer;
use crate::tree::Tree;

/// The whole answer as JSON.
pub fn json(answer: &Answer) -> String {
    let texts = |texts: &[String]| Tree::List(texts.iter().cloned().map(Tree::Text).collect());
    let mut members = Vec::new();
    let trees = [("data", &answer.data), ("normalized", &answer.normalized)];
    members.extend(trees.into_iter().filter_map(|(name, tree)| Some((name.to_owned(), tree.clone()?))));
    for (name, all) in [("errors", &answer.errors), ("warnings", &answer.warnings)] {
        if !all.is_empty() {
            members.push((name.to_owned(), texts(all)));
        }
    }
    let mut text = Vec::new();
    Tree::Object(members).write(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes the lines of a value: of an object, or of each object of a list.
///
/// # Errors
/// It is something else, or breaks a rule for objects.
pub fn write(
    rules: &ObjectRules,
    objects: &mut Objects,
    tree: Option<&Tree>,
    lines: &mut Lines,
) -> Result<(), Refusal> {
    match tree {
        None | Some(Tree::Null) => Ok(()),
        Some(object @ Tree::Object(_)) => {
            let mut walk = objects.walk(rules);
            add(&mut walk, object)?;
            walk.finish(lines)
        }
        Some(Tree::List(list)) => list.iter().try_for_each(|one| match one {
            Tree::List(_) => Err(no_object()),
            one => write(rules, objects, Some(one), lines),
        }),
        Some(Tree::Boolean(_) | Tree::Number(_) | Tree::Text(_)) => Err(no_object()),
    }
}

fn no_object() -> Refusal {
    Refusal::new("CODEC_ANSWER", "data is neither an object nor an array of objects: expected one of them")
}

fn add<'a>(walk: &mut Walk<'_, 'a>, tree: &'a Tree) -> Result<(), Refusal> {
    match tree {
        Tree::Null => walk.leaf(Leaf::Null),
        Tree::Boolean(value) => walk.leaf(Leaf::Boolean(*value)),
        Tree::Number(value) => walk.leaf(Leaf::Float(*value)),
        Tree::Text(text) => walk.leaf(Leaf::Text(Cow::Borrowed(text))),
        Tree::List(list) => {
            walk.begin(Container::Array)?;
            list.iter().try_for_each(|one| add(walk, one))?;
            walk.end();
            Ok(())
        }
        Tree::Object(members) => {
            walk.begin(Container::Object)?;
            for (name, one) in members {
                walk.key(name);
                add(walk, one)?;
            }
            walk.end();
            Ok(())
        }
    }
}
