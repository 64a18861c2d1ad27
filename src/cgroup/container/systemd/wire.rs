//! D-Bus messages (D-Bus specification, "Message Protocol"), in this machine's byte order: writing those that are
//! sent to systemd, and reading as much of the answers as is of use. Whatever comes is checked against its length.

/// What a property can be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    /// Of the type with this signature, which an empty one has, too.
    List(&'static str, Vec<Value>),
    Struct(Vec<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::List("y", bytes.iter().map(|byte| Self::Byte(*byte)).collect())
    }

    pub(super) fn signature(&self) -> String {
        match self {
            Self::Bool(_) => "b".to_owned(),
            Self::Byte(_) => "y".to_owned(),
            Self::I16(_) => "n".to_owned(),
            Self::U16(_) => "q".to_owned(),
            Self::I32(_) => "i".to_owned(),
            Self::U32(_) => "u".to_owned(),
            Self::I64(_) => "x".to_owned(),
            Self::U64(_) => "t".to_owned(),
            Self::Double(_) => "d".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::List(of, _) => format!("a{of}"),
            Self::Struct(parts) => format!("({})", parts.iter().map(Self::signature).collect::<String>()),
        }
    }
}

/// A body in the making. Offsets, and so paddings, count from its start, since it starts at a multiple of 8.
#[derive(Debug, Default, Clone)]
pub(super) struct Body {
    bytes: Vec<u8>,
    signature: String,
}

impl Body {
    pub(super) fn with(mut self, value: &Value) -> Self {
        self.signature.push_str(&value.signature());
        self.put(value);
        self
    }

    /// `a(sv)`
    pub(super) fn with_properties(mut self, properties: &[(String, Value)]) -> Self {
        self.signature.push_str("a(sv)");
        self.list(8, |body| {
            for (name, value) in properties {
                body.pad(8);
                body.string(name);
                body.short_string(&value.signature());
                body.put(value);
            }
        });
        self
    }

