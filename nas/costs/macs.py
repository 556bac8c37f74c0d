"""Arithmetic: a MAC is one multiply-add of a convolution or linear layer; bias, normalisation, pooling not counted."""

from nas.costs.cost import Cost

MACS = Cost("multiply-adds of convolutions and linear layers, one image", lambda trace: trace.macs)
FLOPS = Cost("two per MAC, one image", lambda trace: 2 * trace.macs)
