//! `multipart/related` bodies (RFC 2046 5.1, RFC 2387) as they come: nothing is kept but what may be part of a delimiter or of a header.

use memchr::memmem;

/// The headers of a part.
const MAX_HEADER_BYTES: usize = 8 << 10;
/// RFC 2046 allows 70 characters; Orthanc sends 73.
const MAX_BOUNDARY_BYTES: usize = 256;

/// What comes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) enum Event<'a> {
    /// A part begins; its Content-Type in small letters, empty where it has none.
    Part(&'a str),
    /// The next piece of it.
    Data(&'a [u8]),
    /// It has ended.
    End,
}

/// Why a body is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Malformed(pub(in crate::node) &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first delimiter.
    Preamble,
    /// After a delimiter.
    Delimited,
    Headers,
    Data,
    /// After the last delimiter.
    Closed,
}

/// Takes a body apart.
#[derive(Debug)]
pub(in crate::node) struct Multipart {
    /// CR LF, two hyphens, the boundary.
    delimiter: Vec<u8>,
    at: At,
    /// What is not taken yet.
    rest: Vec<u8>,
}

impl Multipart {
    pub(in crate::node) fn new(boundary: &str) -> Self {
        // The first delimiter may begin the body, without a line before it.
        Self { delimiter: format!("\r\n--{boundary}").into_bytes(), at: At::Preamble, rest: b"\r\n".to_vec() }
    }

    /// Whether the last delimiter has come.
    pub(in crate::node) fn is_closed(&self) -> bool {
        self.at == At::Closed
    }

    /// Takes the next bytes.
    pub(in crate::node) fn push(&mut self, bytes: &[u8], mut on: impl FnMut(Event<'_>)) -> Result<(), Malformed> {
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(taken) = self.step(from, &mut on)? {
            from += taken;
        }
        self.rest.drain(..from);
        Ok(())
    }

    /// Takes something of what begins at `from`, and says how much; none where more must come first.
    fn step(&mut self, from: usize, on: &mut impl FnMut(Event<'_>)) -> Result<Option<usize>, Malformed> {
        let rest = &self.rest[from..];
        match self.at {
            At::Preamble | At::Data => {
                let is_data = self.at == At::Data;
                let found = memmem::find(rest, &self.delimiter);
                // The end of what is here may be the beginning of a delimiter.
                let data = found.unwrap_or_else(|| rest.len().saturating_sub(self.delimiter.len() - 1));
                if is_data && data > 0 {
                    on(Event::Data(&rest[..data]));
                }
                if found.is_none() {
                    return Ok((data > 0).then_some(data));
                }
                if is_data {
                    on(Event::End);
                }
                self.at = At::Delimited;
                Ok(Some(data + self.delimiter.len()))
            }
            At::Delimited => {
                if rest.starts_with(b"--") {
                    self.at = At::Closed;
                    return Ok(Some(2));
                }
                let Some(end) = memmem::find(rest, b"\r\n") else {
                    return if rest.len() > MAX_HEADER_BYTES { Err(Malformed("no line end after a boundary")) } else { Ok(None) };
                };
                if rest[..end].iter().any(|byte| ![b' ', b'\t'].contains(byte)) {
                    return Err(Malformed("something else after a boundary"));
                }
                self.at = At::Headers;
                Ok(Some(end)) // the line end may be the first of the two that end the headers
            }
            At::Headers => {
                let Some(end) = memmem::find(rest, b"\r\n\r\n") else {
                    return if rest.len() > MAX_HEADER_BYTES { Err(Malformed("the headers of a part are too long")) } else { Ok(None) };
                };
                let headers = std::str::from_utf8(&rest[..end]).map_err(|_| Malformed("the headers of a part are no text"))?;
                let lines = headers.split("\r\n").filter_map(|line| line.split_once(':'));
                let content_type = lines.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("content-type"));
                let content_type = content_type.map(|(_, value)| value.trim().to_ascii_lowercase());
                on(Event::Part(&content_type.unwrap_or_default()));
                self.at = At::Data;
                // The line end before a delimiter belongs to it, so an empty part shares the headers' last one.
                Ok(Some(end + 2 + usize::from(!rest[end + 2..].starts_with(&self.delimiter)) * 2))
            }
            At::Closed => Ok((!rest.is_empty()).then_some(rest.len())),
        }
    }
}

/// A media type's parameter, quotes taken off.
pub(in crate::node) fn parameter<'a>(media_type: &'a str, name: &str) -> Option<&'a str> {
    let parameters = media_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut named = parameters.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim().trim_matches('"'))
}

/// The boundary of a body of DICOM files; none where it is another kind of body.
pub(in crate::node) fn boundary(content_type: &str) -> Option<&str> {
    let related = content_type.split(';').next()?.trim().eq_ignore_ascii_case("multipart/related");
    let dicom = parameter(content_type, "type").is_none_or(|kind| kind.eq_ignore_ascii_case("application/dicom"));
    let fits = |boundary: &&str| (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len());
    parameter(content_type, "boundary").filter(|_| related && dicom).filter(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = Vec<(String, Vec<u8>)>;

    /// The parts of a body that comes in pieces of `size` bytes, and whether it was whole.
    fn parts(body: &[u8], size: usize) -> Result<(Parts, bool), Malformed> {
        let (mut multipart, mut parts, mut ended) = (Multipart::new("B"), Parts::new(), 0);
        for piece in body.chunks(size) {
            multipart.push(piece, |event| match event {
                Event::Part(kind) => parts.push((kind.to_owned(), Vec::new())),
                Event::Data(data) => parts.last_mut().expect("a part began").1.extend(data),
                Event::End => ended += 1,
            })?;
        }
        assert!(ended == parts.len() || !multipart.is_closed());
        Ok((parts, multipart.is_closed()))
    }

    #[test]
    fn a_body_is_taken_apart_however_it_comes() {
        let body = b"preamble\r\n--B\r\nContent-Type: Application/DICOM\r\nX: y\r\n\r\none\r\n--\r\n-B\r\n--B \r\n\r\n\r\n--B\r\n\r\ntwo\r\n--B--\r\nepilogue";
        let expected =
            vec![("application/dicom".into(), b"one\r\n--\r\n-B".to_vec()), (String::new(), Vec::new()), (String::new(), b"two".to_vec())];
        for size in 1..body.len() {
            assert_eq!(parts(body, size), Ok((expected.clone(), true)), "{size} bytes at a time");
        }
        let (begun, closed) = parts(&body[..body.len() - 20], 7).expect("so far so good");
        assert!(begun.len() == 3 && !closed);
        assert!(parts(b"--B\r\n\r\n\r\n--B--", 3).expect("a body that begins with its boundary").1);
        for wrong in
            [b"--Bad\r\n\r\n".to_vec(), [b"--B\r\n".to_vec(), vec![b'x'; 9000]].concat(), [b"--B".to_vec(), vec![b' '; 9000]].concat()]
        {
            parts(&wrong, 1000).expect_err("malformed");
        }
    }

    #[test]
    fn media_types_are_read() {
        for (text, expected) in [
            ("multipart/related; type=\"application/dicom\"; boundary=abc", Some("abc")),
            ("Multipart/Related;boundary=\"a b\"", Some("a b")),
            ("multipart/related; type=application/dicom+json; boundary=abc", None),
            ("multipart/form-data; boundary=abc", None),
            ("multipart/related", None),
        ] {
            assert_eq!(boundary(text), expected, "{text}");
        }
    }
}
