"""x @ packed weight. Knows nothing of models; a weight is never held dequantized, at most one tile of it is."""

from studio.runtime.kernels.choice import lookup_for, product_for
from studio.runtime.kernels.layers import PackedEmbedding, PackedLinear, PackedStack
from studio.runtime.kernels.product import Lookup, Product

__all__ = ["Lookup", "PackedEmbedding", "PackedLinear", "PackedStack", "Product", "lookup_for", "product_for"]
