//! Components made to hurt whoever compiles them.

use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentExportKind, ComponentInstanceSection, ComponentTypeSection,
    Function, FunctionSection, InstanceSection, Module, ModuleArg, ModuleSection, NestedComponentSection,
    PrimitiveValType, TypeSection, ValType,
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
