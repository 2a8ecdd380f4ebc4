"""JSON, sorting and recursion, for the CPU seconds that are given."""

import json
import sys
import time


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def work():
    rows = [{"name": str(i * 7919 % 1000), "values": list(range(i % 20))} for i in range(500)]
    rows.sort(key=lambda row: row["name"])
    return len(json.loads(json.dumps(rows))) + fibonacci(14)


end = float(sys.argv[1])
while time.process_time() < end:
    work()
