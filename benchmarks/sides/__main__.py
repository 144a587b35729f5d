"""One run of one side: reads a `Task` as JSON, prints a `Measurement` as JSON on the last line."""

import json
import sys
from dataclasses import asdict

from benchmarks.measure import Task
from benchmarks.sides import load

run = load(sys.argv[1])
print(json.dumps(asdict(run(Task(**json.load(sys.stdin))))))
