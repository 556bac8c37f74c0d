"""A Gaussian process over choices, its mean a shrunken regression on what is known of a candidate for free.

The notation, and equations 2.25, 2.26, 5.8 and 5.9, are those of Rasmussen and Williams 2006, Gaussian Processes for
Machine Learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dtrtri

Array = NDArray[np.float64]
CONSTANT = 1.0
"""Prior variance of the mean of a standardised score."""


@dataclass(frozen=True)
class Prior:
    """Normal priors, mean and standard deviation, of the logarithms of what is learnt; scores are standardised.

    The distance of two candidates is the sum over all choices, so the weight of one is expected to fall with their
    number (Hvarfner et al. 2024, arXiv:2402.02229, on length scales and dimension).
    """

    noise: tuple[float, float] = (np.log(0.03), 1.0)
    amplitude: tuple[float, float] = (1.0, 1.0)
    distance: tuple[float, float] = (np.log(0.5), 1.0)  # the sum of all weights
    order: tuple[float, float] = (0.0, 1.0)  # log odds of the ranks' share in the distance of numbers
    regression: tuple[float, float] = (0.0, 1.0)
    feature: tuple[float, float] = (np.log(0.03), 1.5)


@dataclass(frozen=True)
class Inputs:
    """Candidates as arrays: `embedded` (n, columns), see Encoding, and standardised `features` (n, k)."""

    embedded: Array
    features: Array

    def __len__(self) -> int:
        return len(self.embedded)

    def take(self, rows: NDArray[np.intp] | slice) -> Inputs:
        return Inputs(self.embedded[rows], self.features[rows])


@dataclass(frozen=True)
class Kernel:
    """Covariance of the latent scores of two candidates, x and z, with features f and g:

        CONSTANT + regression ((1 + sum_j feature_j f_j g_j)^2 - 1) + amplitude exp(-sum_c weight_c d_c(x, z)),

    d_c the share `order` of the distance of ranks and the rest Hamming's, where choice c has numbers, else Hamming's.
    The first two terms are a Bayesian regression on features, squares and products, with a relevance for each.
    `theta` holds the logarithms (of `order` the log odds): noise, amplitude, order, regression, weights, features.
    """

    choice: NDArray[np.intp]  # of each column of the embedding
    ordered: NDArray[np.bool_]  # whether that column is of ranks
    mixed: NDArray[np.bool_]  # of each choice: whether it has both
    features: int
    prior: Prior = Prior()

    @cached_property
    def means(self) -> Array:
        prior, count = self.prior, max(1, len(self.mixed))
        distance = [prior.distance[0] - np.log(count)] * len(self.mixed)
        head = [prior.noise[0], prior.amplitude[0], prior.order[0], prior.regression[0]]
        return np.array([*head, *distance, *[prior.feature[0]] * self.features])

    @cached_property
    def deviations(self) -> Array:
        prior = self.prior
        head = [prior.noise[1], prior.amplitude[1], prior.order[1], prior.regression[1]]
        return np.array([*head, *[prior.distance[1]] * len(self.mixed), *[prior.feature[1]] * self.features])

    def _split(self, theta: Array) -> tuple[float, float, Array, Array]:
        """order, regression, weight of each column (columns,), weight of each feature."""
        order, count = 1.0 / (1.0 + np.exp(-theta[2])), len(self.mixed)
        share = np.where(self.ordered, order, np.where(self.mixed[self.choice], 1.0 - order, 1.0))
        columns = np.exp(theta[4 : 4 + count])[self.choice] * share
        return order, float(np.exp(theta[3])), columns, np.exp(theta[4 + count :])

    def __call__(self, theta: Array, one: Inputs, other: Inputs) -> Array:
        """(n, m) covariances, without the noise."""
        _, regression, columns, features = self._split(theta)
        value = _decay(one, other, columns)
        value *= np.exp(theta[1])
        value += CONSTANT
        if features.size:
            linear = (one.features * features) @ other.features.T
            value += regression * linear * (linear + 2.0)
        return value

    def diagonal(self, theta: Array, inputs: Inputs) -> Array:
        """(n,) prior variances."""
        _, regression, _, features = self._split(theta)
        linear = (inputs.features**2) @ features
        value: Array = CONSTANT + regression * linear * (linear + 2.0) + np.exp(theta[1])
        return value

    def loss(self, theta: Array, inputs: Inputs, scores: Array) -> tuple[float, Array]:
        """Negative log of likelihood times prior, and its gradient (equations 5.8 and 5.9)."""
        order, regression, columns, features = self._split(theta)
        linear = (inputs.features * features) @ inputs.features.T
        product = np.exp(theta[1]) * _decay(inputs, inputs, columns)
        covariance = CONSTANT + regression * linear * (linear + 2.0) + product
        noise = np.exp(theta[0])
        covariance[np.diag_indices(len(inputs))] += noise
        factor = cho_factor(covariance, lower=True, check_finite=False)
        alpha = cho_solve(factor, scores, check_finite=False)
        slope = 0.5 * (cho_solve(factor, np.eye(len(inputs)), check_finite=False) - np.outer(alpha, alpha))
        off = (theta - self.means) / self.deviations
        value = 0.5 * scores @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * off @ off

        through = slope * product
        by_column = columns * _spread(through, inputs.embedded)
        by_choice = np.bincount(self.choice, by_column, minlength=len(self.mixed))
        both = self.mixed[self.choice]
        # d log(order) / d log odds = 1 - order, d log(1 - order) / d log odds = -order
        by_order = by_column @ np.where(self.ordered, 1.0 - order, np.where(both, -order, 0.0)) if both.any() else 0.0
        twice = 2.0 * regression * slope * (1.0 + linear)
        by_feature = features * np.einsum("ij,ij->j", inputs.features, twice @ inputs.features)
        by_regression = regression * np.vdot(slope, linear * (linear + 2.0))
        head = [noise * np.trace(slope), through.sum(), -by_order, by_regression]
        return float(value), np.array([*head, *-by_choice, *by_feature]) + off / self.deviations

    def fit(self, inputs: Inputs, scores: Array, start: Array | None = None, steps: int = 60) -> Array:
        """The most probable `theta`, found from `start` (the prior's mean), in at most so many steps."""
        from scipy.optimize import minimize  # 0.3 s that other samplers and commands do without

        begin = self.means if start is None else start
        box = [(mean - 6.0 * off, mean + 6.0 * off) for mean, off in zip(self.means, self.deviations, strict=True)]
        found = minimize(
            self.loss, begin, (inputs, scores), "L-BFGS-B", jac=True, bounds=box, options={"maxiter": steps}
        )
        return np.asarray(found.x, dtype=np.float64)


@dataclass(frozen=True)
class Process:
    """A kernel given observations: predicts latent scores (equations 2.25 and 2.26)."""

    kernel: Kernel
    theta: Array
    inputs: Inputs
    scores: Array

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        """Inverse of the lower Cholesky factor (n, n): products with it are faster than solutions; and the covariance's
        inverse times the scores (n,)."""
        covariance = self.kernel(self.theta, self.inputs, self.inputs)
        covariance[np.diag_indices(len(self.inputs))] += np.exp(self.theta[0])
        lower = np.linalg.cholesky(covariance)
        inverse = dtrtri(lower, lower=1)[0]
        return inverse, inverse.T @ (inverse @ self.scores)

    @property
    def fitted(self) -> Array:
        """(n,) means of the latent scores of its own inputs."""
        value: Array = self.scores - np.exp(self.theta[0]) * self._solved[1]
        return value

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation (n,) of the latent scores, in the unit of the scores."""
        variance = self.kernel.diagonal(self.theta, inputs)
        if not len(self.inputs):
            return np.zeros(len(inputs)), np.sqrt(variance)
        inverse, alpha = self._solved
        known = self.kernel(self.theta, self.inputs, inputs)
        across = inverse @ known
        return known.T @ alpha, np.sqrt(np.maximum(variance - np.einsum("ij,ij->j", across, across), 1e-12))

    def given(self, inputs: Inputs, scores: Array) -> Process:
        """With more observations, the kernel unchanged."""
        stacked = Inputs(
            np.vstack([self.inputs.embedded, inputs.embedded]), np.vstack([self.inputs.features, inputs.features])
        )
        return Process(self.kernel, self.theta, stacked, np.concatenate([self.scores, scores]))


def _decay(one: Inputs, other: Inputs, columns: Array) -> Array:
    """(n, m) of exp(-distance), the squared distances of the columns weighted."""
    left, right = one.embedded * np.sqrt(columns), other.embedded * np.sqrt(columns)
    value: Array = left @ right.T  # then in place: these are the largest arrays
    value *= 2.0
    value -= (left**2).sum(axis=1)[:, None]
    value -= (right**2).sum(axis=1)
    np.minimum(value, 0.0, out=value)
    return np.exp(value, out=value)


def _spread(weights: Array, columns: Array) -> Array:
    """(k,): for each of the columns (n, k), the sum of weights_ij (column_i - column_j)^2; weights symmetric."""
    value: Array = 2.0 * (weights.sum(axis=1) @ columns**2 - np.einsum("ij,ij->j", columns, weights @ columns))
    return value
