"""Charts of what happens inside, as plotly figures, each with the numbers that it shows.

Every function returns (figure, numbers): numbers is the pandas DataFrame or NumPy array that was
drawn, figure a plotly Figure with nothing to fetch. figure.write_html works anywhere,
figure.write_image (svg, png, pdf) where kaleido finds a Chrome or Chromium.
"""

from vl3.viz.figures.ablation import tradeoff, wilson
from vl3.viz.figures.attention import head_matrix, words_by_frame
from vl3.viz.figures.positions import (
    angle_maps,
    decay,
    language,
    similarity,
    similarity_map,
    spectrum,
)
from vl3.viz.figures.tokens import block_order, budget, kept_by_threshold, kept_per_frame, prompt

__all__ = [
    "angle_maps",
    "block_order",
    "budget",
    "decay",
    "head_matrix",
    "kept_by_threshold",
    "kept_per_frame",
    "language",
    "prompt",
    "similarity",
    "similarity_map",
    "spectrum",
    "tradeoff",
    "wilson",
    "words_by_frame",
]
