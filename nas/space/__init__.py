"""Search spaces: a YAML file read into typed, validated choices, and what can be asked of them."""

from nas.space.members import Params
from nas.space.space import Space

__all__ = ["Params", "Space"]
