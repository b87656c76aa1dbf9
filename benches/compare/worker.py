"""One library in one process: prepares and times the cases whose names arrive on stdin, one JSON line each way."""

import gc
import importlib
import json
import sys
import time
import types

from cases import CASES

# One measurement takes about this long, so that the clock and the loop cost nothing beside it.
BATCH_NS = 15_000_000


def load(name, threads):
    lib = types.SimpleNamespace(
        torch=importlib.import_module(name),
        nn=importlib.import_module(f"{name}.nn"),
        F=importlib.import_module(f"{name}.nn.functional"),
        optim=importlib.import_module(f"{name}.optim"),
    )
    lib.torch.set_num_threads(threads)
    return lib


def batch(step, count, clock):
    start = clock()
    for _ in range(count):
        step()
    return clock() - start


def calibrated(step, clock):
    """How often to run the step in one measurement; warms it up on the way."""
    step()
    once = batch(step, 1, clock)
    if once > 20 * BATCH_NS:
        return 1
    count = max(1, min(100_000, BATCH_NS // max(once, 100)))
    for _ in range(3):
        spent = batch(step, count, clock)
        count = max(1, min(200_000, int(count * BATCH_NS / max(spent, 1))))
    return count


def main():
    name, threads, cpu = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "cpu"
    clock = time.thread_time_ns if cpu else time.perf_counter_ns
    lib = load(name, threads)
    profile = getattr(getattr(lib.torch, "_C", None), "build_profile", "release") if name == "pyrite" else "release"
    if callable(profile):
        profile = profile()
    hello = {"version": lib.torch.__version__, "profile": profile, "threads": lib.torch.get_num_threads()}
    print(json.dumps(hello), flush=True)
    gc.disable()
    steps = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            key = order["case"]
            if order["do"] == "prepare":
                step = CASES[key]["prepare"](lib)
                steps[key] = (step, calibrated(step, clock))
                answer = {"count": steps[key][1]}
            elif order["do"] == "run":
                step, count = steps[key]
                answer = {"ns": batch(step, count, clock) / count}
            else:
                steps.pop(key, None)
                gc.collect()
                answer = {}
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
