"""Tests of `minimp.data`."""
