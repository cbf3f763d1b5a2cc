"""The engine: tensors, modules and callables only. It knows no task, no domain and no runner.

A fit is a line of stages, each a module with a small frozen configuration of its own:

1. :mod:`.capture` runs the base once and keeps what the target layer saw, and I(x);
2. :mod:`.overfit` finds the weight change ΔW that fits the layer to one sample;
3. :mod:`.forms` encodes ΔW as the code that is predicted (:mod:`.choose_form` says which form);
4. :mod:`.learn` trains a network (:mod:`.condition`, :mod:`.hypernetwork`) on those codes (:mod:`.targets`);
5. :mod:`.diffusion` draws a code for each sample;
6. :mod:`.apply` runs the base with every sample's own ΔW in it (:mod:`.gain` says how much of it).

:mod:`.ocd` puts them together, :mod:`.problem` is what the engine knows of a task, :mod:`.selection` chooses the layer, and
:mod:`.controls` holds what only the controls need. Importing this package imports nothing; its modules import torch.
"""
