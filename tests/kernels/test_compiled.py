"""Every fused kernel becomes machine code for an A100 and an H100, which needs no GPU.

The interpreter runs what Triton's compiler may refuse. What the compiler makes has never run.
"""

from importlib import import_module

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed (Linux only)")
pytestmark = pytest.mark.skipif(
    triton.knobs.runtime.interpret, reason="nothing is compiled under TRITON_INTERPRET"
)

A100, H100 = 80, 90
KINDS = [("fp32", A100), ("fp16", H100), ("bf16", H100)]
TILES = {"TILE_K": 64, "TILE_V": 128, "TILE_E": 64, "UPCAST": False}


@pytest.fixture(autouse=True)
def no_earlier_results(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def fused(operation: str):
    return import_module(f"vl3.kernels.{operation}.fused")


def machine_code(kernel, pointers: dict, numbers: dict, constants: dict, target: int) -> str:
    """The assembly of a kernel for arguments of these types, in the order of its signature."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: f"*{kind}" for name, kind in pointers.items()} | numbers
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", target, 32))
    assert compiled.asm["cubin"]
    return compiled.asm["ptx"]


@pytest.mark.parametrize("pixels", ["u8", "fp32"])
@pytest.mark.parametrize("rlt", [False, True])
@pytest.mark.parametrize("target", [A100, H100])
def test_difffp(pixels, rlt, target):
    machine_code(
        fused("difffp")._difffp,
        {"cells_TMP": pixels, "change_TM": "fp32", "changed_TM": "u8", "count_T": "i32"},
        dict.fromkeys(("frames", "tokens", "values", "patch_values"), "i32")
        | dict.fromkeys(("threshold", "scale", "divisor", "red", "green", "blue"), "fp32"),
        {
            "STEPS": 8,
            "LEVELS": pixels == "u8",
            "BY_CHANNEL": rlt,
            "AGAINST_KEPT": not rlt,
            "BLOCK": 4096,
        },
        target,
    )


@pytest.mark.parametrize("target", [A100, H100])
def test_resize_patchify(target):
    operation = fused("resize_patchify")
    tile = {name: size for name, size in operation.TILE.items() if name != "num_warps"}
    constants, both = {"BITS": operation.BITS, **tile}, {"source": "u8", "target": "u8"}
    tables, sizes = ("first_X", "weight_KX"), ("rows", "before_width", "width", "taps")
    machine_code(
        operation._across,
        both | dict.fromkeys(tables, "i32"),
        dict.fromkeys(sizes, "i32"),
        constants,
        target,
    )
    tables = ("first_Y", "weight_KY", "row_place_Y", "column_place_J")
    sizes = ("rows", "before_height", "height", "values", "taps")
    machine_code(
        operation._down,
        both | dict.fromkeys(tables, "i32"),
        dict.fromkeys(sizes, "i32"),
        constants,
        target,
    )


@pytest.mark.parametrize(("kind", "target"), KINDS)
def test_rope2d(kind, target):
    four = ("q_NHC", "k_NHC", "out_q_NHC", "out_k_NHC")
    counts = ("count", "length", "heads", "q_stride", "k_stride", "out_q_stride", "out_k_stride")
    machine_code(
        fused("rope2d")._turn,
        dict.fromkeys(four, kind) | {"angle_NR": "fp32"},
        dict.fromkeys(counts, "i32") | {"sign": "fp32"},
        {"HALF": 36, "BLOCK": 64, "PATCHES": fused("rope2d").PATCHES},
        target,
    )


@pytest.mark.parametrize(("kind", "target"), KINDS)
def test_merge_keep(kind, target):
    sizes, constants = {"width": "i32"}, {"BLOCK": 2048}
    given = {"x_ND": kind, "first_K": "i64", "down_K": "i64", "out_KD": kind}
    machine_code(fused("merge_keep")._gather, given, sizes, constants, target)
    given = {"grad_KD": kind, "grad_ND": kind}
    given |= dict.fromkeys(("slot_K", "end_M", "first_M", "down_M"), "i64")
    machine_code(fused("merge_keep")._scatter, given, sizes, constants, target)


@pytest.mark.parametrize(("kind", "target"), [("fp16", A100), ("bf16", H100)])
def test_linear_cross_entropy_uses_the_matrix_units(kind, target):
    operation = fused("linear_cross_entropy")
    given = {"hidden_KE": kind, "weight_VE": kind, "labels_K": "i64"}
    results = {"best_KS": "fp32", "total_KS": "fp32", "label_KS": "fp32", "id_KS": "i64"}
    sizes = dict.fromkeys(("tokens", "vocabulary", "width", "shares", "tiles"), "i32")
    code = machine_code(operation._stats, given | results, sizes, TILES, target)
    assert "wgmma" in code or "mma.sync" in code
    results = {"sum_K": "fp32", "grad_K": "fp32", "grad_KV": kind}
    sizes = dict.fromkeys(("tokens", "vocabulary", "width", "first"), "i32")
    code = machine_code(operation._logit_grads, given | results, sizes, TILES, target)
    assert "wgmma" in code or "mma.sync" in code


def test_these_are_the_tiles_that_run():
    assert fused("linear_cross_entropy")._tiles(torch.empty(0)) == TILES
