//! Values of the engine.

use std::ffi::c_int;
use std::ptr;

use rquickjs_sys as qjs;

use crate::engine::{Engine, EngineValue, Name};
use crate::fault::Fault;

/// A value of an engine, which keeps it until it is dropped.
pub struct Value<'e> {
    engine: &'e Engine,
    raw: qjs::JSValue,
}

/// The kind of a value.
pub enum Kind {
    Undefined,
    Null,
    Boolean(bool),
    Number(f64),
    BigInt,
    Text,
    Array,
    TypedArray,
    Date,
    Function,
    Promise,
    Object,
    Symbol,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: this value is its own.
        unsafe { qjs::JS_FreeValue(self.engine.context, self.raw) };
    }
}

impl<'e> Value<'e> {
    pub(crate) fn new(engine: &'e Engine, raw: qjs::JSValue) -> Self {
        Self { engine, raw }
    }

    pub fn number(engine: &'e Engine, number: f64) -> Self {
        Self::new(engine, qjs::JS_NewFloat64(number))
    }

    /// A text.
    ///
    /// # Errors
    /// There is no memory.
    pub fn text(engine: &'e Engine, text: &str) -> Result<Self, Fault> {
        // SAFETY: the bytes are there, as many as said.
        engine.checked(unsafe {
            qjs::JS_NewStringLen(engine.context, text.as_ptr().cast(), text.len() as qjs::size_t)
        })
    }

    /// A time.
    ///
    /// # Errors
    /// There is no memory.
    pub fn date(engine: &'e Engine, epoch_ms: f64) -> Result<Self, Fault> {
        // SAFETY: the context is alive.
        engine.checked(unsafe { qjs::JS_NewDate(engine.context, epoch_ms) })
    }

    /// An array of the bytes as numbers.
    ///
    /// # Errors
    /// There is no memory.
    pub fn bytes(engine: &'e Engine, bytes: &[u8]) -> Result<Self, Fault> {
        let numbers: Vec<_> =
            bytes.iter().map(|&byte| qjs::JS_MKVAL(qjs::JS_TAG_INT, i32::from(byte))).collect();
        // SAFETY: the numbers are there, as many as said; none is a pointer.
        engine.checked(unsafe {
            qjs::JS_NewArrayFrom(engine.context, numbers.len() as c_int, numbers.as_ptr())
        })
    }

    /// An object.
    ///
    /// # Errors
    /// There is no memory.
    pub fn object(engine: &'e Engine, members: Vec<(Name, Self)>) -> Result<Self, Fault> {
        // SAFETY: the context is alive.
        let object = engine.checked(unsafe { qjs::JS_NewObject(engine.context) })?;
        for (name, value) in members {
            object.set(name, value)?;
        }
        Ok(object)
    }

    fn set(&self, name: Name, value: Self) -> Result<(), Fault> {
        // SAFETY: the engine takes the value, which is not dropped here.
        match unsafe { qjs::JS_SetProperty(self.engine.context, self.raw, name.0, value.into_raw()) } {
            -1 => Err(self.engine.thrown()),
            _ => Ok(()),
        }
    }

    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    pub(crate) fn raw(&self) -> qjs::JSValue {
        self.raw
    }

    fn into_raw(self) -> qjs::JSValue {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    /// This value for as long as the engine lives.
    pub fn hold(self) -> EngineValue {
        EngineValue(self.into_raw())
    }

    /// One more of a value that is held.
    pub fn of_held(engine: &'e Engine, held: EngineValue) -> Self {
        // SAFETY: it is alive as long as the engine is.
        Self::new(engine, unsafe { qjs::JS_DupValue(engine.context, held.0) })
    }

    pub fn kind(&self) -> Kind {
        // SAFETY: tags are looked at; what is behind a pointer is there because this value is.
        unsafe {
            let raw = self.raw;
            match qjs::JS_VALUE_GET_TAG(raw) {
                qjs::JS_TAG_UNDEFINED | qjs::JS_TAG_UNINITIALIZED => Kind::Undefined,
                qjs::JS_TAG_NULL => Kind::Null,
                qjs::JS_TAG_BOOL => Kind::Boolean(qjs::JS_VALUE_GET_BOOL(raw)),
                qjs::JS_TAG_INT => Kind::Number(f64::from(qjs::JS_VALUE_GET_INT(raw))),
                _ if qjs::JS_IsNumber(raw) => Kind::Number(qjs::JS_VALUE_GET_FLOAT64(raw)),
                _ if qjs::JS_IsString(raw) => Kind::Text,
                _ if qjs::JS_IsBigInt(raw) => Kind::BigInt,
                _ if !qjs::JS_IsObject(raw) => Kind::Symbol,
                _ if qjs::JS_IsArray(raw) => Kind::Array,
                _ if qjs::JS_IsFunction(self.engine.context, raw) => Kind::Function,
                _ if qjs::JS_IsDate(raw) => Kind::Date,
                _ if qjs::JS_IsPromise(raw) => Kind::Promise,
                _ if qjs::JS_GetTypedArrayType(raw) >= 0 => Kind::TypedArray,
                _ => Kind::Object,
            }
        }
    }

    pub fn is_error(&self) -> bool {
        // SAFETY: as above.
        unsafe { qjs::JS_IsError(self.raw) }
    }

    /// The value of a property.
    ///
    /// # Errors
    /// A getter throws.
    pub fn get(&self, name: Name) -> Result<Value<'e>, Fault> {
        // SAFETY: the name is of this engine.
        self.engine.checked(unsafe { qjs::JS_GetProperty(self.engine.context, self.raw, name.0) })
    }

