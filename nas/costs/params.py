"""Trainable parameters: weights, biases, and two numbers per normalised channel (buffers are not counted)."""

from nas.costs.cost import Cost

PARAMS = Cost("trainable parameters", lambda trace: trace.params)
