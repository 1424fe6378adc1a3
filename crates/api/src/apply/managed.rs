//! `metadata.managedFields`: reading, writing, and what every write does to it.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::merge::merge;
use super::prune::{Sets, prune};
use super::versions::Changes;
use super::{ApplyError, Conflict, Conflicts, FieldSet, Writer, compare, field_set_of, last_applied};

/// Beyond this many managers that update, the oldest are put together.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const MAX_MANAGER_LENGTH: usize = 128;

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub manager: String,
    pub apply: bool,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: FieldSet,
}

/// Writes through some subresources are kept without a time.
fn time_of(writer: &Writer<'_>) -> Option<String> {
    Some(writer.time.to_owned()).filter(|time| !time.is_empty())
}

impl Entry {
    fn new(writer: &Writer<'_>, apply: bool, fields: FieldSet) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            apply,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: time_of(writer),
            fields,
        }
    }

    fn is_by(&self, writer: &Writer<'_>, apply: bool) -> bool {
        self.apply == apply
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            // An apply replaces what its manager applied before, in whatever version.
            && (apply || self.api_version == writer.api_version)
    }

    /// What managers are told apart and ordered by. One may have applied in several versions.
    pub fn identity(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut text = format!("{{\"manager\":{}", quoted(&self.manager));
        let operation = if self.apply { "Apply" } else { "Update" };
        text += &format!(",\"operation\":\"{operation}\"");
        if !self.apply {
            text += &format!(",\"apiVersion\":{}", quoted(&self.api_version));
        }
        if !self.subresource.is_empty() {
            text += &format!(",\"subresource\":{}", quoted(&self.subresource));
        }
        text + "}"
    }

    fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.apply {
            text += &format!(" using {}", self.api_version);
        }
        text
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let apply = match text("operation") {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let empty = Value::Object(Map::new());
        Some(Self {
            manager: text("manager").to_owned(),
            apply,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: value.get("time").and_then(Value::as_str).map(str::to_owned),
            fields: FieldSet::from_fields_v1(value.get("fieldsV1").unwrap_or(&empty)).ok()?,
        })
    }

    fn write(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                map.insert(key.to_owned(), value.into());
            }
        };
        put("manager", &self.manager);
        put("operation", if self.apply { "Apply" } else { "Update" });
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        map.insert("fieldsV1".to_owned(), self.fields.to_fields_v1());
        Value::Object(map)
    }
}

/// Reads the entries; `None` where one cannot be read. Of several of one manager the last counts.
pub(super) fn read_entries(object: &Value) -> Option<Vec<Entry>> {
    let Some(Value::Array(items)) = object.pointer("/metadata/managedFields") else {
        return Some(Vec::new());
    };
    let mut out: Vec<Entry> = Vec::with_capacity(items.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for item in items {
        let entry = Entry::read(item)?;
        match places.entry(entry.identity()) {
            Place::Occupied(place) => out[*place.get()] = entry,
            Place::Vacant(place) => {
                place.insert(out.len());
                out.push(entry);
            }
        }
    }
    Some(out)
}

/// The entries as they stand in an object; nothing where there are none.
pub(super) fn written(mut entries: Vec<Entry>) -> Value {
    entries.retain(|entry| !entry.fields.is_empty());
    // Applied first, then by age.
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (!e.apply, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone())
        };
        key(a).cmp(&key(b))
    });
    match entries.is_empty() {
        true => Value::Null,
        false => Value::Array(entries.iter().map(Entry::write).collect()),
    }
}

fn write_entries(object: &mut Value, entries: Vec<Entry>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match written(entries) {
        Value::Null => metadata.remove("managedFields"),
        entries => metadata.insert("managedFields".to_owned(), entries),
    };
}

/// Fields that identify the object or are the server's own: nobody owns them.
static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.resourceVersion",
        "metadata.generation",
        "metadata.managedFields",
    ])
});
static OWNERSHIP: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&["metadata.managedFields"]));

/// What of a set this write may own.
pub(super) fn ownable(set: FieldSet, writer: &Writer<'_>) -> FieldSet {
    // The exact paths only: taking `metadata` away must leave the labels.
    let set = set.without(&NEVER_OWNED).without_trees(&OWNERSHIP);
    match writer.reset {
        Some(reset) => set.without_trees(reset),
        None => set,
    }
}

