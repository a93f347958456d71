"""Tests of `minimp.memory`."""
