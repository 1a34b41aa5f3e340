# SPDX-License-Identifier: MIT
"""Every observer against its definition (host/calib/ranges.h), written down in numpy from the values themselves."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
TRACE = os.environ.get("CLQ_OBSERVE_TRACE") or str(REPO / "build" / "tests" / "observe_trace")
BINS, LEVELS = 4096, 128
PERCENTS = {"percentile-99.9": (999, 1000), "percentile-99.99": (9999, 10000), "percentile-99.999": (99999, 100000)}


def rng(seed):
    return np.random.default_rng(seed)


def outliers(seed, n, cols):
    x = rng(seed).normal(size=(n, cols))
    x[:, cols // 3] *= 40  # a channel as some models have
    x[n // 2, 1] = -170
    return x


TRACES = {
    "normal": rng(1).normal(size=(300, 96)),
    "outliers": outliers(2, 400, 96),
    "heavy tails": rng(3).standard_t(2, size=(500, 64)),
    "one side": np.maximum(rng(4).normal(size=(200, 128)), 0) ** 2,
    "negative": -np.abs(rng(5).normal(size=(100, 33))) - 0.5,
    "growing": rng(6).normal(size=(256, 40)) * np.exp2(np.arange(256)[:, None] / 16 - 8),
    "uniform": rng(7).uniform(-1, 3, size=(150, 50)),
    "few values": rng(8).integers(-3, 4, size=(120, 30)) * 0.25,
    "zeros": np.zeros((50, 20)),
    "mostly zeros": np.where(rng(9).uniform(size=(400, 50)) < 0.9995, 0, rng(9).normal(size=(400, 50))),
    "equal": np.full((70, 20), 0.3),
    "equal, negative": np.full((70, 20), -1.0),
    "one value": np.array([[2.75]]),
    "tiny": rng(10).normal(size=(60, 40)) * 1e-36,
    "huge": rng(11).normal(size=(60, 40)) * 5e37,
    "a power of two": np.array([[-4.0, 4.0, 1.0, 2.0]]),
}
WINDOW = 64


def observed(tmp_path, x):
    np.save(tmp_path / "trace.npy", x)
    run = subprocess.run([TRACE, str(tmp_path / "trace.npy"), str(WINDOW)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def exponent_of(x):
    most = np.abs(x).max()
    return max(-100, int(np.frexp(most)[1])) if most > 0 else -100


def histogram(x):
    """Counts of values in 2 * BINS bins, and a bin's width."""
    width = np.ldexp(1.0, exponent_of(x)) / BINS
    at = np.floor(x.astype(np.float64).ravel() / width).astype(int) + BINS
    return np.bincount(at, minlength=2 * BINS).astype(np.float64), width


def entropies(bins):
    """TensorRT's divergence of the clip at each edge, as in Model-Optimizer's histogram.py."""
    bins = bins.copy()
    bins[0] = bins[1]
    costs = {}
    for i in range(LEVELS, len(bins) + 1):
        p = bins[:i].copy()
        p[-1] += bins[i:].sum()
        level = np.arange(i) * LEVELS // i
        full = bins[:i] > 0
        sums = np.bincount(level, weights=bins[:i], minlength=LEVELS)
        used = np.bincount(level[full], minlength=LEVELS)
        q = np.where(full, sums[level] / np.maximum(used[level], 1), 0)
        if np.any((p > 0) & (q == 0)):
            costs[i] = np.inf
            continue
        p, q = p / p.sum(), q / q.sum()
        costs[i] = np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))
    return costs


def square_errors(bins):
    middles = np.arange(len(bins)) + 0.5
    costs = {}
    for i in range(LEVELS, len(bins) + 1):
        scale = i / 127
        rounded = np.clip(np.rint(middles / scale), -127, 127) * scale
        costs[i] = np.sum(bins * (rounded - middles) ** 2)
    return costs


def clipped(absmax, low, high):
    return absmax, max(low, -absmax), min(high, absmax)


def check_clip(got, costs, width, low, high):
    """The clip is the last of those that cost least; sums in another order differ in their last digits."""
    least = min(costs.values())
    edge = [i for i, c in costs.items() if c <= least * (1 + 1e-9) + 1e-12][-1]
    assert np.allclose(got, clipped(min(edge * width, max(-low, high)), low, high), rtol=1e-7)


@pytest.mark.parametrize("name", TRACES)
def test_observers(tmp_path, name):
    x = TRACES[name].astype(np.float32)
    result = observed(tmp_path, x)
    ranges = result["ranges"]
    assert result["bad"] == 0 and result["exponent"] == exponent_of(x)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    most = max(-low, high)
    assert np.allclose(ranges["minmax"], (most, low, high), rtol=1e-8)
    if most == 0:
        assert all(r == [0, 0, 0] for r in ranges.values())
        return

    windows = [x[at:at + WINDOW] for at in range(0, len(x), WINDOW)]
    mean = [np.float32(f(windows[0])) for f in (np.min, np.max)]
    for w in windows[1:]:
        for k, f in enumerate((np.min, np.max)):
            mean[k] = mean[k] + np.float32(0.01) * (f(w) - mean[k])
    mean = min(float(mean[0]), 0.0), max(float(mean[1]), 0.0)
    assert np.allclose(ranges["moving-average"], (max(-mean[0], mean[1]), *mean), rtol=1e-6)

    bins, width = histogram(x)
    folded = bins[BINS:] + bins[BINS - 1::-1]
    folded = folded[:np.flatnonzero(folded)[-1] + 1]
    total = folded.sum()
    for observer, (keep, whole) in PERCENTS.items():
        edge = np.flatnonzero(np.cumsum(folded) * whole >= total * keep)[0] + 1
        rest = total * (whole - keep)
        first = np.flatnonzero(np.cumsum(bins) * 2 * whole > rest)[0]
        last = 2 * BINS - np.flatnonzero(np.cumsum(bins[::-1]) * 2 * whole > rest)[0]
        want = (min(edge * width, most), min(max((first - BINS) * width, low), 0), max(min((last - BINS) * width, high), 0))
        assert np.allclose(ranges[observer], want, rtol=1e-7)
        # And not far from what the values themselves say.
        exact = np.quantile(np.abs(x.astype(np.float64)), keep / whole, method="inverted_cdf")
        assert exact * (1 - 1e-7) <= ranges[observer][0] <= exact * (1 + 1e-7) + width

    if len(folded) < LEVELS:
        assert ranges["entropy"] == ranges["mse"] == ranges["minmax"]
        return
    check_clip(ranges["entropy"], entropies(folded), width, low, high)
    check_clip(ranges["mse"], square_errors(folded), width, low, high)


def test_clips_help(tmp_path):
    """With outliers the observers are worth something: less error than absmax."""
    x = TRACES["outliers"].astype(np.float32)
    ranges = observed(tmp_path, x)["ranges"]

    def error(absmax):
        scale = absmax / 127
        return np.mean((np.clip(np.rint(x / scale), -127, 127) * scale - x) ** 2)
    assert error(ranges["mse"][0]) < error(ranges["minmax"][0])
    assert ranges["percentile-99.9"][0] < ranges["percentile-99.99"][0] <= ranges["percentile-99.999"][0] <= ranges["minmax"][0]


def test_bad_values_are_counted(tmp_path):
    x = np.array([[1, np.nan, 2], [np.inf, -1, -np.inf]], np.float32)
    result = observed(tmp_path, x)
    assert result["bad"] == 3 and result["ranges"]["minmax"] == [2, -1, 2]
