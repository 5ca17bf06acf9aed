"""Published gradients of surrogates, for one token, in plain arithmetic: the tests' independent formulas.

Each takes the completion's log-ratios, the position, the advantage and log π_old of the token, and returns
the gradient of the term times the token's ∇log π.
"""

import math


def sapo(ells, t, a, old):
    gate = 1 / (1 + math.exp(-(1.0 if a > 0 else 1.05) * (math.exp(ells[t]) - 1)))
    return 4 * gate * (1 - gate) * math.exp(ells[t]) * a


def gmpo(ells, t, a, old):
    bounded = [min(x, 0.4) if a > 0 else max(x, -0.4) for x in ells]
    stopped = (a > 0 and ells[t] > 0.4) or (a < 0 and ells[t] < -0.4)
    return 0.0 if stopped else math.exp(sum(bounded) / len(bounded)) * a


def dppo(ells, t, a, old):
    moved = math.exp(old + ells[t]) - math.exp(old)
    return 0.0 if (a > 0 and moved > 0.15) or (a < 0 and moved < -0.15) else math.exp(ells[t]) * a


def gspo(ells, t, a, old):
    ratio = math.exp(sum(ells) / len(ells))
    return 0.0 if (a > 0 and ratio > 1 + 4e-4) or (a < 0 and ratio < 1 - 3e-4) else ratio * a


def mdpo(ells, t, a, old):
    # Beyond ℓ = 2 the divergence is linear; the tests' largest ℓ is 1.5.
    return math.exp(ells[t]) * (a - ells[t] / 0.2)


def mdpo_forward(ells, t, a, old):
    return min(math.exp(a), 20.0)


def cispo(ells, t, a, old):
    return min(math.exp(ells[t]), 5.0) * a


def dual_clip(ells, t, a, high):
    ratio = math.exp(ells[t])
    stopped = (a > 0 and ratio > 1 + high) or (a < 0 and not 0.8 <= ratio <= 3)
    return 0.0 if stopped else ratio * a


# Behind the changed picture every token is less likely by the same factor, e^−0.25, so that all tokens depend
# on the picture alike: PGPO's weights are 1, VPPO takes the first tokens.


def papo(ells, t, a, old):
    return dual_clip(ells, t, a, 0.3) + 0.01 * (1 - math.exp(-(ells[t] + 0.25)))


def vppo(ells, t, a, old):
    return dual_clip(ells, t, a, 0.28) if t < 0.4 * len(ells) else 0.0


def pgpo(ells, t, a, old):
    return dual_clip(ells, t, a, 0.28)


GRADIENTS = {
    "papo": papo,
    "papo_both": papo,
    "vppo": vppo,
    "pgpo": pgpo,
    "scale_rl": cispo,
    "mdpo": mdpo,
    "mdpo_forward": mdpo_forward,
    "sapo": sapo,
    "gmpo": gmpo,
    "dppo": dppo,
    "luspo": gspo,
    "gspo": gspo,
    "d3s_gspo": gspo,
}