/// The object as the comparison sees it: canonical, without its ownership.
pub(super) fn canonical(object: Option<&Value>, writer: &Writer<'_>) -> Value {
    let mut value = object.cloned().unwrap_or_else(|| json!({}));
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(schema) = writer.schema {
        schema.canonicalize(&mut value);
    }
    value
}

/// `managedFields: [{}]` asks to forget all ownership.
fn is_reset(object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.is_some_and(|entries| entries.len() == 1 && entries[0].as_object().is_some_and(Map::is_empty))
}

/// Sets `managedFields` of an object that is created (`old` is `None`) or replaced. `new` is the object as it will
/// be stored; both are canonical.
pub fn update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    if is_reset(new) {
        return write_entries(new, Vec::new());
    }
    let own = read_entries(new).filter(|entries| !entries.is_empty());
    let mut entries = own.unwrap_or_else(|| old.and_then(read_entries).unwrap_or_default());
    if old.is_some() && entries.is_empty() {
        // Never tracked, or told to forget: stays so until the first apply.
        return write_entries(new, Vec::new());
    }
    // It is read; nobody owns it.
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    // Of nothing, the canonical form holds what every object has.
    let nothing = if old.is_none() { canonical(None, writer) } else { Value::Null };
    let old = old.unwrap_or(&nothing);
    let mut changes = Changes::new(old, new, compare(old, new, writer.schema), writer);
    let mut found = false;
    for entry in &mut entries {
        let fields = std::mem::take(&mut entry.fields);
        if entry.is_by(writer, false) {
            found = true;
            let now = fields.difference(&changes.own.removed).with(changes.own.set.clone());
            if now != fields {
                entry.time = time_of(writer);
            }
            entry.fields = now;
        } else if let Some(change) = changes.of(&entry.api_version) {
            entry.fields = fields.without(&change.removed).without(&change.set);
        }
    }
    let own = changes.own.set;
    if !found && !own.is_empty() {
        entries.push(Entry::new(writer, false, own));
    }
    cap_update_managers(&mut entries);
    write_entries(new, entries);
}

/// Puts the oldest updates of each version together, so that the list stays short.
fn cap_update_managers(entries: &mut Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    let updates = entries.iter().filter(|entry| !entry.apply).count();
    if updates <= MAX_UPDATE_MANAGERS {
        return;
    }
    let (mut kept, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(entries).into_iter().partition(|entry| entry.apply);
    others.sort_by(|a, b| a.time.cmp(&b.time));
    let newest = others.split_off(updates - MAX_UPDATE_MANAGERS + 1);
    // Those that are put together are what there is of them already, and what comes to them; each in the place of its first.
    let mut buckets: Vec<(Entry, Vec<FieldSet>)> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    for mut old in others {
        let fields = std::mem::take(&mut old.fields);
        match places.entry((old.api_version.clone(), old.subresource.clone())) {
            Place::Occupied(place) => {
                let (bucket, sets) = &mut buckets[*place.get()];
                bucket.time = old.time;
                sets.push(fields);
            }
            Place::Vacant(place) => {
                place.insert(buckets.len());
                buckets.push((Entry { manager: ANCIENT.to_owned(), ..old }, vec![fields]));
            }
        }
    }
    kept.extend(
        buckets.into_iter().map(|(bucket, sets)| Entry { fields: FieldSet::union_of(sets), ..bucket }),
    );
    kept.extend(newest);
    *entries = kept;
}

/// Applies a configuration: the object to store, with its `managedFields`. Without a live object it is a create.
/// A result equal to the live object means that there is nothing to store.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let mut conflicts = match apply_once(live, config, writer, force) {
        Err(ApplyError::Conflicts(conflicts)) => conflicts,
        other => return other,
    };
    if let Some(allowed) = last_applied::allowed(live, writer) {
        conflicts.0.retain(|conflict| !allowed.contains(&conflict.field));
        if conflicts.0.is_empty() {
            return apply_once(live, config, writer, true);
        }
    }
    Err(ApplyError::Conflicts(conflicts))
}

