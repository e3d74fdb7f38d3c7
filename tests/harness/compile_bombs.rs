//! Components made to exhaust the compiler.

use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentExportKind, ComponentImportSection, ComponentInstanceSection,
    ComponentTypeSection, ExportKind, ExportSection, Function, FunctionSection, HeapType, InstanceSection,
    InstanceType, MemorySection, MemoryType, Module, ModuleArg, ModuleSection, NestedComponentSection,
    PrimitiveValType, RefType, StartSection, TableSection, TableType, TypeSection, ValType,
};

fn component_of(module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    component.finish()
}

fn module_of(functions: u32, body: impl Fn(&mut Function)) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut declared = FunctionSection::new();
    let mut code = CodeSection::new();
    for _ in 0..functions {
        declared.function(0);
        let mut function = Function::new([(200, ValType::I32)]);
        body(&mut function);
        function.instructions().end();
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    module
}

/// One function whose every block depends on every other.
pub fn huge_function(blocks: u32) -> Vec<u8> {
    component_of(&module_of(1, |function| {
        for n in 0..blocks {
            let (from, to) = (n % 200 + 1, (n * 7 + 3) % 200 + 1);
            function
                .instructions()
                .block(BlockType::Empty)
                .local_get(from)
                .local_get(to)
                .i32_mul()
                .local_tee(to)
                .br_if(0)
                .local_get(to)
                .local_get(0)
                .i32_add()
                .local_set(from)
                .end();
        }
        function.instructions().local_get(1);
    }))
}

/// Blocks in blocks.
pub fn deep_nesting(depth: u32) -> Vec<u8> {
    component_of(&module_of(1, |function| {
        for _ in 0..depth {
            function.instructions().block(BlockType::Empty).local_get(0).br_if(0);
        }
        for _ in 0..depth {
            function.instructions().end();
        }
        function.instructions().local_get(0);
    }))
}

/// Types of types, each twice as large as the one before when it is written out.
pub fn many_types(types: u32) -> Vec<u8> {
    let mut section = ComponentTypeSection::new();
    section.defined_type().tuple([PrimitiveValType::U8, PrimitiveValType::U8]);
    for n in 1..types {
        let before = wasm_encoder::ComponentValType::Type(n - 1);
        section.defined_type().tuple([before, before]);
    }
    let mut component = Component::new();
    component.section(&section);
    component.finish()
}

/// Many small functions: as much code as fits under the size ceiling.
pub fn many_functions(functions: u32) -> Vec<u8> {
    component_of(&module_of(functions, |function| {
        for n in 0..20 {
            function.instructions().local_get(0).i32_const(n).i32_mul().local_set(0);
        }
        function.instructions().local_get(0);
    }))
}

/// Components in components, each with two instances of the one inside.
pub fn nested_components(depth: u32) -> Vec<u8> {
    let mut component = Component::new();
    let mut module = Module::new();
    module.section(&TypeSection::new());
    component.section(&ModuleSection(&module));
    let mut instances = InstanceSection::new();
    instances.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
    component.section(&instances);
    for _ in 0..depth {
        let mut outer = Component::new();
        outer.section(&NestedComponentSection(&component));
        let mut instances = ComponentInstanceSection::new();
        for _ in 0..2 {
            instances.instantiate(0, std::iter::empty::<(&str, ComponentExportKind, u32)>());
        }
        outer.section(&instances);
        component = outer;
    }
    component.finish()
}

/// The action of one part of a decoder instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    LoopInStart,
    LoopInRealloc,
    ReallocOutside,
    RecursionInStart,
    TableInStart,
    MemoryInStart,
    HugeTable,
    ManyTables,
}

/// A decoder without an SDK, with a fault in it that no toolchain would write.
pub fn decoder_with(misdeed: Misdeed) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 6], [ValType::I32]);
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    for of_type in [0, 1, 1, 2] {
        functions.function(of_type);
    }
    let mut tables = TableSection::new();
    let (count, elements) = match misdeed {
        Misdeed::HugeTable => (1, 1_000_000),
        Misdeed::ManyTables => (50, 1),
        _ => (1, 1),
    };
    for _ in 0..count {
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: elements,
            maximum: None,
            shared: false,
        });
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    for (index, name) in ["configure", "decode", "cabi_realloc"].into_iter().enumerate() {
        exports.export(name, ExportKind::Func, index as u32);
    }
    exports.export("memory", ExportKind::Memory, 0);
    let mut code = CodeSection::new();
    for _ in 0..2 {
        let mut function = Function::new([]);
        function.instructions().unreachable().end();
        code.function(&function);
    }
    let mut realloc = Function::new([]);
    if misdeed == Misdeed::LoopInRealloc {
        realloc.instructions().loop_(BlockType::Empty).br(0).end().unreachable();
    } else {
        realloc.instructions().i32_const(-8);
    }
    realloc.instructions().end();
    code.function(&realloc);
    let mut start = Function::new([]);
    let mut body = start.instructions();
    match misdeed {
        Misdeed::LoopInStart => {
            body.loop_(BlockType::Empty).br(0).end();
        }
        Misdeed::RecursionInStart => {
            body.call(3);
        }
        Misdeed::TableInStart => {
            body.loop_(BlockType::Empty)
                .ref_null(HeapType::FUNC)
                .i32_const(1_000)
                .table_grow(0)
                .drop()
                .br(0)
                .end();
        }
        Misdeed::MemoryInStart => {
            body.loop_(BlockType::Empty).i32_const(1).memory_grow(0).drop().br(0).end();
        }
        _ => {}
    }
    body.end();
    code.function(&start);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&tables).section(&memories).section(&exports);
    module.section(&StartSection { function_index: 3 }).section(&code);

    let mut resolve = wit_parser::Resolve::default();
    let wit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/tidegate-ingest-1.0.0");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some("decoder")).unwrap();
    let mut bytes = module.finish();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, wit_component::StringEncoding::UTF8)
        .unwrap();
    wit_component::ComponentEncoder::default().module(&bytes).unwrap().encode().unwrap()
}

/// A component that imports an interface by this name, with one function in it.
pub fn importing(name: &str) -> Vec<u8> {
    let mut instance = InstanceType::new();
    instance
        .ty()
        .function()
        .params([] as [(&str, PrimitiveValType); 0])
        .result(Some(PrimitiveValType::U64.into()));
    instance.export("now", wasm_encoder::ComponentTypeRef::Func(0));
    let mut types = ComponentTypeSection::new();
    types.instance(&instance);
    let mut imports = ComponentImportSection::new();
    imports.import(name, wasm_encoder::ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}
