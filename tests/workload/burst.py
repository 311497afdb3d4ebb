"""Publishes `COUNT` tasks, `RATE` a second or, if that is 0, as fast as one process can; prints how many a second and their CPU time.

With a third argument OpenTelemetry's instrumentation is on.
"""

import sys
import time

from app import add


def main():
    count, rate = int(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) > 3:
        import instrumented

        instrumented.instrument()
    add.delay(0, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(count - 1):
        if rate:
            time.sleep(max(0, wall + n / rate - time.perf_counter()))
        add.delay(n, 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{(count - 1) / wall:.1f} {cpu / (count - 1) * 1e6:.1f}", flush=True)


if __name__ == "__main__":
    main()
