"""The folder kernels/ of the repository as vl3.kernels.

In a wheel the folder itself lies here and comes before this file (see setup.py). At the top of
site-packages it would be taken for the package `kernels` of Hugging Face.
"""

from typing import TYPE_CHECKING

from vl3.bundled import KERNELS

if TYPE_CHECKING:  # for those who read imports without running them
    from kernels import difffp as difffp
    from kernels import linear_cross_entropy as linear_cross_entropy
    from kernels import merge_keep as merge_keep
    from kernels import resize_patchify as resize_patchify
    from kernels import rope2d as rope2d
    from kernels import timing as timing

__path__ = [str(KERNELS)]
