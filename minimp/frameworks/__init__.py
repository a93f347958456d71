"""minimp beside the frameworks that are installed: the same calls in both, compared live.

- ``results``: what a comparison found, as rows, sections and a verdict. ``documented``: the differences that
  are known, each with its reason. ``suites``: which sections a framework has, and running them.
- ``torch_*``, ``jax_*``, ``keras_*``: one section each. ``cases``: the calls that ops are compared by.

Nothing here is needed to train: only `minimp check` and the tests load it.
"""
