"""What was asked of the code, and whether it was met here."""

from __future__ import annotations

from typing import Any

OTHERS = ("textbook", "diffusers", "smalldiffusion")
PARITY = 0.95  # A ratio of at least this counts as no slower: repeated runs differ by more.


def judged(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was found; `met` is None where it was not measured."""
    return [
        *_speed(parts.get("speed", {}).get("rows", [])),
        *(_quality(name, parts.get(f"quality-{name}", {})) for name in ("digits", "mnist")),
        *_sampling(parts.get("sampling", {}).get("rows", [])),
        *_gpu(parts.get("speed", {})),
    ]


def _speed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether dmlib's step is as fast as asked beside the fastest of the others, which read images one by one."""
    found = []
    for network in dict.fromkeys(row["network"] for row in rows if row["loop"] in OTHERS):
        ratios = {r["loop"]: r["dmlib_is_faster"] for r in rows if r["network"] == network}
        least = min((name for name in OTHERS if name in ratios), key=lambda name: ratios[name]["median"])
        limit, words = (PARITY, "no slower than") if "U" in network else (2, "twice as fast as")
        target = {"target": f"training step of {network}", "wanted": f"{words} the fastest other"}
        about = {"against": least, **ratios[least], "tensors": ratios["textbook, tensors"]["median"]}
        found.append(target | {"found": about, "met": ratios[least]["median"] >= limit})
    return found


def _quality(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Whether dmlib needs at most a third of the training time of the best other to reach the target distance.

    One that did not arrive needs more than it was given: enough to meet the target, not to miss it.
    """
    given: dict[str, float] = {}
    for row in part.get("rows", []):
        given[row["loop"]] = max(row["seconds"], given.get(row["loop"], 0.0))
    seconds = part.get("seconds_to_target", {})
    others = {k: v for k, v in seconds.items() if k != "dmlib"}
    mine, arrived = seconds.get("dmlib"), [v for v in others.values() if v is not None]
    met = None
    if mine is not None and others and mine <= min(v or given[k] for k, v in others.items()) / 3:
        met = True
    elif arrived and (mine or given["dmlib"]) > min(arrived) / 3:
        met = False
    found = {"dmlib": mine, "others": others, "given": given}
    wanted = "at most a third of the training time of the best other"
    return {"target": f"quality of {name} samples", "wanted": wanted, "found": found, "met": met}


def _sampling(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "target": f"{row['sampler']} sampling from {row['network']}",
            "wanted": "no slower than diffusers' pipeline",
            "found": {"against": "diffusers", **row["dmlib_is_faster"]},
            "met": row["dmlib_is_faster"]["median"] >= PARITY,
        }
        for row in rows
        if row["loop"] == "diffusers"
    ]


def _gpu(part: dict[str, Any]) -> list[dict[str, Any]]:
    """100 epochs of MNIST by the fastest of dmlib's loops, and the share of the peak; on a GPU alone."""
    is_gpu = part.get("machine", {}).get("device", "cpu") != "cpu"
    found = []
    for network, limit in (("U-Net, 28 px", 90), ("VAE MLP, 28 px", 10)):
        rows = [r for r in part.get("rows", []) if r["network"] == network and r["loop"].startswith("dmlib")]
        row = {
            "target": f"100 epochs of MNIST on an H200, {network}",
            "wanted": f"{limit} s",
            "found": None,
            "met": None,
        }
        if is_gpu and rows:
            best = max(rows, key=lambda r: r["images_per_second"]["median"])
            seconds = 6e6 / best["images_per_second"]["median"]
            row |= {"found": {"seconds": seconds, "share": best["share_of_peak"]}, "met": seconds <= limit}
        found.append(row)
    return found
