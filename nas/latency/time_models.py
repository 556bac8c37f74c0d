"""Times the models of a plan on this device: python time_models.py --threads 1 --out table.json

It needs numpy and onnxruntime, and lies in one folder with plan.json, measure.py and models/. Stopped, it goes on where
it was. The table is for: nas latency import table.json --name NAME
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

TOGETHER = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--out", default="table.json", metavar="FILE")
    options = parser.parse_args()
    folder, out = Path(__file__).parent, Path(options.out)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if not plan["jobs"]:
        raise SystemExit("plan.json: has no models: it was not written to its end; run nas latency plan again")
    table = json.loads(out.read_text(encoding="utf-8")) if out.exists() else empty(plan, options.threads)
    if table["manifest"]["threads"] != options.threads:
        raise SystemExit(f"{out}: was begun with {table['manifest']['threads']} threads; choose another --out")
    waiting = [job for job in plan["jobs"] if not is_done(job, table)]
    for part in ("frames", "layers", "networks"):
        jobs = [job for job in waiting if job["part"] == part]
        for start in range(0, len(jobs), TOGETHER):
            time_some(folder, plan, jobs[start : start + TOGETHER], table)
            temporary = out.with_name(f"{out.name}.tmp")
            temporary.write_text(json.dumps(table), encoding="utf-8")
            os.replace(temporary, out)
            print(f"{part}: {min(start + TOGETHER, len(jobs)):,} of {len(jobs):,}", flush=True)


def empty(plan: dict[str, Any], threads: int) -> dict[str, Any]:
    import onnxruntime

    manifest = {
        "runtime": "onnxruntime",
        "threads": threads,
        "batch": 1,
        "precision": "float32",
        "packages": {"onnxruntime": onnxruntime.__version__},
        "reference": plan["reference"],
        "method": plan["method"],
        "hardware": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count() or 1,
            "system": platform.platform(),
        },
        "governor": None,
        "versions": {"python": platform.python_version()},
    }
    parts: dict[str, Any] = {part: {} for part in ("layers", "frames", "networks", "params", "refused")}
    return {"manifest": manifest, "reference_ms": 0.0, "reference_interval_ms": [0.0, 0.0], **parts}


def is_done(job: dict[str, Any], table: dict[str, Any]) -> bool:
    return job["part"] == "reference" or job["name"] in table[job["part"]] or job["name"] in table["refused"]


def time_some(folder: Path, plan: dict[str, Any], jobs: list[dict[str, Any]], table: dict[str, Any]) -> None:
    """Times some models of one part and puts them into the table; what the runtime refuses, with its reason."""
    from measure import Effort, Timing, doubted, measure  # type: ignore[import-not-found]

    threads = table["manifest"]["threads"]
    reference = ready(folder, next(job for job in plan["jobs"] if job["part"] == "reference"), threads)
    models: dict[str, Any] = {}
    for job in jobs:
        try:
            models[job["name"]] = ready(folder, job, threads)
        except Exception as error:
            if job["part"] not in ("layers", "networks"):
                raise
            table["refused"][job["name"]] = str(error).partition("\n")[0][:200]
    unit = table["reference_ms"] / 1e3 or float("inf")
    effort = Effort(*plan["effort"][jobs[0]["part"]])
    found = measure(list(models.values()), reference, effort, threads == 1, unit)
    if found.unit < unit:
        for part in ("layers", "frames", "networks"):
            table[part] = {name: doubted(Timing(**old), unit, found.unit).__dict__ for name, old in table[part].items()}
        table["reference_ms"], table["reference_interval_ms"] = found.unit * 1e3, list(found.interval_ms)
    for job in jobs:
        if job["part"] == "layers":
            table["params"][job["name"]] = job["params"]
    for name, timing in zip(models, found.models, strict=True):
        table[jobs[0]["part"]][name] = dict(timing.__dict__)


def ready(folder: Path, job: dict[str, Any], threads: int) -> Any:
    """One run of a model on a random image."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    file = str(folder / job["file"])
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, *job["shape"])).astype(np.float32)
    feeds = {session.get_inputs()[0].name: image}
    return lambda: session.run(None, feeds)


if __name__ == "__main__":
    main()