    /// Calls a function with this as `this`.
    ///
    /// # Errors
    /// It throws.
    pub fn call_method(&self, function: &Value<'e>) -> Result<Value<'e>, Fault> {
        let context = self.engine.context;
        // SAFETY: both are of this engine.
        self.engine.checked(unsafe { qjs::JS_Call(context, function.raw, self.raw, 0, ptr::null_mut()) })
    }

    /// The value at a place of an array.
    ///
    /// # Errors
    /// A getter throws.
    pub fn at(&self, index: u32) -> Result<Value<'e>, Fault> {
        // SAFETY: the value is of this engine.
        self.engine.checked(unsafe { qjs::JS_GetPropertyUint32(self.engine.context, self.raw, index) })
    }

    /// The values of an array.
    ///
    /// # Errors
    /// A getter throws.
    pub fn length(&self) -> Result<u32, Fault> {
        let mut length = 0;
        // SAFETY: the value is of this engine.
        match unsafe { qjs::JS_GetLength(self.engine.context, self.raw, &raw mut length) } {
            -1 => Err(self.engine.thrown()),
            _ => Ok(u32::try_from(length).unwrap_or(u32::MAX)),
        }
    }

    /// Calls `take` with each member of an object, in its order, until it says false.
    ///
    /// # Errors
    /// A getter throws, or `take` fails.
    pub fn members<E: From<Fault>>(
        &self,
        mut take: impl FnMut(&str, Value<'e>) -> Result<(), E>,
    ) -> Result<(), E> {
        let context = self.engine.context;
        let (mut names, mut count) = (ptr::null_mut(), 0);
        let flags = (qjs::JS_GPN_STRING_MASK | qjs::JS_GPN_ENUM_ONLY) as c_int;
        // SAFETY: the value is of this engine.
        let got =
            unsafe { qjs::JS_GetOwnPropertyNames(context, &raw mut names, &raw mut count, self.raw, flags) };
        if got < 0 {
            return Err(self.engine.thrown().into());
        }
        let mut result = Ok(());
        for index in 0..count as usize {
            // SAFETY: the engine gave so many names.
            let atom = unsafe { (*names.add(index)).atom };
            let member = atom_text(self.engine, atom).and_then(|name| Ok((name, self.get(Name(atom))?)));
            result = member.map_err(E::from).and_then(|(name, value)| take(&name, value));
            if result.is_err() {
                break;
            }
        }
        // SAFETY: the engine gave this table.
        unsafe { qjs::JS_FreePropertyEnum(context, names, count) };
        result
    }

    /// The value as a text, as the language makes one.
    ///
    /// # Errors
    /// It cannot become one.
    pub fn to_text(&self) -> Result<String, Fault> {
        let mut length: qjs::size_t = 0;
        // SAFETY: the value is of this engine.
        let text = unsafe { qjs::JS_ToCStringLen2(self.engine.context, &raw mut length, self.raw, false) };
        if text.is_null() {
            return Err(self.engine.thrown());
        }
        // SAFETY: so many bytes are there until the text is freed.
        unsafe {
            let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length as usize);
            // Halves of surrogates are no UTF-8.
            let owned = String::from_utf8_lossy(bytes).into_owned();
            qjs::JS_FreeCString(self.engine.context, text);
            Ok(owned)
        }
    }
}

fn atom_text(engine: &Engine, atom: qjs::JSAtom) -> Result<String, Fault> {
    // SAFETY: the atom is one of the engine.
    let text = engine.checked(unsafe { qjs::JS_AtomToString(engine.context, atom) })?;
    text.to_text()
}
