"""Triton's kernels: equal to torch by Triton's interpreter, and translated for a GPU that is not here."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.detector.gpu_kernels import load_gpu_kernels

ROOT = Path(__file__).parents[2]


def test_the_kernels_compute_what_torch_does():
    pytest.importorskip("triton", reason="Triton is not installed")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.detector.gpu_kernel_cases"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_the_kernels_can_be_translated_for_a_gpu(dtype):
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.detector.gpu_epilogue import _finish
    from pipeline.detector.gpu_pooling import LEAST, _pool_cell

    values = dict.fromkeys(["features", "pooled", "output", "bias", "shortcut"], f"*{dtype}")
    numbers = {"low": "fp32", "high": "fp32", "bounds": "*i32"}
    constants = {"size": 7, "block": 256, "least_value": LEAST, "rows_together": 16}
    constants |= {"has_shortcut": True, "has_limits": True}
    for kernel in (_pool_cell, _finish):
        signature = {
            name: "constexpr" if name in constants else (values | numbers).get(name, "i32")
            for name in kernel.arg_names
        }
        constexprs = {name: constants[name] for name in kernel.arg_names if name in constants}
        source = ASTSource(kernel, signature=signature, constexprs=constexprs)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert "ld.global" in compiled.asm["ptx"]


def test_without_a_gpu_there_are_no_kernels_and_the_log_says_why(caplog):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    load_gpu_kernels.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert load_gpu_kernels() is None
    assert "the GPU computes with torch's own operators" in caplog.text
    load_gpu_kernels.cache_clear()


def test_only_the_modules_of_kernels_import_triton():
    command = (
        "import sys; sys.modules['triton'] = None; import pipeline.detector.predictor; "
        "import pipeline.training.step"
    )
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True, timeout=120)
