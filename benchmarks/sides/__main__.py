"""One run of one side: reads a `Task` as JSON, prints a `Measurement` as JSON on the last line."""

import json
import sys
from dataclasses import asdict

from benchmarks.measure import Task
from benchmarks.sides import run

print(json.dumps(asdict(run(sys.argv[1], Task(**json.load(sys.stdin))))))
