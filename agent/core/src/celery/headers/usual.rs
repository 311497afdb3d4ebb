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
        self.task = Some(task);
        let _ = self.more(json);
        true
    }

    /// `None` where it has become unusual.
    fn more(&mut self, json: &mut Reader<'a>) -> Option<()> {
        self.id = Some(json.after(br#", "id": ""#)?);
        // A task that is to run at once, by itself, for the first time.
        if json.passes(
            br#", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null]"#,
        ) {
            self.retries = Some(0);
        }
        self.root_id = Some(json.after(br#", "root_id": ""#)?);
        self.parent_id = json.after_or_null(br#", "parent_id": "#)?;
        self.argsrepr = Some(json.after(br#", "argsrepr": ""#)?);
        self.kwargsrepr = Some(json.after(br#", "kwargsrepr": ""#)?);
        self.origin = Some(json.after(br#", "origin": ""#)?);
        // One without anything special.
        if json.passes(
            br#", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}"#,
        ) {
            self.ordinary();
        }
        self.traceparent = Some(json.after(br#", "traceparent": ""#)?);
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
