"""Serves a peer's workloads to `offprint bench`, which times them beside ours.

A peer's script maps case names to functions. Each gets the inputs (dict of numpy arrays) and the settings (dict), does
what is not part of the work (imports, conversions), and returns a function that does the work once and gives the
answer: a flat list of numbers that `offprint bench` compares with ours.

    from offprint_peer import serve
    serve({"transform": lambda inputs, settings: lambda: [float(fwht(inputs["x"])[0])]}, versions=["numpy"])

The protocol is one JSON document a line: {"case", "directory", "settings"} is answered by {"ready": versions}, then
each {"run": true} by {"seconds", "answer"}; {"error"} answers what went wrong. Whatever the peer's library prints goes
to standard error.
"""

import json
import os
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path


def serve(cases, versions):
    """Answers requests on standard input until it ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(document):
        replies.write(json.dumps(document) + "\n")
        replies.flush()

    work = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                import numpy

                paths = Path(request["directory"]).glob("*.npy")
                inputs = {path.stem: numpy.load(path) for path in paths}
                work = cases[request["case"]](inputs, request["settings"])
                reply({"ready": [f"{name} {version(name)}" for name in versions]})
            else:
                start = time.perf_counter()
                answer = work()
                seconds = time.perf_counter() - start
                reply({"seconds": seconds, "answer": [float(x) for x in answer]})
        except Exception as error:  # told to the reader of the bench, who cannot see this process
            traceback.print_exc()
            reply({"error": f"{type(error).__name__}: {error}"})