    /// `a(sa(sv))` with nothing in it.
    pub(super) fn with_no_more_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        self.list(8, |_| {});
        self
    }

    #[cfg(test)]
    pub(super) fn with_path(mut self, path: &str) -> Self {
        self.signature.push('o');
        self.string(path);
        self
    }

    #[cfg(test)]
    pub(super) fn with_variant(mut self, text: &str) -> Self {
        self.signature.push('v');
        self.short_string("s");
        self.string(text);
        self
    }

    fn put(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.number(&u32::from(*value).to_ne_bytes()),
            Value::Byte(value) => self.bytes.push(*value),
            Value::I16(value) => self.number(&value.to_ne_bytes()),
            Value::U16(value) => self.number(&value.to_ne_bytes()),
            Value::I32(value) => self.number(&value.to_ne_bytes()),
            Value::U32(value) => self.number(&value.to_ne_bytes()),
            Value::I64(value) => self.number(&value.to_ne_bytes()),
            Value::U64(value) => self.number(&value.to_ne_bytes()),
            Value::Double(value) => self.number(&value.to_ne_bytes()),
            Value::Text(text) => self.string(text),
            Value::List(of, values) => self.list(alignment(of), |body| values.iter().for_each(|value| body.put(value))),
            Value::Struct(parts) => {
                self.pad(8);
                parts.iter().for_each(|part| self.put(part));
            }
        }
    }

    fn number(&mut self, bytes: &[u8]) {
        self.pad(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn string(&mut self, text: &str) {
        // No string has a zero in it; what comes after one would be cut off elsewhere.
        let text = text.split('\0').next().unwrap_or_default();
        self.number(&(text.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    fn short_string(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// The length leaves out the padding before the first element.
    fn list(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.number(&[0; 4]);
        let length_at = self.bytes.len() - 4;
        self.pad(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Reply = 2,
    Error = 3,
    Signal = 4,
}

/// Where a message is for, or from. What it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) reply_to: u32,
    pub(super) destination: String,
    pub(super) sender: String,
}

const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
/// More than systemd ever says.
const MOST: usize = 1 << 20;

/// A whole message.
pub(super) fn message(kind: Kind, serial: u32, head: &Head, body: &Body) -> Vec<u8> {
    let mut out = Body { bytes: vec![ENDIAN, kind as u8, 0, 1], signature: String::new() };
    out.number(&(body.bytes.len() as u32).to_ne_bytes());
    out.number(&serial.to_ne_bytes());
    let texts = [
        (1, "o", &head.path),
        (2, "s", &head.interface),
        (3, "s", &head.member),
        (4, "s", &head.error),
        (6, "s", &head.destination),
    ];
    out.list(8, |out| {
        for (code, signature, text) in texts.into_iter().filter(|(.., text)| !text.is_empty()) {
            out.pad(8);
            out.bytes.push(code);
            out.short_string(signature);
            out.string(text);
        }
        if head.reply_to != 0 {
            out.pad(8);
            out.bytes.push(5);
            out.short_string("u");
            out.number(&head.reply_to.to_ne_bytes());
        }
        if !body.signature.is_empty() {
            out.pad(8);
            out.bytes.push(8);
            out.short_string("g");
            out.short_string(&body.signature);
        }
    });
    out.pad(8);
    out.bytes.extend_from_slice(&body.bytes);
    out.bytes
}

/// A message that came.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: Kind,
    #[cfg_attr(not(test), expect(dead_code, reason = "only who answers needs it"))]
    pub(super) serial: u32,
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// How long a message is, by its first 16 bytes. `None` for what is none, or is too long.
pub(super) fn length(start: &[u8; 16]) -> Option<usize> {
    let mut reader = Reader::new(start);
    if start[0] != ENDIAN || start[3] != 1 {
        return None;
    }
    reader.at = 4;
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let length = 16_usize.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (length <= MOST).then_some(length)
}

impl Message {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let total = length(bytes.first_chunk()?)?;
        if bytes.len() != total {
            return None;
        }
        let kind = match bytes[1] {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return None,
        };
        let mut reader = Reader::new(bytes);
        reader.at = 8;
        let serial = reader.u32()?;
        let end = (reader.u32()? as usize).checked_add(16)?;
        let mut head = Head::default();
        while reader.at < end {
            reader.pad(8);
            let (code, signature) = (reader.u8()?, reader.short_string()?);
            match (code, signature) {
                (1, "o") => head.path = reader.string()?.to_owned(),
                (2, "s") => head.interface = reader.string()?.to_owned(),
                (3, "s") => head.member = reader.string()?.to_owned(),
                (4, "s") => head.error = reader.string()?.to_owned(),
                (5, "u") => head.reply_to = reader.u32()?,
                (7, "s") => head.sender = reader.string()?.to_owned(),
                (_, "s" | "o") => _ = reader.string()?,
                (_, "u") => _ = reader.u32()?,
                (_, "g") => _ = reader.short_string()?,
                _ => return None,
            }
        }
        let body = bytes.get(end.checked_next_multiple_of(8)?..)?.to_vec();
        Some(Self { kind, serial, head, body })
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.body)
    }
}

/// Takes a body apart, in the order in which the caller knows it to be. `None` when there is less.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    #[cfg(test)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn pad(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.pad(4);
        self.take(4)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// Of an object path, too.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = self.take(length)?;
        (self.u8()? == 0).then(|| std::str::from_utf8(text).ok()).flatten()
    }

    /// A signature.
    pub(super) fn short_string(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        let text = self.take(length.into())?;
        (self.u8()? == 0).then(|| std::str::from_utf8(text).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            path: "/org/freedesktop/systemd1".to_owned(),
            interface: "org.freedesktop.systemd1.Manager".to_owned(),
            member: "StopUnit".to_owned(),
            destination: "org.freedesktop.systemd1".to_owned(),
            reply_to: 7,
            ..Head::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let body = Body::default().with(&Value::text("a.scope")).with(&Value::U32(5)).with(&Value::text(""));
        let bytes = message(Kind::Call, 3, &head(), &body);
        assert_eq!(length(bytes.first_chunk().unwrap()), Some(bytes.len()));
        let read = Message::read(&bytes).unwrap();
        // Whom it is for is the bus's business.
        assert_eq!(read.head, Head { destination: String::new(), ..head() });
        assert_eq!((read.kind, read.serial), (Kind::Call, 3));
        let mut reader = read.reader();
        assert_eq!((reader.string(), reader.u32(), reader.string()), (Some("a.scope"), Some(5), Some("")));
        assert_eq!(reader.u32(), None);
        for end in 0..bytes.len() {
            assert!(Message::read(&bytes[..end]).is_none());
        }
    }

    /// By the specification's rules, by hand: `a(sv)` with a `t`, on a little-endian machine.
    #[test]
    fn paddings() {
        let body = Body::default().with_properties(&[("P".to_owned(), Value::U64(9))]);
        let expected: &[u8] = if cfg!(target_endian = "little") {
            b"\x18\0\0\0\0\0\0\0\x01\0\0\0P\0\x01t\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0"
        } else {
            b"\0\0\0\x18\0\0\0\0\0\0\0\x01P\0\x01t\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09"
        };
        assert_eq!(body.bytes, expected);
        let list = Body::default().with(&Value::List("u", vec![Value::U32(1), Value::U32(2)]));
        assert_eq!((list.bytes.len(), list.signature.as_str()), (12, "au"));
        let pairs = Value::List("(ss)", vec![Value::Struct(vec![Value::text("a"), Value::text("b")])]);
        assert_eq!((pairs.signature(), Body::default().with(&pairs).bytes.len()), ("a(ss)".to_owned(), 22));
    }

    /// Written by another hand.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_message_of_others_is_read() {
        let message = Message::read(include_bytes!("../../../../fuzz/seeds/bus/error")).unwrap();
        assert_eq!((message.kind, message.head.reply_to), (Kind::Error, 3));
        assert_eq!(message.head.error, "org.freedesktop.systemd1.UnitExists");
        assert_eq!(message.reader().string(), Some("Unit exists"));
        let message = Message::read(include_bytes!("../../../../fuzz/seeds/bus/job")).unwrap();
        assert_eq!((message.kind, message.head.sender.as_str()), (Kind::Signal, ":1.1"));
    }

    #[test]
    fn nonsense_is_none() {
        let huge = |at: usize| {
            let mut bytes = message(Kind::Reply, 1, &head(), &Body::default());
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
            length(bytes.first_chunk().unwrap())
        };
        assert_eq!((huge(4), huge(12)), (None, None));
        assert!(Reader::new(&u32::MAX.to_ne_bytes()).string().is_none());
        assert!(Reader::new(b"\x05ab").short_string().is_none());
    }
}
