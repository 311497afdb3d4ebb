//! The Collector's file format: one `ExportTraceServiceRequest` in OTLP/JSON a line, flushed after each batch.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;

use super::convert::{Group, group};
use super::intake::Intake;
use super::settings::Batching;

/// Where the lines go.
pub(super) struct OtlpJson {
    file: Box<dyn Write + Send>,
    name: String,
    batching: Batching,
}

impl OtlpJson {
    /// Opens `path` to append to, or takes standard output.
    pub(super) fn open(path: Option<&Path>, batching: Batching) -> anyhow::Result<Self> {
        let (file, name): (Box<dyn Write + Send>, _) = match path {
            None => (Box::new(std::io::stdout()), "standard output".to_owned()),
            Some(path) => {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .with_context(|| format!("can't write {}", path.display()))?;
                (Box::new(file), path.display().to_string())
            }
        };
        Ok(Self { file, name, batching })
    }

    pub(super) async fn run(mut self, mut intake: Intake) -> anyhow::Result<()> {
        while let Some(batch) = intake.batch(self.batching.batch, self.batching.delay).await {
            let mut line = line(group(&batch))?;
            line.push(b'\n');
            match self.file.write_all(&line).and_then(|()| self.file.flush()) {
                Ok(()) => intake.counts.exported(batch.len()),
                // The reader has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => {
                    intake.counts.failed(batch.len());
                    return Err(error).with_context(|| format!("can't write {}", self.name));
                }
            }
        }
        Ok(())
    }
}

/// The same spans give the same line: a resource's attributes, which the SDK keeps in no order, are sorted.
fn line(groups: Vec<Group<'_>>) -> anyhow::Result<Vec<u8>> {
    let resource_spans = groups
        .into_iter()
        .flat_map(|group| {
            let mut resource = ResourceAttributesWithSchema::from(&group.resource());
            resource
                .attributes
                .0
                .sort_by(|one, other| one.key.cmp(&other.key));
            group_spans_by_resource_and_scope(group.data(), &resource)
        })
        .collect();
    serde_json::to_vec(&ExportTraceServiceRequest { resource_spans })
        .context("can't encode spans as OTLP/JSON")
}
