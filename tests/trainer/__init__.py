"""Tests of models by name, evaluation, the log and the trainer."""
