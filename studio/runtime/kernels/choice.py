"""Which product a packed weight gets: compiled code where there is a compiler, torch's packed operators where they
apply, dequantizing part by part where nothing else does. Knows no model.
"""

from studio.quantization.packing import PackedTensor
from studio.runtime.kernels.compiled import CompiledProduct
from studio.runtime.kernels.int4 import Int4Product
from studio.runtime.kernels.int8 import Int8Product
from studio.runtime.kernels.product import Lookup, Product
from studio.runtime.kernels.tiled import TiledProduct


def product_for(packed: PackedTensor) -> Product:
    """Return the fastest product that takes ``packed``, holding it in its own layout."""
    if CompiledProduct.takes(packed):
        return CompiledProduct(packed)
    return Int4Product(packed) if Int4Product.takes(packed) else lookup_for(packed)


def lookup_for(packed: PackedTensor) -> Lookup:
    """Return the fastest product that takes ``packed`` and can look rows up."""
    if Int8Product.takes(packed):
        return Int8Product(packed)
    return CompiledProduct(packed) if CompiledProduct.takes(packed) else TiledProduct(packed)
