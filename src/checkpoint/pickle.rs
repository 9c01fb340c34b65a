//! A reader of the pickles of `torch.save` that knows tensors and dictionaries of tensors and nothing else.
//!
//! A pickle is a program for a stack machine that may call any function of Python. This one calls none: three names are understood
//! (rebuild a tensor, make an ordered dictionary, the kind of a storage), every other name or instruction is refused. Values live in flat
//! tables and refer to each other by number, so that no nesting costs stack or time.

use std::collections::HashMap;
use std::ops::Range;

use crate::checkpoint::limits::PICKLE_OBJECTS;
use crate::checkpoint::tensor_file::Dtype;

/// A tensor as a pickle describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    /// Key of its storage: a file `data/<key>` of the archive.
    pub storage: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// First element in the storage.
    pub offset: usize,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Elements from one index to the next in each dimension.
    pub strides: Vec<usize>,
}

/// The tensors of a pickle by their path through its dictionaries, joined by dots. A dictionary with the one key `state_dict` is left out of
/// the path.
///
/// # Errors
/// What is in it that is no tensor, in words.
pub(super) fn read(pickle: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let mut machine = Machine { input: pickle, at: 0, stack: Vec::new(), memo: HashMap::new(), tables: Tables::default() };
    let root = machine.run()?;
    machine.state_dict(root)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Mark,
    None,
    Bool,
    Int(i64),
    /// A place in the pickle.
    Text(u32, u32),
    /// Numbers in the tables.
    Tuple(u32),
    Dictionary(u32),
    Storage(u32),
    Tensor(u32),
    Name(Name),
}

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Name {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    Storage(Dtype),
}

#[derive(Debug, Default)]
struct Tables {
    tuples: Vec<Vec<Value>>,
    dictionaries: Vec<Vec<(Value, Value)>>,
    storages: Vec<(Range<usize>, Dtype, usize)>,
    tensors: Vec<Tensor>,
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    tables: Tables,
}

type Step<T> = Result<T, String>;

fn damaged<T>() -> Step<T> {
    Err("a damaged pickle".into())
}

