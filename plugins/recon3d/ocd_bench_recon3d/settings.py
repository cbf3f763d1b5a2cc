"""The settings of the task: section ``recon3d``. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ocd_bench import UsageError, setting
from ocd_bench.settings import Checked


@dataclass(frozen=True)
class Settings(Checked):
    """Section ``recon3d``: the views, the field and the training of the base."""

    mesh: str = setting("", help="A mesh file to render in place of a dataset.")
    size: int = setting(
        100,
        least=8,
        most=4096,
        unit="pixels",
        help="Side of rendered views; pictures are scaled to it (lego, of 100 pixels, only down).",
    )
    train_views: int = setting(100, least=1, most=10**6, unit="views", help="Training views at most.")
    val_views: int = setting(
        10,
        least=1,
        most=10**6,
        unit="views",
        help="Validation views; taken from the training part where a dataset has no validation part.",
    )
    test_views: int = setting(25, least=0, most=10**6, unit="views", help="Test views at most. 0: all.")
    samples: int = setting(32, least=2, most=4096, unit="points", help="Points along a ray.")
    near: float = setting(2.0, least=0, most=1e6, unit="scene units", help="Depth of the first point of a ray.")
    far: float = setting(6.0, least=1e-6, most=1e9, unit="scene units", help="Depth of the last point of a ray.")
    checkpoint: str = setting(
        "",
        help="TinyNeRF state dict to begin from; looked for as given, then in the data directories. Empty: random weights.",
    )
    checkpoint_key: str = setting(
        "",
        help="Which weights of a checkpoint file that holds several, for example model_ema; the error message lists them. "
        "Empty: the only ones.",
    )
    base_steps: int = setting(
        6000, least=0, most=10**9, unit="steps", help="Training steps of the base (Adam). 0: a checkpoint is used as it is."
    )
    base_rays: int = setting(1024, least=1, most=10**7, unit="rays", help="Random rays per training step of the base.")
    base_lr: float = setting(
        2e-3, least=1e-9, most=10, help="Learning rate of the base. From a checkpoint a fifth of it is used."
    )
    ignore_keys: tuple[str, ...] = setting(
        (),
        help="Keys of a transforms file, or arrays of an .npz file, that are known to change nothing. Unknown ones are errors.",
    )
    section: ClassVar[str] = "recon3d"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.near >= self.far:
            raise UsageError(f"setting recon3d.near={self.near:g}: expected less than recon3d.far={self.far:g}")
