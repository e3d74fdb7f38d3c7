//! QuickJS-NG: a runtime with one context, on a heap that can be put back.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use rquickjs_sys as qjs;

use crate::fault::Fault;
use crate::heap::{Heap, size_of_allocation};
use crate::limits::{GARBAGE_BYTES, STACK_BYTES_MAX};
use crate::value::{Kind, Value};

/// An engine. It is used by one thread, and never freed: its heap is.
pub struct Engine {
    /// The engine has pointers into it: it stays in its place.
    heap: *mut Heap,
    runtime: *mut qjs::JSRuntime,
    pub(crate) context: *mut qjs::JSContext,
    _one_thread: PhantomData<*mut ()>,
}

impl Engine {
    /// A new engine with all that the language has.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> Result<Self, String> {
        let heap = Box::into_raw(Box::new(Heap::new()));
        let functions = qjs::JSMallocFunctions {
            js_calloc: Some(calloc),
            js_malloc: Some(malloc),
            js_free: Some(free),
            js_realloc: Some(realloc),
            js_malloc_usable_size: Some(usable_size),
        };
        // SAFETY: the functions are right for a heap, which outlives the runtime.
        let (runtime, context) = unsafe {
            let runtime = qjs::JS_NewRuntime2(&raw const functions, heap.cast());
            let context = match runtime.is_null() {
                true => ptr::null_mut(),
                false => {
                    qjs::JS_SetMaxStackSize(runtime, STACK_BYTES_MAX as qjs::size_t);
                    qjs::JS_NewContext(runtime)
                }
            };
            (runtime, context)
        };
        let engine = Self { heap, runtime, context, _one_thread: PhantomData };
        match context.is_null() {
            true => Err("the JavaScript engine needs more memory than the decoder may have".to_owned()),
            false => Ok(engine),
        }
    }

    /// Runs a script in the global scope; gives the value of its last expression.
    ///
    /// # Errors
    /// It throws.
    pub fn run(&self, script: &str, name: &CStr) -> Result<Value<'_>, Fault> {
        self.evaluate(script, name, qjs::JS_EVAL_TYPE_GLOBAL)
    }

    fn evaluate(&self, script: &str, name: &CStr, kind: u32) -> Result<Value<'_>, Fault> {
        let mut text = Vec::with_capacity(script.len() + 1);
        text.extend_from_slice(script.as_bytes());
        text.push(0);
        // SAFETY: a zero follows the text.
        let value = unsafe {
            qjs::JS_UpdateStackTop(self.runtime);
            qjs::JS_Eval(
                self.context,
                text.as_ptr().cast(),
                script.len() as qjs::size_t,
                name.as_ptr(),
                kind as c_int,
            )
        };
        self.checked(value)
    }

    /// Calls a function.
    ///
    /// # Errors
    /// It throws.
    pub fn call(&self, function: EngineValue, arguments: &[Value<'_>]) -> Result<Value<'_>, Fault> {
        let mut raw: Vec<_> = arguments.iter().map(Value::raw).collect();
        // SAFETY: the function and the arguments are of this engine; it does not take them.
        let value = unsafe {
            qjs::JS_UpdateStackTop(self.runtime);
            qjs::JS_Call(self.context, function.0, qjs::JS_UNDEFINED, raw.len() as c_int, raw.as_mut_ptr())
        };
        self.checked(value)
    }

    /// Runs what promises have left to do.
    ///
    /// # Errors
    /// It throws.
    pub fn run_jobs(&self) -> Result<(), Fault> {
        let mut context = ptr::null_mut();
        loop {
            // SAFETY: the runtime is alive.
            match unsafe { qjs::JS_ExecutePendingJob(self.runtime, &raw mut context) } {
                0 => return Ok(()),
                1.. => {}
                _ => return Err(self.thrown()),
            }
        }
    }

    /// Runs a script as a module, to its end.
    ///
    /// # Errors
    /// It throws, or a module that it imports does.
    pub fn run_module(&self, script: &str, name: &CStr) -> Result<(), Fault> {
        let promise = self.evaluate(script, name, qjs::JS_EVAL_TYPE_MODULE)?;
        self.run_jobs()?;
        // SAFETY: the value is of this engine.
        unsafe {
            if qjs::JS_PromiseState(self.context, promise.raw())
                == qjs::JSPromiseStateEnum_JS_PROMISE_REJECTED
            {
                let reason = qjs::JS_PromiseResult(self.context, promise.raw());
                return Err(Fault::new(&Value::new(self, reason)));
            }
        }
        Ok(())
    }

    /// Sets the function that finds the modules of an `import`.
    pub fn set_module_loader(
        &self,
        load: unsafe extern "C" fn(*mut qjs::JSContext, *const c_char, *mut c_void) -> *mut qjs::JSModuleDef,
    ) {
        // SAFETY: the runtime is alive; paths are made by the engine's own function.
        unsafe { qjs::JS_SetModuleLoaderFunc(self.runtime, None, Some(load), ptr::null_mut()) }
    }

    /// Sets a variable of the global scope.
    ///
    /// # Errors
    /// There is no memory.
    pub fn set_global(&self, name: &str, value: Value<'_>) -> Result<(), Fault> {
        // SAFETY: the values are of this engine; it takes the one that is set.
        let set = unsafe {
            let global = Value::new(self, qjs::JS_GetGlobalObject(self.context));
            qjs::JS_SetProperty(self.context, global.raw(), self.name(name).0, value.hold().0)
        };
        if set < 0 { Err(self.thrown()) } else { Ok(()) }
    }

    pub(crate) fn checked(&self, value: qjs::JSValue) -> Result<Value<'_>, Fault> {
        // SAFETY: only its tag is looked at.
        match unsafe { qjs::JS_IsException(value) } {
            true => Err(self.thrown()),
            false => Ok(Value::new(self, value)),
        }
    }

    /// Takes the exception that was thrown.
    pub(crate) fn thrown(&self) -> Fault {
        // SAFETY: the context is alive.
        let exception = Value::new(self, unsafe { qjs::JS_GetException(self.context) });
        // Without any memory there is no exception either: the engine throws null.
        // SAFETY: the heap is used by this engine alone, which rests.
        let is_exhausted = unsafe { (*self.heap).is_exhausted() };
        if matches!(exception.kind(), Kind::Null) && is_exhausted {
            return Fault { message: "InternalError: out of memory".to_owned(), frames: Vec::new() };
        }
        Fault::new(&exception)
    }

    /// Marks the state to which each message returns.
    pub fn mark(&self) {
        // SAFETY: the heap is used by this engine alone, which rests.
        unsafe {
            qjs::JS_RunGC(self.runtime);
            let garbage = GARBAGE_BYTES as qjs::size_t;
            // Else each message could come to the threshold anew.
            qjs::JS_SetGCThreshold(self.runtime, (*self.heap).bytes() as qjs::size_t + garbage);
            (*self.heap).mark();
        }
    }

    /// Puts everything back to the mark. Values that were held before it are there still.
    pub fn put_back(&mut self) {
        // SAFETY: values borrow the engine, so there are none but those that are held, which are of the mark.
        unsafe { (*self.heap).put_back() }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`. All that the engine has lies in it.
        drop(unsafe { Box::from_raw(self.heap) });
    }
}

/// A value that lives as long as its engine does. It must have been taken before the mark.
#[derive(Clone, Copy)]
pub struct EngineValue(pub(crate) qjs::JSValue);

/// A name of a property that lives as long as its engine does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(pub(crate) qjs::JSAtom);

impl Engine {
    /// A name that is used for each message.
    pub fn name(&self, name: &str) -> Name {
        // SAFETY: the bytes are there, as many as said.
        Name(unsafe { qjs::JS_NewAtomLen(self.context, name.as_ptr().cast(), name.len() as qjs::size_t) })
    }
}

unsafe extern "C" fn calloc(heap: *mut c_void, count: qjs::size_t, bytes: qjs::size_t) -> *mut c_void {
    // SAFETY: the runtime gives what it was made with.
    unsafe { (*heap.cast::<Heap>()).allocate_zeroed(count as usize, bytes as usize).cast() }
}

unsafe extern "C" fn malloc(heap: *mut c_void, bytes: qjs::size_t) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (*heap.cast::<Heap>()).allocate(bytes as usize).cast() }
}

unsafe extern "C" fn free(heap: *mut c_void, allocation: *mut c_void) {
    // SAFETY: as above, and the runtime frees what it allocated.
    unsafe { (*heap.cast::<Heap>()).free(allocation.cast()) }
}

unsafe extern "C" fn realloc(heap: *mut c_void, allocation: *mut c_void, bytes: qjs::size_t) -> *mut c_void {
    // SAFETY: as above.
    unsafe { (*heap.cast::<Heap>()).resize(allocation.cast(), bytes as usize).cast() }
}

unsafe extern "C" fn usable_size(allocation: *const c_void) -> qjs::size_t {
    if allocation.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe { size_of_allocation(allocation.cast()) as qjs::size_t }
}
