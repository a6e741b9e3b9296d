"""Triton kernels, one folder an operation, each beside its definition in plain torch.

    reference.py    the definition; what runs unless something faster was measured
    fused.py        the same in Triton, imported only when it is asked for
    bench.py        both timed on a GPU
    __init__.py     the operation; its row of the table in README.md

measured.json says what was measured on a GPU, measured.py which kernel is taken for it.

Nothing here knows vl3: the folders import torch, triton and PIL, and `import kernels.<operation>`
works without triton. vl3 comes in through one door, vl3/ops.py. So far every fused kernel has run
under Triton's interpreter only, never on a GPU; see README.md.
"""
