//! What an expression may name: functions, variables, types.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decl::Decl;
use crate::functions::Library;
use crate::types::Type;

/// Objects that expressions may make.
const MAX_TYPE_DEPTH: u32 = 32;

#[derive(Clone, Copy)]
pub struct Constructible {
    /// Whether there is a type of that name.
    pub knows: fn(name: &str) -> bool,
    /// The type of a field of such a type.
    pub field: fn(name: &str, field: &str) -> Option<Type>,
}

#[derive(Clone)]
pub struct Env {
    library: Library,
    variables: HashMap<Arc<str>, Variable>,
    objects: HashMap<Arc<str>, Arc<Decl>>,
    constructible: Option<Constructible>,
}

#[derive(Clone)]
struct Variable {
    ty: Type,
    decl: Option<Arc<Decl>>,
}

impl Default for Env {
    fn default() -> Self {
        Self::new(Library::standard())
    }
}

impl Env {
    pub fn new(library: Library) -> Self {
        Self { library, variables: HashMap::new(), objects: HashMap::new(), constructible: None }
    }

    /// A variable whose fields and sizes are declared.
    pub fn declare(mut self, name: &str, decl: &Arc<Decl>) -> Self {
        decl.each_object(&mut |name, decl| {
            self.objects.insert(Arc::clone(name), Arc::clone(decl));
        });
        let variable = Variable { ty: decl.ty(), decl: Some(Arc::clone(decl)) };
        self.variables.insert(name.into(), variable);
        self
    }

    /// As [`Env::declare`], of a value that may be absent.
    pub fn declare_optional(self, name: &str, decl: &Arc<Decl>) -> Self {
        let mut env = self.declare(name, decl);
        if let Some(variable) = env.variables.get_mut(name) {
            variable.ty = Type::optional(decl.ty());
        }
        env
    }

    /// A variable of a type; its name may have dots. Of a type of great depth, only what it is at run time counts:
    /// variables that are made of variables would deepen without an end.
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        let ty = if ty.deeper_than(MAX_TYPE_DEPTH) { Type::Dyn } else { ty };
        self.variables.insert(name.into(), Variable { ty, decl: None });
        self
    }

    /// Objects that expressions may make.
    pub fn constructing(mut self, constructible: Constructible) -> Self {
        self.constructible = Some(constructible);
        self
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    pub(crate) fn variable_type(&self, name: &str) -> Option<Type> {
        self.variables.get(name).map(|variable| variable.ty.clone())
    }

    pub(crate) fn variable_decl(&self, name: &str) -> Option<&Arc<Decl>> {
        self.variables.get(name).and_then(|variable| variable.decl.as_ref())
    }

    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        const OPAQUE: [&str; 10] = [
            "kubernetes.Quantity",
            "kubernetes.Semver",
            "kubernetes.URL",
            "kubernetes.NamedFormat",
            "net.IP",
            "net.CIDR",
            "kubernetes.authorization.Authorizer",
            "kubernetes.authorization.PathCheck",
            "kubernetes.authorization.ResourceCheck",
            "kubernetes.authorization.Decision",
        ];
        Type::named(name)
            .or_else(|| OPAQUE.iter().find(|known| **known == name).map(|known| Type::Opaque(known)))
            .or_else(|| self.is_constructible(name).then(|| Type::Object(name.into())))
    }

    pub(crate) fn field_type(&self, object: &str, field: &str) -> Option<Type> {
        match self.objects.get(object) {
            Some(decl) => decl.field(field).map(|decl| decl.ty()),
            None => self.constructible.filter(|c| (c.knows)(object)).and_then(|c| (c.field)(object, field)),
        }
    }

    pub(crate) fn is_constructible(&self, name: &str) -> bool {
        self.constructible.is_some_and(|c| (c.knows)(name))
    }
}
