"""OpenTelemetry's instrumentation of Celery, whose spans are written where a test can read them.

`--include tracing` instruments a worker; traced_publisher.py is an instrumented client.
"""

import json
import os

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult


class FileExporter(SpanExporter):
    def export(self, spans):
        path = os.path.join(os.environ["WORKLOAD_TRUTH_DIR"], os.pardir, f"app-spans-{os.getpid()}.jsonl")
        with open(path, "a") as file:
            for span in spans:
                context = span.get_span_context()
                line = {"trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}", "name": span.name}
                file.write(json.dumps(line) + "\n")
        return SpanExportResult.SUCCESS


def instrument():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@worker_process_init.connect(weak=False)
def _in_child(**_):
    instrument()
