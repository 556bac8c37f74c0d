"""The score that is learnt: its scale, and what is believed of candidates after some observations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.surrogate.encoding import Encoding
from nas.surrogate.improvement import Gain, error_gain, plain_gain, power_gain
from nas.surrogate.process import Array, Inputs, Kernel, Process

FIT_ROWS = 200
"""Observations that the kernel is learnt from: of more, so many evenly spread ones. The prediction uses all."""
FEW = 24
"""Up to so many observations the kernel is learnt anew after each; then after each tenth part more."""
POWER = 0.75
"""Standard deviation of the power's prior."""
POWERS = tuple(number / 4 for number in range(-3, 3))
"""Not far below the logarithm: a record gathers at the front, and its scores are then normal on no scale."""


@dataclass(frozen=True)
class Scale:
    """Larger is better. With `ideal`, a perfect score, the scale is a power of the error |ideal - value|, negated: 0 is
    -log(error), on which from 90 to 91 % is as much as from 98 to 98.2 %; below 0 stretches the best more. Without, it
    is the value itself."""

    maximise: bool
    ideal: float | None
    power: float = 0.0
    least: float = 0.0
    """Errors below it count as it: a score can be perfect by chance."""

    @classmethod
    def of(cls, values: Sequence[float], maximise: bool, ideal: float | None) -> Scale:
        """With `ideal` if all values are on one side of it and not all are equal to it, else without.

        The power is the most likely one to make the values normal (Box and Cox 1964, J. R. Stat. Soc. B 26:211), its
        prior the logarithm: few values hardly move it.
        """
        if ideal is None:
            return cls(maximise, None)
        errors = (ideal - np.asarray(values, dtype=np.float64)) * (1.0 if maximise else -1.0)
        positive = errors[errors > 0]
        if (errors < 0).any() or not len(positive):
            return cls(maximise, None)
        least = float(positive.min()) / 2.0
        logs = np.log(np.maximum(errors, least))
        if logs.std() < 1e-9:
            return cls(maximise, ideal, 0.0, least)
        likely = [_log_likelihood(power, logs) - 0.5 * (power / POWER) ** 2 for power in POWERS]
        return cls(maximise, ideal, POWERS[int(np.argmax(likely))], least)

    def __call__(self, values: Array) -> Array:
        sign = 1.0 if self.maximise else -1.0
        if self.ideal is None:
            return sign * values
        return -_power(np.log(np.maximum(sign * (self.ideal - values), self.least)), self.power)

    @property
    def gain(self) -> Gain:
        """The expected improvement in units of the value."""
        if self.ideal is None:
            return plain_gain
        return error_gain if self.power == 0 else power_gain(self.power)


def _power(logs: Array, power: float) -> Array:
    """(error^power - 1) / power, and its limit at 0."""
    value: Array = logs if power == 0 else np.expm1(power * logs) / power
    return value


def _log_likelihood(power: float, logs: Array) -> float:
    return float((power - 1.0) * logs.sum() - 0.5 * len(logs) * np.log(_power(logs, power).var()))


@dataclass(frozen=True)
class Belief:
    """A process on scores of mean 0 and standard deviation 1, and the way back."""

    process: Process
    shift: float
    unit: float

    @classmethod
    def after(cls, encoding: Encoding, inputs: Inputs, scores: Array) -> Belief:
        """A function of its arguments alone. No observations, and equal ones, have the unit 1."""
        shift = float(scores.mean()) if len(scores) else 0.0
        spread = float(scores.std()) if len(scores) else 0.0
        unit = spread if spread > 1e-9 else 1.0
        kernel = Kernel(encoding.choice, encoding.ordered, encoding.mixed, inputs.features.shape[1])
        standard = (scores - shift) / unit
        count = len(inputs) - len(inputs) % max(1, len(inputs) // 10) if len(inputs) > FEW else len(inputs)
        theta = kernel.means
        if spread > 1e-9:
            rows = np.unique(np.linspace(0, count - 1, min(count, FIT_ROWS)).round().astype(np.intp))
            theta = _learnt(_Sample(kernel, inputs.take(rows), scores[rows]))
        return cls(Process(kernel, theta, inputs, standard), shift, unit)

    @property
    def fitted(self) -> Array:
        """(n,) means, without noise, of the scores that were observed or expected."""
        return self.process.fitted * self.unit + self.shift

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation (n,) of scores without noise."""
        mean, deviation = self.process.predict(inputs)
        return mean * self.unit + self.shift, deviation * self.unit

    def expecting(self, inputs: Inputs) -> Belief:
        """As if these had been observed to be as predicted (Ginsbourger et al. 2010: the kriging believer)."""
        if not len(inputs):
            return self
        return Belief(self.process.given(inputs, self.process.predict(inputs)[0]), self.shift, self.unit)


class _Sample:
    """Observations to learn a kernel from, equal to others by content."""

    def __init__(self, kernel: Kernel, inputs: Inputs, scores: Array) -> None:
        self.kernel, self.inputs, self.scores = kernel, inputs, scores
        parts: list[NDArray[np.generic]] = [kernel.choice, kernel.ordered, inputs.embedded, inputs.features, scores]
        texts = [f"{part.shape}".encode() + np.ascontiguousarray(part).tobytes() for part in parts]
        self._digest = hashlib.sha256(b"".join(texts)).digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sample) and self._digest == other._digest


@lru_cache(maxsize=64)
def _learnt(sample: _Sample) -> Array:
    # Always from the prior's mean: what is learnt must not depend on what was asked before, or a study that is taken
    # up again would go on otherwise.
    spread = sample.scores.std()
    return sample.kernel.fit(sample.inputs, (sample.scores - sample.scores.mean()) / (spread if spread > 1e-9 else 1.0))
