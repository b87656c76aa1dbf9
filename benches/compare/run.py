"""Pyrite against PyTorch: the same case in two processes that take turns, medians, ratios and targets.

    python benches/compare/run.py                        # everything, 2 threads
    python benches/compare/run.py --filter 'matmul|conv' --rounds 31
    python benches/compare/run.py --json now.json --baseline earlier.json
    python benches/compare/run.py --threads 1 --cpu-time     # where the machine is never quiet

A ratio above 1 means that Pyrite is faster. PyTorch may live in another environment: --reference-python PATH.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from cases import CASES  # noqa: E402

# Between turns: threads of OpenMP spin for several milliseconds after their last work.
PAUSE = 0.03
SPINNER = "while True: pass"
IMPORT = "import sys, time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t, 'numpy' in sys.modules)"
ROBUST = "mlp_784_256_128_10_batch_128"


class Worker:
    """A process that holds one library."""

    def __init__(self, python, lib, threads, clock):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "PYRITE_"))}
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), lib, str(threads), clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker for {lib} did not start (is it installed for {python}?)")
        self.hello = json.loads(line)

    def ask(self, do, case):
        self.process.stdin.write(json.dumps({"do": do, "case": case}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the worker died"}

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


def spread(values):
    """Half the distance between the quartiles, relative to the median."""
    if len(values) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def interleaved(workers, case, rounds, seconds):
    """Times of each worker, A B A B ...; or the first error."""
    for name, worker in workers.items():
        answer = worker.ask("prepare", case)
        if "error" in answer:
            return {"error": f"{name}: {answer['error']}"}
    times = {name: [] for name in workers}
    end = time.monotonic() + seconds
    for done in range(rounds):
        if done >= 5 and time.monotonic() > end:
            break
        for name, worker in workers.items():
            time.sleep(PAUSE)
            answer = worker.ask("run", case)
            if "error" in answer:
                return {"error": f"{name}: {answer['error']}"}
            times[name].append(answer["ns"])
    for worker in workers.values():
        worker.ask("drop", case)
    return {name: {"ns": statistics.median(t), "spread": spread(t), "best_ns": min(t)} for name, t in times.items()}


def pretty(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


class Report:
    """Prints rows as they come and keeps them for the JSON."""

    def __init__(self, baseline):
        self.rows, self.group, self.baseline = {}, None, baseline

    def heading(self, group):
        if group != self.group:
            self.group = group
            print(f"\n{group}\n{'':36} {'pyrite':>10} {'torch':>10} {'ratio':>7} {'target':>7}")

    def add(self, name, row):
        self.rows[name] = row
        if "error" in row:
            print(f"  {name:34} {row['error']}")
            return
        note = "" if row["pass"] else "  BELOW TARGET"
        earlier = self.baseline.get(name, {}).get("ratio")
        if earlier and row["ratio"] < 0.9 * earlier:
            note += f"  SLOWER THAN THE BASELINE ({earlier:.2f})"
        if row.get("spread", 0) > 0.15:
            note += f"  (noisy: +-{100 * row['spread']:.0f} %)"
        if "gb_s" in row:
            note = f"  {row['gb_s']:5.1f} GB/s" + note
        target = f"{row['target']}x" if isinstance(row["target"], int | float) else row["target"]
        print(f"  {name:34} {row['pyrite']:>10} {row['torch']:>10} {row['ratio']:>6.2f}x {target:>7}{note}", flush=True)


def measured(result, target, group, moved=None):
    ratio = result["torch"]["ns"] / result["pyrite"]["ns"]
    return {
        "group": group,
        "pyrite": pretty(result["pyrite"]["ns"]),
        "torch": pretty(result["torch"]["ns"]),
        "pyrite_ns": result["pyrite"]["ns"],
        "torch_ns": result["torch"]["ns"],
        "spread": max(r["spread"] for r in result.values()),
        "ratio": ratio,
        "target": target,
        "pass": ratio >= target,
        # What inputs and outputs weigh, by Pyrite's time: a copy's figure is what the memory gives.
        **({"gb_s": moved / result["pyrite"]["ns"]} if moved else {}),
    }


def robustness(workers, rounds, report):
    """The MLP step again while another process holds a core: Pyrite's may take twice its quiet time at most."""
    quiet = interleaved(workers, ROBUST, rounds, 20)
    spinner = subprocess.Popen([sys.executable, "-c", SPINNER])
    try:
        time.sleep(0.3)
        busy = interleaved(workers, ROBUST, rounds, 30)
    finally:
        spinner.kill()
        spinner.wait()
    if "error" in quiet or "error" in busy:
        report.add("mlp_step_with_a_busy_core", {"error": quiet.get("error") or busy.get("error")})
        return
    slowdown = {name: busy[name]["ns"] / quiet[name]["ns"] for name in workers}
    row = measured(busy, 1, "robustness")
    row["slowdown"] = slowdown
    row["pass"] = slowdown["pyrite"] <= 2
    report.add("mlp_step_with_a_busy_core", row)
    print(
        f"  {'':34} slower than when quiet: pyrite {slowdown['pyrite']:.2f}x (at most 2x), torch {slowdown['torch']:.2f}x"
    )


