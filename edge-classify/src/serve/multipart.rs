//! Forms with files, `multipart/form-data` (RFC 7578), in memory: a file is a part of what was sent,
//! and nothing is copied.
//!
//! Between two lines `--BOUNDARY` stands a part: header lines, an empty line, contents. What stands
//! before the first and behind the last one means nothing.

use axum::body::Bytes;
use memchr::memmem;

/// Most bytes of a part's header.
const MAX_HEAD: usize = 8 << 10;

/// A file of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// As the client names it, without folders; or else the field's.
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The boundary that a content type names; `None` where it is none, or no form at all.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    let is_allowed = |b: u8| b.is_ascii_graphic() || b == b' ';
    ((1..=70).contains(&boundary.len()) && boundary.bytes().all(is_allowed)).then_some(boundary)
}

/// The files of a form, at most `most` of them; fields that are no files are left out.
///
/// # Errors
/// What is no whole form, in words.
pub(super) fn files(body: &Bytes, boundary: &str, most: usize) -> Result<Vec<File>, String> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    // The first one may stand at the very beginning.
    let first = &delimiter.as_bytes()[2..];
    let mut at = match body.starts_with(first) {
        true => first.len(),
        false => finder.find(body).ok_or("the form lacks its boundary")? + delimiter.len(),
    };
    let mut files = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(files);
        }
        // Blanks may stand behind a boundary.
        let blanks = rest.iter().take_while(|&&b| b == b' ' || b == b'\t').count();
        if !rest[blanks..].starts_with(b"\r\n") {
            return Err("the form is cut off, or its boundary occurs in a file".into());
        }
        let start = at + blanks + 2;
        let len = finder.find(&body[start - 2..]).ok_or("the form is cut off in a part")?;
        // A part without header and contents would begin in the line end of its boundary.
        let part = body.slice(start..(start - 2 + len).max(start));
        at = start - 2 + len + delimiter.len();
        if let Some(file) = file(&part)? {
            if files.len() == most {
                return Err(format!("a form of more than {most} files; send them in several"));
            }
            files.push(file);
        }
    }
}

/// A part as a file; `None` of a field of text.
fn file(part: &Bytes) -> Result<Option<File>, String> {
    let (head, start) = match part.starts_with(b"\r\n") {
        true => (&part[..0], 2),
        false => {
            let window = &part[..part.len().min(MAX_HEAD)];
            let end =
                memmem::find(window, b"\r\n\r\n").ok_or("a part of the form lacks its header")?;
            (&part[..end], end + 4)
        }
    };
    let head = String::from_utf8_lossy(head);
    let header = |name: &str| {
        head.split("\r\n").find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_string())
        })
    };
    let disposition = header("content-disposition").unwrap_or_default();
    let kind = header("content-type").unwrap_or_default().to_ascii_lowercase();
    let file_name = parameter(&disposition, "filename*").and_then(|text| extended(&text));
    let file_name = file_name.or_else(|| parameter(&disposition, "filename"));
    if file_name.is_none() && (kind.is_empty() || kind.starts_with("text/")) {
        return Ok(None);
    }
    let given = file_name.as_deref().map(|name| name.rsplit(['/', '\\']).next().unwrap_or(name));
    let name = given.filter(|name| !name.is_empty()).map(str::to_string);
    let name = name.or_else(|| parameter(&disposition, "name")).unwrap_or_default();
    Ok(Some(File { name, bytes: part.slice(start..) }))
}

/// The value of a parameter behind the first `;`, with quotes or without.
fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (key, value) = rest.split_once('=')?;
        let key = key.trim().trim_start_matches(';').trim();
        let (text, behind) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_string(), &value[end..])
            }
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = behind.trim_start().trim_start_matches(';');
    }
}

/// The text before the closing quote, and what follows. Browsers write `%22` for a quote, other
/// programs `\"`; a backslash before anything else is one, as in names of Windows.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text.replace("%22", "\""), &quoted[at + 1..]),
            '\\' if chars.peek().is_some_and(|&(_, next)| next == '"') => {
                chars.next();
                text.push('"');
            }
            c => text.push(c),
        }
    }
    (text, "")
}

/// `UTF-8''caf%C3%A9.jpg` (RFC 8187).
fn extended(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_, value) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    // The decoder of forms also takes a plus for a blank.
    let value = value.replace('+', "%2B");
    let (name, _) = form_urlencoded::parse(value.as_bytes()).next()?;
    Some(name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Vec<(String, String)>, String> {
        let files = files(&Bytes::copy_from_slice(body.as_bytes()), "x", 3)?;
        let text = |file: File| (file.name, String::from_utf8(file.bytes.to_vec()).unwrap());
        Ok(files.into_iter().map(text).collect())
    }

    #[test]
    fn forms() {
        let head = "Content-Disposition: form-data; name=\"f\"; filename=";
        let body = format!(
            "preamble\r\n--x \t\r\n{head}\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n1\r\n--y\r\n--x\r\n\
             content-disposition: form-data; name=\"note\"\r\n\r\nno file\r\n--x\r\n{head}\"C:\\d\\e;f.png\"\
             \r\n\r\n\r\n--x\r\n{head}\"\"; filename*=utf-8''%C3%A9+1.png\r\n\r\n\r\n\r\n--x--\r\nepilogue"
        );
        let want = [("a.jpg", "1\r\n--y"), ("e;f.png", ""), ("é+1.png", "\r\n")];
        assert_eq!(parse(&body).unwrap(), want.map(|(a, b)| (a.to_string(), b.to_string())));
        let body = |name: &str| format!("--x\r\n{head}{name}\r\n\r\n1\r\n--x--");
        for (name, want) in [
            ("\"q\\\"q.png\"", "q\"q.png"),
            ("\"q%22q.png\"", "q\"q.png"),
            ("plain.png", "plain.png"),
            ("\"../../etc/passwd\"", "passwd"),
            ("\"open", "open"),
            ("\"\"", "f"),
        ] {
            assert_eq!(parse(&body(name)).unwrap()[0].0, want);
        }
    }

    #[test]
    fn what_is_no_form() {
        let whole = "--x\r\nContent-Type: image/png\r\n\r\nabc\r\n--x--";
        assert_eq!(parse(whole).unwrap().len(), 1);
        for end in 0..whole.len() - 2 {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        for (body, want) in [
            ("", "lacks its boundary"),
            ("--y\r\n\r\n--y--", "lacks its boundary"),
            ("--xyz\r\n\r\n--x--", "occurs in a file"),
            ("--x\r\nno end of header\r\n--x--", "lacks its header"),
            ("--x\r\n--x--", "lacks its header"),
            ("--x\r\nContent-Type: a/b\r\n\r\n\r\n--x\r\n", "cut off"),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
        let many = "--x\r\nContent-Type: a/b\r\n\r\n1\r\n".repeat(4) + "--x--";
        assert!(parse(&many).unwrap_err().contains("more than 3 files"));
        assert!(parse("--x--").unwrap().is_empty());
    }

    #[test]
    fn boundaries() {
        let of = |text| boundary(text);
        assert_eq!(of("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(of("multipart/form-data; a=b; Boundary=\"a b\"; c").as_deref(), Some("a b"));
        assert_eq!(of("multipart/form-data"), None);
        assert_eq!(of("multipart/form-data; boundary="), None);
        assert_eq!(of(&format!("multipart/form-data; boundary={}", "a".repeat(71))), None);
    }
}
