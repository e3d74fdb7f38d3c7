//! A codec: a script with the functions of TS013, or with those that came before it.

use crate::engine::{Engine, EngineValue, Name};
use crate::fault::Fault;
use crate::modules::ScriptFiles;
use crate::natives;
use crate::tree::{Tree, TreeFault, TreeReader};
use crate::value::{Kind, Value};

/// A codec that is ready for messages.
pub struct Codec {
    engine: Engine,
    entry: Entry,
    decode: EngineValue,
    normalize: Option<EngineValue>,
    variables: EngineValue,
    names: Names,
}

/// The function that decodes. Of several, the first one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `decodeUplink(input)`, as TS013 says.
    DecodeUplink,
    /// `Decoder(bytes, port)` of The Things Network 2.
    Decoder,
    /// `Decode(fPort, bytes, variables)` of ChirpStack 3.
    Decode,
}

impl Entry {
    const ALL: [Self; 3] = [Self::DecodeUplink, Self::Decoder, Self::Decode];

    pub fn name(self) -> &'static str {
        match self {
            Self::DecodeUplink => "decodeUplink",
            Self::Decoder => "Decoder",
            Self::Decode => "Decode",
        }
    }
}

/// Names of properties that each message needs.
#[derive(Clone, Copy)]
struct Names {
    bytes: Name,
    port: Name,
    received: Name,
    variables: Name,
    data: Name,
    errors: Name,
    warnings: Name,
    to_json: Name,
}

/// A message for a codec.
#[derive(Clone, Copy, Debug)]
pub struct Uplink<'a> {
    pub bytes: &'a [u8],
    pub port: u8,
    pub received_ns: i64,
}

/// The answer of a codec.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// None: it says nothing, or its errors stand for it.
    pub data: Option<Tree>,
    /// The answer of `normalizeUplink`, if that was asked for and there is one.
    pub normalized: Option<Tree>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

/// The reason for which a codec gave no answer.
#[derive(Debug)]
pub enum CodecFault {
    /// The function threw.
    Thrown(&'static str, Fault),
    /// It answered something else than it should.
    Form(String),
}

const NORMALIZE: &str = "normalizeUplink";

impl Codec {
    /// Runs a script and finds its functions. `variables`: names and values for `input.variables`.
    ///
    /// # Errors
    /// It throws, or has none of the functions.
    pub fn new(script: &ScriptFiles, variables: &[(String, String)]) -> Result<Self, String> {
        natives::begin(0, &[]);
        let engine = Engine::new()?;
        let ours = |fault: Fault| format!("the engine does not start: {fault}");
        natives::install(&engine, script).map_err(ours)?;
        let theirs = |fault: Fault| format!("the script does not start: {fault}");
        script.run(&engine).map_err(theirs)?;
        let find = |name: &str| -> Result<Option<EngineValue>, Fault> {
            // `const` and `class` at the top are no properties of the global object.
            let found = format!(
                "typeof {name} === 'function' ? {name} : typeof module === 'object' && module?.exports?.{name} \
                 || typeof driver === 'object' && driver?.{name}"
            );
            let value = engine.run(&found, c"tidegate")?;
            Ok(matches!(value.kind(), Kind::Function).then(|| value.hold()))
        };
        let mut decode = None;
        for entry in Entry::ALL {
            if decode.is_none() {
                decode = find(entry.name()).map_err(theirs)?.map(|function| (entry, function));
            }
        }
        let Some((entry, decode)) = decode else {
            return Err("the script has no function decodeUplink(input), Decoder(bytes, port) or \
                        Decode(fPort, bytes): expected one of them"
                .to_owned());
        };
        let normalize = find(NORMALIZE).map_err(theirs)?;
        let name = |name| engine.name(name);
        let names = Names {
            bytes: name("bytes"),
            port: name("fPort"),
            received: name("recvTime"),
            variables: name("variables"),
            data: name("data"),
            errors: name("errors"),
            warnings: name("warnings"),
            to_json: name("toJSON"),
        };
        let mut members = Vec::new();
        for (name, value) in variables {
            members.push((engine.name(name), Value::text(&engine, value).map_err(ours)?));
        }
        let variables = Value::object(&engine, members).map_err(ours)?.hold();
        engine.mark();
        Ok(Self { engine, entry, decode, normalize, variables, names })
    }

    pub fn can_normalize(&self) -> bool {
        self.normalize.is_some()
    }

    /// Decodes a message. Whatever the script did, the next message finds nothing of it.
    ///
    /// # Errors
    /// The script throws, or answers what no codec answers.
    pub fn decode(&mut self, uplink: Uplink<'_>, normalizes: bool) -> Result<Answer, CodecFault> {
        natives::begin(uplink.received_ns, uplink.bytes);
        let answer = self.answer(uplink, normalizes);
        self.engine.put_back();
        answer
    }

