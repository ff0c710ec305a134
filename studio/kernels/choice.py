"""Which product a packed weight gets: compiled code where there is a compiler, torch's packed operators where they
apply, dequantizing part by part where nothing else does."""

from studio.kernels.compiled import CompiledProduct
from studio.kernels.int4 import Int4Product
from studio.kernels.int8 import Int8Product
from studio.kernels.product import Lookup, Product
from studio.kernels.tiled import TiledProduct
from studio.packing import PackedTensor


def product_for(packed: PackedTensor) -> Product:
    """Return the fastest product that takes ``packed``, holding it in its own layout."""
    if CompiledProduct.takes(packed):
        return CompiledProduct(packed)
    return Int4Product(packed) if Int4Product.takes(packed) else lookup_for(packed)


def lookup_for(packed: PackedTensor) -> Lookup:
    """Return the fastest product that takes ``packed`` and can look rows up."""
    return Int8Product(packed) if Int8Product.takes(packed) else TiledProduct(packed)
