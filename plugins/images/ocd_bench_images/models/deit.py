"""DeiT-B/16 distilled (Touvron et al. 2021), the paper's network for Tiny ImageNet, loaded by transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import interpolate

from ocd_bench import Unavailable, UsageError

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, as in DeiT's training."""


class DeiT(nn.Module):
    """``(N, 1 or 3, H, W) -> (N, classes)`` logits, the mean of the two heads. The model resizes pictures to its own size.

    ``trained``: whether the stored heads have this number of classes. If not, the heads get new random weights, and only they
    are trained; all other weights have no gradients. The adapted layer is the head of the class token.

    Args:
        source: a folder written by transformers, or the name of a model.
        classes: number of classes.
        download: whether transformers may download ``source``; otherwise it reads only its local cache.

    Raises:
        Unavailable: if transformers is not installed, or the weights are not found.
        UsageError: if the weights are not those of a DeiT.
    """

    adapted_layer = "net.cls_classifier"
    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, source: str, classes: int, download: bool = False) -> None:
        super().__init__()
        try:
            from transformers import AutoConfig, DeiTForImageClassificationWithTeacher
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise Unavailable(f"model 'deit' needs transformers ({error}): pip install 'ocd-bench-images[deit]'") from error
        disable_progress_bar()  # it would write to stderr, terminal or not
        folder = Path(source).expanduser()
        place = str(folder) if folder.is_dir() else source
        local = folder.is_dir() or not download
        try:
            config = AutoConfig.from_pretrained(place, local_files_only=local)
            if config.model_type != "deit":
                raise UsageError(f"setting images.pretrained={source!r}: a {config.model_type} model, expected deit")
            config.num_labels, stored = classes, config.num_labels
            self.net = DeiTForImageClassificationWithTeacher.from_pretrained(
                place, config=config, local_files_only=local, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError) as error:
            cure = "give a folder with --set images.pretrained=FOLDER, or allow the download with --set images.download=true"
            raise Unavailable(f"model 'deit': no weights of {source!r} were found; {cure}") from error
        except UsageError:
            raise
        except Exception as error:  # the reader raises errors of several kinds for a damaged file
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(f"setting images.pretrained={source!r}: cannot be loaded ({reason}); get it again") from error
        self.trained = stored == classes
        if not self.trained:
            self.net.deit.requires_grad_(False)
        self.side = int(config.image_size)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(SD).view(3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-2:] != (self.side, self.side):
            x = interpolate(x, size=(self.side, self.side), mode="bicubic", antialias=True)
        return self.net(pixel_values=(x - self.mean) / self.sd).logits
