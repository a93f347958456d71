"""Ops beside a framework: the format of each result, the rule of each registered op, values and gradients."""
