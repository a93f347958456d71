"""The schedulers; :mod:`minimp.optim.lr_scheduler` gives them under torch's module name."""
