use serde_json::{Map, Value};

/// Where `value` departs from `schema`, one line each; none when it keeps to it.
///
/// As much of JSON Schema as the results need. A keyword that is not known here is a panic: it would go unchecked.
pub(crate) fn departures(schema: &Value, value: &Value) -> Vec<String> {
    let mut check = Check { root: schema, found: Vec::new() };
    check.value(schema, value, "$");
    check.found
}

struct Check<'a> {
    root: &'a Value,
    found: Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        for (keyword, rule) in schema.as_object().expect("a schema is an object") {
            let right = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "required" => true,
                "$ref" => {
                    let path = rule.as_str().and_then(|path| path.strip_prefix('#')).expect("a path in here");
                    let target = self.root.pointer(path).unwrap_or_else(|| panic!("there is no {path}"));
                    self.value(target, value, at);
                    true
                }
                "anyOf" => list(rule).iter().any(|one| self.is_right(one, value)),
                "const" => value == rule,
                "enum" => list(rule).contains(value),
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|one| is_of_type(one, value)),
                    one => is_of_type(one, value),
                },
                "minimum" => value.as_f64().is_none_or(|number| number >= float(rule)),
                "maximum" => value.as_f64().is_none_or(|number| number <= float(rule)),
                "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= float(rule)),
                "maxItems" => value.as_array().is_none_or(|items| items.len() as f64 <= float(rule)),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.value(rule, item, &format!("{at}[{index}]"));
                    }
                    true
                }
                "prefixItems" => {
                    for (index, (one, item)) in list(rule).iter().zip(list(value)).enumerate() {
                        self.value(one, item, &format!("{at}[{index}]"));
                    }
                    true
                }
                "properties" => {
                    self.members(schema, rule.as_object().expect("by name"), value, at);
                    true
                }
                "additionalProperties" => *rule == Value::Bool(false), // which `members` holds it to
                other => panic!("{other:?} at {at} is a keyword that nobody checks"),
            };
            if !right {
                self.found.push(format!("{at}: {value} is not {keyword} {rule}"));
            }
        }
    }

    /// Every member that is there is right, none is too many, none is missing.
    fn members(&mut self, schema: &Value, known: &Map<String, Value>, value: &Value, at: &str) {
        let Some(members) = value.as_object() else { return };
        for (name, member) in members {
            match known.get(name) {
                Some(rule) => self.value(rule, member, &format!("{at}.{name}")),
                None => self.found.push(format!("{at}.{name} is not in the schema")),
            }
        }
        for name in schema.get("required").map(list).unwrap_or_default() {
            if !members.contains_key(name.as_str().expect("a name")) {
                self.found.push(format!("{at}.{name} is missing"));
            }
        }
    }

    fn is_right(&self, schema: &Value, value: &Value) -> bool {
        let mut check = Check { root: self.root, found: Vec::new() };
        check.value(schema, value, "$");
        check.found.is_empty()
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type has a name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("there is no type {other}"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn float(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}
