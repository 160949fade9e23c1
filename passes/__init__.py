"""The passes that come with strop."""

from __future__ import annotations

import strop.compiler.ir.dialect  # noqa: F401  (the passes name strop:: operators)
from strop.compiler.rewriting.passes import Pass
from strop.passes.cleanup.constants import FoldConstants
from strop.passes.cleanup.cse import CommonSubexpressions
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.cleanup.masks import CanonicalMasks
from strop.passes.cleanup.noops import Noops
from strop.passes.distill.recover import Recover
from strop.passes.fuse.activation import FuseActivations, FuseBiasGelu
from strop.passes.fuse.bias import FoldBiases
from strop.passes.fuse.cached_attention import FuseCachedAttention
from strop.passes.fuse.conv_bn import FoldBatchNorm
from strop.passes.fuse.conv_pad import FoldPads
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.fuse.embedding import FuseEmbeddings
from strop.passes.fuse.norm import FuseNorms
from strop.passes.fuse.packed import PackLinears
from strop.passes.fuse.residual import FuseResiduals
from strop.passes.fuse.rotary import FuseRotary
from strop.passes.kernels.select import SelectKernels
from strop.passes.legalize.complex import SplitComplex
from strop.passes.legalize.dtypes import LegalizeDtypes
from strop.passes.precision.precision import Precision
from strop.passes.prune.depth import DropLayers
from strop.passes.prune.prune import Prune
from strop.passes.prune.sparsify import Sparsify
from strop.passes.quantize.cache import QuantizeCache
from strop.passes.quantize.control.control import AccuracyControl
from strop.passes.quantize.correct_bias import CorrectBias
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.quantize.equalize import Equalize
from strop.passes.quantize.fp8 import QuantizeFp8
from strop.passes.quantize.outliers import SplitOutliers
from strop.passes.quantize.smooth import Smooth
from strop.passes.quantize.static import QuantizeStatic
from strop.passes.quantize.weights import QuantizeWeights
from strop.passes.ragged.ragged import Ragged

PASSES: tuple[type[Pass], ...] = (
    SplitComplex,
    LegalizeDtypes,
    Noops,
    FoldConstants,
    CommonSubexpressions,
    CanonicalMasks,
    PlainLinears,
    Prune,
    DropLayers,
    Sparsify,
    FuseEmbeddings,
    FuseNorms,
    FuseActivations,
    FuseRotary,
    FuseAttention,
    FuseCachedAttention,
    PackLinears,
    FoldBatchNorm,
    FoldPads,
    FuseResiduals,
    FoldBiases,
    FuseBiasGelu,
    SplitOutliers,
    Equalize,
    Smooth,
    QuantizeDynamic,
    AccuracyControl,
    QuantizeFp8,
    QuantizeStatic,
    QuantizeWeights,
    QuantizeCache,
    CorrectBias,
    Ragged,
    SelectKernels,
    Recover,
    Precision,
)