def imports(pythons, rounds, report):
    """`import` in fresh processes; what the disk cache holds is warm for both."""
    times, numpy = {name: [] for name in pythons}, {}
    for _ in range(rounds):
        for name, python in pythons.items():
            out = subprocess.run([python, "-c", IMPORT.format(name)], capture_output=True, text=True)
            if out.returncode:
                report.add("import", {"error": out.stderr.strip().splitlines()[-1]})
                return
            seconds, has_numpy = out.stdout.split()
            times[name].append(float(seconds) * 1e9)
            numpy[name] = has_numpy == "True"
    pyrite_ns, torch_ns = statistics.median(times["pyrite"]), statistics.median(times["torch"])
    row = {
        "group": "package", "pyrite": pretty(pyrite_ns), "torch": pretty(torch_ns), "pyrite_ns": pyrite_ns,
        "torch_ns": torch_ns, "ratio": torch_ns / pyrite_ns, "target": "60 ms", "imports_numpy": numpy["pyrite"],
        "pass": pyrite_ns <= 60e6 and not numpy["pyrite"],
    }  # fmt: skip
    report.add("import", row)


def wheel(report, torch_mb=192):
    wheels = sorted((ROOT / "dist").glob("pyrite-*.whl"), key=lambda p: p.stat().st_mtime)
    if not wheels:
        report.add("wheel_size", {"error": "no wheel in dist/ (`make wheel` builds it)"})
        return
    mb = wheels[-1].stat().st_size / 1e6
    row = {
        "group": "package", "pyrite": f"{mb:.1f} MB", "torch": f"{torch_mb} MB", "pyrite_mb": mb,
        "ratio": torch_mb / mb, "target": "15 MB", "pass": mb <= 15,
    }  # fmt: skip
    report.add("wheel_size", row)


def machine():
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "when": time.strftime("%Y-%m-%d %H:%M"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="a regular expression over case names and groups")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="measurements per library and case")
    parser.add_argument("--seconds", type=float, default=15, help="at most this long per case, after 5 rounds")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--baseline", type=Path, help="an earlier JSON: mark what lost more than a tenth of its ratio")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the calling thread (with --threads 1)")
    parser.add_argument("--any-build", action="store_true", help="measure a build that is no release (while working)")
    parser.add_argument("--list", action="store_true", help="names, groups and targets")
    parser.add_argument("--reference-python", default=sys.executable, help="the Python that has PyTorch")
    arguments = parser.parse_args()
    extra = ["mlp_step_with_a_busy_core", "import", "wheel_size"]
    if arguments.list:
        for name, c in CASES.items():
            print(f"{name:40} {c['group']:24} {c['target']}x")
        print("\n".join(extra))
        return 0
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time measures the calling thread: it needs --threads 1")
    wanted = re.compile(arguments.filter)
    chosen = {n: c for n, c in CASES.items() if wanted.search(n) or wanted.search(c["group"])}
    extra = [n for n in extra if wanted.search(n)]
    if not chosen and not extra:
        parser.error(f"no case matches {arguments.filter!r}")

    clock = "cpu" if arguments.cpu_time else "wall"
    pythons = {"pyrite": sys.executable, "torch": arguments.reference_python}
    baseline = json.loads(arguments.baseline.read_text())["cases"] if arguments.baseline else {}
    report = Report(baseline)
    about = machine()
    workers = {}
    try:
        for name, python in pythons.items():
            workers[name] = Worker(python, name, arguments.threads, clock)
        hello = {n: w.hello for n, w in workers.items()}
        if hello["pyrite"]["profile"] not in ("release", "fast") and not arguments.any_build:
            raise SystemExit(f"Pyrite is a {hello['pyrite']['profile']} build: run `make PROFILE=release build` first")
        about |= {"clock": clock, "threads": arguments.threads, "libraries": hello}
        print(
            f"{about['cpu']}, {about['cores']} cores, load {about['load']:.1f}; {arguments.threads} threads, {clock} time; "
            f"pyrite {hello['pyrite']['version']} ({hello['pyrite']['profile']}), torch {hello['torch']['version']}"
        )
        for name, c in chosen.items():
            report.heading(c["group"])
            result = interleaved(workers, name, arguments.rounds, arguments.seconds)
            report.add(name, result if "error" in result else measured(result, c["target"], c["group"], c.get("moved")))
        if extra:
            report.heading("robustness and package")
        if "mlp_step_with_a_busy_core" in extra:
            robustness(workers, arguments.rounds, report)
    finally:
        for worker in workers.values():
            worker.close()
    if "import" in extra:
        imports(pythons, arguments.rounds, report)
    if "wheel_size" in extra:
        wheel(report)

    below = [n for n, r in report.rows.items() if not r.get("pass", False)]
    print(
        f"\n{len(report.rows) - len(below)} of {len(report.rows)} cases reach their target"
        + (f"; not: {', '.join(below)}" if below else "")
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"about": about, "cases": report.rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
