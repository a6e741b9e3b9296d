"""The progress bar of a training run: speed, waiting, memory, time left."""

from __future__ import annotations

import resource
import sys

import torch
from tqdm import tqdm
from transformers import TrainerCallback


class Progress(TrainerCallback):
    """One line that is rewritten; nothing where standard error is no terminal but the log."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero and not self.quiet:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                dynamic_ncols=True,
                mininterval=0.2 if sys.stderr.isatty() else 30.0,
            )

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if self.bar is None or not logs:
            return
        if "loss" in logs:
            self.bar.set_postfix_str(
                f"loss {logs['loss']:.3f}, {logs['tokens_per_s']:.0f} tokens/s, "
                f"waiting {100 * logs['data_wait']:.0f} %, peak {peak_gb():.1f} GB"
            )
        evaluated = {name[5:]: share for name, share in logs.items() if name.startswith("eval/")}
        if evaluated:
            shares = ", ".join(f"{name} {100 * share:.0f}" for name, share in evaluated.items())
            tqdm.write(f"step {state.global_step}: held-out answers right %: {shares}", sys.stderr)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self.bar is not None:
            self.bar.close()


def peak_gb() -> float:
    """Most memory in use so far, in GB: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
