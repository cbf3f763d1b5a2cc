"""The datasets of this task, the addresses where their owners publish them, and the SHA-256 of each file."""

from __future__ import annotations

from ocd_bench import Dataset, Source

SPOT = Source(
    "https://raw.githubusercontent.com/alecjacobson/common-3d-test-models/"
    "8a4f8642acaf43f9cd7b67858a1502e1055ef202/data/spot.obj",
    "0738b5e8608fed74e5e8c7aa8dd0af97b4b74f9f6cbf7aac84cd7e40b2e44a75",
    330624,
    "spot.obj",
)
"""``spot_triangulated.obj`` of the author's spot.zip, as the collection of common test models keeps it."""

DATASETS = (
    Dataset(
        "primitives",
        "coloured solids of trimesh, rendered by ray casting",
        embedded=True,
        licence="MIT",
        seen_in_tuning=True,
    ),
    Dataset(
        "lego",
        "tiny_nerf_data.npz: the Lego scene of NeRF-synthetic, 106 views of 100 x 100",
        folder="tiny_nerf",
        licence="CC BY-NC (the model, by Heinzelnisse)",
        citation="Mildenhall, Srinivasan, Tancik, Barron, Ramamoorthi and Ng, NeRF, ECCV 2020",
        homepage="http://cseweb.ucsd.edu/~viscomp/projects/LF/papers/ECCV20/nerf/tiny_nerf_data.npz",
        seen_in_tuning=True,
    ),
    Dataset(
        "spot",
        "Spot the cow (or any NAME.obj in meshes/), rendered by ray casting",
        folder="meshes",
        sources=(SPOT,),
        licence="public domain",
        citation="Keenan Crane, Spot",
        homepage="https://www.cs.cmu.edu/~kmcrane/Projects/ModelRepository/",
    ),
)
"""The default first. Any other mesh, or folder of posed pictures as NeRF-synthetic has them, works under its own name."""
