//! Go's types as its JSON sees them: what null, absence and repetition do to each.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::json::{JsonError, Reader, write_text};

type Result<T> = std::result::Result<T, JsonError>;

/// A value that Go's JSON reads into and writes.
pub(super) trait Go: Default {
    /// Reads one value over what is there: null and repetition mean something different for each type.
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()>;
    /// Appends the value.
    fn write(&self, out: &mut Vec<u8>);
    /// What `omitempty` leaves out.
    fn is_empty(&self) -> bool;
}

impl Go for String {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if !reader.null()? {
            *self = reader.text()?.into_owned();
        }
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_text(out, self);
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Go for bool {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if !reader.null()? {
            *self = reader.boolean()?;
        }
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(if *self { &b"true"[..] } else { b"false" });
    }

    fn is_empty(&self) -> bool {
        !*self
    }
}

macro_rules! go_integer {
    ($($ty:ty: $expected:literal),*) => {$(
        impl Go for $ty {
            fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
                if !reader.null()? {
                    let n = reader.integer(<$ty>::MAX.into(), $expected)?;
                    *self = <$ty>::try_from(n).expect("integer() keeps to the maximum");
                }
                Ok(())
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_string().into_bytes());
            }

            fn is_empty(&self) -> bool {
                *self == 0
            }
        }
    )*};
}
go_integer!(u8: "a number from 0 to 255", u16: "a number from 0 to 65535", u32: "a number from 0 to 4294967295");

/// A Go map: nil or with entries. A repeated field adds to it, a repeated key within replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map<V, K = String>(pub(super) Option<BTreeMap<K, V>>);

impl<V, K> Default for Map<V, K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V, K: Ord> Map<V, K> {
    /// An allocated map.
    pub(super) fn empty() -> Self {
        Self(Some(BTreeMap::new()))
    }
}

/// The type of a map's keys.
pub(super) trait Key: Ord + AsRef<str> + for<'a> From<&'a str> {}
impl Key for String {}
impl Key for SmolStr {}

impl<V: Go, K: Key> Go for Map<V, K> {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if reader.null()? {
            self.0 = None;
            return Ok(());
        }
        let map = self.0.get_or_insert_default();
        reader.object(|reader, key| {
            let mut value = V::default();
            value.read(reader).map_err(|e| e.within(key))?;
            map.insert(key.into(), value);
            Ok(())
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Some(map) = &self.0 else { return out.extend(b"null") };
        let mut separator = b'{';
        for (key, value) in map {
            out.push(separator);
            write_text(out, key.as_ref());
            out.push(b':');
            value.write(out);
            separator = b',';
        }
        out.extend(if map.is_empty() { &b"{}"[..] } else { b"}" });
    }

    fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

/// A Go slice: nil or with elements. A repeated field is read over the elements that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Option<Vec<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Go> Go for List<T> {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if reader.null()? {
            self.0 = None;
            return Ok(());
        }
        let list = self.0.get_or_insert_default();
        let mut len = 0;
        reader.array(|reader, index| {
            if index == list.len() {
                list.push(T::default());
            }
            len = index + 1;
            list[index].read(reader).map_err(|e| e.within(&index.to_string()))
        })?;
        list.truncate(len);
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Some(list) = &self.0 else { return out.extend(b"null") };
        let mut separator = b'[';
        for value in list {
            out.push(separator);
            value.write(out);
            separator = b',';
        }
        out.extend(if list.is_empty() { &b"[]"[..] } else { b"]" });
    }

    fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(Vec::is_empty)
    }
}

/// A Go pointer. A repeated field is read over what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ptr<T>(pub(super) Option<T>);

impl<T> Default for Ptr<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Go> Go for Ptr<T> {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        if reader.null()? {
            self.0 = None;
            return Ok(());
        }
        self.0.get_or_insert_default().read(reader)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Some(value) => value.write(out),
            None => out.extend(b"null"),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// A Go struct: its fields in Go's order with their JSON names, and `omitempty` where Go has it.
macro_rules! go_struct {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty = $json:literal $($omit:ident)?,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $(pub(super) $field: $ty,)*
        }

        impl $crate::cilium::json::Go for $name {
            fn read(
                &mut self,
                reader: &mut $crate::cilium::json::Reader<'_>,
            ) -> Result<(), $crate::cilium::json::JsonError> {
                if reader.null()? {
                    return Ok(());
                }
                reader.object(|reader, key| {
                    $(if $crate::cilium::json::folds(key, $json) {
                        return self.$field.read(reader).map_err(|e| e.within($json));
                    })*
                    reader.skip()
                })
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.push(b'{');
                let first = out.len();
                $(if !go_struct!(@omit self.$field $($omit)?) {
                    if out.len() > first {
                        out.push(b',');
                    }
                    out.extend(concat!('"', $json, "\":").as_bytes());
                    self.$field.write(out);
                })*
                out.push(b'}');
            }

            fn is_empty(&self) -> bool {
                false
            }
        }
    };
    (@omit $this:ident.$field:ident) => { false };
    (@omit $this:ident.$field:ident omitempty) => { $crate::cilium::json::Go::is_empty(&$this.$field) };
}
pub(super) use go_struct;
