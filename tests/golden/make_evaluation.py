# SPDX-License-Identifier: MIT
"""The numbers that tests/test_evaluate.c expects, from numpy in double precision: run it and paste.
Definitions: docs/evaluation.md. The base's probabilities are rounded as its file rounds them."""
import numpy as np

VOCAB, CONTEXT, WINDOWS, BOS = 37, 8, 3, 1


def mix(a, b, c):
    h = (a * 2654435761 + b * 40503 + c * 2246822519) & 0xffffffff
    h ^= h >> 15
    h = h * 0x2c1b3c6d & 0xffffffff
    return h ^ h >> 12


def row(salt, position, token):
    return np.array([(mix(salt + position, token, i) & 2047) / 1024 + (mix(5 + position, token, i) & 4095) / 128
                     for i in range(VOCAB)])


def ln_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def stored(x):
    """ln p as the file has it."""
    x32 = x.astype(np.float32)
    high = x32.max()
    low = max(x32.min(), np.float32(high - 16))
    scale = np.float32((high - low) / np.float32(65535))
    floor = np.float32(np.float64(low - high) - np.log(np.exp(x - x.max()).sum()))
    q = np.rint((np.maximum(x32, low) - low) / scale)
    return np.float64(scale) * q + np.float64(floor)


tokens = [mix(9, i, 0) % VOCAB for i in range(WINDOWS * CONTEXT)]
nll, nll_base, nll_exact, kld, dp, top = [], [], [], [], [], []
for w in range(WINDOWS):
    window = tokens[w * CONTEXT:][:CONTEXT]
    given = [BOS] + window[1:]
    for p in range(CONTEXT // 2, CONTEXT - 1):
        lq, lp = ln_softmax(row(100, p, given[p])), stored(row(200, p, given[p]))
        t = window[p + 1]
        nll.append(-lq[t])
        nll_base.append(-lp[t])
        nll_exact.append(-ln_softmax(row(200, p, given[p]))[t])
        use = lp > -16
        kld.append((np.exp(lp[use]) * (lp[use] - lq[use])).sum())
        dp.append(np.exp(lq[t]) - np.exp(lp[t]))
        top.append(lq.argmax() == lp.argmax())
nll, nll_base, nll_exact, kld, dp, top = map(np.array, (nll, nll_base, nll_exact, kld, dp, top))


def error(x):
    return x.std() / np.sqrt(len(x) - 1)


print("tokens", tokens[:4])
print("ppl", np.exp(nll.mean()), np.exp(nll.mean()) * error(nll))
print("the base, before rounding", np.exp(nll_exact.mean()), np.exp(nll_exact.mean()) * error(nll_exact))
print("ppl_base", np.exp(nll_base.mean()), np.exp(nll_base.mean()) * error(nll_base))
ratio = np.exp((nll - nll_base).mean())
print("ratio", ratio, ratio * error(nll - nll_base))
print("correlation", np.corrcoef(nll, nll_base)[0, 1])
print("kld", kld.mean(), error(kld))
print("kld min p10 median p90 p99 max", *np.quantile(kld, [0, .1, .5, .9, .99, 1]))
print("delta_p", dp.mean(), error(dp), "rms", np.sqrt((dp ** 2).mean()), error(dp ** 2) / 2 / np.sqrt((dp ** 2).mean()))
print("same_top", top.mean(), error(top))
