"""Publishes `COUNT` tasks as fast as one process can, and prints how many a second and their CPU time.

With a third argument OpenTelemetry's instrumentation is on.
"""

import sys
import time

from app import add


def main():
    count = int(sys.argv[1])
    if len(sys.argv) > 2:
        import instrumented

        instrumented.instrument()
    add.delay(0, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(count - 1):
        add.delay(n, 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{(count - 1) / wall:.1f} {cpu / (count - 1) * 1e6:.1f}", flush=True)


if __name__ == "__main__":
    main()
