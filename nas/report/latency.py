"""What is said of latencies."""

from __future__ import annotations

from typing import Any


def validation_text(facts: dict[str, Any]) -> str:
    """Of `nas.latency.validate`."""
    manifest = facts["manifest"]
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    threads = "one thread" if manifest["threads"] == 1 else f"{manifest['threads']} threads"
    quiet = min(facts["quiet"].values()) > 0.95
    lines = [
        f"{facts['space']} on {manifest['runtime']} ({packages}), {threads}, batch 1, "
        f"{manifest['hardware']['processor']}:",
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
        f"unit: the reference network takes {facts['reference_ms']:.3f} ms here "
        f"({facts['reference_interval_ms'][0]:.3f} to {facts['reference_interval_ms'][1]:.3f})",
    ]
    return "\n".join(lines)


def _share(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "kendall_tau" else f"{value:.1%}"