    fn answer(&self, uplink: Uplink<'_>, normalizes: bool) -> Result<Answer, CodecFault> {
        let (engine, names, entry) = (&self.engine, &self.names, self.entry.name());
        let thrown = |fault| CodecFault::Thrown(entry, fault);
        let bytes = Value::bytes(engine, uplink.bytes).map_err(thrown)?;
        let port = Value::number(engine, f64::from(uplink.port));
        let variables = Value::of_held(engine, self.variables);
        let arguments = match self.entry {
            Entry::DecodeUplink => {
                let ms = uplink.received_ns.div_euclid(1_000_000) as f64;
                let members = vec![
                    (names.bytes, bytes),
                    (names.port, port),
                    (names.received, Value::date(engine, ms).map_err(thrown)?),
                    (names.variables, variables),
                ];
                vec![Value::object(engine, members).map_err(thrown)?]
            }
            Entry::Decoder => vec![bytes, port],
            Entry::Decode => vec![port, bytes, variables],
        };
        let result = engine.call(self.decode, &arguments).map_err(thrown)?;
        let mut answer = Answer::default();
        let data = match self.entry {
            Entry::DecodeUplink => self.take(entry, result, &mut answer)?,
            Entry::Decoder | Entry::Decode => Some(result),
        };
        let Some(data) = data.filter(|_| answer.errors.is_empty()) else { return Ok(answer) };
        answer.data = self.tree(entry, &data)?;
        if let Some(normalize) = self.normalize.filter(|_| normalizes && answer.data.is_some()) {
            let thrown = |fault| CodecFault::Thrown(NORMALIZE, fault);
            let input = Value::object(engine, vec![(names.data, data)]).map_err(thrown)?;
            let result = engine.call(normalize, &[input]).map_err(thrown)?;
            if let Some(data) = self.take(NORMALIZE, result, &mut answer)? {
                answer.normalized = self.tree(NORMALIZE, &data)?;
            }
        }
        Ok(answer)
    }

    /// Takes errors and warnings of a result as TS013 has it; gives its data.
    fn take<'e>(
        &self,
        function: &'static str,
        result: Value<'e>,
        answer: &mut Answer,
    ) -> Result<Option<Value<'e>>, CodecFault> {
        let found = match result.kind() {
            Kind::Object => None,
            Kind::Undefined => Some("nothing"),
            Kind::Null => Some("null"),
            Kind::Promise => Some("a promise, and codecs are not asynchronous"),
            Kind::Array | Kind::TypedArray => Some("an array"),
            Kind::Function => Some("a function"),
            _ => Some("no object"),
        };
        if let Some(found) = found {
            return Err(CodecFault::Form(format!(
                "{function} answered {found}: expected an object with data, or with errors"
            )));
        }
        let thrown = |fault| CodecFault::Thrown(function, fault);
        answer.errors.extend(self.texts(function, result.get(self.names.errors).map_err(thrown)?)?);
        answer.warnings.extend(self.texts(function, result.get(self.names.warnings).map_err(thrown)?)?);
        let data = result.get(self.names.data).map_err(thrown)?;
        match data.kind() {
            // ThingPark takes an object without the shell around the data, too.
            Kind::Undefined | Kind::Null => {
                let mut has_shell = false;
                let mut is_empty = true;
                let members = result.members(|name, _| {
                    has_shell |= matches!(name, "data" | "errors" | "warnings");
                    is_empty = false;
                    Ok::<_, Fault>(())
                });
                members.map_err(thrown)?;
                Ok((!has_shell && !is_empty).then_some(result))
            }
            _ => Ok(Some(data)),
        }
    }

    /// The texts of `errors` or `warnings`: an array, or one alone.
    fn texts(&self, function: &'static str, value: Value<'_>) -> Result<Vec<String>, CodecFault> {
        let shown = |tree: Tree| match tree {
            Tree::Text(text) => text,
            other => {
                let mut text = Vec::new();
                other.write(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
        };
        Ok(match self.tree(function, &value)? {
            None | Some(Tree::Null | Tree::Boolean(false)) => Vec::new(),
            Some(Tree::Text(text)) if text.is_empty() => Vec::new(),
            Some(Tree::List(list)) => list.into_iter().map(shown).collect(),
            Some(Tree::Object(members)) if members.is_empty() => Vec::new(),
            Some(other) => vec![shown(other)],
        })
    }

    fn tree(&self, function: &'static str, value: &Value<'_>) -> Result<Option<Tree>, CodecFault> {
        use crate::limits::{DEPTH_MAX, VALUES_MAX};
        TreeReader::new(self.names.to_json).read(value).map_err(|fault| match fault {
            TreeFault::Thrown(fault) => CodecFault::Thrown(function, fault),
            TreeFault::TooDeep => CodecFault::Form(format!(
                "the answer of {function} has more than {DEPTH_MAX} levels: it may hold itself"
            )),
            TreeFault::TooMany => {
                CodecFault::Form(format!("the answer of {function} has more than {VALUES_MAX} values"))
            }
        })
    }
}