impl Machine<'_> {
    fn take(&mut self, count: usize) -> Step<&[u8]> {
        let bytes = self.input.get(self.at..).and_then(|rest| rest.get(..count)).ok_or("a truncated pickle")?;
        self.at += count;
        Ok(bytes)
    }

    fn number(&mut self, bytes: usize) -> Step<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn text(&mut self, length: u64) -> Step<Value> {
        let from = self.at;
        let length = usize::try_from(length).or_else(|_| damaged())?;
        std::str::from_utf8(self.take(length)?).or_else(|_| damaged())?;
        Ok(Value::Text(from as u32, self.at as u32))
    }

    fn line(&mut self) -> Step<&str> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|&b| b == b'\n').ok_or("a truncated pickle")?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).or_else(|_| damaged())
    }

    fn pop(&mut self) -> Step<Value> {
        self.stack.pop().filter(|v| *v != Value::Mark).map_or_else(damaged, Ok)
    }

    fn since_mark(&mut self) -> Step<Vec<Value>> {
        let mark = self.stack.iter().rposition(|v| *v == Value::Mark).map_or_else(damaged, Ok)?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    fn room(&self) -> Step<()> {
        let t = &self.tables;
        let objects = t.tuples.len() + t.dictionaries.len() + t.storages.len() + t.tensors.len();
        if objects < PICKLE_OBJECTS { Ok(()) } else { Err(format!("a pickle with more than {PICKLE_OBJECTS} objects")) }
    }

    fn push_tuple(&mut self, values: Vec<Value>) -> Step<()> {
        self.room()?;
        self.tables.tuples.push(values);
        self.stack.push(Value::Tuple(self.tables.tuples.len() as u32 - 1));
        Ok(())
    }

    fn push_tuple_of(&mut self, count: usize) -> Step<()> {
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.pop()?);
        }
        values.reverse();
        self.push_tuple(values)
    }

    fn push_dictionary(&mut self) -> Step<()> {
        self.room()?;
        self.tables.dictionaries.push(Vec::new());
        self.stack.push(Value::Dictionary(self.tables.dictionaries.len() as u32 - 1));
        Ok(())
    }

    /// Runs the program up to its end; gives what it leaves.
    fn run(&mut self) -> Step<Value> {
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                0x80 => drop(self.take(1)?), // PROTO
                0x95 => drop(self.take(8)?), // FRAME
                b'.' => return self.pop(),
                b'(' => self.stack.push(Value::Mark),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'J' => {
                    let n = self.number(4)? as u32 as i32;
                    self.stack.push(Value::Int(n.into()));
                }
                b'K' => {
                    let n = self.number(1)?;
                    self.stack.push(Value::Int(n as i64));
                }
                b'M' => {
                    let n = self.number(2)?;
                    self.stack.push(Value::Int(n as i64));
                }
                0x8a => {
                    // LONG1: little-endian, signed
                    let bytes = self.number(1)? as usize;
                    if bytes > 8 {
                        return damaged();
                    }
                    let n = self.number(bytes)?;
                    let n = if bytes == 0 { 0 } else { (n << (64 - 8 * bytes)) as i64 >> (64 - 8 * bytes) };
                    self.stack.push(Value::Int(n));
                }
                b'X' | 0x8c => {
                    let length = self.number(if opcode == b'X' { 4 } else { 1 })?;
                    let text = self.text(length)?;
                    self.stack.push(text);
                }
                b'}' => self.push_dictionary()?,
                b')' => self.push_tuple(Vec::new())?,
                0x85..=0x87 => self.push_tuple_of(usize::from(opcode - 0x84))?,
                b't' => {
                    let values = self.since_mark()?;
                    self.push_tuple(values)?;
                }
                b'q' | b'r' => {
                    let key = self.number(if opcode == b'q' { 1 } else { 4 })? as u32;
                    let value = self.stack.last().copied().map_or_else(damaged, Ok)?;
                    self.memo.insert(key, value);
                }
                0x94 => {
                    let value = self.stack.last().copied().map_or_else(damaged, Ok)?;
                    self.memo.insert(self.memo.len() as u32, value);
                }
                b'h' | b'j' => {
                    let key = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
                    let value = self.memo.get(&key).copied().map_or_else(damaged, Ok)?;
                    self.stack.push(value);
                }
                b'c' => {
                    let module = self.line()?.to_string();
                    let name = known(&module, self.line()?)?;
                    self.stack.push(Value::Name(name));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let name = known(self.string(module)?, self.string(name)?)?;
                    self.stack.push(Value::Name(name));
                }
                b'Q' => self.persistent()?,
                b'R' => self.call()?,
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let pairs = self.since_mark()?;
                    self.set(&pairs)?;
                }
                // BUILD: attributes of an ordered dictionary (versions of modules) mean nothing here.
                b'b' => {
                    self.pop()?;
                    if !matches!(self.stack.last(), Some(Value::Dictionary(_))) {
                        return Err("a pickle that sets attributes of an object: only tensors are read".into());
                    }
                }
                other => return Err(format!("a pickle with instruction {other:#04x}: only dictionaries of tensors are read")),
            }
        }
    }

    fn string(&self, value: Value) -> Step<&str> {
        let Value::Text(from, to) = value else { return damaged() };
        std::str::from_utf8(&self.input[from as usize..to as usize]).or_else(|_| damaged())
    }

    fn tuple(&self, value: Value) -> Step<&[Value]> {
        let Value::Tuple(tuple) = value else { return damaged() };
        Ok(&self.tables.tuples[tuple as usize])
    }

    fn set(&mut self, pairs: &[Value]) -> Step<()> {
        let Some(Value::Dictionary(dictionary)) = self.stack.last().copied() else { return damaged() };
        let (pairs, rest) = pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return damaged();
        }
        self.tables.dictionaries[dictionary as usize].extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    /// `('storage', kind, key, device, elements)`
    fn persistent(&mut self) -> Step<()> {
        self.room()?;
        let id = self.pop()?;
        let &[tag, Value::Name(Name::Storage(dtype)), Value::Text(from, to), _, Value::Int(elements)] = self.tuple(id)? else {
            return Err("a pickle that refers to something other than a storage".into());
        };
        if self.string(tag)? != "storage" {
            return damaged();
        }
        let elements = usize::try_from(elements).or_else(|_| damaged())?;
        self.tables.storages.push((from as usize..to as usize, dtype, elements));
        self.stack.push(Value::Storage(self.tables.storages.len() as u32 - 1));
        Ok(())
    }

    fn call(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        match (callee, self.tuple(arguments)?) {
            (Value::Name(Name::OrderedDict), []) => self.push_dictionary(),
            (Value::Name(Name::RebuildParameter), &[tensor @ Value::Tensor(_), ..]) => {
                self.stack.push(tensor);
                Ok(())
            }
            (Value::Name(Name::RebuildTensor), &[Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                self.room()?;
                let sizes = |value| {
                    let sizes = self.tuple(value)?.iter().map(|v| match v {
                        Value::Int(n) => usize::try_from(*n).or_else(|_| damaged()),
                        _ => damaged(),
                    });
                    sizes.collect::<Step<Vec<usize>>>()
                };
                let (shape, strides) = (sizes(shape)?, sizes(strides)?);
                if shape.len() != strides.len() || shape.len() > 8 {
                    return damaged();
                }
                let (key, dtype, _) = self.tables.storages[storage as usize].clone();
                let storage = short(std::str::from_utf8(&self.input[key]).or_else(|_| damaged())?)?.to_string();
                let offset = usize::try_from(offset).or_else(|_| damaged())?;
                self.tables.tensors.push(Tensor { storage, dtype, offset, shape, strides });
                self.stack.push(Value::Tensor(self.tables.tensors.len() as u32 - 1));
                Ok(())
            }
            _ => Err("a pickle that calls something in an unknown way: only tensors are read".into()),
        }
    }

    fn state_dict(&self, root: Value) -> Step<Vec<(String, Tensor)>> {
        let Value::Dictionary(mut root) = root else { return Err("a pickle that is no dictionary of tensors".into()) };
        if let [(key, Value::Dictionary(inner))] = self.tables.dictionaries[root as usize][..]
            && self.string(key)? == "state_dict"
        {
            root = inner;
        }
        let mut found = Vec::new();
        let mut visited = 0;
        self.collect(root, "", 0, &mut visited, &mut found)?;
        Ok(found)
    }

    fn collect(&self, dictionary: u32, prefix: &str, depth: usize, visited: &mut usize, found: &mut Vec<(String, Tensor)>) -> Step<()> {
        *visited += 1;
        if depth > 4 || *visited > 10_000 {
            return Err("a pickle of dictionaries within dictionaries".into());
        }
        for &(key, value) in &self.tables.dictionaries[dictionary as usize] {
            let key = short(self.string(key)?)?;
            let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
            match value {
                Value::Tensor(tensor) if found.len() < PICKLE_OBJECTS => found.push((name, self.tables.tensors[tensor as usize].clone())),
                Value::Dictionary(inner) => self.collect(inner, &name, depth + 1, visited, found)?,
                _ => return Err(format!("{name} in the pickle is no tensor: only tensors are read")),
            }
        }
        Ok(())
    }
}

