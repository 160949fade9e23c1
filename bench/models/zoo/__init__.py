"""The zoo: small models of every common architecture, with random weights.

Each entry is a factory of a ``Model`` and the number of attention operators it should end up
with: one for each attention layer, cross attention included. Nothing is downloaded.
"""

from strop.bench.models.zoo.entry import ZooModel, attention_found
from strop.bench.models.zoo.handwritten import HANDWRITTEN
from strop.bench.models.zoo.library import LIBRARY

ZOO: dict[str, ZooModel] = LIBRARY | HANDWRITTEN

__all__ = ["ZOO", "ZooModel", "attention_found"]