fn apply_once(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let node = writer.schema.map(crate::schema::Schema::node);
    let mut entries = live.and_then(read_entries).unwrap_or_default();
    if let (Some(live), true) = (live, entries.is_empty()) {
        entries.push(before_first_apply(live, writer));
    }
    let all = field_set_of(config, writer.schema).map_err(ApplyError::Invalid)?;
    let own = entries.iter().position(|entry| entry.is_by(writer, true));
    let own = own.map(|at| entries.remove(at));

    let mut config = config.clone();
    if let Some(reset) = writer.reset {
        take_out(&mut config, reset);
    }
    let mut merged = merge(live, &config, node);
    if let Some(last) = &own {
        let mut owned = BTreeMap::from([(writer.api_version.to_owned(), vec![all.clone()])]);
        for entry in &entries {
            owned.entry(entry.api_version.clone()).or_default().push(entry.fields.clone());
        }
        let owned: Sets =
            owned.into_iter().map(|(version, sets)| (version, FieldSet::union_of(sets))).collect();
        merged = prune(merged, (&last.api_version, &last.fields), owned, writer);
    }
    let set = ownable(all, writer);
    let Some(live) = live else {
        last_applied::keep(&mut merged, &config, writer);
        write_entries(&mut merged, vec![Entry::new(writer, true, set)]);
        return Ok(merged);
    };

    // As they are: `false` in a configuration is a change of `true`, though the canonical form leaves it out.
    let comparison = compare(live, &merged, writer.schema);
    let is_same = comparison.is_same();
    let mut changes = Changes::new(live, &merged, comparison, writer);
    let mut conflicts = Vec::new();
    for entry in &mut entries {
        let Some(change) = changes.of(&entry.api_version) else {
            entry.fields = FieldSet::new();
            continue;
        };
        let conflict = entry.fields.intersection(&change.set);
        let (manager, identity) = (entry.describe(), entry.identity());
        let fields = conflict.paths().into_iter();
        conflicts
            .extend(fields.map(|field| (identity.clone(), Conflict { manager: manager.clone(), field })));
        entry.fields = std::mem::take(&mut entry.fields).without(&conflict).without(&change.removed);
    }
    if !force && !conflicts.is_empty() {
        // The fields of each stay in the order of their set.
        conflicts.sort_by(|(a, _), (b, _)| a.cmp(b));
        let conflicts = conflicts.into_iter().map(|(_, conflict)| conflict).collect();
        return Err(ApplyError::Conflicts(Conflicts(conflicts)));
    }
    let mut entry = Entry::new(writer, true, set);
    if is_same {
        // The time is that of a change of the object, not of its ownership.
        entry.time = own.and_then(|own| own.time);
    }
    entries.push(entry);
    last_applied::keep(&mut merged, &config, writer);
    write_entries(&mut merged, entries);
    Ok(merged)
}

/// What an object held before anything was tracked belongs to a manager of this name, who wrote as this one does.
fn before_first_apply(live: &Value, writer: &Writer<'_>) -> Entry {
    let all = compare(&canonical(None, writer), &canonical(Some(live), writer), writer.schema);
    let fields = ownable(all.added.with(all.modified), writer);
    Entry { manager: BEFORE_FIRST_APPLY.to_owned(), ..Entry::new(writer, false, fields) }
}

/// Takes plain field paths out of a value.
fn take_out(value: &mut Value, set: &FieldSet) {
    let Value::Object(map) = value else { return };
    for element in set.elements() {
        let super::PathElement::Field(name) = element else { continue };
        match set.child(element) {
            _ if set.contains(std::slice::from_ref(element)) => {
                map.remove(name);
            }
            Some(child) => map.get_mut(name).map_or((), |inner| take_out(inner, child)),
            None => {}
        }
    }
}

/// The manager of a write that names none: the user agent up to the first slash.
pub fn default_manager(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(MAX_MANAGER_LENGTH).collect()
}

/// What is wrong with a manager's name; `apply` needs one.
pub fn manager_problem(manager: &str, apply: bool) -> Option<String> {
    if manager.is_empty() && apply {
        return Some("fieldManager: Required value: is required for apply patch".to_owned());
    }
    if manager.len() > MAX_MANAGER_LENGTH {
        return Some(format!("fieldManager: Too long: may not be more than {MAX_MANAGER_LENGTH} bytes"));
    }
    let position = manager.chars().position(char::is_control)?;
    Some(format!(
        "fieldManager: Invalid value: {manager:?}: invalid character U+{:04X} (at position {position})",
        manager.chars().nth(position).map_or(0, |c| c as u32)
    ))
}
