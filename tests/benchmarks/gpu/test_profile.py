"""Profile: kinds of kernels, and the picture of where the time goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import picture
from benchmarks.gpu.picture import read
from benchmarks.gpu.profile import IDLE, KINDS, kind_of

# Names of kernels as an H100 reports them, and of operations on a CPU.
NAMES = {
    "nvjet_sm90_tst_256x160_64x4_1x2_h_bz_coopA_TNT": "matrix products",
    "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32>": "matrix products",
    "aten::addmm": "matrix products",
    "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel": "attention",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16": "attention",
    "triton_poi_fused__to_copy_mul_silu_3": "fused elementwise",
    "_values_kernel": "softmax over the vocabulary",
    "void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float>": "elementwise, casts, reductions",
    "Memcpy HtoD (Pageable -> Device)": "copies between host and device",
    "Memcpy DtoD (Device -> Device)": "elementwise, casts, reductions",
    "aten::addcmul": "elementwise, casts, reductions",
}


@pytest.mark.parametrize(("kernel", "kind"), NAMES.items(), ids=NAMES)
def test_kernels_are_told_apart_by_their_names(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind


def test_the_picture_shows_each_work_of_each_profile(tmp_path: Path) -> None:
    for name, factor in (("old", 3.0), ("new", 1.0)):
        rows = [
            {"work": work, "what": kind, "ms": factor * (number + 1)}
            for work in ("update", "sampling")
            for number, kind in enumerate((*KINDS, IDLE))
        ]
        lines = [json.dumps({"section": "profile", "row": row}) for row in rows]
        lines.append(json.dumps({"section": "update", "row": {"seconds": 1}}))
        (tmp_path / name).write_text("\n".join(lines))
    assert read(tmp_path / "new")["update"][IDLE] == 7
    picture.main(tmp_path / "out.svg", f"before={tmp_path / 'old'}", f"now={tmp_path / 'new'}")
    profiles = {name: read(tmp_path / name) for name in ("old", "new")}
    (axes,) = picture.draw(profiles).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "update, old", "update, new", "sampling, old", "sampling, new",
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["84", "28"] * 2
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")
