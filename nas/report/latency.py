"""What is said of latencies."""

from __future__ import annotations

from typing import Any

from nas.report.text import aligned


def validation_text(facts: dict[str, Any]) -> str:
    """Of `nas.latency.validate`."""
    quiet = min(facts["quiet"].values()) > 0.95
    lines = [
        f"{facts['space']} on {_machine(facts['manifest'])}:",
        f"{facts['networks']} random members that had no part in the calibration, predicted against measured:",
        *(
            f"  {name:18} {_share(name, facts[name])}  (95 % interval {_share(name, facts[f'{name}_interval'][0])} "
            f"to {_share(name, facts[f'{name}_interval'][1])})"
            for name in ("kendall_tau", "mape", "within_10_percent")
        ),
        f"{facts['layers']:,} layers and {facts['calibration']['networks']} whole networks (off by "
        f"{facts['calibration']['mape']:.1%}) took {facts['table_seconds']:,.0f} s, less what was in the cache; "
        f"the space has {facts['layers_of_space']:,} distinct layers",
        f"the machine was quiet enough for {facts['quiet']['networks']:.0%} of the networks and "
        f"{facts['quiet']['layers']:.0%} of the layers" + ("" if quiet else "; repeat this on a quiet machine"),
        _unit(facts),
    ]
    return "\n".join(lines)


def measured_text(facts: dict[str, Any]) -> str:
    """Of `nas.study.measuring.measure_places`: ms and their 94 % interval, and what was predicted, if it was."""
    networks = facts["networks"]
    predicted = any(each["predicted_ms"] is not None for each in networks)
    several = len({each["place"] for each in networks}) > 1
    keys = ["ms", "low_ms", "high_ms", *(["predicted_ms"] if predicted else [])]
    rows = [["id", *keys, "quiet", *(["place"] if several else [])]]
    for each in networks:
        times = ["" if each[key] is None else f"{each[key]:.4f}" for key in keys]
        rows.append([each["id"], *times, str(each["quiet"]), *([each["place"]] if several else [])])
    lines = [f"whole networks on {_machine(facts['manifest'])}:", *aligned(rows), _unit(facts)]
    if noisy := sum(each["quiet"] == 0 for each in networks):
        lines.append(f"the machine was never quiet for {noisy} of {len(networks)}; repeat this on a quiet machine")
    return "\n".join(line.rstrip() for line in lines)


def _machine(manifest: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    threads = "one thread" if manifest["threads"] == 1 else f"{manifest['threads']} threads"
    return f"{manifest['runtime']} ({packages}), {threads}, batch 1, {manifest['hardware']['processor']}"


def _unit(facts: dict[str, Any]) -> str:
    low, middle = facts["reference_interval_ms"]
    return f"unit: the reference network takes {facts['reference_ms']:.3f} ms there ({low:.3f} to {middle:.3f})"


def _share(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "kendall_tau" else f"{value:.1%}"
