"""OpenTelemetry's own instrumentation of Celery, loaded beside the application: what the benches compare with.

Spans go to OTEL_EXPORTER_OTLP_ENDPOINT in batches, as its documentation sets it up for a prefork worker.
"""

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def instrument():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@worker_process_init.connect(weak=False)
def _in_child(**_):
    instrument()
