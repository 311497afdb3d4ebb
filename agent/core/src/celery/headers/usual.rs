//! An ordinary task's headers, as Celery writes them: passed by their bytes, as far as they are that.

use std::borrow::Cow;

use super::super::json::{Reader, Text};
use super::Headers;
use crate::wire::amqp::Texts;

impl<'a> Headers<'a> {
    /// Whole members of a JSON object, from its bracket on; says whether there are any.
    pub(super) fn usual(&mut self, json: &mut Reader<'a>) -> bool {
        let Some(task) = json.after(br#"{"lang": "py", "task": ""#) else {
            return false;
        };
        self.task = Some(Text::plain(task));
        let _ = self.more(json);
        true
    }

    /// `None` where it has become unusual.
    fn more(&mut self, json: &mut Reader<'a>) -> Option<()> {
        self.id = Some(Text::plain(json.after(br#", "id": ""#)?));
        // A task that is to run at once, by itself, for the first time.
        if json.passes(
            br#", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null]"#,
        ) {
            self.retries = Some(0);
        }
        self.root_id = Some(Text::plain(json.after(br#", "root_id": ""#)?));
        self.parent_id = json.after_or_null(br#", "parent_id": "#)?.map(Text::plain);
        self.argsrepr = Some(Text::plain(json.after(br#", "argsrepr": ""#)?));
        self.kwargsrepr = Some(Text::plain(json.after(br#", "kwargsrepr": ""#)?));
        self.origin = Some(Text::plain(json.after(br#", "origin": ""#)?));
        // One without anything special.
        if json.passes(
            br#", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}"#,
        ) {
            self.ordinary();
        }
        self.traceparent = Some(Text::plain(json.after(br#", "traceparent": ""#)?));
        Some(())
    }

    /// The same of a table's fields.
    pub(super) fn usual_fields(&mut self, fields: &mut Texts<'a>) -> Option<()> {
        self.task = Some(Text::plain(fields.after(b"\x04langS\0\0\0\x02py\x04taskS")?));
        self.id = Some(Text::plain(fields.after(b"\x02idS")?));
        if fields.passes(
            b"\x06shadowV\x03etaV\x07expiresV\x05groupV\x0bgroup_indexV\x07retriesI\0\0\0\0\ttimelimitA\0\0\0\x02VV",
        ) {
            self.retries = Some(0);
        }
        self.root_id = Some(Text::plain(fields.after(b"\x07root_idS")?));
        if !fields.passes(b"\tparent_idV") {
            self.parent_id = Some(Text::plain(fields.after(b"\tparent_idS")?));
        }
        self.argsrepr = Some(Text::plain(fields.after(b"\x08argsreprS")?));
        self.kwargsrepr = Some(Text::plain(fields.after(b"\nkwargsreprS")?));
        self.origin = Some(Text::plain(fields.after(b"\x06originS")?));
        if fields.passes(
            b"\rignore_resultt\0\x15replaced_task_nestingI\0\0\0\0\x0fstamped_headersV\x06stampsF\0\0\0\0",
        ) {
            self.ordinary();
        }
        self.traceparent = Some(Text::plain(fields.after(b"\x0btraceparentS")?));
        Some(())
    }

    fn ordinary(&mut self) {
        self.ignore_result = Some(false);
        self.replaced_task_nesting = Some(0);
        self.stamps = Some(Cow::Borrowed("{}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::amqp::Table;

    /// An ordinary task's headers as py-amqp writes them, with these fields behind.
    fn table(task: &str, argsrepr: &str, parent: &[u8], more: &[u8]) -> Vec<u8> {
        const ID: &str = "9bceeb7a-e9e3-4639-a844-6b8ca9a0cf64";
        let mut bytes = Vec::new();
        let mut put = |begin: &[u8], text: &str| {
            bytes.extend_from_slice(begin);
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        put(b"\x04langS\0\0\0\x02py\x04taskS", task);
        put(b"\x02idS", ID);
        put(
            b"\x06shadowV\x03etaV\x07expiresV\x05groupV\x0bgroup_indexV\x07retriesI\0\0\0\0\ttimelimitA\0\0\0\x02VV\x07root_idS",
            ID,
        );
        put(&[parent, b"\x08argsreprS"].concat(), argsrepr);
        put(b"\nkwargsreprS", "{}");
        put(b"\x06originS", "gen1@host");
        bytes.extend_from_slice(b"\rignore_resultt\0\x15replaced_task_nestingI\0\0\0\0\x0fstamped_headersV");
        bytes.extend_from_slice(b"\x06stampsF\0\0\0\0");
        bytes.extend_from_slice(more);
        bytes
    }

    fn told(bytes: &[u8]) -> String {
        let told = |table: &Table<'_>| {
            let mut headers = Headers::default();
            let read = Headers::read_table(table, &mut headers);
            format!("{:?}", read.map(|()| headers))
        };
        let text = std::str::from_utf8(bytes).ok();
        assert_eq!(told(&Table::new(bytes)), told(&Table::known(bytes, text)));
        told(&Table::new(bytes))
    }

    /// Scenario: tables that are ordinary up to some place, cut anywhere, and with every byte another.
    /// Guarantees: the same is read as where an unknown field stands before them all, so that nothing is as usual.
    #[test]
    fn fields() {
        let traceparent =
            b"\x0btraceparentS\0\0\0\x370e-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01";
        let tables = [
            table("app.add", "(0, 0)", b"\tparent_idV", b""),
            table("\u{e9}", "(0, 0)", b"\tparent_idS\0\0\0\x01p", traceparent),
            table(
                "app.add",
                &"x".repeat(200),
                b"\tparent_idV",
                b"\x04taskS\0\0\0\x01t",
            ),
            table("", "", b"\tparent_idI\0\0\0\0", b"\x07retriesV\x06stampsV"),
        ];
        let same = |bytes: &[u8]| {
            let shifted = [b"\x01xV", bytes].concat();
            assert_eq!(told(bytes), told(&shifted), "{}", bytes.escape_ascii());
        };
        for bytes in tables {
            same(&bytes);
            for at in 0..bytes.len() {
                same(&bytes[..at]);
                let mut broken = bytes.clone();
                for byte in [0, b'V', b'S', b'l', 0x80, 0xc3] {
                    broken[at] = byte;
                    same(&broken);
                }
            }
        }
    }

    /// Scenario: an ordinary task's headers.
    /// Guarantees: all of them are read.
    #[test]
    fn ordinary() {
        let bytes = table("app.add", "(0, 0)", b"\tparent_idV", b"");
        let mut headers = Headers::default();
        Headers::read_table(&Table::new(&bytes), &mut headers).unwrap();
        let read = |text: Option<Text<'_>>| text.map(|text| text.get().into_owned()).unwrap_or_default();
        assert_eq!(
            (read(headers.task), read(headers.argsrepr)),
            ("app.add".into(), "(0, 0)".into())
        );
        assert_eq!(
            (read(headers.id), read(headers.origin)),
            (read(headers.root_id), "gen1@host".into())
        );
        assert_eq!((headers.retries, headers.ignore_result), (Some(0), Some(false)));
        assert_eq!(headers.stamps.as_deref(), Some("{}"));
    }
}
