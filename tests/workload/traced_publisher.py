"""publisher.py in a process that OpenTelemetry instruments."""

import tracing

tracing.instrument()

import publisher  # noqa: E402  (after the instrumentation, so that the recorder sees what it adds)

publisher.main()