/// A name of reasonable length: one long text may be used by many objects, and each makes a copy.
fn short(name: &str) -> Step<&str> {
    if name.len() <= 256 { Ok(name) } else { Err(format!("a pickle with a name of {} bytes", name.len())) }
}

/// The names that a pickle of tensors uses.
fn known(module: &str, name: &str) -> Step<Name> {
    Ok(match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Name::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Name::RebuildParameter,
        ("collections", "OrderedDict") => Name::OrderedDict,
        ("torch", "DoubleStorage") => Name::Storage(Dtype::F64),
        ("torch", "FloatStorage") => Name::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Name::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Name::Storage(Dtype::Bf16),
        ("torch", "LongStorage") => Name::Storage(Dtype::I64),
        ("torch", "IntStorage") => Name::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Name::Storage(Dtype::I16),
        ("torch", "CharStorage") => Name::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Name::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Name::Storage(Dtype::Bool),
        _ => return Err(format!("a pickle that uses {module}.{name}: only tensors are read, nothing is called")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"w": tensor}` as torch writes it, with the name of the function that makes the tensor.
    fn pickled(module: &str, name: &str) -> Vec<u8> {
        let mut p = b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01c".to_vec();
        p.extend(format!("{module}\n{name}\n").bytes());
        p.extend(b"q\x02((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x01");
        p.extend(b"K\x02K\x02\x86q\x08K\x02K\x01\x86q\x09\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs.");
        p
    }

    #[test]
    fn a_tensor_is_read() {
        let read = read(&pickled("torch._utils", "_rebuild_tensor_v2")).unwrap();
        let tensor = Tensor { storage: "0".into(), dtype: Dtype::F32, offset: 1, shape: vec![2, 2], strides: vec![2, 1] };
        assert_eq!(read, [("w".to_string(), tensor)]);
    }

    #[test]
    fn whatever_is_no_tensor_is_refused() {
        let error = read(&pickled("os", "system")).unwrap_err();
        assert!(error.contains("os.system"), "{error}");
        assert!(read(b"\x80\x02}X\x01\x00\x00\x00wK\x05s.").unwrap_err().contains("no tensor"));
        assert!(read(b"\x80\x02]q\x00.").unwrap_err().contains("0x5d"));
        assert!(read(b"\x80\x02K\x05.").is_err());
        let whole = pickled("torch._utils", "_rebuild_tensor_v2");
        (0..whole.len()).for_each(|n| assert!(read(&whole[..n]).is_err(), "{n} bytes"));
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let deep = [&b"\x80\x02)"[..], &vec![0x85; 1 << 20], b"."].concat();
        assert!(read(&deep).unwrap_err().contains("objects"));
        // A dictionary that holds itself.
        assert!(read(b"\x80\x02}q\x00X\x01\x00\x00\x00wh\x00s.").unwrap_err().contains("within"));
    }
}
