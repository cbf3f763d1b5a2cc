"""The engine: tensors, modules and callables only. It knows no task, no domain and no runner.

Data flow: inputs → base up to the layer (:mod:`.layer`) → condition → hypernetwork (:mod:`.ocd`) → code → ΔW
(:mod:`.forms`, :mod:`.deltas`) → base from the layer on. Training targets come from :mod:`.overfit`, the layer from
:mod:`.selection`. Importing this package imports nothing; its modules import torch.
"""
